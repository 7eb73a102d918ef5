"""What do maps and labels cost beside the same work without blocks?

Run ``python -m benchmarks.maps [edge]`` from the repository. Everything is measured in turn, in three rounds of which
the least counts, because other work on the machine only ever adds; ratios are of one round's neighbours. Seconds are of
the wall clock, and CPU seconds are of this process and its workers.
"""

from __future__ import annotations

import functools
import os
import sys
from time import perf_counter, thread_time
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from blockflow import Roi, Task, run_blockwise
from blockflow.ops import label, map_blocks

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 3
BLOCKS = 20_000
SPIN = np.ones((64, 64))
HERE: dict[str, Any] = {"num_workers": 0, "progress": False}
WORKERS: dict[str, Any] = {"num_workers": 2, "progress": False}


def mask_of(edge: int) -> Any:
    """Winding objects of all sizes, about a third of the volume."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).random((edge // 2,) * 3).astype("f4"), 3)
    coarse = noise > np.quantile(noise[::4, ::4, ::4], 0.7)
    return coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2)


def nothing(*arguments: Any) -> None:
    """The block function of a run that only costs."""


def same(block: Any) -> Any:
    return block


def busy(block: Any, seconds: float) -> Any:
    """Keep a core busy for a time, without Python's lock, as numpy does."""
    end = thread_time() + seconds
    while thread_time() < end:
        _ = SPIN @ SPIN
    return block


def engine() -> None:
    line = Roi((0,), (BLOCKS,))
    task = Task("engine", line, Roi((0,), (1,)), Roi((0,), (1,)), nothing, read_write_conflict=False)
    run_blockwise(task, multiprocessing=False, progress=False, summary=False)


def cases(edge: int) -> dict[str, Callable[[], Any]]:
    mask = mask_of(edge)
    image = np.random.default_rng(0).integers(0, 60000, (edge,) * 3).astype(np.uint16)
    smooth = functools.partial(ndimage.gaussian_filter, sigma=2)
    line = np.zeros(BLOCKS, np.uint8)
    half = image[: edge // 2, : edge // 2, : edge // 2].copy()
    whole = np.zeros((64, 64, 64), np.uint8)
    several = {
        f"{1000 * seconds:g} ms of work in 64 blocks, {name}": functools.partial(
            map_blocks, functools.partial(busy, seconds=seconds / 64), whole, grid=16, **where
        )
        for seconds in (0.001, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0)
        for name, where in (("here", HERE), ("num_workers=2", WORKERS))
    }
    return several | {
        f"{BLOCKS} empty blocks, engine alone": engine,
        f"{BLOCKS} blocks of one voxel, map_blocks": lambda: map_blocks(same, line, out=line.copy(), grid=1, **HERE),
        f"gaussian {edge // 2}^3 in memory, here": lambda: map_blocks(smooth, half, grid=64, context=8, **HERE),
        f"gaussian {edge // 2}^3 in memory, 2 workers": lambda: map_blocks(smooth, half, grid=64, context=8, **WORKERS),
        f"copy {edge}^3 in memory, here": lambda: map_blocks(same, image, grid=128, **HERE),
        f"copy {edge}^3 in memory, 2 workers": lambda: map_blocks(same, image, grid=128, **WORKERS),
        f"label {edge}^3, scipy on the whole": lambda: ndimage.label(mask),
        f"label {edge}^3 in blocks of 128^3, here": lambda: label(mask, grid=128, **HERE),
    }


def measured(function: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    before, began = os.times(), perf_counter()
    function()
    seconds, after = perf_counter() - began, os.times()
    return seconds, sum(after[:4]) - sum(before[:4])


def main(edge: int) -> None:
    every = cases(edge)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in every}
    for _ in range(ROUNDS):
        for name, function in every.items():
            taken[name].append(measured(function))
    names = list(every)
    for one, other in zip(names[::2], names[1::2], strict=True):
        for name in (one, other):
            wall, cpu = (min(each) for each in zip(*taken[name], strict=True))
            print(f"{name:45} {wall:8.2f} s {cpu:8.2f} CPU s")
        ratios = sorted(b[0] / a[0] for a, b in zip(taken[one], taken[other], strict=True))
        print(f"{'':45} {ratios[ROUNDS // 2]:8.2f} times ({ratios[0]:.2f} to {ratios[-1]:.2f})\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 512)
