"""Tools for testing schedulers and worker scripts."""
