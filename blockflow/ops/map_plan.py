"""Plan of a map: which arrays does it read and write, in which blocks, and does all that fit?

1. Sources and sinks are opened and put into place (:mod:`blockflow.ops.inputs`).
2. The grid is the one given, or made from a block shape over the first source.
3. Everything is checked that can be before anything runs: all sources cover the same region, blocks write inside it
   and inside each sink, and no block ends within a voxel of any array.
4. Sinks that do not exist are made: files at paths, else arrays in memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from blockflow.arrays.array import Array
from blockflow.arrays.chunking import chunks_of
from blockflow.arrays.formats import check_made
from blockflow.arrays.overlap import future_file, overlap
from blockflow.arrays.shared import SharedArray
from blockflow.errors import ArrayError, ArrayNotFoundError, GeometryError, PlanError
from blockflow.geometry import box_of, roi_of
from blockflow.ops.inputs import opened, put_into_place
from blockflow.ops.padding import padding_of
from blockflow.ops.sharing import in_memory
from blockflow.paths import is_path, local_path
from blockflow.plan.grid import Grid
from blockflow.plan.storage import chunk_shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import DTypeLike

    from blockflow.geometry import Box
    from blockflow.ops.padding import Padding

__all__ = ["MapPlan", "plan_map"]

_SMALLEST_CHUNK = 8
"""Voxels along an axis: a file that is made here has no chunks below, unless blocks are smaller themselves."""

_BATCH = 2**18
"""Positions computed at once: a few megabytes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MapPlan:
    """Arrays and blocks of a map."""

    sources: tuple[Array, ...]
    sinks: tuple[Array, ...]
    grid: Grid
    bounds: Box
    """What the sources cover, in world units."""
    pads: tuple[Padding | None, ...]
    """For each source."""


class _Place(NamedTuple):
    """Where arrays are in the world that do not say it themselves."""

    offset: Sequence[int]
    voxel_size: Sequence[int]


class _NewSink(NamedTuple):
    """An output that does not exist yet."""

    path: Path | None
    """None for an array in memory."""
    dtype: np.dtype[Any]


def plan_map(
    sources: Sequence[Any],
    outputs: Sequence[Any],
    *,
    dtypes: Sequence[DTypeLike | None],
    grid: Any,
    context: Any,
    pad: Any,
    shared: bool,
    new_dtype: DTypeLike | None = None,
) -> MapPlan:
    """Plan a map.

    Args:
        sources: Arrays, or paths.
        outputs: Arrays or paths to write; None for a new array in memory.
        dtypes: Of outputs that do not exist; None for that of the first source.
        grid: A :class:`Grid`, a block shape in voxels, or None for the chunks of an output or source.
        context: Voxels that blocks read beyond what they write, if the grid is a block shape.
        pad: See :func:`~blockflow.ops.padding.padding_of`.
        shared: Whether other processes will write.
        new_dtype: Of outputs that are made, in place of that of the first source, if no dtype is given.

    Raises:
        GeometryError: Arrays and blocks do not fit one another.
        PlanError: An argument that cannot be meant.
        ArrayError: An array cannot be opened.
    """
    if isinstance(grid, str | bool | float | dict | set):
        raise PlanError(f"grid must be a Grid, or the shape of a block in voxels, got {grid!r}")
    read = [opened(source, "r", f"source {number}") for number, source in enumerate(sources)]
    names = ["out"] if len(outputs) == 1 else [f"out {number}" for number in range(len(outputs))]
    written = [_sink(*each, new_dtype, read, names[n]) for n, each in enumerate(zip(outputs, dtypes, strict=True))]
    _check_outputs_apart(written, names)
    arrays = [*read, *(sink for sink in written if not isinstance(sink, _NewSink))]
    if not arrays:
        raise PlanError("a map needs at least one source, or an output that exists")
    like = _place_of(grid, arrays)
    dims = _dims(grid, like, arrays[0])
    _check_axes(arrays[0], dims, "source 0" if read else names[0], grid)
    if read and not isinstance(read[0], Array) and like is not None and not isinstance(grid, Grid):
        like = _place_beside(like, arrays, tuple(read[0].shape[-dims:]), any(isinstance(each, Array) for each in read))
    placed = [put_into_place(source, like, dims, f"source {number}") for number, source in enumerate(read)]
    first = placed[0] if placed else put_into_place(arrays[0], like, dims, names[0])
    bounds = box_of(first.roi, "source 0")
    made = _grid_over(first, _stored_block(arrays, dims) if grid is None else grid, context, clip=pad is None)
    _check_sources(placed, made, bounds, padded=pad is not None and isinstance(grid, Grid))
    sinks = []
    for sink, name in zip(written, names, strict=True):
        is_new = isinstance(sink, _NewSink)
        array = _made(sink, first, made, shared=shared) if is_new else put_into_place(sink, like, dims, name)
        _check_sink(array, made, placed, name)
        sinks.append(array)
    return MapPlan(
        sources=tuple(placed),
        sinks=tuple(sinks),
        grid=made,
        bounds=bounds,
        pads=tuple(padding_of(pad, source.dtype) for source in placed),
    )


def written_box(grid: Grid) -> Box:
    """What all blocks of a grid write, in world units."""
    return tuple((axis.write_begin(0), axis.write_end(axis.count - 1)) for axis in grid.axes)


def _sink(output: Any, dtype: DTypeLike | None, new_dtype: DTypeLike | None, sources: Sequence[Any], name: str) -> Any:
    """An output that is opened, or what one has to be made of."""
    if output is not None:
        try:
            return _with_dtype(opened(output, "r+", name), dtype, name)
        except ArrayNotFoundError:
            if not is_path(output):
                raise
            check_made(local_path(output, name), name, output)
    dtype = new_dtype if dtype is None else dtype
    if dtype is None and not sources:
        raise PlanError(f"{name} does not exist, and there is no source whose dtype it could have: pass dtype=")
    return _NewSink(None if output is None else Path(output), np.dtype(sources[0].dtype if dtype is None else dtype))


def _with_dtype(array: Any, dtype: DTypeLike | None, name: str) -> Any:
    """An output that is there, refused if another dtype was asked for."""
    if dtype is not None and np.dtype(dtype) != np.dtype(array.dtype):
        raise PlanError(
            f"{name} is there and has dtype {np.dtype(array.dtype)}, and dtype={np.dtype(dtype)} was asked for: leave "
            "dtype out, or have another array made"
        )
    return array


def _check_outputs_apart(written: Sequence[Any], names: Sequence[str]) -> None:
    """Refuse outputs that are one array, or parts of one that overlap: one result would be written over another."""
    for second in range(len(written)):
        for first in range(second):
            if _collide(written[first], written[second]):
                raise PlanError(
                    f"{names[first]} and {names[second]} must be different arrays, and they share voxels, "
                    "whatever their names: one result would be written over the other"
                )


def _collide(one: Any, other: Any) -> bool:
    if isinstance(one, _NewSink) and isinstance(other, _NewSink):
        return one.path is not None and other.path is not None and future_file(one.path) == future_file(other.path)
    return not isinstance(one, _NewSink) and not isinstance(other, _NewSink) and overlap(one, other)


def _place_of(grid: Any, arrays: Iterable[Any]) -> _Place | None:
    if isinstance(grid, Grid):
        return _Place([begin for begin, _ in grid.region], grid.voxel_size)
    return next((_Place(array.offset, array.voxel_size) for array in arrays if isinstance(array, Array)), None)


def _dims(grid: Any, like: _Place | None, first: Any) -> int:
    if like is not None:
        return len(like.voxel_size)
    return len(grid) if hasattr(grid, "__len__") else len(first.shape)


def _check_axes(first: Any, dims: int, what: str, grid: Any) -> None:
    """Refuse a plain array with more axes than the blocks: which of them are channels is not guessed."""
    if not isinstance(first, Array) and len(first.shape) > dims:
        more = len(first.shape) - dims
        raise GeometryError(
            f"{what} has {len(first.shape)} axes, shape {tuple(first.shape)}, and blocks have {dims}: give grid= "
            f"a number for each axis (None for the whole of one), or say that the first {more} are channels: "
            f"Array(data, voxel_size={(1,) * dims})"
        )


def _place_beside(like: _Place, arrays: Sequence[Any], extents: tuple[int, ...], said_by_source: bool) -> _Place:
    """The place of plain sources beside an output of other voxels, which covers the same region.

    An axis with as many voxels as the output has its voxel size. Else the output's region is divided among the voxels,
    if that gives whole world units, or if one world unit is what the output has rounded up.
    """
    other = next(array for array in arrays if isinstance(array, Array))
    if said_by_source or len(extents) != other.spatial_dims:
        return like
    sizes = []
    for n, m, size in zip(extents, other.shape[other.channel_dims :], like.voxel_size, strict=True):
        if n != m and (m * size) % n == 0:
            size = m * size // n
        elif n > m and -(-n // size) == m:
            size = 1
        sizes.append(size)
    return _Place(like.offset, sizes)


def _grid_over(first: Array, grid: Any, context: Any, *, clip: bool) -> Grid:
    if isinstance(grid, Grid):
        if context not in (0, None):
            raise PlanError(f"a grid has its own context: make it with context={context!r}, or pass a block shape")
        if not grid.size:
            raise GeometryError("the grid has no block")
        return grid
    extents = first.shape[first.channel_dims :]
    try:
        return Grid.regular(
            extents, block=grid, context=context, clip=clip, offset=first.offset, voxel_size=first.voxel_size
        )
    except TypeError as error:
        raise PlanError(f"grid must be the shape of a block in voxels, got {grid!r} ({error})") from error


def _stored_block(arrays: Sequence[Any], dims: int) -> Any:
    """The shape of a block if nobody says it: shards or chunks of an array that is written, or else read."""
    for array in reversed(arrays):
        data = array.data if isinstance(array, Array) else array
        stored = chunk_shape(data, "shards") or chunk_shape(data, "chunks")
        if stored is not None:
            return tuple(stored[-dims:])
    shape = tuple(arrays[0].shape[-dims:])
    return chunks_of(shape, np.dtype(arrays[0].dtype).itemsize, Array(np.empty((1,) * dims)).voxel_size)[0]


def _check_sources(sources: Sequence[Array], grid: Grid, bounds: Box, *, padded: bool) -> None:
    for number, source in enumerate(sources):
        box = box_of(source.roi, "source")
        for axis, (came, expected) in enumerate(zip(box, bounds, strict=True)):
            if came != expected:
                raise GeometryError(
                    f"all sources must cover the same region: axis {axis} of source 0 is {_interval(expected)}, "
                    f"that of source {number} is {_interval(came)}; cut one with Array(...)[roi]"
                )
        _check_voxels(source, grid, f"source {number}", reads=True)
    _check_inside(grid, bounds, "the sources" if sources else "out")
    if padded and all(low <= b and e <= high for (b, e), (low, high) in zip(grid.total, bounds, strict=True)):
        raise PlanError(
            "pad has nothing to do, as no block of the grid reads beyond the source: make it with clip=False"
        )


def _check_sink(sink: Array, grid: Grid, sources: Sequence[Array], name: str) -> None:
    _check_inside(grid, box_of(sink.roi, name), name)
    _check_voxels(sink, grid, name, reads=False)
    for number, source in enumerate(sources):
        if not in_memory(sink.data) and overlap(source, sink):
            raise PlanError(
                f"{name} must not be source {number}, under whatever name: a block that is done again, or reads where "
                "another writes, would take results for input; write to another array"
            )


def _check_inside(grid: Grid, box: Box, name: str) -> None:
    for axis, (writes, (low, high)) in enumerate(zip(written_box(grid), box, strict=True)):
        if writes[0] < low or writes[1] > high:
            raise GeometryError(
                f"blocks must write inside {name}: axis {axis} is written in {_interval(writes)}, and {name} has "
                f"{_interval((low, high))}. A grid of an array with offset or voxel size needs them too"
            )


def _check_voxels(array: Array, grid: Grid, name: str, *, reads: bool) -> None:
    """Refuse blocks that end within a voxel."""
    for number, (axis, offset, voxel) in enumerate(zip(grid.axes, array.offset, array.voxel_size, strict=True)):
        if voxel == 1:
            continue
        edges = [axis.write_begin, axis.write_end, *((axis.read_begin, axis.read_end) if reads else ())]
        for low in range(0, axis.count, _BATCH):
            positions = np.arange(low, min(axis.count, low + _BATCH), dtype=np.int64)
            ends = np.stack([edge(positions) for edge in edges], axis=1)
            wrong = np.argwhere((ends - offset) % voxel)
            if len(wrong):
                place, edge = wrong[0]
                raise GeometryError(
                    f"blocks must begin and end between voxels of {name}: on axis {number} block {positions[place]} "
                    f"ends at {ends[place, edge]}, and voxels measure {voxel} from {offset} on; choose block and "
                    "context accordingly"
                )


def _made(sink: _NewSink, first: Array, grid: Grid, *, shared: bool) -> Array:
    """A new output that covers what the blocks write, with the channels and voxels of the first source."""
    roi = roi_of(written_box(grid))
    channels = first.shape[: first.channel_dims]
    shape = channels + tuple(n // voxel for n, voxel in zip(roi.shape, first.voxel_size, strict=True))
    order = _order_of(first.data)
    if sink.path is None or sink.path.suffix.lower() == ".npy":
        data: Any
        if sink.path is not None:
            data = _new_npy(sink.path, sink.dtype, shape, order)
        elif shared:
            data = SharedArray.create(shape, sink.dtype, order=order)
        else:
            data = np.zeros(shape, sink.dtype, order=order)
        return Array(data, roi.offset, first.voxel_size)
    from blockflow.arrays.preparing import prepare_ds

    if len(channels) > 1:
        raise PlanError(f"a zarr array is made with one channel axis at most, not {channels}: make it yourself")
    return prepare_ds(
        sink.path,
        total_roi=roi,
        voxel_size=first.voxel_size,
        dtype=sink.dtype,
        write_size=_write_size(grid, first.voxel_size),
        num_channels=channels[0] if channels else None,
        axis_names=first.axis_names,
        units=first.units,
    )


def _order_of(data: Any) -> Literal["C", "F"]:
    """The order in memory that a new output has, that of the first source."""
    flags = getattr(data, "flags", None)
    in_fortran = getattr(data, "order", None) == "F" if flags is None else flags.f_contiguous and not flags.c_contiguous
    return "F" if in_fortran else "C"


def _new_npy(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], order: str) -> np.memmap[Any, Any]:
    """A new ``.npy`` file, with the folders above it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return np.lib.format.open_memmap(path, "w+", dtype, shape, fortran_order=order == "F")
    except (OSError, ValueError) as error:
        raise ArrayError(f"{str(path)!r} cannot be made as a .npy file: {error}") from error


def _write_size(grid: Grid, voxel_size: Sequence[int]) -> list[int]:
    """What divides all cuts of the grid, so that no two blocks share a chunk."""
    sizes = []
    for number, (axis, voxel) in enumerate(zip(grid.axes, voxel_size, strict=True)):
        begin, end = axis.write_begin(0), axis.write_end(axis.count - 1)
        cuts = [axis.write_end(position) - begin for position in range(axis.count - 1)]
        size = math.gcd(*cuts) if cuts else end - begin
        if size < min(_SMALLEST_CHUNK * voxel, min(cuts, default=size)):
            raise PlanError(
                f"blocks of this grid cannot be stored in chunks of their own: the cuts of axis {number} have no "
                f"common divisor but {size}; make the grid with multiple_of=, or make the output yourself"
            )
        sizes.append(size)
    return sizes


def _interval(pair: tuple[int, int]) -> str:
    return f"[{pair[0]}, {pair[1]})"
