"""Reduction: what is one voxel of a smaller image, given the voxels that it stands for?

A window has a fixed number of voxels along each axis; at the end of an image it may have fewer, and then only those
count. Axes in front of those with a factor are channels.
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Method", "reduced"]

Method: TypeAlias = Literal["mean", "mode", "max", "min", "nearest"]
"""``"mean"`` for images, rounded to the nearest in integers (halves up). ``"mode"`` for labels: the most frequent one,
of several the smallest. ``"nearest"``: the first voxel of each window."""


def reduced(image: NDArray[Any], factors: Sequence[int], method: Method) -> NDArray[Any]:
    """One voxel for each window.

    Args:
        image: Channel axes first.
        factors: Voxels of a window, for each of the last axes.
        method: How.

    Returns:
        The same dtype; as many voxels along an axis as there are windows, whole or not.

    >>> image = np.array([[1, 2, 5], [4, 5, 5]], np.uint8)
    >>> reduced(image, (2, 2), "mean"), reduced(image, (1, 2), "max")
    (array([[3, 5]], dtype=uint8), array([[2, 5],
           [5, 5]], dtype=uint8))
    """
    channels = image.ndim - len(factors)
    corner: Any = (..., *(slice(None, None, factor) for factor in factors))
    if method == "nearest" or prod(factors) == 1:
        return np.ascontiguousarray(image[corner])
    if method == "mode":
        return _most_frequent(image, channels, factors)
    if method == "mean":
        return _mean(image, channels, factors)
    pick = np.maximum if method == "max" else np.minimum
    result = image
    for axis, factor in enumerate(factors, start=channels):
        result = _along(pick, result, axis, factor)
    return result


def _along(combine: np.ufunc, image: NDArray[Any], axis: int, factor: int) -> NDArray[Any]:
    """Windows along one axis, combined voxel by voxel: a few passes over whole layers."""
    every = [slice(None)] * image.ndim
    every[axis] = slice(0, None, factor)
    result: NDArray[Any] = image[tuple(every)].copy()
    for first in range(1, factor):
        every[axis] = slice(first, None, factor)
        part = image[tuple(every)]
        every[axis] = slice(0, part.shape[axis])
        there = result[tuple(every)]
        combine(there, part, out=there)
    return result


def _mean(image: NDArray[Any], channels: int, factors: Sequence[int]) -> NDArray[Any]:
    if image.dtype.kind in "fc":
        total = image.astype(np.result_type(image.dtype, np.float64))
    elif image.dtype.itemsize == 8 and _may_overflow(image, prod(factors)):
        return _mean_of_halves(image, channels, factors)
    else:
        small = image.dtype.itemsize <= 2 and prod(factors) <= 2**15
        wide = (np.uint32 if small else np.uint64) if image.dtype.kind in "bu" else (np.int32 if small else np.int64)
        total = image.astype(wide)
    for axis, factor in enumerate(factors, start=channels):
        total = _along(np.add, total, axis, factor)
    counts = _counts(image.shape[channels:], factors)
    if total.dtype.kind in "fc":
        return np.asarray(total / counts).astype(image.dtype)
    whole = counts.astype(total.dtype)
    return np.asarray((total + whole // 2) // whole).astype(image.dtype)


def _counts(extents: Sequence[int], factors: Sequence[int]) -> NDArray[Any]:
    """How many voxels each window has."""
    counts: NDArray[Any] = np.ones((), np.int64)
    for extent, factor in zip(extents, factors, strict=True):
        voxels = np.full(-(-extent // factor), factor)
        voxels[-1] -= -extent % factor
        counts = counts[..., None] * voxels
    return counts


def _may_overflow(image: NDArray[Any], voxels: int) -> bool:
    """Whether sums of so many voxels, and half as many more to round, may leave 64 bits."""
    if not image.size:
        return False
    bounds, rounding = np.iinfo(image.dtype), voxels
    return not (
        (int(bounds.min) + rounding) // voxels <= int(image.min())
        and int(image.max()) <= (int(bounds.max) - rounding) // voxels
    )


def _mean_of_halves(image: NDArray[Any], channels: int, factors: Sequence[int]) -> NDArray[Any]:
    """Means of 64-bit integers whose sums need more: the upper and the lower 32 bits are summed apart."""
    upper, lower = image >> 32, image & np.array(2**32 - 1, image.dtype)
    for axis, factor in enumerate(factors, start=channels):
        upper, lower = (_along(np.add, part, axis, factor) for part in (upper, lower))
    counts = _counts(image.shape[channels:], factors).astype(image.dtype)
    rest = ((upper % counts) << 32) + lower + counts // 2
    return np.asarray(((upper // counts) << 32) + rest // counts)


def _most_frequent(image: NDArray[Any], channels: int, factors: Sequence[int]) -> NDArray[Any]:
    """Compare the voxels of all windows with one another, place by place."""
    shape = image.shape[:channels] + tuple(
        -(-extent // factor) for extent, factor in zip(image.shape[channels:], factors, strict=True)
    )
    places = []
    for first in product(*map(range, factors)):
        corner: Any = (..., *(slice(begin, None, factor) for begin, factor in zip(first, factors, strict=True)))
        part = image[corner]
        if part.size:
            places.append(part)
    best = np.zeros(shape, np.uint16)
    result = np.zeros(shape, image.dtype)
    for one in places:
        votes = np.zeros(one.shape, np.uint16)
        for other in places:
            common = tuple(map(slice, map(min, one.shape, other.shape)))
            equal = one[common] == other[common]
            if image.dtype.kind in "fc":
                equal |= (one[common] != one[common]) & (other[common] != other[common])  # NaN is one value
            votes[common] += equal
        here = tuple(map(slice, one.shape))
        smaller = one < result[here]
        if image.dtype.kind in "fc":
            smaller |= result[here] != result[here]  # any number comes before NaN
        better = (votes > best[here]) | ((votes == best[here]) & smaller)
        best[here][better] = votes[better]
        result[here][better] = one[better]
    return result
