"""Input of the background recipe: what is a stack of frames, and what does its file know about time?

A stack is anything three-dimensional with ``shape``, ``dtype`` and slices along its first axis (frames, rows,
columns): ndarray, memmap, zarr array, HDF5 dataset. A path opens one: a zarr array (a directory), a ``.npy``
file (mapped, not read) or an HDF5 file with ``events/image``. Frames are read a few at a time, in the pieces
in which they are stored.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from blockflow.arrays.hdf5 import check_filters, open_hdf5, read_hdf5
from blockflow.errors import ArrayError, MetadataError, PlanError
from blockflow.paths import local_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["Stack", "open_stack"]

DTYPES = ("uint8", "uint16", "float32", "float64")
"""Values of which a median is exact in their own type. Others have to be converted, knowingly."""

PORTION = 1 << 20
"""Bytes of frames read at a time, or one stored chunk where that is larger."""

IMAGES = "events/image"
"""Where an RT-DC file (the HDF5 layout that dcnum and dclab share) keeps its frames."""


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Frames that can be read a few at a time.

    >>> stack = Stack(np.zeros((7, 80, 320), np.uint8))
    >>> stack.shape, list(stack.portions(2, 7))
    ((7, 80, 320), [(2, 7)])

    Raises:
        PlanError: The data is no array of frames, has no frame or no pixel, or has a dtype without exact
            medians.
    """

    data: Any
    """Array-like of shape ``(frames, height, width)``."""

    times: NDArray[Any] | None = None
    """Seconds, one per frame, as the file has them (any zero); or unknown."""

    numbers: NDArray[Any] | None = None
    """Number of each frame in the recording, frames that were not stored included; or unknown."""

    rate: float | None = None
    """Frames per second; or unknown."""

    source: Path | None = None
    """The RT-DC file that the frames are from."""

    def __post_init__(self) -> None:
        if isinstance(self.data, np.ma.MaskedArray) or not all(
            hasattr(self.data, name) for name in ("shape", "dtype", "__getitem__")
        ):
            raise PlanError(
                "stack must be an array of frames (numpy without mask, zarr, HDF5) or a path to one, "
                f"got {type(self.data).__name__}"
            )
        if len(self.data.shape) != 3:
            raise PlanError(f"stack must have the axes frames, rows and columns, got shape {self.data.shape}")
        for axis, extent in zip(("frame", "row", "column"), self.data.shape, strict=True):
            if extent < 1:
                raise PlanError(f"stack must have at least one {axis}, got shape {self.data.shape}")
        if self.dtype.name not in DTYPES:
            raise PlanError(
                f"stack must have dtype {', '.join(DTYPES[:-1])} or {DTYPES[-1]}, got {self.data.dtype}: "
                "convert it with astype"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows and columns."""
        count, height, width = self.data.shape
        return int(count), int(height), int(width)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values, in the byte order of this machine."""
        dtype: np.dtype[Any] = np.dtype(self.data.dtype).newbyteorder("=")
        return dtype

    @property
    def chunk(self) -> int:
        """Frames in a stored chunk; 1 where they are stored one by one."""
        chunks = getattr(self.data, "chunks", None)
        return chunks[0] if chunks and isinstance(chunks[0], int) else 1

    def portions(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Cut frames ``[first, last)`` into half-open pieces that end where stored chunks end.

        >>> list(Stack(np.zeros((9, 512, 1024), np.uint8)).portions(1, 6))
        [(1, 2), (2, 4), (4, 6)]
        """
        _, height, width = self.shape
        step = self.chunk * max(1, PORTION // (self.chunk * height * width * self.dtype.itemsize))
        while first < last:
            end = min(last, (first // step + 1) * step)
            yield first, end
            first = end

    def frames(self, first: int, last: int, rows: slice = slice(None)) -> NDArray[Any]:
        """Frames ``[first, last)``, all rows or some, in native byte order.

        Raises:
            ArrayError: A value is NaN or infinite.
        """
        frames = np.asarray(self.data[first:last, rows]).astype(self.dtype, copy=False)
        if self.dtype.kind == "f" and not np.isfinite(frames).all():
            frame = first + int(np.flatnonzero(~np.isfinite(frames).all(axis=(1, 2)))[0])
            raise ArrayError(f"stack must hold finite values: frame {frame} has NaN or infinity; replace them first")
        return frames


@contextmanager
def open_stack(stack: Any) -> Iterator[Stack]:
    """A stack from what a user has, open as long as the context.

    >>> with open_stack(np.zeros((3, 4, 5), np.float32)) as stack:
    ...     stack.shape
    (3, 4, 5)

    Args:
        stack: Array-like of shape ``(frames, height, width)``, or the path of a zarr array, a ``.npy`` file
            or an HDF5 file with ``events/image``. The last, also when given as its open dataset, knows its
            time axis.

    Raises:
        PlanError: Not a stack; see :class:`Stack`.
        MetadataError: The file has no images, or a time axis that does not fit them.
        ArrayError: The file cannot be read as what it should be.
        FileNotFoundError: There is no such file.
    """
    if not isinstance(stack, str | os.PathLike):
        yield _from_dataset(stack) if _is_event_images(stack) else Stack(stack)
        return
    path = local_path(stack, "stack")
    if path.is_dir():
        yield Stack(_open_zarr(path))
    elif path.suffix == ".npy":
        yield Stack(_open_npy(path))
    else:
        with open_hdf5(path, "r") as file:
            if not hasattr(file.get(IMAGES), "shape"):
                raise MetadataError(
                    f"{path} must have the dataset {IMAGES}, it has {sorted(file) or 'nothing'}; images that "
                    "it takes from another file (a basin) are read from that file"
                )
            yield _from_dataset(file[IMAGES])


def _is_event_images(stack: Any) -> bool:
    """Whether this is the dataset of images of an open RT-DC file."""
    return type(stack).__module__.startswith("h5py.") and getattr(stack, "name", None) == f"/{IMAGES}"


def _from_dataset(images: Any) -> Stack:
    """The stack of an open RT-DC file, with what the file knows about time."""
    check_filters(images)
    file = images.file
    known = {}
    for feature, field in (("time", "times"), ("frame", "numbers")):
        if feature in file["events"]:
            values = read_hdf5(file["events"][feature])
            if values.shape != images.shape[:1]:
                raise MetadataError(
                    f"events/{feature} must have one value for each of the {len(images)} images, "
                    f"{file.filename} has shape {values.shape}"
                )
            known[field] = values
    rate = file.attrs.get("imaging:frame rate")
    if rate is not None and not isinstance(rate, int | float | np.number):
        raise MetadataError(f"imaging:frame rate must be a number, {file.filename} has {rate!r}")
    return Stack(images, **known, rate=None if rate is None else float(rate), source=Path(file.filename).resolve())


def _open_npy(path: Path) -> Any:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise ArrayError(f"{path} cannot be opened as a .npy file: {error}") from error


def _open_zarr(path: Path) -> Any:
    import zarr

    try:
        node = zarr.open(path, mode="r")
    except (ValueError, FileNotFoundError) as error:
        raise ArrayError(f"{path} is a directory and must be a zarr array") from error
    if not isinstance(node, zarr.Array):
        raise PlanError(f"{path} is a zarr group: name an array in it, one of {sorted(node.keys())}")
    return node
