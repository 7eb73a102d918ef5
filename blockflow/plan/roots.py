"""Roots: which blocks of a task wait for nothing, without looking at each of them?

1. Within the task these are the blocks of level 0: every m-th position on each axis.
2. Blocks that wait for an upstream task fill one box of positions per upstream task (:meth:`Link.waiting`).
3. What is left of the grid when those boxes are cut out is a handful of disjoint boxes.
4. The positions of level 0 inside such a box are again regular, so the k-th root of a box is arithmetic.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from blockflow.plan.slices import Indices, positions_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blockflow.geometry import Box
    from blockflow.plan.conflicts import Levels


class Roots:
    """The roots of one task, handed out in batches; smallest index first within each box."""

    def __init__(self, levels: Levels, waiting: Iterable[Box]) -> None:
        self._shape = levels.shape
        self._steps = levels.moduli
        boxes: list[Box] = [tuple((0, extent) for extent in levels.shape)]
        for hole in waiting:
            boxes = [piece for box in boxes for piece in _without(box, hole)]
        first = levels.first_positions(0)
        lattices = (_lattice(box, first, self._steps) for box in sorted(boxes))
        self._lattices = [(starts, counts) for starts, counts in lattices if prod(counts)]
        self.count = sum(prod(counts) for _, counts in self._lattices)
        """Number of roots in all."""
        self._box = 0
        self._taken_in_box = 0
        self.taken = 0
        """Number of roots handed out so far."""
        self.next = self._next()
        """Index of the next root; None if there is none left."""

    @property
    def left(self) -> int:
        """Number of roots that have not been handed out."""
        return self.count - self.taken

    def take(self, at_most: int, *, below: int | None = None) -> Indices:
        """The next roots.

        Args:
            at_most: Take no more than this many; all come from one box, so there may be fewer.
            below: Take only indices smaller than this one.
        """
        if not self.left:
            return np.empty(0, dtype=np.int64)
        size = prod(self._lattices[self._box][1])
        taken = self._at(self._taken_in_box, min(size, self._taken_in_box + at_most))
        if below is not None:
            taken = taken[: int(np.searchsorted(taken, below))]
        self.taken += len(taken)
        self._taken_in_box += len(taken)
        if self._taken_in_box == size:
            self._box, self._taken_in_box = self._box + 1, 0
        self.next = self._next()
        return taken

    def _next(self) -> int | None:
        return int(self._at(self._taken_in_box, self._taken_in_box + 1)[0]) if self.left else None

    def _at(self, begin: int, end: int) -> Indices:
        starts, counts = self._lattices[self._box]
        indices = np.zeros(end - begin, dtype=np.int64)
        digits = positions_of(np.arange(begin, end, dtype=np.int64), counts)
        for extent, start, step, digit in zip(self._shape, starts, self._steps, digits, strict=True):
            indices *= extent
            indices += start + digit * step
        return indices


def _without(box: Box, hole: Box) -> list[Box]:
    """The parts of `box` outside `hole`: at most two per axis, disjoint."""
    if any(max(a[0], b[0]) >= min(a[1], b[1]) for a, b in zip(box, hole, strict=True)):
        return [box]
    pieces = []
    for axis, ((begin, end), (hole_begin, hole_end)) in enumerate(zip(box, hole, strict=True)):
        if begin < hole_begin:
            pieces.append((*box[:axis], (begin, hole_begin), *box[axis + 1 :]))
        if hole_end < end:
            pieces.append((*box[:axis], (hole_end, end), *box[axis + 1 :]))
        box = (*box[:axis], (max(begin, hole_begin), min(end, hole_end)), *box[axis + 1 :])
    return pieces


def _lattice(box: Box, first: tuple[int, ...], steps: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Starts and counts of the positions ``first + k * steps`` in a box."""
    starts = tuple(
        residue + -((residue - begin) // step) * step
        for (begin, _), residue, step in zip(box, first, steps, strict=True)
    )
    counts = tuple(max(0, -(-(end - start) // step)) for (_, end), start, step in zip(box, starts, steps, strict=True))
    return starts, counts
