"""Calls of zarr's stores, which are asynchronous, from code that is not.

zarr runs its coroutines in a loop of its own, on which some stores depend; the function for that is in a module that
zarr calls private. This is the one place that knows it, and what is done where a release has moved it.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

__all__ = ["wait_for"]


def wait_for(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine of a store returns.

    >>> from zarr.storage import MemoryStore
    >>> wait_for(MemoryStore().exists("zarr.json"))
    False

    Args:
        coroutine: What a method of a store, or a function that awaits such methods, has returned.
    """
    try:
        from zarr.core.sync import sync
    except ImportError:
        return _in_own_loop(coroutine)
    return sync(coroutine)


def _in_own_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns that runs in a loop of a new thread; this one may have a loop already."""
    outcome: list[T] = []
    error: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(asyncio.run(coroutine))
        except BaseException as raised:
            error.append(raised)

    thread = threading.Thread(target=run, name="blockflow-store", daemon=True)
    thread.start()
    thread.join()
    if error:
        raise error[0]
    return outcome[0]
