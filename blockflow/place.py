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


def started(pid: int) -> str:
    """When a process of this place started: with its number, this tells it from all others, before and after a reboot.

    Returns:
        The boot of the machine and the ticks since then; empty if there is no such process, or the system does not say.

    >>> started(os.getpid()) == started(os.getpid())
    True
    """
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()}/{int(fields[19])}"
    except (OSError, IndexError):
        return ""


def is_dead(pid: int, since: str = "") -> bool:
    """Whether a process of this place does not run any more.

    Args:
        pid: Its number.
        since: When it started, as :func:`started` says; another process with its number is not the one. Empty if that
            is not known.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    except OverflowError:  # no process has such a number
        return True
    return _state(pid) in ("Z", "X") or (since != "" and started(pid) not in ("", since))


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal, or a debugger, and stays so until somebody lets it go on."""
    return _state(pid) in ("T", "t")


def kill(pid: int, since: str) -> None:
    """End a process of this place at once, and never another one that has got its number.

    Args:
        pid: Its number.
        since: When it started, as :func:`started` says. Nothing is ended if that is not known.
    """
    if not since:
        return
    with contextlib.suppress(OSError):  # it has ended, or belongs to another user
        held = os.pidfd_open(pid)  # from here on the number is not given to another process
        try:
            if started(pid) == since:
                signal.pidfd_send_signal(held, signal.SIGKILL)
        finally:
            os.close(held)


def _state(pid: int) -> str:
    return _read(pid, "stat").rpartition(b")")[2][1:2].decode()


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:  # it is gone, or this system has no such files
        return b""


def fill_standard_descriptors() -> None:
    """Open what is closed of standard input, output and errors, as in daemons and after ``2>&-``.

    Else the next file opened takes the number, and whatever is printed goes into it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
