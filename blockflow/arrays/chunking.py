"""Chunking: into what chunks is an array cut, so that no two blocks share one?

Blocks that write at the same time must not touch the same file. So chunks (or shards, if there are any: then
they are the files) divide the write size evenly, and the chunk grid begins at the array's offset, as the
blocks should.

A chunk is the whole write size if that is small enough. Else the longest axis shrinks to the next smaller
divisor of the write size, again and again, until it is. Without a write size, powers of two are.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from blockflow.errors import GeometryError
from blockflow.geometry import Coordinate, coordinate_of

if TYPE_CHECKING:
    from collections.abc import Iterable

CHUNK_BYTES = 8 * 2**20
"""A chunk is not larger, uncompressed: large enough for disks and object stores to be busy with bytes rather
than with files, small enough that a block's context does not read much more than it needs."""

INNER_CHUNK_BYTES = 2**20
"""The same for chunks in shards, which cost no file each."""

Voxels = tuple[int, ...]


def chunks_of(
    shape: Voxels,
    itemsize: int,
    voxel_size: Coordinate,
    *,
    write_size: Iterable[int] | None = None,
    chunks: Iterable[int] | None = None,
    shards: Iterable[int] | None = None,
) -> tuple[Voxels, Voxels | None]:
    """Chunk and shard shape of an array, in voxels; what is not given is chosen.

    Args:
        shape: Of the array in voxels, channel axes first.
        itemsize: Bytes of one voxel.
        voxel_size: World units, one for each spatial axis.
        write_size: World units, one for each spatial axis.
        chunks: Voxels, one for each axis.
        shards: Voxels, one for each axis.

    Raises:
        GeometryError: Chunks do not divide shards, or these do not divide the write size.

    >>> chunks_of((100, 100), 1, Coordinate(4, 4), write_size=(80, 80))
    ((20, 20), None)
    """
    channels = shape[: len(shape) - len(voxel_size)]
    written = None if write_size is None else channels + _in_voxels(write_size, voxel_size)
    shard_shape = None if shards is None else _positive(shards, "shards", len(shape))
    if chunks is not None:
        chunk_shape = _positive(chunks, "chunks", len(shape))
    elif shard_shape is not None:
        chunk_shape = shrunk(shard_shape, itemsize, INNER_CHUNK_BYTES)
    elif written is not None:
        chunk_shape = shrunk(written, itemsize, CHUNK_BYTES)
    else:
        powers_of_two = tuple(1 << (extent - 1).bit_length() for extent in shape)
        chunk_shape = tuple(map(min, shrunk(powers_of_two, itemsize, CHUNK_BYTES), shape))
    if shard_shape is not None:
        for axis, (shard, chunk) in enumerate(zip(shard_shape, chunk_shape, strict=True)):
            if shard % chunk:
                raise GeometryError(f"shards must be multiples of the chunks: axis {axis} has {shard} and {chunk}")
    if written is not None:
        kind, unit = ("chunk", chunk_shape) if shard_shape is None else ("shard", shard_shape)
        _check_unshared(kind, unit[len(channels) :], written[len(channels) :], voxel_size)
    return chunk_shape, shard_shape


def shrunk(extent: Voxels, itemsize: int, limit: int) -> Voxels:
    """Divisors of an extent that make a chunk of at most this many bytes.

    Only an extent with large prime factors gives chunks far below the limit.

    >>> shrunk((400, 400, 400), 2, 8 * 2**20)
    (100, 200, 200)
    """
    chunk = list(extent)
    while math.prod(chunk) * itemsize > limit and max(chunk) > 1:
        axis = chunk.index(max(chunk))
        parts = extent[axis] // chunk[axis] + 1
        while extent[axis] % parts:
            parts += 1
        chunk[axis] = extent[axis] // parts
    return tuple(chunk)


def _in_voxels(write_size: Iterable[int], voxel_size: Coordinate) -> Voxels:
    sizes = _positive(write_size, "write_size", len(voxel_size))
    for axis, (size, voxel) in enumerate(zip(sizes, voxel_size, strict=True)):
        if size % voxel:
            raise GeometryError(
                f"write_size must be a multiple of the voxel size {voxel_size}: axis {axis} has {size}; "
                f"{_nearest(size, voxel)}"
            )
    return tuple(size // voxel for size, voxel in zip(sizes, voxel_size, strict=True))


def _check_unshared(kind: str, unit: Voxels, written: Voxels, voxel_size: Coordinate) -> None:
    for axis, (one, size, voxel) in enumerate(zip(unit, written, voxel_size, strict=True)):
        if size % one:
            raise GeometryError(
                f"write_size must be a multiple of the {kind}, or two blocks share one: axis {axis} has "
                f"{size * voxel} and {kind}s of {one * voxel} world units ({one} voxels); "
                f"{_nearest(size * voxel, one * voxel)}"
            )


def _nearest(size: int, unit: int) -> str:
    below = size - size % unit
    return f"nearest that fits: {f'{below} or ' if below else ''}{below + unit}"


def _positive(values: Iterable[int], what: str, count: int) -> Voxels:
    numbers = coordinate_of(values, what)
    if len(numbers) != count:
        raise GeometryError(f"{what} must have {count} numbers, one for each axis, got {numbers}")
    for axis, number in enumerate(numbers):
        if number < 1:
            raise GeometryError(f"{what} must be positive: axis {axis} has {number}")
    return tuple(numbers)
