"""Voxel grid: which voxels does a ROI in world units mean?

Voxel ``i`` of an axis covers ``[offset + i * voxel_size, offset + (i + 1) * voxel_size)``. A ROI means voxels
only if it begins and ends on such borders; it is never rounded to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockflow.errors import GeometryError
from blockflow.geometry import Box, Coordinate, Roi, box_of, coordinate_of, roi_of

if TYPE_CHECKING:
    from collections.abc import Iterable


def grid_of(
    offset: Iterable[int] | None, voxel_size: Iterable[int] | None, shape: tuple[int, ...]
) -> tuple[Coordinate, Coordinate]:
    """Offset and voxel size of data with this shape, checked; what is not given is zero, or one.

    Args:
        offset: World units, one for each spatial axis.
        voxel_size: World units, one for each spatial axis; the spatial axes are the last ones.
        shape: Voxels, channel axes first.

    Raises:
        GeometryError: They do not fit one another, or a voxel size is not positive, or there is no voxel.

    >>> grid_of((8, 0), None, (3, 10, 10))
    ((8, 0), (1, 1))
    """
    begin = None if offset is None else coordinate_of(offset, "offset")
    sizes = None if voxel_size is None else coordinate_of(voxel_size, "voxel_size")
    if sizes is None:
        sizes = coordinate_of([1] * len(shape if begin is None else begin), "voxel_size")
    if begin is None:
        begin = coordinate_of([0] * len(sizes), "offset")
    if len(begin) != len(sizes):
        raise GeometryError(f"offset and voxel_size must have as many axes: got {begin} and {sizes}")
    if not 1 <= len(sizes) <= len(shape):
        raise GeometryError(f"voxel_size must have one axis or more, at most those of {shape}: got {sizes}")
    for axis, (size, extent) in enumerate(zip(sizes, shape[-len(sizes) :], strict=True)):
        if size < 1:
            raise GeometryError(f"voxel_size must be positive: axis {axis} has {size}")
        if extent < 1:
            raise GeometryError(f"data must have voxels: spatial axis {axis} of shape {shape} is empty")
    return begin, sizes


def voxels_of(roi: Any, offset: Coordinate, voxel_size: Coordinate) -> Box:
    """The voxels of a ROI, counted from the voxel at the offset; they may lie before it.

    Raises:
        GeometryError: Not a ROI with these axes, empty, unbounded, or not on the grid.

    >>> voxels_of(Roi((0, 40), (20, 10)), Coordinate(20, 20), Coordinate(10, 10))
    ((-2, 0), (2, 3))
    """
    if isinstance(roi, Roi) and roi.empty:  # an empty intersection has no offset, which box_of takes for numbers
        raise GeometryError(f"roi must have a positive shape, got {roi}")
    box = box_of(roi, "roi")
    if len(box) != len(offset):
        raise GeometryError(f"roi must have {len(offset)} axes like the array, got {len(box)}: {roi}")
    grid = list(zip(box, offset, voxel_size, strict=True))
    for axis, ((begin, end), origin, size) in enumerate(grid):
        if (begin - origin) % size or (end - origin) % size:
            around = roi_of(tuple((b - (b - o) % s, e + (o - e) % s) for (b, e), o, s in grid))
            raise GeometryError(
                f"roi must lie on the voxel grid (offset {offset}, voxel size {voxel_size}): "
                f"axis {axis} has [{begin}, {end}); the nearest ROI around it is {around}"
            )
    return tuple(((begin - o) // s, (end - o) // s) for (begin, end), o, s in grid)
