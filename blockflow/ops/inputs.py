"""Inputs: which array does the user mean, and where does it lie?

An argument may be a path, an :class:`~blockflow.arrays.Array`, or anything with ``shape``, ``dtype`` and ``[]``. An
``Array`` says where its voxels are in the world, and so does a zarr array that is opened by its path. What says
nothing of the kind (ndarray, memmap, HDF5, TIFF) lies where the first source or output that does lies, with voxels
of the same size; if none does, a voxel is one world unit and the first one begins at 0. The spatial axes are the last.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from blockflow.arrays.array import Array
from blockflow.arrays.window import writable
from blockflow.errors import ArrayError, ArrayNotFoundError, GeometryError, PlanError

if TYPE_CHECKING:
    from collections.abc import Sequence

    class Place(Protocol):
        """Where an array lies."""

        @property
        def offset(self) -> Sequence[int]: ...

        @property
        def voxel_size(self) -> Sequence[int]: ...


__all__ = ["can_be_made", "opened", "put_into_place"]

Mode = Literal["r", "r+"]


def opened(value: Any, mode: Mode, what: str) -> Any:
    """What an argument stands for: an :class:`Array` if it knows where it lies, else an array-like.

    Args:
        value: A path or an array.
        mode: How to open a path.
        what: The argument, for messages.

    Raises:
        ArrayNotFoundError: There is nothing at this path.
        PlanError: The argument is no array, or is to be written and cannot be.

    >>> opened(np.zeros(3), "r", "source 0")
    array([0., 0., 0.])
    """
    if isinstance(value, str | os.PathLike):
        value = _at_path(Path(value), mode, what)
    for attribute in ("shape", "dtype", "__getitem__"):
        if not hasattr(value, attribute):
            raise PlanError(
                f"{what} must be a path, an Array, or an array with shape, dtype and []: "
                f"{type(value).__name__} has no {attribute}"
            )
    if mode == "r+" and not writable(value.data if isinstance(value, Array) else value):
        raise PlanError(f"{what} must be writable, got a read-only {type(value).__name__}; open it to read and write")
    return value


def put_into_place(value: Any, like: Place | None, dims: int, what: str) -> Array:
    """An array with a place in the world.

    Args:
        value: What :func:`opened` returned.
        like: Gives voxel size and offset to what has none; None for voxels of one world unit.
        dims: Number of spatial axes.
        what: The argument, for messages.

    Raises:
        GeometryError: It has other axes.

    >>> put_into_place(np.zeros((2, 3, 3)), None, 2, "source 0").roi
    [0:3, 0:3] (3, 3)
    """
    array = value
    if not isinstance(array, Array):
        if len(value.shape) < dims:
            raise GeometryError(f"{what} must have {dims} axes or more, as the blocks have, got shape {value.shape}")
        voxel_size = (1,) * dims if like is None else like.voxel_size
        array = Array(value, None if like is None else like.offset, voxel_size)
    if array.spatial_dims != dims:
        raise GeometryError(f"{what} must have {dims} spatial axes, as the blocks have, got {array.spatial_dims}")
    return array


def can_be_made(path: Path) -> bool:
    """Whether an output can be made at a path: a ``.npy`` file, or a zarr array.

    >>> can_be_made(Path("a/b.npy")), can_be_made(Path("a.zarr/raw")), can_be_made(Path("a.h5/raw"))
    (True, True, False)
    """
    if path.suffix.lower() == ".npy" or any(part.endswith(".zarr") for part in path.parts):
        return True
    return not path.suffix and _in_hdf5(path) is None


def _at_path(path: Path, mode: Mode, what: str) -> Any:
    name = path.name.lower()
    if name.endswith(".npy"):
        if not path.is_file():
            raise ArrayNotFoundError(f"{what} must exist: there is no file {path}")
        return np.load(path, mmap_mode=mode)
    hdf5 = _in_hdf5(path)
    if hdf5 is not None:
        from blockflow.arrays.hdf5 import open_dataset

        return open_dataset(*hdf5, mode)
    if _is_tiff(path):
        from blockflow.arrays.tiff_stack import TiffStack

        return TiffStack(path)
    from blockflow.arrays.opening import open_ds

    try:
        return open_ds(path, mode=mode)
    except ArrayNotFoundError:
        raise
    except ArrayError as error:
        raise type(error)(f"{what}: {error}") from error


def _in_hdf5(path: Path) -> tuple[Path, str] | None:
    """File and name of ``file.h5/group/dataset``; None for other paths."""
    for part in (path, *path.parents):
        if part.suffix.lower() in (".h5", ".hdf5", ".hdf", ".rtdc"):
            return part, path.relative_to(part).as_posix()
    return None


def _is_tiff(path: Path) -> bool:
    if path.suffix.lower() in (".tif", ".tiff"):
        return True
    from blockflow.arrays.tiffs import list_tiffs

    is_zarr = any((path / document).is_file() for document in ("zarr.json", ".zarray", ".zgroup"))
    return path.is_dir() and not is_zarr and bool(list_tiffs(path))
