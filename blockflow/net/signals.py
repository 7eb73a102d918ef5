"""Signals: was this process told to end?

SIGTERM and its like are written to a pipe by the interpreter the moment they arrive, also while the main thread is in C
code, and the thread that keeps the connection reads them there. Nothing else happens when they arrive.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

HEARD = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What batch systems send some time before they kill; LSF sends the last one before the end of a job's time."""

IN_JOBS = (*HEARD, signal.SIGINT)
"""What they send to jobs that they started themselves: LSF begins with the last one. Elsewhere that is Ctrl-C."""


class Signals:
    """Listens to signals from when it is made until it is closed.

    Forked processes do not: there the signals mean what they usually do.

    Args:
        numbers: To what.
    """

    def __init__(self, numbers: Sequence[signal.Signals] = HEARD) -> None:
        self._before = {number: signal.getsignal(number) for number in numbers}
        self._read, self._write = os.pipe()
        """Both -1 when signals mean again what they did before."""
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._closed = False
        self._writes_itself = True
        before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        if before != -1:  # an event loop of the user's listens there
            signal.set_wakeup_fd(before, warn_on_full_buffer=False)
            self._writes_itself = False
        for number in numbers:
            signal.signal(number, self._arrived)
        self._forking = threading.local()
        """In each thread that forks just now: the signals that it had held back before."""
        _follow_forks(weakref.ref(self))

    @classmethod
    def listen(cls, numbers: Sequence[signal.Signals] = HEARD) -> Signals | None:
        """Start to listen; None outside the main thread, and if anybody else has something to do on these signals."""
        if threading.current_thread() is not threading.main_thread():
            return None
        usual = (signal.SIG_DFL, signal.default_int_handler)
        if any(signal.getsignal(number) not in usual for number in numbers):
            return None
        return cls(numbers)

    def fileno(self) -> int:
        """What can be read when a signal has arrived; -1 if it is closed."""
        return self._read

    def heard(self) -> bool:
        """Whether a signal has arrived since the last call."""
        numbers = b""
        with contextlib.suppress(OSError):  # nothing has, or it is closed
            numbers = os.read(self._read, 4096)
        return any(number in numbers for number in self._before)

    def close(self) -> None:
        """Let signals mean what they did before."""
        self._closed = True
        if self._read != -1:
            with contextlib.suppress(ValueError):  # another thread must not; the next signal does it
                self._forget()

    def _arrived(self, number: int, _: object) -> None:
        if self._closed:
            self._forget()
            os.kill(os.getpid(), number)
        elif not self._writes_itself:
            os.write(self._write, bytes([number]))

    def before_fork(self) -> None:
        """Hold signals back, so that none reaches the new process before it is ready."""
        if self._read != -1:
            self._forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._before)

    def after_fork(self, *, child: bool) -> None:
        """Let signals through; in the new process they mean what they did before."""
        mask = self._forking.__dict__.pop("mask", None)
        if mask is not None:
            if child:
                self._forget()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _forget(self) -> None:
        for number, before in self._before.items():
            if signal.getsignal(number) == self._arrived:
                signal.signal(number, before)
        if self._writes_itself:
            descriptor = signal.set_wakeup_fd(-1)
            if descriptor not in (-1, self._write):
                signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False)
        for descriptor in (self._read, self._write):
            if descriptor != -1:
                os.close(descriptor)
        self._read = self._write = -1


def _follow_forks(signals: weakref.ref[Signals]) -> None:
    """Tell a listener of forks as long as it lives; Python never forgets whom it tells."""

    def before() -> None:
        if (here := signals()) is not None:
            here.before_fork()

    def after(*, child: bool) -> None:
        if (here := signals()) is not None:
            here.after_fork(child=child)

    os.register_at_fork(
        before=before,
        after_in_parent=lambda: after(child=False),
        after_in_child=lambda: after(child=True),
    )
