"""Judgement of what user functions return: has anything run, and is there a result that nothing is done with?

A plain function may return something lazy: a decorator, a lambda or a partial around an async or generator function
does. Calling it has run nothing, so that its block must not count as done. Such values are known by their protocol
(awaitables, iterators) or by the classes of the standard library that start work and wait for nothing.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Coroutine, Generator, Iterator
from typing import Any

from blockflow.errors import PlanError

__all__ = ["ARRAY_REMARK", "check_has_begun", "check_has_run", "is_array"]

ARRAY_REMARK = (
    "the process function returns an array, and nothing is done with it: write it into an array that the function "
    "opens, or use blockflow.ops.map_blocks, which writes what its function returns"
)
"""What people are told once for each task."""

_LOOKED_AT = 8
"""Members of a returned list or tuple that are looked at; the cost of a block must not depend on its result."""

_PENDING = (
    ("concurrent.futures", "Future", "a Future"),
    ("multiprocessing.pool", "ApplyResult", "an AsyncResult"),
    ("multiprocessing.pool", "IMapIterator", "the iterator of a Pool"),
    ("subprocess", "Popen", "a Popen"),
)
"""Classes whose objects stand for work that goes on elsewhere: module, name, and what to call one."""


def check_has_run(value: Any, what: str) -> None:
    """Refuse a returned value that shows that the function has not done its work.

    >>> check_has_run(3, "the process function")
    >>> check_has_run((n for n in range(3)), "the process function")
    Traceback (most recent call last):
        ...
    blockflow.errors.PlanError: the process function returned a generator, so nothing has run: consume it inside the \
function

    Args:
        value: What the function returned.
        what: The function, in words.

    Raises:
        PlanError: It is an awaitable, iterator, context manager, or stands for work that nothing waits for.
    """
    kind = type(value)
    if kind in (tuple, list):
        for part in value[:_LOOKED_AT]:
            if type(part) not in (tuple, list):
                check_has_run(part, what)
        return
    if value is None or kind in (bool, int, float, str, bytes, dict):
        return
    check_has_begun(value, what)
    if isinstance(value, Awaitable):
        raise _refusal(what, f"an awaitable ({kind.__name__})", "wait for it inside the function")
    if isinstance(value, AsyncIterator):
        raise _refusal(what, f"an async iterator ({kind.__name__})", "consume it inside the function")
    for module, name, words in _PENDING:
        pending = getattr(sys.modules.get(module), name, None)
        if pending is not None and isinstance(value, pending):
            raise PlanError(
                f"{what} returned {words}, and nothing waits for the work behind it: wait for its result inside the "
                "function"
            )
    if isinstance(value, Iterator) and not hasattr(kind, "close"):
        raise _refusal(what, f"an iterator ({kind.__name__})", "consume it inside the function")
    if hasattr(kind, "__dask_graph__") and value.__dask_graph__() is not None:
        raise _refusal(what, f"a lazy object of dask ({kind.__name__})", "call its compute() inside the function")
    # Files, stores and data sets can be entered as well; they are closed rather than run.
    if (hasattr(kind, "__enter__") or hasattr(kind, "__aenter__")) and not (
        hasattr(kind, "close") or hasattr(kind, "aclose")
    ):
        raise _refusal(what, f"a context manager ({kind.__name__})", "use it in a with statement inside the function")


def check_has_begun(value: Any, what: str) -> None:
    """Refuse a returned value of which no line has run yet; for functions that may return any finished object.

    Args:
        value: What the function returned.
        what: The function, in words.

    Raises:
        PlanError: It is a coroutine, a generator, or the context manager that a generator function was made into.
    """
    kind = type(value)
    if isinstance(value, Coroutine):
        _close(value)  # else Python warns that it was never awaited, long after
        raise _refusal(what, "a coroutine", "call asyncio.run(...) on it inside the function")
    if isinstance(value, Generator):
        raise _refusal(what, "a generator", "consume it inside the function")
    if isinstance(value, AsyncGenerator):
        raise _refusal(what, "an async generator", "consume it inside the function")
    if kind.__module__ == "contextlib" and isinstance(getattr(value, "gen", None), Generator | AsyncIterator):
        raise _refusal(what, f"a context manager ({kind.__name__})", "use it in a with statement inside the function")


def is_array(value: Any) -> bool:
    """Whether a returned value is an array, or holds one: a result that its author may expect to be written.

    >>> import numpy as np
    >>> is_array(np.zeros(3)), is_array((1, np.zeros(3))), is_array(np.float32(3)), is_array([1, 2])
    (True, True, False, False)
    """
    if isinstance(value, tuple | list):
        return any(is_array(part) for part in value[:_LOOKED_AT] if not isinstance(part, tuple | list))
    shape = getattr(value, "shape", None)
    return isinstance(shape, tuple) and len(shape) > 0 and hasattr(value, "dtype")


def _close(value: Coroutine[Any, Any, Any]) -> None:
    try:
        value.close()
    except BaseException:  # user code
        return


def _refusal(what: str, came: str, remedy: str) -> PlanError:
    return PlanError(f"{what} returned {came}, so nothing has run: {remedy}")
