"""Duplicates: which points lie so close to an earlier one that they are the same?

1. Cut space into cells a little larger than the tolerance. Whatever is within the tolerance of a point lies
   in its cell or in one that touches it.
2. Number the cells of at most four axes in C order and sort the points by cell. Neighbours along the last
   axis then are one range of the sorted points, so 3^(axes - 1) pairs of binary searches find all candidates.
3. Go through the points in their order, some thousands at a time: list the candidates that come later and
   have not been dropped, compare them exactly on all axes, and let each point that has not been dropped
   itself drop its duplicates.

Kept points are more than a tolerance apart, so few of them share a cell and the work grows as n log n,
however densely the duplicates lie; points that must not be compared, because one block found both, are the
exception.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["first_of_each"]

AXES = 4
"""That cells are made of; more would cost more searches than they save comparisons."""

SOURCES = 2**16
"""Points whose candidates are searched together."""

CANDIDATES = 2**20
"""Pairs that are compared together: some 50 MB."""


def first_of_each(
    coordinates: NDArray[np.float64],
    tolerances: NDArray[np.float64],
    blocks: NDArray[np.intp] | None = None,
) -> NDArray[np.intp]:
    """For each point the kept one whose duplicate it is: the earliest within the tolerance, or itself.

    Args:
        coordinates: n rows, one column for each axis; finite.
        tolerances: One for each axis, at least 0: how far apart duplicates may be along it.
        blocks: A number for each point; points with the same number are never duplicates.

    Returns:
        n row numbers, none larger than its own.

    >>> first_of_each(np.array([[0.0], [4], [1], [2]]), np.array([1.0]))
    array([0, 1, 0, 3])
    """
    first = np.arange(len(coordinates))
    kept = np.ones(len(coordinates), bool)
    order, keys, steps, touching = _sorted_cells(coordinates, tolerances)
    in_order = keys[order]
    for begin in range(0, len(coordinates), SOURCES):
        sources = begin + np.flatnonzero(kept[begin : begin + SOURCES])
        starts, stops = _ranges(in_order, keys[sources] + steps[:, None], touching)
        filled = np.cumsum((stops - starts).sum(axis=0)) // CANDIDATES
        for part in np.split(np.arange(len(sources)), np.flatnonzero(np.diff(filled)) + 1):
            alive = part[kept[sources[part]]]
            which, ranges = _expanded(starts[:, alive], stops[:, alive])
            i, j = sources[alive[which]], order[ranges]
            near = (i < j) & kept[j]
            if blocks is not None:
                near &= blocks[i] != blocks[j]
            for values, tolerance in zip(coordinates.T, tolerances, strict=True):
                i, j = i[near], j[near]
                near = np.abs(values[i] - values[j]) <= tolerance
            _drop(i[near], j[near], kept, first)
    return first


def _sorted_cells(
    coordinates: NDArray[np.float64], tolerances: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.int64], int]:
    """Number the cells.

    Returns:
        The rows sorted by cell; the number of each row's cell; how far from that the numbers of touching
        cells are, those along the last axis left out; and how many of these there are on either side.
    """
    axes = [_cells(*axis) for axis in zip(coordinates.T, tolerances.tolist(), strict=True)]
    axes.sort(key=lambda axis: axis[0].max(initial=0), reverse=True)
    chosen, numbers = [], 1
    for cells, touching in axes[:AXES]:
        numbers *= int(cells.max(initial=0)) + 3  # an empty one on either side, that the outermost touch
        if numbers >= 2**62:
            break
        chosen.append((cells, touching))
    chosen.sort(key=lambda axis: axis[1])  # an axis with touching cells comes last
    keys, steps = np.zeros(len(coordinates), np.int64), np.zeros(1, np.int64)
    for axis, (cells, touching) in enumerate(chosen, start=1):
        extent = int(cells.max(initial=0)) + 3
        keys = keys * extent + cells + 1
        around = np.arange(-touching, touching + 1) if axis < len(chosen) else np.zeros(1, np.int64)
        steps = (steps[:, None] * extent + around).ravel()
    return np.argsort(keys, kind="stable"), keys, steps, chosen[-1][1]


def _cells(values: NDArray[np.float64], tolerance: float) -> tuple[NDArray[np.int64], int]:
    """The cell along one axis of each point, and on how many cells to either side its duplicates may lie."""
    if tolerance == 0:
        return np.unique(values, return_inverse=True)[1].astype(np.int64), 0
    low = values.min(initial=np.inf)
    extent = values.max(initial=-np.inf) - low
    # Wide enough that rounding, 2^-52 of at most 2^29 cells, cannot part what is within the tolerance.
    width = max(tolerance * (1 + 2**-20), extent / 2**29)
    return ((values - low) // width).astype(np.int64), 1


def _ranges(
    in_order: NDArray[np.int64], middles: NDArray[np.int64], touching: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where the sorted numbers lie that differ from each middle by no more than `touching`."""
    ascending = np.argsort(middles[0])  # rows of middles differ by constants; searching in order is far quicker
    back = np.argsort(ascending)
    middles = middles[:, ascending]
    starts = np.searchsorted(in_order, middles - touching, "left")
    stops = np.searchsorted(in_order, middles + touching, "right")
    return starts[:, back], stops[:, back]


def _expanded(starts: NDArray[np.intp], stops: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The column and the members of all ranges."""
    counts = (stops - starts).ravel()
    columns = np.repeat(np.tile(np.arange(starts.shape[1]), len(starts)), counts)
    shifts = np.repeat(starts.ravel() - np.cumsum(counts) + counts, counts)
    return columns, np.arange(len(shifts)) + shifts


def _drop(i: NDArray[np.intp], j: NDArray[np.intp], kept: NDArray[np.bool], first: NDArray[np.intp]) -> None:
    """Let each kept i, in order, drop its j: the one step that depends on the one before."""
    order = np.argsort(i, kind="stable")
    i, j = i[order], j[order]
    begins = np.flatnonzero(np.diff(i, prepend=-1))
    ends = np.append(begins, len(i))[1:]
    for source, begin, end in zip(i[begins].tolist(), begins.tolist(), ends.tolist(), strict=True):
        if kept[source]:
            later = j[begin:end]
            later = later[kept[later]]
            kept[later] = False
            first[later] = source
