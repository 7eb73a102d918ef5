"""How many blocks of nothing a second, without conflicts? ``noop.py <contender> <blocks>``."""

from __future__ import annotations

import sys
from time import perf_counter
from typing import Any

import contenders
import numpy  # noqa: F401 - every user's script has it


def nothing(block: Any) -> None:
    pass


def main(contender: str, blocks: int) -> None:
    contenders.load(contender)
    began = perf_counter()
    if contender == "dask":
        contenders.dask_map(nothing, range(blocks))
    else:
        task = contenders.make_task(contender, "noop", (10,), 0, (blocks,), nothing, conflict=False)
        contenders.run(contender, [task])
    contenders.report(began=began, blocks=blocks)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
