"""Recipes of the Makefile that are more than a line: environments, exact versions, other Pythons, what is shipped."""
