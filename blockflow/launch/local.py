"""Workers as processes of this machine.

One process, the forge, is started as soon as the first worker is wanted; while the driver still prepares, it imports
what workers need, and forks each of them when they can be told what to do. Every worker leads a session of its own:
Ctrl-C in the terminal reaches the driver only, and what a worker started itself can be ended with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from blockflow.errors import RunError
from blockflow.escaping import get_logger
from blockflow.launch.base import words_of_exit
from blockflow.launch.interpreter import interpreter_flags
from blockflow.launch.shared import environment_of_threads
from blockflow.place import fill_standard_descriptors, is_dead
from blockflow.wire.orders import FUNCTIONS, MODULES, REPORT_BYTES, STARTED, pack_order, unpack_reports

if TYPE_CHECKING:
    from collections.abc import Iterable

_LOGGER = get_logger()

_POLL_SECONDS = 0.002
"""How often the end of processes is looked for while they are being ended."""

_UNKILLABLE_SECONDS = 10.0
"""After this time a killed worker that is still there is left alone: it hangs in the operating system."""

_LEFT_SECONDS = 1.0
"""The same for what workers have left behind; where nobody asks how it ended, it is listed for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """A process that ended."""

    process: int
    code: int
    """Exit code; the negative number of the signal that killed it."""
    lost = False
    """This machine is still there."""

    @property
    def how(self) -> str:
        """How it ended, in words."""
        return words_of_exit(self.code)


class LocalLauncher:
    """Starts, watches and ends worker processes.

    Args:
        workers: How many there will be at once at most; None if that is not known.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers
        self._forge: subprocess.Popen[bytes] | None = None
        self._reports = -1
        """Where the forge reports, as a file descriptor."""
        self._common: list[tuple[int, int, bytes]] = []
        """What the forge has to be told before it can start any process."""
        self._told = False
        """Whether it has been."""
        self._pids: dict[int, int] = {}
        """By number of a process that lives: its process id."""
        self._orphans: set[int] = set()
        """Those of the processes that live whose forge was killed, so that nobody reports their end."""
        self._left: set[int] = set()
        """Sessions whose leader has ended, but something that it started has not."""
        self._ordered: set[int] = set()
        """Processes that the forge has not reported as started yet."""
        self._ended: list[Exit] = []

    def __len__(self) -> int:
        return len(self._pids) + len(self._ordered)

    def prepare(self) -> None:
        """Get ready to start processes; does nothing if that was done."""
        if self._forge is not None:
            return
        fill_standard_descriptors()
        self._reports, inherited = os.pipe()
        self._forge = subprocess.Popen(
            # -P: a socket.py in the working directory must not stand in for Python's own.
            [sys.executable, *interpreter_flags(), "-P", "-m", "blockflow.worker", str(inherited)],
            stdin=subprocess.PIPE,
            stdout=_inherited(sys.__stdout__),
            stderr=_inherited(sys.__stderr__),
            pass_fds=(inherited,),
            env=_environment(self._workers),
            start_new_session=True,
        )
        os.close(inherited)
        os.set_blocking(self._reports, False)

    def load(self, functions: dict[int, bytes], modules: Iterable[str] = ()) -> None:
        """Hand the forge what its workers will run; returns when it has taken it, which takes a while for gigabytes.

        Args:
            functions: By task: its packed functions.
            modules: What it imports for all of them, as ``name=file``.

        Raises:
            RunError: No process can be started on this machine.
        """
        loaded = os.fsencode("\n".join(modules))
        self._common = [(FUNCTIONS, task, packed) for task, packed in functions.items()]
        self._common += [(MODULES, 0, loaded)] * bool(loaded)  # last, so that nobody waits for what it imports
        self._told = False
        self._say()

    def start(self, process: int, task: int, payload: bytes) -> None:
        """Start a process.

        Args:
            process: Its number.
            task: Number of the task that it works for.
            payload: What it is told.

        Raises:
            RunError: No process can be started on this machine any more.
        """
        self._say((process, task, payload))
        self._ordered.add(process)

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
            _close_input(self._forge)
        deadline = time.monotonic() + grace
        asked: set[int] = set()
        self._hear()
        while len(self) or self._left:
            overdue = time.monotonic() - deadline
            for pid in {*self._pids.values(), *self._left}:
                if overdue >= 0:
                    _signal(pid, signal.SIGKILL)
                elif pid not in asked and _signal(pid, signal.SIGTERM):
                    asked.add(pid)
            if overdue > (_UNKILLABLE_SECONDS if len(self) else _LEFT_SECONDS):
                _LOGGER.warning("processes %s cannot be ended", sorted({*self._pids.values(), *self._left}))
                break
            time.sleep(_POLL_SECONDS)
            self._hear()
            if overdue >= 0:  # until then the forge has time to say how they ended
                self._bury(list(self._pids))
                if self._ordered and self._forge is not None and self._forge.poll() is None:
                    _LOGGER.warning("process %d, which starts workers, did not react, and is killed", self._forge.pid)
                    self._forge.kill()  # also if it is stopped; what it has not started it never will
        if self._forge is not None:
            self._forge.kill()  # it has nothing to finish
            self._hear_the_last()

    def kill(self) -> None:
        """End all processes at once, and wait for nothing."""
        for pid in {*self._pids.values(), *self._left}:
            _signal(pid, signal.SIGKILL)
        if self._forge is not None:
            self._forge.kill()

    def _say(self, *orders: tuple[int, int, bytes]) -> None:
        """Give orders to a forge that has all functions."""
        for _ in range(2):  # somebody may have killed the forge, but hardly the next one as well
            self.prepare()
            assert self._forge is not None
            assert self._forge.stdin is not None
            try:
                for process, task, body in (*([] if self._told else self._common), *orders):
                    self._forge.stdin.write(pack_order(process, task, len(body)))
                    self._forge.stdin.write(body)
                self._forge.stdin.flush()
            except BrokenPipeError:
                self._hear_the_last()
            else:
                self._told = True
                return
        raise RunError(f"no worker can be started: {sys.executable} -m blockflow.worker ends at once")

    def _hear(self) -> None:
        """Take in what the forge has reported."""
        while self._forge is not None:
            try:
                # Each report is written in one piece, so what can be read is always a number of whole ones.
                data = os.read(self._reports, 100 * REPORT_BYTES)
            except BlockingIOError:
                break
            if not data:
                self._hear_the_last()
                break
            for what, process, value in unpack_reports(data):
                self._ordered.discard(process)
                if what == STARTED:
                    self._pids[process] = value
                elif process in self._pids:
                    self._left.add(self._pids.pop(process))
                    self._ended.append(Exit(process=process, code=value))
        self._bury([process for process in self._pids if process in self._orphans])
        self._left = {pid for pid in self._left if _has_members(pid)}

    def _bury(self, processes: list[int]) -> None:
        """Note which processes have ended, without being told by the forge."""
        for process in processes:
            if is_dead(self._pids[process]):
                self._left.add(self._pids.pop(process))
                self._orphans.discard(process)
                self._ended.append(Exit(process=process, code=-signal.SIGKILL))

    def _hear_the_last(self) -> None:
        """The forge has ended: what it was asked for will not come, and the next order starts another one."""
        assert self._forge is not None
        code = self._forge.wait() or 1
        _close_input(self._forge)
        os.close(self._reports)
        self._forge = None
        self._told = False
        self._ended += [Exit(process=process, code=code) for process in self._ordered]
        self._ordered.clear()
        self._orphans.update(self._pids)


def _environment(workers: int | None) -> dict[str, str]:
    """The environment of a worker; it must find this very blockflow."""
    environment = os.environ | ({} if workers is None else environment_of_threads(workers))
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    known = environment.get("PYTHONPATH", "")
    environment["PYTHONPATH"] = f"{root}{os.pathsep}{known}" if known else root
    return environment


def _inherited(stream: TextIO | None) -> int | None:
    """Where a worker prints for which no log is written: where this process does, if it does anywhere.

    A file of the user's may have the number of a stream that is closed.
    """
    return subprocess.DEVNULL if stream is None or stream.closed else None


def _close_input(forge: subprocess.Popen[bytes]) -> None:
    assert forge.stdin is not None
    with contextlib.suppress(OSError):  # what was to be written is of no use to anybody any more
        forge.stdin.close()


def _signal(pid: int, number: signal.Signals) -> bool:
    """Signal a session; false if it is not there any more, or not yet."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
        return True
    return False


def _has_members(session: int) -> bool:
    """Whether anything runs in the process group of a session's leader."""
    try:
        os.killpg(session, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False  # somebody else's by now
    return True
