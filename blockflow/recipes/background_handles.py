"""Handles of the background recipe: how does another process get at the frames, and are they still the same?

What lies in a file is opened again over there. An array in memory is copied once into shared memory and mapped
over there. Anything else with ``shape``, ``dtype`` and slices is pickled, so it should hold a place, not pixels.
No frame ever travels between processes.
"""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from blockflow.arrays.handles import ZarrHandle, portable, restore
from blockflow.arrays.hdf5 import PLAIN_FILES, check_filters, open_hdf5
from blockflow.arrays.shared import SharedArray
from blockflow.errors import ArrayError, PlanError
from blockflow.recipes.background_input import Stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["identity", "reopened", "shipped"]


@dataclass(frozen=True, slots=True)
class MappedFrames:
    """A view of a memory-mapped file."""

    path: str
    offset: int
    """Bytes of the file before the first value."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    strides: tuple[int, ...]
    """In bytes."""

    def open(self) -> NDArray[Any]:
        """The view again, read-only.

        Raises:
            ArrayError: The file is shorter by now.
            FileNotFoundError: It is gone.
        """
        mapped = np.memmap(self.path, np.uint8, "r")
        try:
            return np.ndarray(self.shape, self.dtype, mapped, self.offset, self.strides)
        except (TypeError, ValueError) as error:
            raise ArrayError(f"{self.path} has changed since it was mapped: {error}") from error


@dataclass(frozen=True, slots=True)
class DatasetFrames:
    """A dataset of an HDF5 file."""

    path: str
    name: str


@contextmanager
def shipped(stack: Stack) -> Iterator[Any]:
    """What to send to a worker so that it can read the frames, for as long as the context.

    >>> with shipped(Stack(np.ones((3, 4, 5), np.uint8))) as handle, reopened(handle) as there:
    ...     there.shape
    (3, 4, 5)

    Raises:
        PlanError: An HDF5 dataset that no other process can read as it is.
        ArrayError: A zarr array in memory.
    """
    handle = handle_of(stack.data)
    if isinstance(handle, np.ndarray):
        with SharedArray.from_array(handle) as shared:
            yield shared
    else:
        yield handle


@contextmanager
def reopened(handle: Any) -> Iterator[Stack]:
    """The frames, open as long as the context; a stack of this process is itself.

    Raises:
        ArrayError: They are not there any more, or not readable from here.
        FileNotFoundError: The same, of a file.
    """
    match handle:
        case Stack():
            yield handle
        case MappedFrames():
            yield Stack(handle.open())
        case DatasetFrames():
            with open_hdf5(Path(handle.path), "r") as file:
                check_filters(file[handle.name])
                yield Stack(file[handle.name])
        case _:
            yield Stack(restore(handle))


def identity(stack: Stack) -> dict[str, Any]:
    """What tells these frames from others: a file's path, size and time of change, or else all pixels.

    >>> a, b = np.zeros((2, 3, 4), np.uint8), np.zeros((2, 3, 4), np.uint8)
    >>> identity(Stack(a)) == identity(Stack(b)), identity(Stack(a)) == identity(Stack(b + 1))
    (True, False)

    Returns:
        Values that JSON can hold.

    Raises:
        PlanError: As :func:`shipped`.
        ArrayError: As :func:`shipped`, or a frame cannot be read.
    """
    handle = handle_of(stack.data)
    known: dict[str, Any] = {"shape": list(stack.shape), "dtype": str(stack.data.dtype)}
    match handle:
        case MappedFrames():
            place = {"offset": handle.offset, "strides": list(handle.strides)}
            return known | {"frames": handle.path, "version": _version(Path(handle.path))} | place
        case DatasetFrames():
            return known | {"frames": f"{handle.path}:{handle.name}", "version": _version(Path(handle.path))}
        case ZarrHandle() if (folder := _zarr_folder(handle)) is not None:
            return known | {"frames": str(folder), "version": _version_of_folder(folder)}
        case _:
            return known | {"frames": "in memory", "version": _version_of_pixels(stack)}


def handle_of(data: Any) -> Any:
    """What data in files is opened by; the data itself if it is in memory or of an unknown kind.

    Raises:
        PlanError: As :func:`shipped`.
        ArrayError: As :func:`shipped`.
    """
    if isinstance(data, np.ndarray):
        return _mapped(data) or data
    if type(data).__module__.startswith("h5py."):
        return _dataset(data)
    return portable(data) if "zarr" in sys.modules else data  # else it is no zarr array


def _mapped(data: NDArray[Any]) -> MappedFrames | None:
    """The place in its file of a memory map, or of a view of one.

    Of a view, numpy knows the file, but not where in it: that is told by the address.
    """
    whole = data
    while isinstance(whole.base, np.ndarray):
        whole = whole.base
    if not isinstance(whole, np.memmap) or whole.filename is None or whole.mode == "c":
        return None  # a copy-on-write map has values that no file has
    offset = whole.offset + _address(data) - _address(whole)
    return MappedFrames(os.path.abspath(whole.filename), offset, data.shape, data.dtype, data.strides)


def _address(data: NDArray[Any]) -> int:
    return int(data.__array_interface__["data"][0])


def _dataset(data: Any) -> DatasetFrames:
    file = data.file
    if file.mode != "r" or file.driver not in PLAIN_FILES or data.name is None:
        raise PlanError(
            f"an HDF5 dataset must be in a file opened with mode 'r' for num_workers over 1 or a run_dir, "
            f"got {data.name} in {file.filename} with mode {file.mode!r} and driver {file.driver!r}: "
            "close the file and open it with mode 'r', or pass its path"
        )
    return DatasetFrames(os.path.abspath(file.filename), data.name)


def _zarr_folder(handle: ZarrHandle) -> Path | None:
    from zarr.storage import LocalStore

    return Path(handle.store.root).resolve() / handle.path if isinstance(handle.store, LocalStore) else None


def _version(path: Path) -> str:
    facts = path.stat()
    return f"{facts.st_size} bytes, changed at {facts.st_mtime_ns} ns"


def _version_of_folder(folder: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(folder)}: {_version(path)}\n".encode())
    return f"files with digest {digest.hexdigest()}"


def _version_of_pixels(stack: Stack) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for first, last in stack.portions(0, stack.shape[0]):
        digest.update(np.ascontiguousarray(stack.frames(first, last)).data)
    return f"pixels with digest {digest.hexdigest()}"
