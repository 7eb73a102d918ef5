"""Masks: which blocks have anything to do?

A mask is either one flag per block, or an array over the volume, of any voxel size; then a block has something to do
if any voxel that its write ROI touches is not zero. The volume is read in slabs, as far as blocks are asked for:

1. the write intervals of a range of positions become ranges of voxels, per axis;
2. the voxels of the whole slab are read once, and reduced axis by axis: a running sum turns "any voxel in this range"
   into one subtraction, also where ranges overlap because voxels are larger than blocks;
3. the flags are kept, one byte per block, in memory that costs nothing before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from blockflow.errors import GeometryError, PlanError
from blockflow.geometry import box_of, coordinate_of, roi_of
from blockflow.paths import is_path, local_path

if TYPE_CHECKING:
    from blockflow.geometry import Box
    from blockflow.plan.grid import Axis, Grid
    from blockflow.plan.slices import Indices

Flags: TypeAlias = npt.NDArray[np.bool_]

MOST_VOXELS = 2**24
"""Voxels read at once: with their running sums about 150 MB."""


class Mask(Protocol):
    """Says which blocks have anything to do."""

    def live(self, indices: Indices) -> Flags:
        """For each block, whether it has anything to do."""


class BlockMask:
    """One flag per block."""

    def __init__(self, flags: Flags) -> None:
        self._flags = flags.reshape(-1)

    def live(self, indices: Indices) -> Flags:
        """For each block, whether it has anything to do."""
        found: Flags = self._flags[indices]
        return found


class VolumeMask:
    """An array over the volume, read in slabs when blocks are asked for."""

    def __init__(self, array: Any, grid: Grid) -> None:
        self._array = array
        self._grid = grid
        self._box = box_of(array.roi, "roi of the mask")
        self._voxels = tuple(coordinate_of(array.voxel_size, "voxel_size of the mask"))
        self._known = np.zeros(grid.shape[0], dtype=np.bool_)
        self._flags = np.zeros(grid.size, dtype=np.bool_)

    def live(self, indices: Indices) -> Flags:
        """For each block, whether it has anything to do."""
        rows = np.unique(indices // (self._grid.size // self._grid.shape[0]))
        for row in rows[~self._known[rows]].tolist():
            self._read([(row, row + 1), *((0, extent) for extent in self._grid.shape[1:])])
            self._known[row] = True
        found: Flags = self._flags[indices]
        return found

    def _read(self, ranges: list[tuple[int, int]]) -> None:
        """Find the flags of a product of ranges of positions."""
        voxels = [
            _voxels_of(axis, np.arange(*positions), origin, voxel)
            for axis, positions, (origin, _), voxel in zip(
                self._grid.axes, ranges, self._box, self._voxels, strict=True
            )
        ]
        slab = [
            (max(0, int(begins[0])), min((end - origin) // voxel, int(ends[-1])))
            for (begins, ends), (origin, end), voxel in zip(voxels, self._box, self._voxels, strict=True)
        ]
        if any(end <= begin for begin, end in slab):
            return  # the mask says nothing about these blocks, so they have nothing to do
        longest = max(range(len(ranges)), key=lambda axis: ranges[axis][1] - ranges[axis][0])
        begin, end = ranges[longest]
        if np.prod([end - begin for begin, end in slab], dtype=object) > MOST_VOXELS and end - begin > 1:
            middle = (begin + end) // 2
            self._read([*ranges[:longest], (begin, middle), *ranges[longest + 1 :]])
            self._read([*ranges[:longest], (middle, end), *ranges[longest + 1 :]])
            return
        here = tuple(slice(begin, end) for begin, end in ranges)
        self._flags.reshape(self._grid.shape)[here] = _any(self._voxels_in(slab), voxels, slab)

    def _voxels_in(self, slab: list[tuple[int, int]]) -> Flags:
        box: Box = tuple(
            (origin + begin * voxel, origin + end * voxel)
            for (begin, end), (origin, _), voxel in zip(slab, self._box, self._voxels, strict=True)
        )
        values: Flags = np.asarray(self._array.to_ndarray(roi_of(box))) != 0
        return values


def mask_for(mask: Any, grid: Grid) -> Mask:
    """The mask of a task from what its user gave.

    Args:
        mask: A boolean array of the shape of the grid, or an array with `roi`, `voxel_size` and `to_ndarray`, or the
            path of one.
        grid: The blocks of the task.

    Raises:
        GeometryError: The shape is not that of the grid, or the array lies elsewhere or has other axes.
        PlanError: It is no mask.
        ArrayError: No usable array is at the path.
    """
    if is_path(mask):
        # As in plan.storage: what opens arrays stands above the plan, so it is asked for by name.
        mask = import_module("blockflow.arrays").open_ds(local_path(mask, "mask"))
    if all(hasattr(mask, name) for name in ("roi", "voxel_size", "to_ndarray")):
        found = VolumeMask(mask, grid)
        _check_place(found, mask, grid)
        return found
    flags = np.asarray(mask)
    if flags.dtype != np.bool_:
        raise PlanError(
            "mask must be a boolean array with one flag per block, or say where it lies: wrap an array over the volume "
            f"in blockflow.arrays.Array(data, offset, voxel_size); got {type(mask).__name__} of {flags.dtype}"
        )
    if flags.shape != grid.shape:
        raise GeometryError(f"mask must have one flag per block, shape {grid.shape}, got {flags.shape}")
    return BlockMask(flags)


def _check_place(found: VolumeMask, mask: Any, grid: Grid) -> None:
    dims = len(grid.shape)
    if len(found._box) != dims or np.ndim(mask.data) != dims:
        raise GeometryError(f"mask must have the {dims} axes of the task and no channels, got shape {mask.shape}")
    for axis, ((begin, end), blocks) in enumerate(zip(found._box, grid.axes, strict=True)):
        if blocks.count and (end <= blocks.begin or begin >= blocks.end):
            raise GeometryError(
                f"mask must lie where the task writes: axis {axis} of the mask is [{begin}, {end}), the task writes "
                f"[{blocks.begin}, {blocks.end})"
            )


def _voxels_of(axis: Axis, positions: Indices, origin: int, voxel: int) -> tuple[Indices, Indices]:
    """First voxel, and one behind the last, that each write interval touches."""
    begins = (axis.write_begin(positions) - origin) // voxel
    ends = -((origin - axis.write_end(positions)) // voxel)
    return begins, ends


def _any(values: Flags, voxels: list[tuple[Indices, Indices]], slab: list[tuple[int, int]]) -> Flags:
    """For each product of ranges of voxels, whether any value is true."""
    for axis, ((begins, ends), (first, last)) in enumerate(zip(voxels, slab, strict=True)):
        sums = np.zeros([n + (i == axis) for i, n in enumerate(values.shape)], dtype=np.int64)
        behind_first = tuple(slice(1 if i == axis else 0, None) for i in range(values.ndim))
        np.cumsum(values, axis=axis, out=sums[behind_first])
        inside = [np.clip(bound, first, last) - first for bound in (begins, ends)]
        values = sums.take(inside[1], axis=axis) > sums.take(inside[0], axis=axis)
    return values
