"""Inputs: which array does the user mean, and where does it lie?

An argument may be a path, an :class:`~blockflow.arrays.Array`, or anything with ``shape``, ``dtype`` and ``[]``. An
``Array`` says where its voxels are in the world, and so does a zarr array that is opened by its path. What says
nothing of the kind (ndarray, memmap, HDF5, TIFF) lies where the first source or output that does lies, with voxels
of the same size; if none does, a voxel is one world unit and the first one begins at 0. The spatial axes are the last.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from blockflow.arrays.array import Array
from blockflow.arrays.foreign import in_numpy
from blockflow.arrays.formats import format_of, inside_hdf5, nothing_at
from blockflow.arrays.window import writable
from blockflow.errors import ArrayError, ArrayNotFoundError, GeometryError, PlanError
from blockflow.paths import is_path, local_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    class Place(Protocol):
        """Where an array lies."""

        @property
        def offset(self) -> Sequence[int]: ...

        @property
        def voxel_size(self) -> Sequence[int]: ...


__all__ = ["closing_files", "opened", "put_into_place"]

Mode = Literal["r", "r+"]


def opened(value: Any, mode: Mode, what: str) -> Any:
    """What an argument stands for: an :class:`Array` if it knows where it lies, else an array-like.

    Args:
        value: A path or an array.
        mode: How to open a path.
        what: The argument, for messages.

    Raises:
        ArrayNotFoundError: There is nothing at this path.
        ArrayError: It is masked, or has a dtype that numpy has not; or a path cannot be meant here (a URL), or is of a
            format that is not read, or not written.
        PlanError: The argument is no array, or is to be written and cannot be.

    >>> opened(np.zeros(3), "r", "source 0")
    array([0., 0., 0.])
    """
    if is_path(value):
        value = _at_path(local_path(value, what), mode, what)
    for attribute in ("shape", "dtype", "__getitem__"):
        if not hasattr(value, attribute):
            raise PlanError(
                f"{what} must be a path, an Array, or an array with shape, dtype and []: "
                f"{type(value).__name__} has no {attribute}"
            )
    if not isinstance(value, Array):
        value = in_numpy(value, what)
    if mode == "r+" and type(value).__module__.startswith("dask."):
        raise PlanError(f"{what} must be an array that takes values, and a dask array is a recipe for one")
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


@contextmanager
def closing_files(given: Iterable[Any], arrays: Iterable[Array]) -> Iterator[None]:
    """Close HDF5 files in the end that were opened because arguments are paths; an exception would keep them open.

    Args:
        given: Arguments.
        arrays: What they were opened as.
    """
    try:
        yield
    finally:
        for value, array in zip(given, arrays, strict=True):
            if is_path(value) and type(array.data).__module__.startswith("h5py.") and array.data:
                array.data.file.close()


def _at_path(path: Path, mode: Mode, what: str) -> Any:
    """The array at a path, opened as its name says."""
    found = format_of(path)
    if found in ("npy", "other", "tiff") and not path.exists():
        raise ArrayNotFoundError(f"{what} must exist: {nothing_at(path)}")
    if found == "npy":
        return _mapped(path, mode, what)
    if found == "hdf5":
        from blockflow.arrays.hdf5 import open_dataset

        file, name = inside_hdf5(path) or (path, "")
        if not file.exists():
            raise ArrayNotFoundError(f"{what} must exist: {nothing_at(file)}")
        return open_dataset(file, name, mode)
    if found == "tiff" or (path.is_dir() and _holds_tiffs(path)):
        if mode != "r":
            raise ArrayError(f"{what} must be of a format that is written, and TIFF is only read, got {str(path)!r}")
        from blockflow.arrays.tiff_stack import TiffStack

        return TiffStack(path)
    if path.is_file():
        raise ArrayError(
            f"{what} must be a zarr array, a .npy or TIFF file, a folder of TIFF files, or a dataset of an HDF5 file, "
            f"got the file {str(path)!r}"
        )
    from blockflow.arrays.opening import open_ds

    try:
        return open_ds(path, mode=mode)
    except ArrayNotFoundError:
        raise
    except ArrayError as error:
        raise type(error)(f"{what}: {error}") from error


def _mapped(path: Path, mode: Mode, what: str) -> Any:
    """The memory map of a ``.npy`` file."""
    try:
        return np.load(path, mmap_mode=mode, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ArrayError(f"{what} cannot be mapped as a .npy file, {str(path)!r}: {error}") from error


def _holds_tiffs(folder: Path) -> bool:
    """Whether a folder is one of TIFF files, rather than a zarr array or group."""
    from blockflow.arrays.tiffs import list_tiffs

    is_zarr = any((folder / document).is_file() for document in ("zarr.json", ".zarray", ".zgroup"))
    return not is_zarr and bool(list_tiffs(folder))
