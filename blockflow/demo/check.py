"""Check: is the result of the blocks the one that the whole picture gives at once?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from blockflow.demo.blocks import bands, connected, gaussian

if TYPE_CHECKING:
    from blockflow.demo.blocks import Job

TOLERANCE = 1e-6
"""Of values in [0, 1]; float32 has a resolution of 1.2e-7."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How results of blocks differ from those of the whole picture."""

    error_alone: float
    """Largest difference of a pixel smoothed without context; pixels are in [0, 1]."""
    error: float
    """Largest difference of a pixel smoothed with context."""
    segments: int
    """Segments of the whole picture."""
    segments_found: int
    """Segments of the blocks."""
    same_partition: bool
    """Whether both cut the picture into the same parts, whatever these are called."""
    joined: int
    """Labels that turned out to be parts of another label's segment."""

    @property
    def passed(self) -> bool:
        """Whether the blocks gave what the whole picture gives."""
        return self.error <= TOLERANCE and self.same_partition


def compare(job: Job) -> Verdict:
    """Compute everything on the whole picture, and compare what the blocks wrote.

    The segments are compared with those of the smoothed picture that the blocks wrote, so that a rounding error of the
    filter, which the first comparison judges, does not move a pixel into another band.
    """
    images = {name: array.to_ndarray() for name, array in job.arrays.items()}
    smoothed = gaussian(images["input"], job.reach)
    expected = connected(bands(images["smooth"], job.levels))
    return Verdict(
        error_alone=float(np.abs(images["alone"] - smoothed).max()),
        error=float(np.abs(images["smooth"] - smoothed).max()),
        segments=len(np.unique(expected)),
        segments_found=len(np.unique(images["segments"])),
        same_partition=same_partition(images["segments"], expected),
        joined=len(np.unique(images["pieces"])) - len(np.unique(images["segments"])),
    )


def same_partition(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    """Whether two label images are the same up to the names of the labels.

    >>> same_partition(np.array([1, 1, 2]), np.array([7, 7, 3]))
    True
    >>> same_partition(np.array([1, 1, 2]), np.array([7, 8, 3]))
    False
    """
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1).shape[1]
    return bool(len(np.unique(one)) == pairs == len(np.unique(other)))
