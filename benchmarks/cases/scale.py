"""What does a block cost in a task of so many? ``scale.py <contender> hand|workers <edge>``.

``hand``: the scheduler alone, driven by hand in this process. ``workers``: with two workers, from the begin of the
first block to the end of the last, so that starting and ending do not count. Blocks conflict with their neighbours.
"""

from __future__ import annotations

import functools
import os
import sys
from time import perf_counter
from typing import Any

import contenders
import numpy  # noqa: F401
import stopwatch


def by_hand(contender: str, edge: int) -> None:
    library = contenders.load(contender)
    make_scheduler, success = library.Scheduler, library.BlockStatus.SUCCESS
    task = contenders.make_task(contender, "scale", (10, 10, 10), 2, (edge, edge, edge), nothing, conflict=True)
    began = perf_counter()
    scheduler = make_scheduler([task])
    done = 0
    while (block := scheduler.acquire_block("scale")) is not None:
        block.status = success
        scheduler.release_block(block)
        done += 1
    if done != edge**3:
        sys.exit(f"{done} of {edge**3} blocks were handed out")
    contenders.report(began=began, blocks=done, window_seconds=perf_counter() - began)


def nothing(block: Any) -> None:
    pass


def with_workers(contender: str, edge: int) -> None:
    directory = os.getcwd()
    touch = functools.partial(stopwatch.touch, directory)
    contenders.load(contender)
    began = perf_counter()
    task = contenders.make_task(contender, "scale", (10, 10, 10), 2, (edge, edge, edge), touch, conflict=True)
    contenders.run(contender, [task])
    contenders.report(began=began, **stopwatch.read(directory))


if __name__ == "__main__":
    how = {"hand": by_hand, "workers": with_workers}[sys.argv[2]]
    how(sys.argv[1], int(sys.argv[3]))
