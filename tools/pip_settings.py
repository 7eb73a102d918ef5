"""Configuration of pip on this machine, for tools and for places that do not read it."""

from __future__ import annotations

import ast
import subprocess
import sys

__all__ = ["pip_settings"]


def pip_settings() -> dict[str, str]:
    """Return how pip is configured for installing: by variables, else for its command, else in general.

    Returns:
        Values by names such as ``"index-url"``; empty where nothing is configured.
    """
    command = [sys.executable, "-m", "pip", "config", "list"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, str] = {}
    for section in ("global", "install", ":env:"):
        for line in said.splitlines():
            key, _, value = line.partition("=")
            if key.startswith(f"{section}."):
                found[key.removeprefix(f"{section}.")] = str(ast.literal_eval(value))
    return found
