"""How many blocks a second whose function looks at both ROIs? ``rois.py <contender> <blocks>``."""

from __future__ import annotations

import sys
from time import perf_counter
from typing import Any

import contenders
import numpy  # noqa: F401


def look(block: Any) -> object:
    return block.read_roi.begin, block.read_roi.end, block.write_roi.begin, block.write_roi.end


def main(contender: str, edge: int) -> None:
    contenders.load(contender)
    began = perf_counter()
    task = contenders.make_task(contender, "rois", (10, 10, 10), 2, (edge, edge, edge), look, conflict=False)
    contenders.run(contender, [task])
    contenders.report(began=began, blocks=edge**3)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
