"""Which questions are there?

Sizes are chosen so that a question takes about two minutes at most on two cores; a contender that is much slower than
the others gets fewer blocks or fewer rounds, and its column in the report says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.many import crowd, huge, scale
from benchmarks.throughput import chain, conflicts, noop, rois
from benchmarks.waiting import cpu, gaussian, imports, tiny

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.question import Question

MAKERS: dict[str, Callable[[bool], Question]] = {
    "noop": noop,
    "rois": rois,
    "conflicts": conflicts,
    "chain": chain,
    "tiny": tiny,
    "imports": imports,
    "cpu": cpu,
    "gaussian": gaussian,
    "huge": huge,
    "scale": scale,
    "crowd": crowd,
}


def question(name: str, *, quick: bool = False) -> Question:
    """A question by its name; smaller and shorter if it has to be quick."""
    return MAKERS[name](quick)
