"""Steps of the background recipe: which windows, which images to trust, which image for which frame?

1. :func:`time_axis`: a time for every frame.
2. :func:`moments`: every ``split_time`` seconds there is a background image.
3. :func:`window_starts`: the frames it is the median of (:mod:`blockflow.recipes.sliding_median`).
4. :func:`row_ranges`, :func:`clean_images`: images in which objects have been taken for background are
   dropped.
5. :func:`frame_index`: the image of each frame.
6. :func:`brightness`, :func:`brightness_offset`: how much brighter a frame is than its background.

All functions are pure (one writes to the log). The method is that of ``BackgroundSparseMed`` in dcnum 0.31
(P. Müller and others, https://github.com/DC-analysis/dcnum, MIT licence), written anew from its formulae and
equal to it bit by bit for 8-bit frames; each docstring gives its formula. Times are seconds since the first
frame.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from typing import TYPE_CHECKING, Any

import numpy as np

from blockflow.errors import PlanError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "brightness",
    "brightness_offset",
    "clean_images",
    "frame_index",
    "moments",
    "row_ranges",
    "time_axis",
    "window_starts",
]

logger = logging.getLogger(__name__)

RECORDED_PER_STORED = 1.5
"""Recorded frames for each stored one (those with an object), as guessed where only a rate is known."""

GUESSED_RATE = 3600.0
"""Frames per second where nothing is known."""

BASELINE = 10
"""Images in the running median that the cleansing compares with; about ten split times."""

WALL = slice(0, 20)
"""Rows at the top of a frame that show the channel wall and no objects: their mean is the frame's
brightness."""


def time_axis(
    count: int,
    times: ArrayLike | None = None,
    numbers: ArrayLike | None = None,
    rate: float | None = None,
) -> NDArray[np.float64]:
    """A time for every frame, from the best that is known.

    1. ``times``: ``t = times - times[0]``.
    2. ``numbers`` and ``rate``: ``t = numbers / rate``, minus its first.
    3. ``rate`` only: ``count / rate * 1.5`` seconds in equal steps, both ends included; two frames of three
       are thought to be stored.
    4. Nothing: as 3 with 3600 frames per second.

    >>> time_axis(3, times=[10.0, 10.5, 12.0])
    array([0. , 0.5, 2. ])
    >>> time_axis(3, numbers=[4, 5, 8], rate=2.0)
    array([0. , 0.5, 2. ])
    >>> time_axis(4, rate=2.0)
    array([0., 1., 2., 3.])

    Args:
        count: Frames of the stack, at least 1.
        times: Seconds of each frame, any zero.
        numbers: Number of each frame in the recording.
        rate: Frames per second.

    Returns:
        Seconds since the first frame, shape ``(count,)``, never decreasing.

    Raises:
        PlanError: Wrong number of values, values that are not finite or that decrease, a rate that is not
            positive.
    """
    if rate is not None and not (np.isfinite(rate) and rate > 0):
        raise PlanError(f"frame rate must be a positive number of frames per second, got {rate}")
    if times is not None:
        seconds = _one_per_frame(times, count, "times")
    elif numbers is not None and rate is not None:
        seconds = _one_per_frame(numbers, count, "frame numbers") / np.float64(rate)
    else:
        seconds = np.linspace(0, count / (rate or GUESSED_RATE) * RECORDED_PER_STORED, count, endpoint=True)
    return np.asarray(seconds - seconds[0], np.float64)


def _one_per_frame(values: ArrayLike, count: int, what: str) -> NDArray[np.number]:
    """The values as an array of their own dtype, checked."""
    array = np.asarray(values)
    if array.shape != (count,):
        raise PlanError(f"{what} must be one value for each of the {count} frames, got shape {array.shape}")
    if array.dtype.kind not in "iuf":
        raise PlanError(f"{what} must be numbers, got dtype {array.dtype}")
    if not np.isfinite(array).all():
        frame = int(np.flatnonzero(~np.isfinite(array))[0])
        raise PlanError(f"{what} must be finite: frame {frame} has {array[frame]}")
    decreasing = np.flatnonzero(array[1:] < array[:-1])
    if decreasing.size:
        frame = int(decreasing[0]) + 1
        raise PlanError(
            f"{what} must not decrease: frame {frame} has {array[frame]} after {array[frame - 1]}; "
            "sort the frames by time first"
        )
    return array


def moments(duration: float, split_time: float) -> NDArray[np.float64]:
    """Seconds at which there is an image: ``0, split_time, ...`` below ``duration``, at least the first.

    >>> moments(2.5, 1.0)
    array([0., 1., 2.])
    >>> moments(0.0, 1.0)
    array([0.])
    """
    return np.arange(0, duration, split_time) if duration > 0 else np.zeros(1)


def window_starts(times: NDArray[np.float64], at: NDArray[np.float64], kernel: int) -> NDArray[np.intp]:
    """First frame of the window of each moment.

    ``start = argmin |t - moment|``, the first where several are equal; the window ``[start, start + kernel)``
    goes forward from there and is moved back where it would overrun the last frame.

    >>> window_starts(np.array([0.0, 1.0, 2.0, 3.0, 4.0]), np.array([0.0, 1.4, 4.0]), kernel=2)
    array([0, 1, 3])

    Args:
        times: Seconds of each frame, never decreasing.
        at: Moments in seconds.
        kernel: Frames in a window, at most ``len(times)``.
    """
    nearest = np.fromiter((_nearest(times, moment, 0.0) for moment in at), np.intp, len(at))
    return np.minimum(nearest, len(times) - kernel)


def row_ranges(images: NDArray[Any]) -> NDArray[np.float64]:
    """Greatest minus smallest value of each row, shape ``(images, rows)``: an object in a row makes it large.

    >>> row_ranges(np.array([[[3, 7, 4], [5, 5, 5]]], np.uint8))
    array([[4., 0.]])
    """
    return np.asarray(np.ptp(images, axis=2), np.float64)


def clean_images(
    ranges: NDArray[np.float64], thresh_cleansing: float = 0, frac_cleansing: float = 0.8
) -> NDArray[np.bool_]:
    """Which background images to trust: those in which the rows do not suddenly span more grey values.

    With ``r`` the ranges, ``h`` rows and ``s = max(20, h // 4)``:

    1. ``p = mean over the rows [h//2 - s : h//2 + s] of (r - median of r over the images)``. A negative start
       counts from the end, as in any slice, so for 14 to 39 rows these are the last rows only; dcnum does the
       same.
    2. ``x = p - running median of p`` (10 images, mirrored at the ends), ``d = |x - median x|``.
    3. ``thresh_cleansing == 0``: used where ``d <= quantile(d, frac_cleansing)``.
       Else where ``d <= var(d) * 150 / thresh_cleansing``, unless a part smaller than ``frac_cleansing`` is
       left: then as for 0.
    4. ``frac_cleansing == 1``: all.

    >>> ranges = np.full((20, 40), 5.0)
    >>> ranges[7] = 50.0
    >>> np.flatnonzero(~clean_images(ranges, frac_cleansing=0.95))
    array([7])

    Args:
        ranges: What :func:`row_ranges` returns.
        thresh_cleansing: The larger, the more images are dropped; 0 drops the part ``1 - frac_cleansing``.
        frac_cleansing: Part of the images to keep, or the least part to keep; over 0, at most 1.

    Returns:
        Shape ``(images,)``; at least one is true.
    """
    if frac_cleansing == 1:
        return np.ones(len(ranges), bool)
    middle, spread = ranges.shape[1] // 2, max(20, ranges.shape[1] // 4)
    unusual = ranges - np.median(ranges, axis=0).reshape(1, -1)
    profile = np.mean(unusual[:, middle - spread : middle + spread], axis=1)
    excess = profile - _running_median(profile)
    distance = np.abs(excess - np.median(excess))
    if thresh_cleansing != 0:
        used: NDArray[np.bool_] = distance <= np.var(distance) * 150 / thresh_cleansing
        left = 1 - np.sum(~used) / used.size
        if left >= frac_cleansing:
            return used
        logger.warning(
            "thresh_cleansing %g would leave the part %.3f of the images: frac_cleansing %g is kept instead",
            thresh_cleansing,
            left,
            frac_cleansing,
        )
    quantile: NDArray[np.bool_] = distance <= np.quantile(distance, frac_cleansing)
    return quantile


def _running_median(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The upper median of elements ``[i - 5, i + 5)``; beyond the ends the values are mirrored."""
    padded = np.pad(values, (BASELINE // 2, BASELINE // 2 - 1), mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, BASELINE)
    medians: NDArray[np.float64] = np.sort(windows, axis=1)[:, BASELINE // 2]
    return medians


def frame_index(times: NDArray[np.float64], at: NDArray[np.float64], split_time: float) -> NDArray[np.int64]:
    """The number of the image of each frame.

    The image of moment ``s`` serves the frames from where the one before ends up to, not including,
    ``argmin |t - s - split_time / 2|``; the last image serves all that are left.

    >>> frame_index(np.array([0.0, 0.5, 1.0, 1.5, 2.0, 2.5]), np.array([0.0, 1.0, 2.0]), 1.0)
    array([0, 1, 1, 2, 2, 2])

    Args:
        times: Seconds of each frame, never decreasing.
        at: Moments of the images in use, ascending.
        split_time: Seconds between images before cleansing.

    Returns:
        Shape ``(len(times),)``, values in ``[0, len(at))``.
    """
    ends = [_nearest(times, moment, split_time / 2) for moment in at]
    return np.searchsorted(np.array(ends[:-1], np.int64), np.arange(len(times)), side="right").astype(np.int64)


def _nearest(times: NDArray[np.float64], moment: float, later: float) -> int:
    """The first frame with the smallest ``|t - moment - later|``, computed in this order.

    As times do not decrease the distance falls and then rises, rounding included: bisection finds what a
    search of all frames would.
    """

    def signed(frame: int) -> float:
        return float(times[frame] - moment - later)

    frames = range(len(times))
    right = bisect_left(frames, 0.0, key=signed)
    if right == len(times) or (right > 0 and -signed(right - 1) <= signed(right)):
        return bisect_left(frames, signed(right - 1), key=signed)
    return right


def brightness(frames: NDArray[Any]) -> NDArray[np.float64]:
    """The mean of the top 20 rows of each frame (all rows of lower frames), in double precision.

    >>> brightness(np.array([[[1, 2], [3, 6]]], np.uint8))
    array([3.])
    """
    return np.asarray(np.mean(frames[:, WALL], axis=(1, 2), dtype=np.float64))


def brightness_offset(
    of_frames: NDArray[np.float64], of_images: NDArray[np.float64], index: NDArray[np.int64]
) -> NDArray[np.float64]:
    """How much brighter each frame is than its background: ``brightness(frame) - brightness(images[index])``.

    Add it to the image, or subtract both from the frame, where the light flickers.

    >>> brightness_offset(np.array([7.0, 9.0]), np.array([8.0]), np.array([0, 0]))
    array([-1.,  1.])
    """
    return of_frames - of_images[index]
