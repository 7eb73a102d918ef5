"""How long until the first of 10^9 blocks runs, in how much memory? ``huge.py <contender> hand|run <dimensions>``.

``hand``: the scheduler alone, asked for a block. ``run``: with workers; the first block interrupts the driver, as
Ctrl-C does. One dimension is without conflicts, three with.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
from time import perf_counter
from typing import TYPE_CHECKING, Any

import contenders
import numpy  # noqa: F401
import stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable


def make_task(contender: str, dimensions: int, function: Callable[..., None]) -> Any:
    edge = round(1e9 ** (1 / dimensions))
    context = 2 if dimensions > 1 else 0
    shape = (10,) * dimensions
    return contenders.make_task(
        contender, "huge", shape, context, (edge,) * dimensions, function, conflict=dimensions > 1
    )


def interrupt(directory: str, driver: int, block: Any) -> None:
    stopwatch.touch(directory, block)
    try:
        os.close(os.open(os.path.join(directory, "interrupted"), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(driver, signal.SIGINT)


def nothing(block: Any) -> None:
    pass


def by_hand(contender: str, dimensions: int) -> None:
    make_scheduler = contenders.load(contender).Scheduler
    began = perf_counter()
    task = make_task(contender, dimensions, nothing)
    block = make_scheduler([task]).acquire_block("huge")
    if block is None:
        sys.exit("no block was handed out")
    contenders.report(began=began, first_block_seconds=perf_counter() - began)


def stopped_run(contender: str, dimensions: int) -> None:
    directory = os.getcwd()
    function = functools.partial(interrupt, directory, os.getpid())
    contenders.load(contender)
    began, clock = perf_counter(), time.monotonic()
    try:
        contenders.run(contender, [make_task(contender, dimensions, function)])
    except KeyboardInterrupt:
        pass
    else:
        sys.exit("the run ended before it was interrupted")
    contenders.report(began=began, first_block_seconds=stopwatch.read(directory)["first_began"] - clock)


if __name__ == "__main__":
    how = {"hand": by_hand, "run": stopped_run}[sys.argv[2]]
    how(sys.argv[1], int(sys.argv[3]))
