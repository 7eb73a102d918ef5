"""Storage: which chunks and shards do the blocks of a grid touch?

Whoever writes a part of a chunk reads the whole, changes the part and writes the whole back; of two who do so at
once, one loses. With shards the same holds for the shard, which is the file. So what must not be shared is the
*unit of writing*: a shard if there are any, else a chunk. What is read are chunks, of shards too.

Everything is asked one axis at a time, as blocks and chunks are products of intervals:

1. two blocks share a unit if, on every axis, their write intervals touch a common one; on an axis this depends on the
   positions alone, and :func:`shared_distance` is the greatest distance of two that do;
2. a unit is shared just where a cut between two blocks lies inside it;
3. what all blocks move together is a product of one sum for each axis (:func:`lengths`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from math import gcd, prod
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

from blockflow.errors import GeometryError, PlanError
from blockflow.geometry import box_of, coordinate_of
from blockflow.paths import is_path, local_path
from blockflow.plan.regular import RegularAxis

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blockflow.geometry import Box
    from blockflow.plan.grid import Axis, Grid
    from blockflow.plan.slices import Indices

Unit: TypeAlias = Literal["voxel", "chunk", "shard"]
"""What is written as a whole."""

_BATCH = 2**18
"""Positions or chunks computed at once: a few megabytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Where an array lies, and how it is cut into chunks; all in world units but for `voxel_bytes`."""

    name: str
    box: Box
    """What the array covers, half-open."""
    voxel_size: tuple[int, ...]
    voxel_bytes: int
    """Bytes of all channels of a voxel, uncompressed."""
    origin: tuple[int, ...]
    """Where chunks are counted from: the begin of the array, or in front of it for a part of one."""
    chunk: tuple[int, ...]
    """Extent of a chunk; of a voxel if the array has no chunks."""
    shard: tuple[int, ...] | None = None
    """Extent of a shard."""
    array: Any = field(default=None, compare=False, repr=False)
    """What was given; opened, if it was a path."""

    @property
    def unit(self) -> tuple[int, ...]:
        """Extent of what is written as a whole."""
        return self.chunk if self.shard is None else self.shard

    @property
    def kind(self) -> Unit:
        """What is written as a whole."""
        if self.shard is not None:
            return "shard"
        return "voxel" if self.chunk == self.voxel_size else "chunk"


class Lengths(NamedTuple):
    """How many voxels the blocks take along one axis."""

    asked: int
    """Sum over all positions."""
    moved: int
    """The same with whole chunks in place of what is asked of them; what lies outside of the array does not count."""
    longest: int
    """The greatest number that one position asks for."""


def stored(value: Any, what: str, dims: int) -> Stored:
    """Where an array lies and how it is cut.

    Args:
        value: A :class:`blockflow.arrays.Array`, a zarr array, the path of one, or anything else with ``shape`` and
            ``dtype``, which then begins at 0 and has voxels of one world unit.
        what: The name of the argument, for messages.
        dims: Number of axes of the blocks: the last ones of the array, after its channels.

    Raises:
        PlanError: It is no array.
        GeometryError: It has other axes than the blocks.
        ArrayError: No usable array is at the path.

    >>> found = stored(np.zeros((3, 10, 10), np.uint16), "outputs[0]", dims=2)
    >>> found.box, found.voxel_bytes, found.kind
    (((0, 10), (0, 10)), 6, 'voxel')
    """
    array = value
    if isinstance(value, str) or hasattr(value, "__fspath__") or hasattr(value, "store_path"):
        # Reading where an array lies is not for the plan to do. What can stands above it, so it is asked for by name.
        array = import_module("blockflow.arrays").open_ds(local_path(value, what) if is_path(value) else value)
    if not hasattr(array, "shape") or not hasattr(array, "dtype"):
        raise PlanError(f"{what} must be an array or the path of one, got {type(value).__name__}: {value!r}")
    shape, itemsize = tuple(array.shape), np.dtype(array.dtype).itemsize
    if hasattr(array, "voxel_size") and hasattr(array, "roi"):
        voxel = tuple(coordinate_of(array.voxel_size, f"voxel_size of {what}"))
        box, data = box_of(array.roi, f"roi of {what}"), array.data
    else:
        voxel, data = (1,) * min(dims, len(shape)), array
        box = tuple((0, extent) for extent in shape[len(shape) - len(voxel) :])
    if len(voxel) != dims:
        raise GeometryError(
            f"{what} must have the {dims} axes of the blocks, got {len(voxel)} spatial axes and shape {shape}; "
            "blockflow.arrays.Array(data, voxel_size=...) says which axes are spatial"
        )
    starts = [0] * len(shape)
    while hasattr(data, "ranges") and hasattr(data, "source"):  # a part of an array
        starts = [start + part.start for start, part in zip(starts, data.ranges, strict=True)]
        data = data.source
    chunks, shards = chunk_shape(data, "chunks"), chunk_shape(data, "shards")
    place = getattr(data, "store_path", None)

    def in_world(voxels: Any) -> tuple[int, ...]:
        return tuple(int(n) * size for n, size in zip(list(voxels)[len(shape) - dims :], voxel, strict=True))

    return Stored(
        name=what if place is None else f"{what} ({place})",
        box=box,
        voxel_size=voxel,
        voxel_bytes=itemsize * prod(shape[: len(shape) - dims]),
        origin=tuple(begin - start for (begin, _), start in zip(box, in_world(starts), strict=True)),
        chunk=in_world(chunks or [1] * len(shape)),
        shard=in_world(shards) if shards else None,
        array=array,
    )


def chunk_shape(data: Any, name: str) -> tuple[int, ...] | None:
    """The chunks (or ``shards``) of an array, if all are alike; those of dask and xarray may not be."""
    found = getattr(data, name, None)
    if isinstance(found, tuple) and all(hasattr(each, "__index__") for each in found):
        return tuple(int(each) for each in found)
    return None


def shared_distances(grid: Grid, array: Stored) -> tuple[int, ...]:
    """For each axis the greatest distance of two positions that touch one unit of writing; 0 if none do.

    Two blocks may share a unit only if their positions are at most that far apart on every axis.

    >>> from blockflow import Grid
    >>> array = stored(np.zeros((100, 100)), "out", dims=2)
    >>> shared_distances(Grid.regular((100, 100), block=30), array)
    (0, 0)
    """
    return tuple(
        _shared_distance(axis, bounds, origin, unit)
        for axis, bounds, origin, unit in zip(grid.axes, array.box, array.origin, array.unit, strict=True)
    )


def _shared_distance(axis: Axis, bounds: tuple[int, int], origin: int, unit: int) -> int:
    begin, end = max(axis.begin, bounds[0]), min(axis.end, bounds[1])
    if begin >= end:
        return 0
    first, stop = (begin - origin) // unit, -((origin - end) // unit)
    if isinstance(axis, RegularAxis):
        # Cuts and units repeat themselves together; the first unit may be cut off by the border.
        stop = min(stop, first + axis.step // gcd(axis.step, unit) + 2)
    elif axis.unit % unit == (axis.low - origin) % unit == (axis.last_cut - origin) % unit == 0:
        return 0
    greatest = 0
    for low in range(first, stop, _BATCH):
        places = origin + unit * np.arange(low, min(stop, low + _BATCH), dtype=np.int64)
        starts, stops = axis.writing(np.maximum(places, begin), np.minimum(places + unit, end))
        greatest = max(greatest, int((stops - starts).max()) - 1)
    return greatest


def lengths(grid: Grid, array: Stored, *, read: bool) -> list[Lengths]:
    """How much of an array all blocks read (in chunks) or write (in units of writing), one axis at a time."""
    units = array.chunk if read else array.unit
    return [
        _lengths(axis, bounds, origin, unit, voxel, read=read)
        for axis, bounds, origin, unit, voxel in zip(
            grid.axes, array.box, array.origin, units, array.voxel_size, strict=True
        )
    ]


def _lengths(axis: Axis, bounds: tuple[int, int], origin: int, unit: int, voxel: int, *, read: bool) -> Lengths:
    asked = moved = longest = 0
    for begins, ends, times in _intervals(axis, bounds, unit, read=read):
        low, high = np.maximum(begins, bounds[0]) - origin, np.minimum(ends, bounds[1]) - origin
        voxels = -(-high // voxel) - low // voxel
        whole = np.minimum(-(-high // unit) * unit, bounds[1] - origin)
        whole = whole - np.maximum(low // unit * unit, bounds[0] - origin)
        asked += times * int(voxels.sum())
        moved += times * int((whole // voxel).sum())
        longest = max(longest, int(voxels.max(initial=0)))
    return Lengths(asked, moved, longest)


def _intervals(axis: Axis, bounds: tuple[int, int], unit: int, *, read: bool) -> Iterator[tuple[Indices, Indices, int]]:
    """What the positions read (or write) that meet an interval: begins, ends, and how often each comes again."""
    begin, end = (axis.read_begin, axis.read_end) if read else (axis.write_begin, axis.write_end)
    for first, stop, times in _parts(axis, bounds, unit, read=read):
        for low in range(first, stop, _BATCH):
            positions = np.arange(low, min(stop, low + _BATCH), dtype=np.int64)
            begins, ends = begin(positions), end(positions)
            some = (begins < bounds[1]) & (ends > bounds[0])
            yield begins[some], ends[some], times


def _parts(axis: Axis, bounds: tuple[int, int], unit: int, *, read: bool) -> list[tuple[int, int, int]]:
    """Positions that meet an interval, as ranges ``(first, stop, times)``: one that comes again stands for all.

    Blocks and units repeat themselves together, but for the ends: where the context, the last block or a chunk is cut
    off.
    """
    start, stop = axis.reading(*bounds) if read else axis.writing(*bounds)
    period, extent = axis.period
    period *= unit // gcd(extent, unit)
    low, high = max(axis.begin, bounds[0]), min(axis.end, bounds[1])
    reach = unit + axis.longest_read  # nothing is cut off that is written so far inside
    if low + reach < high - reach:
        inner, end = axis.writing(low + reach, high - reach)
        inner, end = max(start, inner + 1), min(stop, end - 2)
        times = (end - inner) // period
        if times > 1:
            return [(start, inner, 1), (inner, inner + period, times), (inner + times * period, stop, 1)]
    return [(start, stop, 1)]
