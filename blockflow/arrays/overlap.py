"""Overlap of arrays: whether two of them share stored voxels, under whatever names.

- In memory: exactly, from addresses and strides.
- Memory maps: the same file (device and inode), and the same bytes of it.
- zarr: the same metadata document. Parts count as the whole, because they may share chunks. If one of two arrays
  with equal metadata is seen through another mount or store, a random key that is stored through one is looked up in
  the other.
- HDF5: the same dataset of the same file. TIFF stacks: any plane in the file of a memory map.

What lies behind other array-likes is not known, and they overlap with themselves only.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from typing import Any

import numpy as np

from blockflow.arrays.array import Array
from blockflow.arrays.handles import memmap_handle
from blockflow.arrays.identity import document_of, same_store
from blockflow.arrays.shared import SharedArray
from blockflow.arrays.stores import is_zarr
from blockflow.arrays.window import Window

__all__ = ["future_file", "overlap"]

_MOST_WORK: Any = 10**5
"""Candidates that are tried to find a common element of two strided arrays; then they are taken to have one."""


def overlap(one: Any, other: Any) -> bool:
    """Whether two arrays share stored voxels.

    Args:
        one: An :class:`~blockflow.arrays.Array`, or anything that one can hold.
        other: The same.

    >>> line = np.zeros(6)
    >>> overlap(line[:4], line[3:]), overlap(line[::2], line[1::2]), overlap(Array(line), line.copy())
    (True, False, False)
    """
    first, second = _base(one), _base(other)
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return _share_memory(first, second) or _share_file(first, second)
    if first is second:
        return True
    if isinstance(first, SharedArray) or isinstance(second, SharedArray):
        return _share_shared(first, second)
    if is_zarr(first) and is_zarr(second):
        return _same_zarr(first, second)
    if _is_dataset(first) and _is_dataset(second):
        return _same_dataset(first, second)
    return any(_maps_a_plane(*pair) for pair in ((first, second), (second, first)))


def future_file(path: str | os.PathLike[str]) -> tuple[int, int, str]:
    """Return what names a file that need not be there yet, whatever the links and mounts above it.

    Returns:
        Device and inode of the nearest folder that is there, and the rest of the path.
    """
    there, rest = os.path.realpath(path), ""
    while not os.path.exists(there) and os.path.dirname(there) != there:
        there, name = os.path.split(there)
        rest = f"{name}/{rest}"
    status = os.stat(there)
    return status.st_dev, status.st_ino, rest


def _base(value: Any) -> Any:
    data = value.data if isinstance(value, Array) else value
    while isinstance(data, Window):
        data = data.source
    return data


def _share_memory(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    try:
        return bool(np.shares_memory(one, other, max_work=_MOST_WORK))
    except np.exceptions.TooHardError:
        return True


def _share_file(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    """Whether two memory maps have a byte of a file in common."""
    first, second = memmap_handle(one), memmap_handle(other)
    if first is None or second is None or not _same_file(first.filename, second.filename):
        return False
    if not one.size or not other.size:
        return False
    pages = np.memmap(first.filename, np.uint8, "r")  # addresses in one mapping are compared, and nothing is read
    views: list[np.ndarray[Any, Any]] = [
        np.ndarray(each.shape, each.dtype, pages, each.offset, each.strides) for each in (first, second)
    ]
    return _share_memory(*views)


def _share_shared(one: Any, other: Any) -> bool:
    """Whether shared arrays, or a shared array and an ndarray, are the same memory."""
    if isinstance(one, SharedArray) and isinstance(other, SharedArray):
        return one.__reduce__() == other.__reduce__()
    shared, values = (one, other) if isinstance(one, SharedArray) else (other, one)
    if not isinstance(values, np.ndarray):
        return False
    return any(_share_memory(shared.view(read_only=read_only), values) for read_only in (False, True))


def _same_zarr(one: Any, other: Any) -> bool:
    places = [document_of(data) for data in (one, other)]
    if None not in places:
        statuses = []
        for place in places:
            with suppress(OSError):
                statuses.append(os.stat(str(place)))
        if len(statuses) == 2:
            if os.path.samestat(*statuses):
                return True
            if statuses[0].st_dev == statuses[1].st_dev:
                return False
    elif same_store(one.store, other.store):
        return bool(one.path == other.path)
    return _alike(one, other) and _seen_in(one, other)


def _alike(one: Any, other: Any) -> bool:
    """Whether two zarr arrays say the same about themselves."""
    return bool(one.metadata == other.metadata)


def _seen_in(one: Any, other: Any) -> bool:
    """Whether a key that is stored beside the chunks of one zarr array is found beside those of the other."""
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    writable, looked_at = (one, other) if not one.store.read_only else (other, one)
    if writable.store.read_only:
        return False
    name = f".blockflow-{secrets.token_hex(16)}"
    key, looked_up = (f"{data.path}/{name}".lstrip("/") for data in (writable, looked_at))
    found = False
    with suppress(Exception):  # what cannot be tried is not the same for all that is known
        sync(writable.store.set(key, default_buffer_prototype().buffer.from_bytes(b"1")))
        try:
            found = bool(sync(looked_at.store.exists(looked_up)))
        finally:
            sync(writable.store.delete(key))
    return found


def _is_dataset(data: Any) -> bool:
    return type(data).__module__.startswith("h5py.")


def _same_dataset(one: Any, other: Any) -> bool:
    if one == other:
        return True
    return bool(one.name == other.name) and _same_file(one.file.filename, other.file.filename)


def _maps_a_plane(stack: Any, mapped: Any) -> bool:
    """Whether a memory map is of a file that holds planes of a TIFF stack."""
    handle = memmap_handle(mapped) if isinstance(mapped, np.ndarray) and hasattr(stack, "planes") else None
    return handle is not None and any(_same_file(handle.filename, file) for file, _ in stack.planes)


def _same_file(one: Any, other: Any) -> bool:
    try:
        return bool(os.path.samefile(one, other))
    except OSError:
        return bool(os.path.realpath(one) == os.path.realpath(other))
