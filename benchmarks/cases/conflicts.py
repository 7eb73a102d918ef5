"""How many blocks of nothing a second that conflict with 26 neighbours? ``conflicts.py <contender> <edge>``."""

from __future__ import annotations

import sys
from time import perf_counter
from typing import Any

import contenders
import numpy  # noqa: F401


def nothing(block: Any) -> None:
    pass


def main(contender: str, edge: int) -> None:
    contenders.load(contender)
    began = perf_counter()
    task = contenders.make_task(contender, "conflicts", (10, 10, 10), 2, (edge, edge, edge), nothing, conflict=True)
    contenders.run(contender, [task])
    contenders.report(began=began, blocks=edge**3)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
