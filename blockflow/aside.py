"""Where does user code run that the loop must not wait for?

In threads of their own, so that a check function or an init callback may take its time while workers are answered.
An executor would not do: Python waits for the threads of executors when it ends, and a function of a user may hang.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_CARRIED = (Exception, SystemExit, KeyboardInterrupt)
"""What is raised where the result is awaited; other exceptions, as of cancelling, mean something else there."""


class Aside:
    """A thread that calls functions, one after the other.

    Args:
        name: Name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._closed = False
        self.busy_since: float | None = None
        """When the present call began, by the monotonic clock; None while there is none."""
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def call(self, function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """What a function returns, or raises; to be awaited in the running loop."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            if done.cancelled():
                return
            if error is None:
                done.set_result(cast("T", result))
            elif not isinstance(error, _CARRIED) or isinstance(error, StopIteration):  # a future gives it a meaning
                raised = RuntimeError(f"{function!r} raised {type(error).__name__}: {error}")
                raised.__cause__ = error
                done.set_exception(raised)
            else:
                done.set_exception(error)

        def call() -> None:
            result = failure = None
            try:
                result = function(*arguments)
            except BaseException as error:  # carried to the loop
                failure = error
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(settle, result, failure)

        if not self._thread.is_alive():
            self._thread.start()
        self._calls.put(call)
        return done

    def close(self) -> None:
        """Call nothing more; what is being called is left alone."""
        self._closed = True
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None and not self._closed:
            self.busy_since = time.monotonic()
            call()
            self.busy_since = None
