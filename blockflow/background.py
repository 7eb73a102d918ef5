"""Threads for what may never come back: calls to a disk that does not answer, and independent steps of a clean-up.

All threads here are daemons: the end of a process waits for none of them.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_LOGGER = logging.getLogger("blockflow")

T = TypeVar("T")


class BackgroundCall(Generic[T]):
    """A function that runs in a thread of its own, from when this is made.

    Args:
        function: What to call.
        name: Of the thread.

    >>> call = BackgroundCall(lambda: 3, name="three")
    >>> call.wait(10), call.result()
    (True, 3)
    """

    def __init__(self, function: Callable[[], T], *, name: str) -> None:
        self._function = function
        self._ended = threading.Event()
        self._value: list[T] = []
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._abandon: Callable[[T], object] | None = None
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Wait for the end of the call; whether it has come."""
        return self._ended.wait(seconds)

    def result(self) -> T:
        """Return what the function returned, or raise what it raised; only after its end."""
        if self._error is not None:
            raise self._error
        return self._value[0]

    def abandon(self, dispose: Callable[[T], object]) -> None:
        """Give the call up; what it returns after all is disposed of, in its thread."""
        with self._lock:
            self._abandon = dispose
            value = list(self._value)
        for each in value:
            dispose(each)

    def _run(self) -> None:
        try:
            value = self._function()
            with self._lock:
                self._value.append(value)
                abandon = self._abandon
            if abandon is not None:
                abandon(value)
        except BaseException as error:  # carried to the thread that waits
            self._error = error
        finally:
            self._ended.set()


class BackgroundQueue:
    """A thread that calls functions one after the other; their errors are of no interest."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(self, function: Callable[[], object]) -> None:
        """Call a function when those before it have come back."""
        self._calls.put(function)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()

    def finish(self, seconds: float) -> bool:
        """End the thread after the functions so far, and wait for that, at most so long; return whether it has ended.

        A later call begins another thread.
        """
        if self._thread is None:
            return True
        thread, self._thread = self._thread, None
        self._calls.put(None)
        self._calls = SimpleQueue()
        thread.join(seconds)
        return not thread.is_alive()

    def _work(self) -> None:
        calls = self._calls
        while function := calls.get():
            with suppress(Exception):
                function()


def run_all(*steps: Callable[[], object]) -> BaseException | None:
    """Run every step, whatever the others raise.

    Args:
        steps: What to run, in this order.

    Returns:
        The first error; later ones are logged.

    >>> done = []
    >>> error = run_all(lambda: 1 / 0, lambda: done.append("second"))
    >>> type(error).__name__, done
    ('ZeroDivisionError', ['second'])
    """
    first = None
    for step in steps:
        try:
            step()
        except BaseException as error:  # returned
            if first is None:
                first = error
            else:
                _LOGGER.warning("beside %s: %s: %s", type(first).__name__, type(error).__name__, error)
    return first
