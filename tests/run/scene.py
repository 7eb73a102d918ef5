"""A small run, and waiting for something that happens in it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from blockflow import Roi, RunResult, Task, run_blockwise

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK = 10
"""Extent of a block."""


def task_of(function: Any, blocks: int = 4, name: str = "t", **more: Any) -> Task:
    """A task of blocks in a row, without context."""
    block = Roi((0,), (BLOCK,))
    return Task(name, Roi((0,), (BLOCK * blocks,)), block, block, function, **more)


def run(*tasks: Task, **options: Any) -> RunResult:
    """Run tasks silently."""
    return run_blockwise(tasks, **({"progress": False, "summary": False} | options))


def wait_for(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    """Wait until something is so that other processes or threads bring about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
