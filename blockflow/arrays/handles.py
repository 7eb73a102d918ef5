"""Handles: what travels when the data of an array is sent to another process?

What lies on disk (zarr, memmap) travels as its place and is opened again over there, so that a node that does
not see the disk fails at once: a zarr array that is merely unpickled would read its fill value instead.
Everything else travels as pickle sends it; an ndarray carries its voxels.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from blockflow.errors import ArrayError, MetadataError


@dataclass(frozen=True, slots=True)
class ZarrHandle:
    """Where a zarr array is, and what it was like."""

    store: Any
    path: str
    mode: Literal["r", "r+"]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def open(self) -> Any:
        """The array again.

        Raises:
            ArrayNotFoundError: This process does not see it.
            MetadataError: Its shape or dtype is another one by now.
        """
        from blockflow.arrays.opening import open_zarr
        from blockflow.arrays.places import Place

        place = Place(self.store, self.path)
        array = open_zarr(place, self.mode)
        if (array.shape, array.dtype) != (self.shape, self.dtype):
            raise MetadataError(
                f"{place} has changed since this handle was made: "
                f"shape and dtype were {self.shape}, {self.dtype} and are {array.shape}, {array.dtype}"
            )
        return array


@dataclass(frozen=True, slots=True)
class MemmapHandle:
    """The arguments of a whole ``numpy.memmap``."""

    filename: str
    dtype: np.dtype[Any]
    mode: Literal["r", "r+"]
    offset: int
    shape: tuple[int, ...]
    order: Literal["C", "F"]

    def open(self) -> np.memmap[Any, Any]:
        """The map again."""
        return np.memmap(self.filename, self.dtype, self.mode, self.offset, self.shape, self.order)


def portable(data: Any) -> Any:
    """What to pickle in place of the data: a handle, or the data itself.

    Raises:
        ArrayError: A zarr array in memory, which no other process can see.
    """
    if isinstance(data, np.memmap):
        return _memmap_handle(data)
    if isinstance(data, np.ndarray):
        return data
    import zarr
    from zarr.storage import LocalStore, MemoryStore

    if not isinstance(data, zarr.Array):
        return data
    if isinstance(data.store, MemoryStore):
        raise ArrayError(
            "a zarr array in memory cannot be sent to another process; "
            "make it with prepare_ds on a path, or send a numpy array"
        )
    store = data.store
    if isinstance(store, LocalStore):  # the other process may have another working directory
        store = LocalStore(os.path.abspath(store.root), read_only=store.read_only)
    return ZarrHandle(store, data.path, "r" if data.read_only else "r+", data.shape, data.dtype)


def restore(packed: Any) -> Any:
    """The data that :func:`portable` packed."""
    return packed.open() if isinstance(packed, ZarrHandle | MemmapHandle) else packed


def _memmap_handle(data: np.memmap[Any, Any]) -> Any:
    # A part of a map says the offset of the whole, and a copy-on-write map has voxels no file has.
    whole = data.base is not None and not isinstance(data.base, np.ndarray)
    if not whole or data.filename is None or data.mode == "c":
        return np.asarray(data)
    mode: Literal["r", "r+"] = "r+" if data.flags.writeable else "r"
    order: Literal["C", "F"] = "C" if data.flags.c_contiguous else "F"
    return MemmapHandle(os.path.abspath(data.filename), data.dtype, mode, data.offset, data.shape, order)
