"""Conflicts: in which order must the blocks of one task run so that no two conflicting ones run at once?

Two blocks conflict when the read box of one meets the write box of the other, or when they write into one chunk
(:mod:`blockflow.plan.alignment`). They conflict only if they are close on every axis: positions `m` or more apart
never conflict (`m` is the axis's conflict distance, or the number of positions where that is smaller). The blocks are
put into levels:

1. the residues of a position modulo `m`, axis by axis, name its class; two blocks of one class differ by a multiple
   of `m` on some axis (one that is not clamped: `m` positions are less than `m` apart), so **blocks of one
   level never conflict**;
2. classes are numbered from the last to the first in C order: class ``(m1 - 1, ..., mn - 1)`` is level 0;
3. a block of level k waits for its neighbours in level k - 1: on each axis the nearest positions of that class
   on both sides, or the same position where the residue is the same.

**Why the previous level alone is enough.** Let block B of level j conflict with block A of an earlier level i; so
on every axis ``|A - B| < m``, clamped or not. Walk from B one level back at a time, each time to one of the blocks
that step 3 waits for; these are a product over the axes, so each axis may choose for itself. Call the position p; the
invariant is ``|A - p| < m``. Where the residue stays, so does p. Else the nearest positions are q < p and q + m > p,
and at least one of them lies in the grid: every residue occurs below m, and m is at most the number of positions.

- If p = A, both are less than m away from A: take either.
- If p < A, both A and q + m lie strictly between p and p + m, so q + m is less than m away from A. If it does not pass
  A it lies in the grid: take it. If it does, then q, which is m before it, is less than m before A: take either.
- If p > A, the mirror image holds.

When level i is reached, p has the residues of A and is less than m away from it, so p = A. Hence **A is done before B
starts**: every conflicting pair is ordered by a chain of dependencies.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from blockflow.plan.slices import Indices, Positions, Slices

if TYPE_CHECKING:
    from blockflow.plan.grid import Grid


@dataclass(frozen=True, slots=True)
class Levels:
    """The levels of one grid and the dependencies between them."""

    shape: tuple[int, ...]
    """Number of positions per axis."""
    moduli: tuple[int, ...]
    """Number of classes per axis; 1 on every axis where no two blocks conflict."""

    @property
    def count(self) -> int:
        """Number of levels: 1 if no two blocks conflict."""
        return prod(self.moduli)

    def level(self, positions: Positions) -> Indices:
        """The level of each block, from its position."""
        return self.count - 1 - self._class(positions)

    def first_positions(self, level: int) -> tuple[int, ...]:
        """The smallest position of a level, per axis; the others follow in steps of `moduli`."""
        number = self.count - 1 - level
        residues = []
        for modulus in reversed(self.moduli):
            number, residue = divmod(number, modulus)
            residues.append(residue)
        return tuple(reversed(residues))

    def upstream(self, positions: Positions) -> Slices:
        """The blocks of the previous level that each block waits for."""
        return self._neighbours(positions, towards=+1)

    def downstream(self, positions: Positions) -> Slices:
        """The blocks of the next level that wait for each block: exactly the inverse of :meth:`upstream`."""
        return self._neighbours(positions, towards=-1)

    def _class(self, positions: Positions) -> Indices:
        number = positions[0] % self.moduli[0]
        for here, modulus in zip(positions[1:], self.moduli[1:], strict=True):
            number = number * modulus + here % modulus
        return number

    def _neighbours(self, positions: Positions, *, towards: int) -> Slices:
        target = self._class(positions) + towards
        exists = (target >= 0) & (target < self.count)
        starts, counts = [], []
        for here, modulus, extent in zip(reversed(positions), reversed(self.moduli), reversed(self.shape), strict=True):
            target, residue = np.divmod(target, modulus)
            ahead = (residue - here) % modulus
            low = here + ahead - np.where(ahead > 0, modulus, 0)
            high = here + ahead
            inside_low, inside_high = low >= 0, high < extent
            starts.append(np.where(inside_low, low, high))
            counts.append(np.where(ahead > 0, inside_low.astype(np.int64) + inside_high, 1))
        counts[-1] = np.where(exists, counts[-1], 0)
        return Slices(starts=tuple(reversed(starts)), counts=tuple(reversed(counts)), steps=self.moduli)


def levels_of(grid: Grid, *, read_write_conflict: bool, apart: tuple[int, ...] = ()) -> Levels:
    """The levels of a grid; a single one if its blocks may run in any order.

    Args:
        grid: The blocks.
        read_write_conflict: Whether two blocks conflict when one reads where the other writes.
        apart: Two blocks conflict for another reason too, unless they are this far apart on some axis.
    """
    distances = apart or (1,) * len(grid.shape)
    if read_write_conflict:
        distances = tuple(max(m, axis.conflict_distance) for m, axis in zip(distances, grid.axes, strict=True))
    return Levels(grid.shape, tuple(max(1, min(m, axis.count)) for m, axis in zip(distances, grid.axes, strict=True)))
