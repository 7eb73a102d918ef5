"""A run that waits, so that strangers can come by."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

import blockflow
from tests.net.waiting import PATIENCE, WaitingRun, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def waiting_run(tmp_path: Path) -> Iterator[WaitingRun]:
    """On the network of this machine."""
    yield from running(tmp_path, "127.0.0.1")


@pytest.fixture
def local_run(tmp_path: Path) -> Iterator[WaitingRun]:
    """On a socket in the file system."""
    yield from running(tmp_path, None)


def running(tmp_path: Path, host: str | None, lease_seconds: float = 60.0) -> Iterator[WaitingRun]:
    """A run that waits, and what must be true when it has ended."""
    before = blockflow.logging.get_log_basedir()
    blockflow.logging.set_log_basedir(tmp_path / "logs")
    run = WaitingRun(tmp_path, host, lease_seconds)
    thread = threading.Thread(target=run.run)
    thread.start()
    try:
        until(lambda: any((tmp_path / "logs" / ".runs").glob("*.connection")), "the run listens")
        yield run
    finally:
        run.go.touch()
        thread.join(PATIENCE)
        blockflow.logging.set_log_basedir(before)
    assert not thread.is_alive(), "the run does not end"
    assert run.results, "the run failed"
    assert run.results[0], "a stranger disturbed the run"
