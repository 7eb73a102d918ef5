"""Picture: which numbers does the demo compute on?

A picture becomes float32 in [0, 1], of shape (channels, height, width), wherever it came from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from blockflow.errors import ArrayError, ArrayNotFoundError
from blockflow.paths import local_path

if TYPE_CHECKING:
    from pathlib import Path

MOST_VALUES = 2**26
"""Pixels times channels: the demo computes the whole picture at once as well, to compare."""

MOST_CHANNELS = 4
"""An axis that is longer is no channel axis."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture and where it came from."""

    name: str
    data: np.ndarray[Any, np.dtype[np.float32]]
    """In [0, 1], of shape (channels, height, width)."""


def read_picture(source: str | None) -> Picture:
    """Read a picture.

    Args:
        source: Path of an image file, a .npy file, or an array in a zarr store (``'x.zarr/raw'``); the picture of an
            astronaut that comes with scikit-image if None.

    Raises:
        ArrayNotFoundError: There is nothing at this path.
        ArrayError: It is no picture: it cannot be read, or has other axes than two and channels, or values that are
            no finite numbers.
    """
    if source is None:
        from skimage.data import astronaut

        return Picture("astronaut", as_picture(astronaut(), "the astronaut", channels_last=True))
    path = local_path(source, "picture")
    if path.is_dir() or any(part.endswith(".zarr") for part in path.parts):
        from blockflow.arrays import open_ds

        array = open_ds(source)
        _check_size(array.shape, source)
        return Picture(path.name, as_picture(array.data[...], source, channels_last=False))
    if not path.exists():
        raise ArrayNotFoundError(f"there is no file {source}")
    return Picture(path.name, as_picture(_read_file(path), source, channels_last=True))


def as_picture(values: Any, what: str, *, channels_last: bool) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Values as a picture, scaled so that the smallest is 0 and the largest is 1.

    Args:
        values: Of shape (height, width), (height, width, channels) or (channels, height, width). An alpha channel,
            the second of two or the fourth of four that come last, is left out.
        what: Where they came from, for messages.
        channels_last: Which reading goes first if both are possible.

    Raises:
        ArrayError: The values are no picture.

    >>> as_picture([[0, 5], [10, 20]], "these", channels_last=True).tolist()
    [[[0.0, 0.25], [0.5, 1.0]]]
    """
    array = np.asarray(values)
    if array.dtype.kind not in "buif":
        raise ArrayError(f"{what} is no picture: its values must be real numbers, they are {array.dtype}")
    _check_size(array.shape, what)
    planes = array[None] if array.ndim == 2 else _channels_first(array, channels_last=channels_last)
    scaled = planes.astype(np.float64)
    if not np.isfinite(scaled).all():
        raise ArrayError(f"{what} is no picture: some of its values are NaN or infinite")
    low, high = scaled.min(), scaled.max()
    picture: np.ndarray[Any, np.dtype[np.float32]] = ((scaled - low) / ((high - low) or 1.0)).astype(np.float32)
    return picture


def _check_size(shape: tuple[int, ...], what: str) -> None:
    channels_somewhere = len(shape) == 3 and (shape[0] <= MOST_CHANNELS or shape[-1] <= MOST_CHANNELS)
    if len(shape) != 2 and not channels_somewhere:
        raise ArrayError(
            f"{what} is no picture: it must have two axes, or three of which the first or last holds at most "
            f"{MOST_CHANNELS} channels; its shape is {tuple(shape)}"
        )
    if not 0 < math.prod(shape) <= MOST_VALUES:
        raise ArrayError(
            f"{what} must have from 1 to {MOST_VALUES} values, as the demo also computes it as a whole, to compare; "
            f"its shape is {tuple(shape)}"
        )


def _channels_first(array: np.ndarray[Any, Any], *, channels_last: bool) -> np.ndarray[Any, Any]:
    last, first = array.shape[-1] <= MOST_CHANNELS, array.shape[0] <= MOST_CHANNELS
    if last and (channels_last or not first):
        planes = np.moveaxis(array, -1, 0)
        return planes[:-1] if len(planes) in (2, 4) else planes
    return array


def _read_file(path: Path) -> Any:
    from skimage.io import imread

    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        if path.suffix.lower() in (".tif", ".tiff"):
            return imread(path)  # its reader is chosen by the name
        with path.open("rb") as file:  # others leave files open that they cannot read
            return imread(file)
    except Exception as error:  # each of the readers below it has its own kinds of errors
        reason = str(error).partition("\n")[0]
        raise ArrayError(f"{path} cannot be read as an image: {reason}") from error
