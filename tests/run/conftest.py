"""Real runs: worker processes, sockets, files. Nothing is left in the repository, and no process is left at all."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from blockflow.logging import get_log_basedir, set_log_basedir

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = "BLOCKFLOW_TEST_MARK"


def processes_with(mark: str) -> list[int]:
    """Every process, but this one, that has a mark in its environment."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if wanted in environment.split(b"\0"):
                found.append(int(entry.name))
    return found


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory of logs of this test; everything started here ends with it, and leaves no key behind."""
    before = get_log_basedir()
    directory = tmp_path / "logs"
    set_log_basedir(directory)
    mark = str(tmp_path)
    monkeypatch.setenv(MARK, mark)
    yield directory
    set_log_basedir(before)
    left = processes_with(mark)
    for pid in left:  # so that the next test does not pay for this one
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert left == [], "a process was left behind"
    for file in directory.glob(".runs/*"):
        assert "PRIVATE" not in file.read_text(), "a key was left behind"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where block functions leave files."""
    made = tmp_path / "seen"
    made.mkdir()
    return made
