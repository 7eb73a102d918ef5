"""Another user of the same machine, for tests that run as root: what would it do to a run, and what does it reach?"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

STRANGER = 12345
"""User and group id of the other one; nothing belongs to it."""

needs_two_accounts = pytest.mark.skipif(
    os.getuid() != 0 or shutil.which("setpriv") is None, reason="only root can become another user"
)


def as_stranger(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command as the other user."""
    become = ["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups", "--"]
    return subprocess.run([*become, *words], capture_output=True, text=True, timeout=60, check=False, cwd=cwd)


def stranger_does(code: str, *arguments: str | Path) -> None:
    """Run Python code as the other user; it must succeed."""
    program = textwrap.dedent(code)
    done = as_stranger(sys.executable, "-S", "-c", program, *map(str, arguments))
    assert done.returncode == 0, done.stderr


def open_to_all(folder: Path, mode: int = 0o777) -> Path:
    """Make a folder that everybody can write, and reach."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(mode)
    for above in folder.parents:
        if above.stat().st_mode & 0o001 == 0:
            above.chmod(above.stat().st_mode | 0o011)
    return folder
