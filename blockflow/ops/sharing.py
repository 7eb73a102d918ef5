"""Sharing: how do worker processes read and write the arrays of this process?

What lies in files is opened again by each worker. What lies in memory is copied once into shared memory; where it is
written, the shared memory is copied back when the run has ended, however it ended. No voxel is ever sent.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from blockflow.arrays.array import Array
from blockflow.arrays.handles import ZarrHandle, memmap_handle, portable
from blockflow.arrays.shared import SharedArray
from blockflow.arrays.stores import is_zarr, reach_of
from blockflow.arrays.window import Window
from blockflow.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Movable", "check_shareable", "in_memory", "shared_sink", "shared_source", "with_data"]


def check_shareable(array: Array, written_as: str | None = None) -> None:
    """Refuse what other processes could not open, or of which nobody can tell whether it would see what they write.

    Args:
        array: What is read or written.
        written_as: The argument that is to be written, for messages; None for what is read.

    Raises:
        ArrayError: No other process can open it.
        PlanError: Nobody can tell.
    """
    base = _base(array.data)
    if in_memory(base) or (written_as and isinstance(base, SharedArray | np.ndarray)):
        return
    if written_as is None:
        portable(base)
        return
    is_hdf5 = type(base).__module__.startswith("h5py.")  # a file that is written belongs to one process
    if is_hdf5 or not isinstance(portable(base), ZarrHandle):
        raise PlanError(
            f"{written_as} must be an ndarray, memmap, SharedArray or zarr array to be written by other processes, got "
            f"{type(base).__module__}.{type(base).__name__}; use num_workers=0"
        )
    reach = reach_of(base.store)
    if reach.kind == "read only":
        raise PlanError(f"{written_as} cannot be written by other processes, got {base!r}: {reach.why}")


@contextmanager
def shared_source(array: Array) -> Iterator[Array]:
    """The same voxels, to be read by other processes for as long as the context.

    Raises:
        ArrayError: No other process can open it.

    >>> with shared_source(Array(np.ones(3))) as array:
    ...     type(array.data).__name__
    'SharedArray'
    """
    check_shareable(array)  # now, rather than while it is sent
    if not in_memory(array.data):
        yield array
        return
    with SharedArray.from_array(_as_ndarray(array.data)) as memory:
        yield with_data(array, memory)


@contextmanager
def shared_sink(array: Array, what: str) -> Iterator[Array]:
    """The same voxels, to be written by other processes for as long as the context.

    Args:
        array: What to write.
        what: The argument, for messages.

    Raises:
        PlanError: Nobody can tell whether it would see what other processes write.

    >>> line = np.zeros(3)
    >>> with shared_sink(Array(line), "out") as array:
    ...     array.data[1] = 5
    >>> line
    array([0., 5., 0.])
    """
    base = _base(array.data)
    if isinstance(base, Movable):
        with base.moved() as memory:
            yield with_data(array, memory)
        return
    check_shareable(array, what)
    if not in_memory(base):
        yield array
        return
    with SharedArray.from_array(_as_ndarray(array.data)) as memory:
        try:
            yield with_data(array, memory)
        finally:
            array.data[...] = memory.view(read_only=True)


class Movable:
    """An array in memory that this process writes, and that moves to shared memory when others begin to write too.

    >>> line = np.zeros(3)
    >>> sink = Movable(line)
    >>> sink[0] = 1
    >>> with sink.moved() as memory:
    ...     sink[1], memory[2] = 2, 3
    >>> line
    array([1., 2., 3.])
    """

    def __init__(self, data: Any) -> None:
        self._data = data
        self._lock = threading.Lock()
        """Held while somebody writes, or the array moves."""
        self.shape: tuple[int, ...] = data.shape
        self.dtype: np.dtype[Any] = data.dtype

    def __getitem__(self, key: Any) -> Any:
        return self._data[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        with self._lock:
            self._data[key] = value

    @contextmanager
    def moved(self) -> Iterator[SharedArray]:
        """Have it in shared memory for as long as the context."""
        data = self._data
        with self._lock:
            memory = SharedArray.from_array(_as_ndarray(data))
            self._data = memory
        with memory:
            try:
                yield memory
            finally:
                with self._lock:
                    data[...] = memory.view(read_only=True)
                    self._data = data


def with_data(array: Array, data: Any) -> Array:
    """An array at the same place, of other data."""
    return Array(data, array.offset, array.voxel_size, axis_names=array.axis_names, units=array.units)


def _base(data: Any) -> Any:
    while isinstance(data, Window):
        data = data.source
    return data


def in_memory(data: Any) -> bool:
    """Whether no other process can see it."""
    data = _base(data)
    if isinstance(data, np.ndarray):
        return memmap_handle(data) is None
    return _in_memory_zarr(data)


def _in_memory_zarr(data: Any) -> bool:
    return is_zarr(data) and reach_of(data.store).kind == "memory"


def _as_ndarray(data: Any) -> Any:
    return data if isinstance(data, np.ndarray) else np.asarray(data[...])
