"""Worked, documented solutions of common jobs."""
