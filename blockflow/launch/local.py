"""Workers as processes of this machine.

A process is started first and told what to do a little later, so that the interpreter starts while the driver still
prepares. Every process leads a session of its own: Ctrl-C in the terminal reaches the driver only, and what a worker
started itself can be ended with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """A process that ended."""

    process: int
    task: int
    code: int
    """Exit code; the negative number of the signal that killed it."""
    log: Path | None
    """Where its errors are, without the suffix."""

    @property
    def how(self) -> str:
        """How it ended, in words."""
        if self.code < 0:
            with contextlib.suppress(ValueError):
                return f"was killed by {signal.Signals(-self.code).name}"
        return f"ended with code {self.code}"


@dataclass(slots=True, kw_only=True)
class _Running:
    task: int
    popen: subprocess.Popen[bytes]
    log: Path | None
    told: bool = False


class LocalLauncher:
    """Starts, watches and ends worker processes."""

    def __init__(self) -> None:
        self._running: dict[int, _Running] = {}

    def __len__(self) -> int:
        return len(self._running)

    def start(self, process: int, task: int, log: Path | None) -> None:
        """Start a process that waits to be told what to do.

        Args:
            process: Its number.
            task: The task that it will work for.
            log: Its output goes to this path with ``.out`` and ``.err`` added; None for the terminal.
        """
        with contextlib.ExitStack() as stack:
            out: IO[bytes] | None = None
            err: IO[bytes] | None = None
            if log is not None:
                log.parent.mkdir(parents=True, exist_ok=True)
                out = stack.enter_context(open(f"{log}.out", "wb"))
                err = stack.enter_context(open(f"{log}.err", "wb"))
            popen = subprocess.Popen(
                # -P: a socket.py in the working directory must not stand in for Python's own.
                [sys.executable, "-P", "-m", "blockflow.worker"],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                env=_environment(),
                start_new_session=True,
            )
        self._running[process] = _Running(task=task, popen=popen, log=log)

    def tell(self, process: int, payload: bytes) -> None:
        """Tell a process what to do."""
        running = self._running.get(process)
        if running is None or running.told:
            return
        running.told = True
        assert running.popen.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died; its exit tells
            running.popen.stdin.write(payload)
            running.popen.stdin.close()

    def untold(self) -> list[tuple[int, int]]:
        """Process and task numbers of the processes that wait to be told what to do."""
        return [(process, running.task) for process, running in self._running.items() if not running.told]

    def is_dead(self, pid: int) -> bool:
        """Whether a process of this machine does not run any more."""
        for running in self._running.values():
            if running.popen.pid == pid:
                return running.popen.poll() is not None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False

    def ended(self) -> list[Exit]:
        """The processes that ended since the last call."""
        exits = []
        for process, running in list(self._running.items()):
            code = running.popen.poll()
            if code is not None:
                del self._running[process]
                _close_input(running)
                exits.append(Exit(process=process, task=running.task, code=code, log=running.log))
        return exits

    def stop(self, *, grace: float) -> None:
        """End all processes, and all processes that they started.

        Args:
            grace: Seconds between asking and killing.
        """
        for running in self._running.values():
            _close_input(running)
            _signal(running, signal.SIGTERM)
        deadline = time.monotonic() + grace
        for running in self._running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.popen.wait(max(0.0, deadline - time.monotonic()))
        for running in self._running.values():
            _signal(running, signal.SIGKILL)  # also what a worker left behind in its session
            running.popen.wait()
        self._running.clear()


def _environment() -> dict[str, str]:
    """The environment of a worker; it must find this very blockflow."""
    environment = dict(os.environ)
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    known = environment.get("PYTHONPATH", "")
    environment["PYTHONPATH"] = f"{root}{os.pathsep}{known}" if known else root
    return environment


def _close_input(running: _Running) -> None:
    if running.popen.stdin is not None and not running.popen.stdin.closed:
        with contextlib.suppress(OSError):
            running.popen.stdin.close()


def _signal(running: _Running, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(running.popen.pid, number)
