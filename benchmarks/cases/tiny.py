"""How long do ten blocks of nothing take, start to finish? ``tiny.py <contender>``."""

from __future__ import annotations

import sys
from time import perf_counter
from typing import Any

import contenders
import numpy  # noqa: F401


def nothing(block: Any) -> None:
    pass


def main(contender: str) -> None:
    contenders.load(contender)
    began = perf_counter()
    if contender == "dask":
        contenders.dask_map(nothing, range(10))
    else:
        task = contenders.make_task(contender, "tiny", (10,), 0, (10,), nothing, conflict=False)
        contenders.run(contender, [task])
    contenders.report(began=began, blocks=10)


if __name__ == "__main__":
    main(sys.argv[1])
