"""Which blocks of a new grid are done, if those of another grid were?

A block is done if everything that it writes was written by blocks that are done. Grids are products of axes, so each
axis is looked at once: a write interval of the new grid meets a range of positions of the old one. The number of old
blocks that are done in a product of ranges comes from sums over all blocks in front of a position (a summed-area
table, Crow 1984), and a new block is covered if that number is the number of all old blocks that it meets.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from blockflow.plan.grid import Axis, Grid
    from blockflow.plan.slices import Indices


def carry_over(old: Grid, done: npt.NDArray[np.bool_], new: Grid) -> npt.NDArray[np.bool_]:
    """Which blocks of the new grid are covered by blocks of the old grid that are done.

    Args:
        old: The grid that was worked on.
        done: One flag per block of it, in C order.
        new: The grid that is asked about.

    >>> from blockflow.plan.tiling import tile
    >>> halves = tile(total=((0, 8),), read=((0, 4),), write=((0, 4),), fit="valid")
    >>> thirds = tile(total=((0, 9),), read=((0, 3),), write=((0, 3),), fit="valid")
    >>> carry_over(halves, np.array([True, False]), thirds)
    array([ True, False, False])
    """
    if len(old.shape) != len(new.shape) or not old.size or not new.size:
        return np.zeros(new.size, dtype=bool)
    table: Any = np.zeros([extent + 1 for extent in old.shape], dtype=np.int64)
    table[(slice(1, None),) * len(old.shape)] = done.reshape(old.shape)
    for axis in range(table.ndim):
        np.cumsum(table, axis=axis, out=table)
    ranges = [_met(before, after) for before, after in zip(old.axes, new.axes, strict=True)]
    found = np.zeros(new.shape, dtype=np.int64)
    for corner in product((0, 1), repeat=len(ranges)):
        sign = (-1) ** (len(corner) - sum(corner))
        found += sign * table[np.ix_(*(ends[at] for ends, at in zip(ranges, corner, strict=True)))]
    needed = np.ones(new.shape, dtype=np.int64)
    inside = np.ones(new.shape, dtype=bool)
    for axis, (first, last, whole) in enumerate(ranges):
        along = tuple(-1 if axis == here else 1 for here in range(len(ranges)))
        needed *= (last - first).reshape(along)
        inside &= whole.reshape(along)
    covered: npt.NDArray[np.bool_] = inside & (found == needed)
    return covered.ravel()


def _met(old: Axis, new: Axis) -> tuple[Indices, Indices, npt.NDArray[np.bool_]]:
    """What each position of the new axis meets on the old one.

    Returns:
        The first old position, the one behind the last, and whether the old ones cover its whole write interval.
    """
    positions = np.arange(new.count, dtype=np.int64)
    begin, end = new.write_begin(positions), new.write_end(positions)
    first, last = old.writing(begin, end)
    whole = (begin >= old.begin) & (end <= old.end)
    return np.clip(first, 0, old.count), np.clip(last, 0, old.count), whole
