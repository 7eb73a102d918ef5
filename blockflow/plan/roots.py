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

    import numpy.typing as npt

    from blockflow.geometry import Box
    from blockflow.plan.conflicts import Levels


_LOOKED_THROUGH = 4096
"""Roots that are looked through at once for some that are not passed over."""


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
        self.left = self.count
        """Number of roots that have not been handed out, and are not passed over."""
        self._states: npt.NDArray[np.uint8] | None = None
        self.next = self._next()
        """Index of the next root; None if there is none left."""

    def pass_over(self, states: npt.NDArray[np.uint8]) -> None:
        """Hand out only roots whose entry in `states` is zero, from now on; to be called before any is taken.

        Args:
            states: One entry for each block of the grid, looked at when roots are taken. An entry of a root that was
                not handed out may change from zero if :meth:`claimed` is told.
        """
        self._states = states
        grid = states.reshape(self._shape)
        for starts, counts in self._lattices:
            lattice = zip(starts, counts, self._steps, strict=True)
            piece = grid[tuple(slice(start, start + count * step, step) for start, count, step in lattice)]
            self.left -= int(np.count_nonzero(piece))
        self.next = self._next()

    def claimed(self, indices: Indices) -> None:
        """Some roots that were not handed out are passed over from now on; their entry is not zero any more."""
        self.left -= len(indices)
        self.next = self._next()

    def take(self, at_most: int, *, below: int | None = None) -> Indices:
        """The next roots.

        Args:
            at_most: Take no more than this many; all come from one box, so there may be fewer.
            below: Take only indices smaller than this one.
        """
        if not self.left:
            return np.empty(0, dtype=np.int64)
        taken = self._live(at_most)
        if below is not None:
            taken = taken[: int(np.searchsorted(taken, below))]
        self.left -= len(taken)
        if self._states is None:
            self._taken_in_box += len(taken)
        elif len(taken):
            self._taken_in_box = self._place(int(taken[-1])) + 1
        self.next = self._next()
        return taken

    def _next(self) -> int | None:
        """Index of the first root that is not passed over; goes to where it is."""
        if not self.left:
            return None
        live = self._live(1)
        return int(live[0])

    def _live(self, at_most: int) -> Indices:
        """The next roots of a box that are not passed over; there must be one."""
        while True:
            size = prod(self._lattices[self._box][1])
            if self._taken_in_box == size:
                self._box, self._taken_in_box = self._box + 1, 0
                continue
            if self._states is None:
                return self._at(self._taken_in_box, min(size, self._taken_in_box + at_most))
            end = min(size, self._taken_in_box + max(at_most, _LOOKED_THROUGH))
            drawn = self._at(self._taken_in_box, end)
            live: Indices = drawn[self._states[drawn] == 0]
            if len(live):
                return live[:at_most]
            self._taken_in_box = end

    def _place(self, index: int) -> int:
        """The number of a root in its box."""
        starts, counts = self._lattices[self._box]
        place = 0
        position = positions_of(np.array([index], dtype=np.int64), self._shape)
        for digit, start, step, count in zip(position, starts, self._steps, counts, strict=True):
            place = place * count + (int(digit[0]) - start) // step
        return place

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
