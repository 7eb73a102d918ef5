"""Handles of the background recipe: how does another process get at the frames, and are they still the same?

What lies in a file is opened again over there. An array in memory is copied once into shared memory and mapped
over there. Anything else with ``shape``, ``dtype`` and slices is pickled, so it should hold a place, not pixels.
No frame ever travels between processes.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from blockflow.arrays.handles import DatasetHandle, MemmapHandle, ZarrHandle, portable, restore
from blockflow.arrays.shared import SharedArray
from blockflow.recipes.background_input import Stack

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["identity", "reopened", "shipped"]


@contextmanager
def shipped(stack: Stack) -> Iterator[Any]:
    """What to send to a worker so that it can read the frames, for as long as the context.

    >>> with shipped(Stack(np.ones((3, 4, 5), np.uint8))) as handle, reopened(handle) as there:
    ...     there.shape
    (3, 4, 5)

    Raises:
        ArrayError: A zarr array in memory, or an HDF5 dataset that no other process can read as it is.
    """
    handle = portable(stack.data)
    if isinstance(handle, np.ndarray):
        with SharedArray.from_array(handle) as shared:
            yield shared
    else:
        yield handle


@contextmanager
def reopened(handle: Any) -> Iterator[Stack]:
    """The frames, open as long as the context; a stack of this process is itself.

    Raises:
        ArrayNotFoundError: They are not there any more.
        ArrayError: They are not readable from here.
    """
    if isinstance(handle, MemmapHandle):
        handle = replace(handle, mode="r")  # frames are only read
    yield handle if isinstance(handle, Stack) else Stack(restore(handle))


def identity(stack: Stack) -> dict[str, Any]:
    """What tells these frames from others: a file's path, size and time of change, or else all pixels.

    >>> a, b = np.zeros((2, 3, 4), np.uint8), np.zeros((2, 3, 4), np.uint8)
    >>> identity(Stack(a)) == identity(Stack(b)), identity(Stack(a)) == identity(Stack(b + 1))
    (True, False)

    Returns:
        Values that JSON can hold.

    Raises:
        ArrayError: As :func:`shipped`, or a frame cannot be read.
    """
    handle = portable(stack.data)
    known: dict[str, Any] = {"shape": list(stack.shape), "dtype": str(stack.data.dtype)}
    match handle:
        case MemmapHandle():
            place = {"offset": handle.offset, "strides": list(handle.strides)}
            return known | {"frames": handle.filename, "version": _version(Path(handle.filename))} | place
        case DatasetHandle():
            return known | {"frames": f"{handle.filename}:{handle.name}", "version": _version(Path(handle.filename))}
        case ZarrHandle() if (folder := _zarr_folder(handle)) is not None:
            return known | {"frames": str(folder), "version": _version_of_folder(folder)}
        case _:
            return known | {"frames": "in memory", "version": _version_of_pixels(stack)}


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
