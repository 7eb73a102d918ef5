"""Which share of two cores does user code get? ``cpu.py <contender> <milliseconds of a block> <blocks>``.

A block spins until its thread has used so much CPU time, so what user code needs is known, however busy the machine.
"""

from __future__ import annotations

import functools
import os
import sys
from time import perf_counter

import contenders
import numpy  # noqa: F401
import stopwatch


def main(contender: str, milliseconds: float, blocks: int) -> None:
    directory = os.getcwd()
    spin = functools.partial(stopwatch.spin, directory, milliseconds / 1000)
    contenders.load(contender)
    began = perf_counter()
    if contender == "dask":
        contenders.dask_map(spin, range(blocks))
    else:
        task = contenders.make_task(contender, "cpu", (10,), 0, (blocks,), spin, conflict=False)
        contenders.run(contender, [task])
    contenders.report(began=began, **stopwatch.read(directory))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
