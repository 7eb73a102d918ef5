"""How many blocks of nothing a second in two chained tasks? ``chain.py <contender> <edge>``.

Both cover the same cube of ``edge`` times 42 voxels: the first with blocks of 6 and a context of 2, the second, which
waits for the first, with blocks of 7 and a context of 3. Both have conflicts.
"""

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
    first, second = (7 * edge,) * 3, (6 * edge,) * 3
    upstream = contenders.make_task(contender, "first", (6, 6, 6), 2, first, nothing, conflict=True)
    task = contenders.make_task(contender, "second", (7, 7, 7), 3, second, nothing, conflict=True, upstream=upstream)
    contenders.run(contender, [upstream, task])
    contenders.report(began=began, blocks=(7 * edge) ** 3 + (6 * edge) ** 3)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
