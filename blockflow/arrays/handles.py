"""Handles: what travels when the data of an array is sent to another process?

What lies on disk (zarr, memmap and views of it, HDF5) travels as its place and is opened again over there, so that
a node that does not see the disk fails at once: a zarr array that is merely unpickled would read its fill value
instead. Everything else travels as pickle sends it; an ndarray carries its voxels.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from blockflow.errors import ArrayError, ArrayNotFoundError, MetadataError


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
        from blockflow.arrays.fresh_store import with_fresh_reads
        from blockflow.arrays.opening import open_zarr
        from blockflow.arrays.places import Place

        place = Place(with_fresh_reads(self.store), self.path)
        array = open_zarr(place, self.mode)
        if (array.shape, array.dtype) != (self.shape, self.dtype):
            raise MetadataError(
                f"{place} has changed since this handle was made: "
                f"shape and dtype were {self.shape}, {self.dtype} and are {array.shape}, {array.dtype}"
            )
        return array


@dataclass(frozen=True, slots=True)
class MemmapHandle:
    """Where the elements of a ``numpy.memmap`` are, or those of a view of one."""

    filename: str
    dtype: np.dtype[Any]
    mode: Literal["r", "r+"]
    offset: int
    """Bytes of the file before the first element."""
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """In bytes."""

    @property
    def span(self) -> tuple[int, int]:
        """The bytes of the file between which all elements are, half-open."""
        steps = [(extent - 1) * stride for extent, stride in zip(self.shape, self.strides, strict=True)]
        begin = self.offset + sum(step for step in steps if step < 0)
        return begin, self.offset + sum(step for step in steps if step > 0) + self.dtype.itemsize

    def open(self) -> np.ndarray[Any, Any]:
        """The map or view again.

        Raises:
            ArrayNotFoundError: This process does not see the file.
            MetadataError: It is shorter by now.
        """
        try:
            mapped = np.memmap(self.filename, np.uint8, self.mode)
            view: np.ndarray[Any, Any] = np.ndarray(self.shape, self.dtype, mapped, self.offset, self.strides)
            if not view.flags.forc:
                return view
            order: Literal["C", "F"] = "C" if view.flags.c_contiguous else "F"
            return np.memmap(self.filename, self.dtype, self.mode, self.offset, self.shape, order)
        except FileNotFoundError as error:
            raise ArrayNotFoundError(f"no file at {self.filename}") from error
        except (TypeError, ValueError) as error:
            raise MetadataError(f"{self.filename} has changed since this handle was made: {error}") from error


@dataclass(frozen=True, slots=True)
class DatasetHandle:
    """Where an HDF5 dataset is; it is read only."""

    filename: str
    name: str

    def open(self) -> Any:
        """The dataset again; its file stays open as long as it is used.

        Raises:
            ArrayNotFoundError: This process does not see it.
        """
        from blockflow.arrays.hdf5 import open_dataset

        return open_dataset(self.filename, self.name)


def portable(data: Any) -> Any:
    """What to pickle in place of the data: a handle, or the data itself.

    Raises:
        ArrayError: A zarr array that no other process can see or open (:mod:`blockflow.arrays.stores`), or an HDF5
            dataset that none can open.
    """
    if isinstance(data, np.ndarray):
        return memmap_handle(data) or np.asarray(data)
    if type(data).__module__.startswith("h5py."):
        return _dataset_handle(data)
    if "zarr" not in sys.modules:
        return data  # then it is no zarr array
    import zarr
    from zarr.storage import LocalStore

    from blockflow.arrays.fresh_store import FreshStore
    from blockflow.arrays.stores import reach_of

    if not isinstance(data, zarr.Array):
        return data
    store = data.store
    reach = reach_of(store)
    if reach.kind == "memory":
        raise ArrayError(
            "a zarr array in memory cannot be sent to another process; "
            "make it with prepare_ds on a path, or send a numpy array"
        )
    if reach.kind == "closed":
        raise ArrayError(
            f"the zarr array {data.name or '/'} of {store} cannot be opened by another process: {reach.why}"
        )
    # The other process may have another working directory.
    if isinstance(store, LocalStore) and type(store) in (LocalStore, FreshStore):
        store = LocalStore(os.path.abspath(store.root), read_only=store.read_only)
    return ZarrHandle(store, data.path, "r" if data.read_only else "r+", data.shape, data.dtype)


def restore(packed: Any) -> Any:
    """The data that :func:`portable` packed."""
    return packed.open() if isinstance(packed, ZarrHandle | MemmapHandle | DatasetHandle) else packed


def memmap_handle(data: np.ndarray[Any, Any]) -> MemmapHandle | None:
    """The place of a memory map, or of a view of one, in its file; None for arrays that no file holds.

    Of a view, numpy knows the file, but not where in it: that is told by the address.
    """
    whole = data
    while isinstance(whole.base, np.ndarray):
        whole = whole.base
    if not isinstance(whole, np.memmap) or whole.filename is None or whole.mode == "c":
        return None  # a copy-on-write map has values that no file has
    mode: Literal["r", "r+"] = "r+" if data.flags.writeable else "r"
    offset = whole.offset + _address(data) - _address(whole)
    return MemmapHandle(os.path.abspath(whole.filename), data.dtype, mode, offset, data.shape, data.strides)


def _address(data: np.ndarray[Any, Any]) -> int:
    return int(data.__array_interface__["data"][0])


def _dataset_handle(data: Any) -> DatasetHandle:
    from blockflow.arrays.hdf5 import PLAIN_FILES

    file = data.file
    if file.mode != "r" or file.driver not in PLAIN_FILES or data.name is None:
        raise ArrayError(
            f"an HDF5 dataset must be in a file opened with mode 'r' to be read by other processes, got {data.name} in "
            f"{file.filename} with mode {file.mode!r} and driver {file.driver!r}: open it with mode 'r', or use one "
            "process only"
        )
    return DatasetHandle(os.path.abspath(file.filename), data.name)
