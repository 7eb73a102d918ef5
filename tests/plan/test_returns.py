"""Which returned values show that nothing has run?"""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import itertools
import subprocess
import sys
from multiprocessing.pool import ThreadPool
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from blockflow.errors import PlanError
from blockflow.plan.returns import check_has_begun, check_has_run, is_array

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


async def coroutine() -> None: ...


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


managed = contextlib.contextmanager(generator)
managed_async = contextlib.asynccontextmanager(async_generator)


class Awaitable:
    def __await__(self) -> Iterator[None]:
        yield


class Managed:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


class ManagedAsync:
    async def __aenter__(self) -> None: ...
    async def __aexit__(self, *_: object) -> None: ...


class Stepwise:
    def __aiter__(self) -> Stepwise:
        return self

    async def __anext__(self) -> int:
        return 1


class Delayed:
    def __dask_graph__(self) -> dict[str, int]:
        return {"a": 1}


class Broken:
    """A coroutine of a library that does not like to be closed."""

    def __await__(self) -> Iterator[None]:
        yield

    def send(self, value: object) -> None: ...
    def throw(self, *error: object) -> None: ...
    def close(self) -> None:
        raise RuntimeError


def process() -> subprocess.Popen[bytes]:
    started = subprocess.Popen([sys.executable, "-c", ""])
    started.wait()
    return started


def pool_result() -> Any:
    with ThreadPool(1) as pool:
        return pool.apply_async(int)


LAZY: dict[str, tuple[Callable[[], Any], str]] = {
    "coroutine": (coroutine, "asyncio.run"),
    "generator": (generator, "consume it"),
    "async generator": (async_generator, "consume it"),
    "generator expression": (lambda: (n for n in range(3)), "consume it"),
    "context manager": (managed, "with statement"),
    "async context manager": (managed_async, "with statement"),
    "own context manager": (Managed, "with statement"),
    "own async context manager": (ManagedAsync, "with statement"),
    "closing": (lambda: contextlib.closing(io.StringIO()), "with statement"),
    "awaitable": (Awaitable, "wait for it"),
    "async iterator": (Stepwise, "consume it"),
    "map": (lambda: map(int, ()), "consume it"),
    "zip": (lambda: zip((), (), strict=True), "consume it"),
    "chain": (itertools.chain, "consume it"),
    "future": (concurrent.futures.Future, "wait for its result"),
    "process": (process, "wait for its result"),
    "result of a pool": (pool_result, "wait for its result"),
    "delayed": (Delayed, "compute()"),
    "some coroutines": (lambda: [coroutine()], "asyncio.run"),
    "broken coroutine": (Broken, "asyncio.run"),
}


@pytest.mark.parametrize("name", LAZY)
def test_what_has_not_run_is_refused_with_a_way_out(name: str) -> None:
    make, remedy = LAZY[name]
    with pytest.raises(PlanError, match="the function returned") as info:
        check_has_run(make(), "the function")
    assert remedy in str(info.value)


@pytest.mark.parametrize(
    "value",
    [None, True, 3, "x", b"x", (), [1, [2]], {"a": 1}, np.zeros(3), np.float32(1), io.StringIO(), object(), range(3)],
    ids=lambda value: type(value).__name__,
)
def test_finished_values_are_taken(value: Any) -> None:
    check_has_run(value, "the function")


def test_a_setup_may_return_anything_that_has_begun() -> None:
    for value in (Managed(), Awaitable(), io.StringIO(), map(int, ()), contextlib.ExitStack()):
        check_has_begun(value, "setup")
    for make in (coroutine, generator, async_generator, managed, managed_async):
        with pytest.raises(PlanError, match="setup returned"):
            check_has_begun(make(), "setup")


def test_arrays_are_known_by_what_they_have() -> None:
    assert is_array(np.zeros((2, 2)))
    assert is_array([1, np.zeros(2)])
    assert not any(is_array(value) for value in (np.float64(1), np.array(1), "x", [[np.zeros(2)]], {"a": np.zeros(2)}))
