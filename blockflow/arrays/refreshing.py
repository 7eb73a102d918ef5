"""Refreshing of arrays and folders that user code reads by itself, without :func:`~blockflow.arrays.open_ds`."""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zarr
from zarr.storage import LocalStore

from blockflow.arrays.array import Array
from blockflow.arrays.opening import open_ds
from blockflow.arrays.window import Window
from blockflow.errors import ArrayError
from blockflow.freshness import caching_of, refresh_file, refresh_folder

if TYPE_CHECKING:
    from blockflow.geometry import Roi

__all__ = ["refresh"]

_ARRAY_DOCUMENTS = ("zarr.json", ".zarray")


def refresh(target: Any, roi: Roi) -> None:
    """Make sure that what is read next sees what other hosts have written before this call.

    Args:
        target: An array of zarr or blockflow, or the path of an array, of a file, or of a folder of files.
        roi: Of an array, in world units: only its chunks that meet this are looked at.

    Raises:
        ArrayError: It is none of these.
    """
    if isinstance(target, str | os.PathLike):
        _refresh_path(Path(target), roi)
        return
    array = open_ds(target) if isinstance(target, zarr.Array) else target
    if not isinstance(array, Array):
        raise ArrayError(
            f"refresh takes a path, an array of zarr or one of open_ds, got {type(target).__name__}; "
            "for anything else pass the paths of its files"
        )
    _refresh_array(array, roi)


def _refresh_path(path: Path, roi: Roi) -> None:
    if caching_of(path) == "none":
        return
    refresh_file(path)
    if not path.is_dir():
        return
    for document in _ARRAY_DOCUMENTS:
        refresh_file(path / document)
        if (path / document).is_file():
            refresh(zarr.open_array(LocalStore(path, read_only=True), mode="r"), roi)
            return
    refresh_folder(path)
    for name in os.listdir(path):
        refresh_file(path / name)


def _refresh_array(array: Array, roi: Roi) -> None:
    data = array.data
    while isinstance(data, Window):
        data = data.source
    store = getattr(data, "store", None)
    if not isinstance(data, zarr.Array) or not isinstance(store, LocalStore):
        return  # in memory, or a file that is mapped: nothing can be done, or need be
    caching = caching_of(store.root)
    if caching == "none":
        return
    wanted = roi.intersect(array.roi)
    whole = [range(-(-length // size)) for length, size in zip(data.shape, _stored(data), strict=True)]
    channels = data.ndim - len(array.voxel_size)
    parts = whole[:channels]
    for axis, size in enumerate(array.voxel_size):
        if wanted.empty:
            return
        chunk = _stored(data)[channels + axis]
        begin = (wanted.begin[axis] - array.offset[axis]) // size
        end = -(-(wanted.end[axis] - array.offset[axis]) // size)
        parts.append(range(begin // chunk, -(-end // chunk)))
    for place in product(*parts):
        key = data.metadata.encode_chunk_key(place)
        refresh_file(os.path.join(store.root, data.path, key), caching)


def _stored(data: zarr.Array[Any]) -> tuple[int, ...]:
    """Voxels per axis of what is one file."""
    return data.shards or data.chunks
