"""Workers as processes of this machine.

One process, the forge, is started as soon as the first worker is wanted; while the driver still prepares, it imports
what workers need, and forks each of them when they can be told what to do. Every worker leads a session of its own:
Ctrl-C in the terminal reaches the driver only, and what a worker started itself can be ended with it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

from blockflow.errors import RunError
from blockflow.wire.orders import REPORT_BYTES, STARTED, unpack_reports

_POLL_SECONDS = 0.002
"""How often the end of processes is looked for while they are being ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """A process that ended."""

    process: int
    code: int
    """Exit code; the negative number of the signal that killed it."""

    @property
    def how(self) -> str:
        """How it ended, in words."""
        if self.code < 0:
            with contextlib.suppress(ValueError):
                return f"was killed by {signal.Signals(-self.code).name}"
        return f"ended with code {self.code}"


class LocalLauncher:
    """Starts, watches and ends worker processes."""

    def __init__(self) -> None:
        self._forge: subprocess.Popen[bytes] | None = None
        self._reports = -1
        """Where the forge reports, as a file descriptor."""
        self._pids: dict[int, int] = {}
        """By number of a process that lives: its process id."""
        self._ordered: set[int] = set()
        """Processes that the forge has not reported as started yet."""
        self._ended: list[Exit] = []

    def __len__(self) -> int:
        return len(self._pids) + len(self._ordered)

    def prepare(self) -> None:
        """Get ready to start processes; does nothing if that was done."""
        if self._forge is not None:
            return
        self._reports, inherited = os.pipe()
        self._forge = subprocess.Popen(
            # -P: a socket.py in the working directory must not stand in for Python's own.
            [sys.executable, "-P", "-m", "blockflow.worker", str(inherited)],
            stdin=subprocess.PIPE,
            pass_fds=(inherited,),
            env=_environment(),
            start_new_session=True,
        )
        os.close(inherited)

    def start(self, process: int, payload: bytes) -> None:
        """Start a process.

        Args:
            process: Its number.
            payload: What it has to do.

        Raises:
            RunError: No process can be started on this machine any more.
        """
        self.prepare()
        assert self._forge is not None
        assert self._forge.stdin is not None
        try:
            self._forge.stdin.write(process.to_bytes(8, "little") + len(payload).to_bytes(8, "little") + payload)
            self._forge.stdin.flush()
        except BrokenPipeError:
            raise RunError(
                f"no worker can be started: {sys.executable} -m blockflow.worker ended with code {self._forge.wait()}"
            ) from None
        self._ordered.add(process)

    def is_dead(self, pid: int) -> bool:
        """Whether a process of this machine does not run any more."""
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False

    def ended(self) -> list[Exit]:
        """The processes that ended since the last call."""
        self._hear()
        ended, self._ended = self._ended, []
        return ended

    def stop(self, *, grace: float) -> None:
        """End all processes, and all processes that they started.

        Args:
            grace: Seconds between asking and killing.
        """
        if self._forge is not None:
            assert self._forge.stdin is not None
            with contextlib.suppress(OSError):
                self._forge.stdin.close()
        deadline = time.monotonic() + grace
        asked: set[int] = set()
        while len(self):
            late = time.monotonic() >= deadline
            for pid in list(self._pids.values()):
                if late or pid not in asked:
                    _signal(pid, signal.SIGKILL if late else signal.SIGTERM)
            asked.update(self._pids.values())
            self._hear()
            time.sleep(_POLL_SECONDS)
        for pid in asked:
            _signal(pid, signal.SIGKILL)  # what a worker left behind in its session
        if self._forge is not None:
            self._forge.kill()  # it has nothing to finish
            self._forge.wait()
            self._forget_forge()

    def _hear(self) -> None:
        """Take in what the forge has reported."""
        while self._forge is not None and select.select([self._reports], [], [], 0)[0]:
            # Each report is written in one piece, so what can be read is always a number of whole ones.
            data = os.read(self._reports, 100 * REPORT_BYTES)
            if not data:
                self._forge_is_gone()
            for what, process, value in unpack_reports(data):
                self._ordered.discard(process)
                if what == STARTED:
                    self._pids[process] = value
                else:
                    self._pids.pop(process, None)
                    self._ended.append(Exit(process=process, code=value))
        if self._forge is None:  # nobody else tells of the workers that it has left
            for process, pid in list(self._pids.items()):
                if self.is_dead(pid):
                    del self._pids[process]
                    self._ended.append(Exit(process=process, code=-signal.SIGKILL))

    def _forge_is_gone(self) -> None:
        """Somebody killed the forge: what it was asked for will not come; the next order starts another one."""
        assert self._forge is not None
        code = self._forge.wait() or 1
        self._ended += [Exit(process=process, code=code) for process in self._ordered]
        self._ordered.clear()
        self._forget_forge()

    def _forget_forge(self) -> None:
        os.close(self._reports)
        self._forge = None


def _environment() -> dict[str, str]:
    """The environment of a worker; it must find this very blockflow."""
    environment = dict(os.environ)
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    known = environment.get("PYTHONPATH", "")
    environment["PYTHONPATH"] = f"{root}{os.pathsep}{known}" if known else root
    return environment


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
