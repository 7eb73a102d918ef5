"""Points: how do the tables of points that blocks found become one, with each point in it once?

A table has a row for each point; some of its columns are coordinates, by default the first ones. Two rules
make a point of two overlapping blocks one again:

- **Ownership** (:func:`own_points`): a block keeps the points that lie in what it writes, half-open. Needs
  no other block, so it is done where the points are found; right as long as both blocks find the same point
  at the same place.
- **Duplicates** (:func:`dedupe_points`): of points that lie within a tolerance of one another, one is kept.
  Needs all points; right also if the blocks disagree a little, on which side of a cut a point lies for
  instance.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, get_args

import numpy as np

from blockflow.errors import GeometryError, PlanError
from blockflow.ops.duplicates import first_of_each

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from blockflow.plan.axis import GridLike

__all__ = ["How", "Tag", "dedupe_points", "merge_points", "own_points"]

Tag: TypeAlias = Literal["position", "index"]
"""What is added to a point about the block that found it."""

How: TypeAlias = Literal["first", "mean"]
"""Which point stands for a set of duplicates."""


class BlockLike(Protocol):
    """What ownership needs to know of a block."""

    @property
    def read_roi(self) -> Any:
        """Where it reads: a :class:`~blockflow.geometry.Roi`."""

    @property
    def write_roi(self) -> Any:
        """Where it writes."""


def merge_points(tables: Iterable[ArrayLike | None], grid: GridLike, *, tag: Tag | None = None) -> NDArray[Any]:
    """Stack the tables of all blocks.

    Args:
        tables: One for each block, in C order of the grid: a row for each point, as many columns as the
            others. ``None`` or an empty list for no points.
        grid: The blocks.
        tag: Add as last columns the position of the block in the grid ("position", one column for each
            axis) or its number in C order ("index", one column).

    Returns:
        Rows in the order of the blocks, in numpy's common dtype of the tables that have any; integers stay
        integers. Without any table, no rows and a coordinate column for each axis.

    Raises:
        GeometryError: Too few or too many tables, or one that is not 2-D or of another number of columns.
        PlanError: A table of anything but real numbers, or an unknown tag.

    >>> from blockflow import Grid
    >>> grid = Grid.regular((8, 4), block=4)
    >>> merge_points([[[1, 2]], [[5, 0], [6, 3]]], grid, tag="position")
    array([[1, 2, 0, 0],
           [5, 0, 1, 0],
           [6, 3, 1, 0]])
    """
    if tag is not None and tag not in get_args(Tag):
        raise PlanError(f"tag must be None or one of {', '.join(get_args(Tag))}, got {tag!r}")
    counts = tuple(axis.count for axis in grid.axes)
    given = list(tables)
    if len(given) != prod(counts):
        raise GeometryError(
            f"merging needs one table for each of the {prod(counts)} blocks of a grid of {counts}, got {len(given)}"
        )
    found = {
        number: _table(table, f"table {number}")
        for number, table in enumerate(given)
        if table is not None and np.shape(table) != (0,)
    }
    widths = {table.shape[1]: number for number, table in found.items()}
    if len(widths) > 1:
        examples = ", ".join(f"{width} in table {number}" for width, number in widths.items())
        raise GeometryError(f"all tables must have the same number of columns, got {examples}")
    full = [table for table in found.values() if len(table)]  # a table without rows has no say in the dtype
    points = np.concatenate(full or list(found.values()) or [np.empty((0, len(counts)))])
    if tag is None:
        return points
    blocks = np.repeat(np.fromiter(found, np.intp), [len(table) for table in found.values()])
    tags = blocks[:, None] if tag == "index" else np.stack(np.unravel_index(blocks, counts), axis=1)
    return np.concatenate([points, tags.astype(np.min_scalar_type(len(given)))], axis=1)


def own_points(
    points: ArrayLike, block: BlockLike, *, local: bool = False, columns: Sequence[int] | None = None
) -> NDArray[Any]:
    """The points that a block owns: those in its write ROI, half-open.

    If every block keeps what it owns, no point is kept twice, and none is lost but those outside all write
    ROIs.

    Args:
        points: Table of n rows; n may be 0.
        block: Anything with ``read_roi`` and ``write_roi``, in the units of the coordinates.
        local: Coordinates count from where the block begins to read, as they do if they come from the array
            it read. The result counts from the origin of the ROIs.
        columns: Which columns are coordinates, one for each axis; the first ones if not given.

    Returns:
        The rows that are owned, in their order. With ``local`` in a dtype that has room for the ROIs.

    Raises:
        GeometryError: Not a table, or without a column for each axis.
        PlanError: Coordinates that are no finite real numbers.

    >>> from types import SimpleNamespace
    >>> from blockflow.geometry import Roi
    >>> block = SimpleNamespace(read_roi=Roi((8,), (8,)), write_roi=Roi((10,), (4,)))
    >>> own_points([[9.5, 1], [10, 2], [13.9, 3], [14, 4]], block)
    array([[10. ,  2. ],
           [13.9,  3. ]])
    >>> own_points([[1], [2], [5], [6]], block, local=True).ravel()
    array([10, 13])
    """
    table = _table(points, "points")
    begin, end = np.array(tuple(block.write_roi.begin)), np.array(tuple(block.write_roi.end))
    where = _columns(table, columns, len(begin))
    if local:
        table = table.astype(np.result_type(table.dtype, np.int64))
        table[:, where] += np.array(tuple(block.read_roi.begin))
    coordinates = table[:, where]
    return table[((coordinates >= begin) & (coordinates < end)).all(axis=1)]


def dedupe_points(
    points: ArrayLike,
    tolerance: float | Sequence[float],
    *,
    how: How = "first",
    columns: Sequence[int] | None = None,
    groups: ArrayLike | None = None,
    blocks: ArrayLike | None = None,
) -> NDArray[Any]:
    """One point for each set of duplicates.

    Rows are taken in their order: a point is a duplicate if one that was kept before it is within the
    tolerance on every axis. So no two kept points are duplicates of one another, and every dropped point
    has a kept one nearby.

    Args:
        points: Table of n rows; n may be 0.
        tolerance: Greatest distance of duplicates along each axis, at least 0; a number for all axes.
        how: "first" keeps the row; "mean" puts the mean of the duplicates in place of its coordinates, as
            floats. Means are not compared again.
        columns: Which columns are coordinates; the first ones if not given, as many as there are
            tolerances, or all if ``tolerance`` is a number.
        groups: A label for each row (a channel, say). Points of different groups are never duplicates.
        blocks: A label for each row, or several columns of them: the block that found it. Points of one
            block are never duplicates: it has told them apart.

    Returns:
        The kept rows, in their order.

    Raises:
        GeometryError: Not a table, or columns, tolerances, groups or blocks that do not fit it.
        PlanError: Coordinates that are no finite real numbers below 2**53, or an unknown ``how``.

    >>> dedupe_points([[0.0, 0], [5, 5], [0, 1], [0, 2]], tolerance=1)
    array([[0., 0.],
           [5., 5.],
           [0., 2.]])
    >>> dedupe_points([[0, 7], [5, 8], [1, 9]], tolerance=[1], how="mean")
    array([[0.5, 7. ],
           [5. , 8. ]])
    """
    if how not in get_args(How):
        raise PlanError(f"how must be one of {', '.join(get_args(How))}, got {how!r}")
    table = _table(points, "points")
    tolerances = np.asarray(tolerance, float)
    if tolerances.ndim == 0:
        tolerances = np.full(table.shape[1] if columns is None else len(columns), tolerances)
    if tolerances.ndim != 1 or not len(tolerances) or not ((tolerances >= 0) & np.isfinite(tolerances)).all():
        raise GeometryError(f"tolerance must be a finite number of at least 0, or one for each axis, got {tolerance!r}")
    where = _columns(table, columns, len(tolerances))
    coordinates = table[:, where].astype(float)
    if (np.abs(coordinates) >= 2**53).any():
        raise PlanError("coordinates must be below 2**53 to be compared, got larger ones")
    if groups is not None:  # one more axis, on which only equals are duplicates
        coordinates = np.column_stack([coordinates, _labels(groups, "groups", len(table))])
        tolerances = np.append(tolerances, 0)
    origins = None if blocks is None else _labels(blocks, "blocks", len(table))
    first = first_of_each(coordinates, tolerances, origins)
    kept = np.flatnonzero(first == np.arange(len(first)))
    result = table[kept]
    if how == "mean":
        result = result.astype(np.result_type(result.dtype, np.float32))
        size = np.bincount(first, minlength=len(table))[kept]
        for axis, column in enumerate(where):
            total = np.bincount(first, weights=coordinates[:, axis], minlength=len(table))[kept]
            result[:, column] = total / size
    return result


def _table(points: ArrayLike, what: str) -> NDArray[Any]:
    table = np.asarray(points)
    if table.ndim != 2:
        raise GeometryError(
            f"{what} must have a row for each point and a column for each value, got shape {table.shape}"
        )
    if table.dtype.kind not in "iuf":
        raise PlanError(f"{what} must hold real numbers, got {table.dtype}")
    return table


def _columns(table: NDArray[Any], columns: Sequence[int] | None, axes: int) -> list[int]:
    """The columns that hold coordinates, checked; the coordinates too."""
    where = list(range(axes) if columns is None else columns)
    if len(where) != axes or len(set(where)) != axes:
        raise GeometryError(f"columns must name one different column for each of {axes} axes, got {where}")
    if where and not 0 <= min(where) <= max(where) < table.shape[1]:
        raise GeometryError(f"points have columns 0 to {table.shape[1] - 1}, coordinates should be in {where}")
    if not np.isfinite(table[:, where]).all():
        raise PlanError("coordinates must be finite, got NaN or infinity: remove these points first")
    return where


def _labels(labels: ArrayLike, name: str, rows: int) -> NDArray[np.intp]:
    """Equal numbers for rows with equal labels."""
    values = np.asarray(labels)
    if values.ndim not in (1, 2) or len(values) != rows:
        raise GeometryError(f"{name} must have a label for each of the {rows} points, got shape {values.shape}")
    return np.unique(values, axis=0, return_inverse=True)[1].reshape(-1)
