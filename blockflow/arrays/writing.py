"""Writing: how do voxels get into an array without a search for chunks that need not be stored?

zarr does not store a chunk in which every voxel has the fill value. To find that out, releases before 3.4.1 compare
each chunk with an array of fill values, which takes half as long as compressing it. One voxel that has another value is
enough to know that a chunk is to be stored, and mostly it is the first. Newer releases stop at the first difference
themselves, and are left alone.
"""

from __future__ import annotations

import functools
import os
import re
from itertools import pairwise, product
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from blockflow.arrays.window import Window
from blockflow.tally import TALLY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["place_of_data", "places_of", "write_voxels"]


def write_voxels(data: Any, key: tuple[slice, ...], values: NDArray[Any]) -> None:
    """Write into a box of an array; what is stored is what ``data[key] = values`` stores.

    >>> import numpy as np
    >>> import zarr
    >>> image = zarr.create_array({}, shape=(6,), chunks=(2,), dtype="u1")
    >>> write_voxels(image, (slice(0, 4),), np.array([0, 7, 0, 0], "u1"))
    >>> image[:].tolist(), image.nchunks_initialized
    ([0, 7, 0, 0, 0, 0], 1)

    Args:
        data: Any array-like that can be written to.
        key: A slice without step for each axis, from 0 or more on.
        values: What to write; has the dtype of the array.
    """
    target = data
    if _compares_chunks(data) and _every_chunk_is_stored(data, key, values):
        target = data.with_config({"write_empty_chunks": True})
    target[key] = values
    if TALLY.watched:
        _count(data, key, values, all_stored=target is not data)


def place_of_data(data: Any) -> str:
    """Return where a zarr array is, by which its chunks are counted; empty for anything else.

    Args:
        data: Any array-like; of a part of an array, the place of the whole.
    """
    while isinstance(data, Window):
        data = data.source
    store = getattr(data, "store", None)
    if store is None or not hasattr(data, "store_path"):
        return ""
    root = getattr(store, "root", None)
    return str(data.store_path) if root is None else _real_path(os.path.join(root, data.path))


def places_of(arrays: Iterable[Any]) -> list[str]:
    """Return the places of those of some arrays whose chunks can be counted."""
    return [place for array in arrays if (place := place_of_data(getattr(array, "data", array)))]


@functools.lru_cache(maxsize=256)
def _real_path(path: str) -> str:
    return os.path.realpath(path)


def _count(data: Any, key: tuple[slice, ...], values: NDArray[Any], *, all_stored: bool) -> None:
    """Add the chunks (shards, if there are any) that a write has stored to the tally."""
    if place_of_data(data) not in TALLY.watched:
        return
    while isinstance(data, Window):
        parts = [each[part] for each, part in zip(data.ranges, key, strict=True)]
        key = tuple(slice(part.start, part.stop) for part in parts)
        data = data.source
    if any(part.start >= part.stop for part in key):
        return
    units = data.shards or data.chunks
    cuts = [_parts(part, unit) for part, unit in zip(key, units, strict=True)]
    if all_stored or data.config.write_empty_chunks:
        TALLY.add(prod(map(len, cuts)))
        return
    whole = np.broadcast_to(values, tuple(part.stop - part.start for part in key))
    TALLY.add(sum(_has_other(whole[chunk], data.fill_value) for chunk in product(*cuts)))


def _has_other(voxels: NDArray[Any], fill: Any) -> bool:
    """Whether any voxel has another value than the fill value."""
    if fill != fill:  # NaN
        return not bool(np.isnan(voxels).all())
    return bool(voxels[(0,) * voxels.ndim] != fill) or bool((voxels != fill).any())


@functools.cache
def stops_at_first_difference(version: str) -> bool:
    """Return whether a release of zarr looks no further than needed for voxels that have not the fill value.

    >>> stops_at_first_difference("3.1.6"), stops_at_first_difference("3.4.1")
    (False, True)

    Args:
        version: As in ``zarr.__version__``.
    """
    numbers = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version)
    return numbers is None or tuple(int(each or 0) for each in numbers.groups()) >= (3, 4, 1)


def _compares_chunks(data: Any) -> bool:
    """Whether zarr looks for chunks that need not be stored, and can be told not to; shards are left to it."""
    if not hasattr(data, "with_config"):
        return False
    import zarr  # here, because arrays in memory do not need it

    if stops_at_first_difference(zarr.__version__):
        return False
    if data.shards is not None or data.dtype.kind not in "biuf":
        return False
    fill = data.fill_value
    return not data.config.write_empty_chunks and fill == fill  # everything differs from NaN, NaN as well


def _every_chunk_is_stored(data: Any, key: tuple[slice, ...], values: NDArray[Any]) -> bool:
    """Whether every chunk of a box gets a voxel that has not the fill value."""
    shape = tuple(part.stop - part.start for part in key)
    if values.shape != shape or not values.size or values.dtype != data.dtype:
        return False
    fill = data.fill_value
    for chunk in product(*map(_parts, key, data.chunks)):
        voxels = values[chunk]
        if voxels[(0,) * voxels.ndim] == fill and not (voxels != fill).any():
            return False
    return True


def _parts(along: slice, chunk: int) -> list[slice]:
    """What each chunk gets of a box along one axis, counted from the begin of the box."""
    begin, end = along.start, along.stop
    cuts = [begin, *range((begin // chunk + 1) * chunk, end, chunk), end]
    return [slice(low - begin, high - begin) for low, high in pairwise(cuts)]
