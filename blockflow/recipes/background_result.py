"""Result of the background recipe: which background does a frame have, and how is it kept?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from blockflow.errors import ArrayError, OutOfBoundsError, PlanError
from blockflow.paths import local_path
from blockflow.recipes.replacing import replacing_directory
from blockflow.recipes.rtdc import frames_per_chunk, write_rtdc

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

__all__ = ["Background"]

MARK = "blockflow background"
"""Attribute of the zarr groups that :meth:`Background.write_zarr` may replace; it holds the identifier."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Background:
    """Background images of a series of frames, and which frame has which.

    >>> background = Background(
    ...     images=np.array([[[5, 5]], [[7, 6]]], np.uint8),
    ...     index=np.array([0, 0, 1]),
    ...     offset=np.array([0.0, 1.0, 0.0]),
    ...     times=np.array([0.0, 1.0]),
    ...     used=np.array([True, True]),
    ...     identifier="sparsemed:k=1^s=1^t=0^f=1^o=1",
    ... )
    >>> background.at(1)
    array([[5, 5]], dtype=uint8)
    >>> background.corrected([[[6, 6]], [[7, 0]]], first=1)
    array([[[ 0.,  0.]], [[ 0., -6.]]])
    """

    images: NDArray[Any]
    """Shape ``(images, height, width)``, in the dtype of the frames: the images in use."""

    index: NDArray[np.int64]
    """Shape ``(frames,)``: the number in ``images`` of each frame's background."""

    offset: NDArray[np.float64] | None
    """Shape ``(frames,)``: how much brighter each frame is than its background image; None if not asked
    for."""

    times: NDArray[np.float64]
    """Seconds since the first frame of every image that was computed; of those in use: ``times[used]``."""

    used: NDArray[np.bool_]
    """Which of the computed images are in use: cleansing drops those that show objects."""

    identifier: str
    """Method and parameters, in the notation of dcnum's pipeline identifiers."""

    source: Path | None = None
    """The RT-DC file that the frames are from."""

    def at(self, frame: int) -> NDArray[Any]:
        """The background image of a frame, without its offset; negative numbers count from the end.

        Raises:
            OutOfBoundsError: There is no such frame.
        """
        if not -len(self.index) <= frame < len(self.index):
            raise OutOfBoundsError(f"frame must be one of the {len(self.index)} frames, got {frame}")
        return np.asarray(self.images[int(self.index[frame])])

    def corrected(self, frames: ArrayLike, first: int | None = None) -> NDArray[np.float64]:
        """Frames minus their background: ``frame - images[index] - offset``.

        Args:
            frames: Consecutive frames, shape ``(n, height, width)``.
            first: The number of the first of them. Not needed for the whole series.

        Raises:
            PlanError: Another shape, or a part of the series without ``first``.
            OutOfBoundsError: Frames outside the series.
        """
        result = np.array(frames, np.float64)
        height, width = self.images.shape[1:]
        if result.ndim != 3 or result.shape[1:] != (height, width):
            raise PlanError(f"frames must have shape (n, {height}, {width}), got {result.shape}")
        count = len(self.index)
        if first is None and len(result) != count:
            raise PlanError(f"first must say with which of the {count} frames these {len(result)} begin")
        begin = first or 0
        end = begin + len(result)
        if not 0 <= begin <= end <= count:
            raise OutOfBoundsError(f"frames [{begin}, {end}) must lie in the series [0, {count})")
        for frame, number in zip(result, self.index[begin:end], strict=True):
            frame -= self.images[int(number)]
        if self.offset is not None:
            result -= self.offset[begin:end, None, None]
        return result

    def write_hdf5(self, path: str | os.PathLike[str], *, compress: bool = True) -> None:
        """Write an RT-DC file that dcnum and dclab read: images stored once, a mapping, the offsets.

        A file that exists (the measurement itself, for example) keeps everything but its old background. It
        is copied, and replaced when the copy is complete, so there must be room for it twice. A new file
        refers to the measurement if the frames came from an RT-DC file.

        Args:
            path: The file.
            compress: Compress the images with gzip.

        Raises:
            MetadataError: The file holds another number of events, or refers to another measurement.
            ArrayError: Not an HDF5 file, or h5py is not installed.
        """
        write_rtdc(path, self.images, self.index, self.offset, self.identifier, self.source, compress=compress)

    def write_zarr(self, path: str | os.PathLike[str]) -> None:
        """Write a zarr group with the arrays ``images``, ``index``, ``offset``, ``times`` and ``used``.

        A background that is there is replaced when the new one is complete. Nothing else is ever replaced.

        Args:
            path: The directory of the group.

        Raises:
            ArrayError: Something else is at the path.
        """
        import zarr

        target = local_path(path, "path").resolve()
        if target.exists() and not _is_background(target):
            raise ArrayError(f"{target} is not a background and is not replaced: choose another path")
        with replacing_directory(target) as part:
            group = zarr.create_group(part, attributes={MARK: self.identifier})
            step = frames_per_chunk(self.images.shape[1:], self.images.dtype)
            images = group.create_array(
                "images",
                shape=self.images.shape,
                chunks=(step, *self.images.shape[1:]),
                dtype=self.images.dtype,
            )
            for first in range(0, len(self.images), step):
                images[first : first + step] = self.images[first : first + step]
            for name in ("index", "offset", "times", "used"):
                if (values := getattr(self, name)) is not None:
                    group.create_array(name, data=values)


def _is_background(path: Path) -> bool:
    import zarr

    try:
        return MARK in zarr.open_group(path, mode="r").attrs
    except (ValueError, OSError):
        return False
