"""Layout: what about an array cannot change once it is there?"""

from __future__ import annotations

import operator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from blockflow.arrays.casting import cast_scalar
from blockflow.arrays.chunking import chunks_of
from blockflow.arrays.grid import grid_of, voxels_of
from blockflow.errors import ArrayError, GeometryError
from blockflow.geometry import Coordinate, Roi, box_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from blockflow.arrays.array import Array

ZarrFormat = Literal[2, 3]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the voxels of a zarr array are, in the world and in its files."""

    shape: tuple[int, ...]
    """Voxels, channel axes first."""
    dtype: np.dtype[Any]
    """In the byte order of this machine, as zarr format 3 reads all of them."""
    chunks: tuple[int, ...]
    """Voxels, channel axes first."""
    shards: tuple[int, ...] | None
    """Voxels, channel axes first."""
    fill_value: Any
    zarr_format: ZarrFormat
    offset: Coordinate
    """World units, one for each spatial axis."""
    voxel_size: Coordinate
    """World units, one for each spatial axis."""

    def differences(self, found: Layout) -> str:
        """What another layout has instead; empty if it is the same."""
        pairs = ((field.name, getattr(self, field.name), getattr(found, field.name)) for field in fields(self))
        return ", ".join(f"{name} is {there}, not {asked}" for name, asked, there in pairs if str(asked) != str(there))


def layout_of(array: Array) -> Layout:
    """The layout of an array whose data is a zarr array."""
    data = array.data
    return Layout(
        shape=data.shape,
        dtype=data.dtype.newbyteorder("="),
        chunks=data.chunks,
        shards=data.shards,
        fill_value=data.fill_value,
        zarr_format=data.metadata.zarr_format,
        offset=array.offset,
        voxel_size=array.voxel_size,
    )


def planned_layout(
    total_roi: Roi | None,
    voxel_size: Iterable[int] | None,
    dtype: npt.DTypeLike | None,
    *,
    write_size: Iterable[int] | None,
    num_channels: int | Sequence[int] | None,
    chunks: Iterable[int] | None,
    shards: Iterable[int] | None,
    fill_value: Any,
    zarr_format: ZarrFormat,
) -> Layout:
    """The layout that these arguments of :func:`~blockflow.arrays.prepare_ds` ask for.

    Raises:
        GeometryError: Sizes do not fit one another.
        ValueLossError: The dtype cannot hold the fill value.
        ArrayError: The dtype cannot be stored.
    """
    number = _number_type(dtype)
    box = box_of(total_roi, "total_roi")
    offset, sizes = grid_of([begin for begin, _ in box], voxel_size, tuple(end - begin for begin, end in box))
    shape = tuple(end for _, end in voxels_of(total_roi, offset, sizes))
    if num_channels is not None:
        channels = num_channels if isinstance(num_channels, (tuple, list)) else (num_channels,)
        shape = (*(_count(channel) for channel in channels), *shape)
    chunk_shape, shard_shape = chunks_of(
        shape, number.itemsize, sizes, write_size=write_size, chunks=chunks, shards=shards
    )
    if shard_shape is not None and zarr_format == 2:
        raise GeometryError("shards need zarr format 3, got format 2 (asked for, or that of the group)")
    return Layout(
        shape=shape,
        dtype=number,
        chunks=chunk_shape,
        shards=shard_shape,
        fill_value=cast_scalar(fill_value, number, "fill_value"),
        zarr_format=zarr_format,
        offset=offset,
        voxel_size=sizes,
    )


def _number_type(dtype: npt.DTypeLike | None) -> np.dtype[Any]:
    try:
        number = np.dtype("V" if dtype is None else dtype)  # numpy takes None for float64
    except TypeError:
        number = np.dtype("V")
    if number.kind not in "biufc":
        raise ArrayError(f"dtype must be boolean, integer, float or complex, got {dtype!r}")
    return number.newbyteorder("=")


def _count(num_channels: Any) -> int:
    try:
        number = operator.index(num_channels)
    except TypeError:
        number = 0
    if number < 1:
        raise GeometryError(f"num_channels must be a positive integer or None, got {num_channels!r}")
    return number
