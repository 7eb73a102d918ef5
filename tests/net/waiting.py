"""A run whose only blocks wait for a file, and waiting for what others do."""

from __future__ import annotations

import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import blockflow
from blockflow import Roi, RunResult, Task, run_blockwise
from blockflow.net.connection_file import Connection, read_connection

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

PATIENCE = 30.0
"""Seconds after which a test gives up."""


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that other threads or processes do."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}"
        threading.Event().wait(0.01)


def is_closed(stream: socket.socket) -> bool:
    """Wait until the other end has closed a connection; false never comes, a time limit of the stream does."""
    try:
        while stream.recv(65536):
            continue
    except (ConnectionError, ssl.SSLError):
        return True
    return True


@dataclass
class WaitingRun:
    """A run whose only block waits for a file."""

    folder: Path
    host: str | None = "127.0.0.1"
    lease_seconds: float = 60.0
    results: list[RunResult] = field(default_factory=list)

    @property
    def go(self) -> Path:
        return self.folder / "go"

    @property
    def connection(self) -> Connection:
        (path,) = (self.folder / "logs" / ".runs").glob("*.connection")
        return read_connection(str(path))

    def run(self) -> None:
        go = str(self.go)

        def wait(block: blockflow.Block) -> None:
            import os
            import time

            while not os.path.exists(go):
                time.sleep(0.01)

        task = Task("wait", Roi((0,), (2,)), Roi((0,), (1,)), Roi((0,), (1,)), wait, num_workers=1)
        self.results.append(
            run_blockwise([task], progress=False, summary=False, host=self.host, lease_seconds=self.lease_seconds)
        )
