"""Where does a process run, and what can others there see of it?

A process id means something only on one machine, and there only in one numbering.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket

COORDINATOR_THREAD = "blockflow-coordinator"
"""Name of the thread that runs the loop of a driver, by which others of this process know that there is one."""


def this_place() -> str:
    """The machine by name, and in which of its process numberings: two containers may have the same of the first.

    >>> this_place().partition("/")[0] == socket.gethostname()
    True
    """
    try:
        numbering = os.stat("/proc/self/ns/pid").st_ino
    except OSError:  # a system without such files has only one numbering
        return socket.gethostname()
    return f"{socket.gethostname()}/{numbering}"


def is_dead(pid: int) -> bool:
    """Whether a process of this place does not run any more."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _state(pid) in ("Z", "X")


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal, or a debugger, and stays so until somebody lets it go on."""
    return _state(pid) in ("T", "t")


def is_worker(pid: int, run: str) -> bool:
    """Whether a process of this place looks like a worker of a run: numbers of processes are given again.

    Args:
        pid: Its number.
        run: Id of the run, which scripts are told in their environment.
    """
    return b"blockflow.worker" in _read(pid, "cmdline") or run.encode() in _read(pid, "environ")


def kill(pid: int) -> None:
    """End a process of this place at once."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _state(pid: int) -> str:
    return _read(pid, "stat").rpartition(b")")[2][1:2].decode()


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:  # it is gone, or this system has no such files
        return b""
