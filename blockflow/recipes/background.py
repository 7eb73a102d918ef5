"""Background of an image series: what does each frame look like without the objects in it?

A recipe: a job over time instead of space. Every block is a run of background images, each the median over a
window of frames, so a series larger than memory is read window by window.

1. :mod:`~blockflow.recipes.background_input` opens the stack.
2. :mod:`~blockflow.recipes.background_steps` says where the windows are and, afterwards, which images to
   trust, which image each frame gets and how much brighter it is.
3. :mod:`~blockflow.recipes.background_run` computes images and brightness block by block, in this process or in
   workers: :mod:`~blockflow.recipes.background_block` is what they do, with the median of
   :mod:`~blockflow.recipes.sliding_median`; :mod:`~blockflow.recipes.background_handles` is how they get at the
   frames and :mod:`~blockflow.recipes.background_scratch` where they leave the results.
4. :class:`Background` is the result; :mod:`~blockflow.recipes.rtdc` writes it for dcnum and dclab.
"""

from __future__ import annotations

import logging
import math
import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from blockflow.errors import PlanError
from blockflow.paths import local_path
from blockflow.recipes.background_input import Stack, open_stack
from blockflow.recipes.background_result import Background
from blockflow.recipes.background_run import compute_background
from blockflow.recipes.background_steps import (
    brightness,
    brightness_offset,
    clean_images,
    frame_index,
    moments,
    row_ranges,
    time_axis,
    window_starts,
)

if TYPE_CHECKING:
    import os

    from numpy.typing import ArrayLike, NDArray

__all__ = ["Background", "rolling_median_background", "sparse_median_background"]

logger = logging.getLogger(__name__)

DCNUM_BATCH = 10_000
"""Part of dcnum's identifier of a rolling median: frames it works off together, which changes no value."""


def sparse_median_background(
    stack: Any,
    kernel_size: int = 200,
    split_time: float = 1.0,
    thresh_cleansing: float = 0,
    frac_cleansing: float = 0.8,
    offset_correction: bool = True,
    *,
    times: ArrayLike | None = None,
    frame_rate: float | None = None,
    num_workers: int = 1,
    run_dir: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Background:
    """A background image every ``split_time`` seconds: the median of the ``kernel_size`` frames that follow.

    Images that look as if objects had stayed in place are dropped (cleansing), each frame gets the image
    nearest in time, and a frame's own brightness goes into an offset. The result is that of dcnum's
    ``BackgroundSparseMed``, for 8-bit frames bit by bit.

    Args:
        stack: Frames: array-like of shape ``(frames, height, width)`` (ndarray, memmap, zarr, HDF5 dataset),
            or the path of a zarr array, ``.npy`` file or RT-DC file. uint8, uint16, float32 or float64.
        kernel_size: Frames in a window; fewer, with a warning in the log, if the stack has fewer.
        split_time: Seconds between background images.
        thresh_cleansing: The larger, the more images are dropped; 0 keeps the part ``frac_cleansing``.
        frac_cleansing: Part of the images to keep, or the least part with ``thresh_cleansing``; 1 keeps all.
        offset_correction: Whether to compute offsets.
        times: Seconds of each frame. Without them: those of the file, or what follows from frame numbers or a
            rate; see :func:`~blockflow.recipes.background_steps.time_axis`.
        frame_rate: Frames per second of the recording, instead of what the file says; not together with
            ``times``.
        num_workers: Worker processes; 1 computes in this process. Workers open files themselves; frames in
            memory are copied once, into shared memory.
        run_dir: A directory that keeps what has been computed, one file per array, while the job runs and after
            it; the same job again computes only what is missing. Nothing is kept if not given.
        progress: Whether to show a progress bar.

    Raises:
        PlanError: A parameter, the stack or its times cannot be right, or ``run_dir`` keeps another job; nothing
            has been computed.
        MetadataError: A file without images, or with a time axis that does not fit them.
        ArrayError: A frame cannot be read or is not finite, and there is one worker.
        RunError: The same in a worker process, with its traceback; or there are no workers.

    >>> frames = np.random.default_rng(0).integers(90, 110, (600, 24, 32)).astype(np.uint8)
    >>> background = sparse_median_background(frames, kernel_size=50, split_time=0.05)
    >>> background.images.shape, background.index.shape, background.identifier
    ((5, 24, 32), (600,), 'sparsemed:k=50^s=0.05^t=0^f=0.8^o=1')
    """
    kernel, workers = _whole("kernel_size", kernel_size), _whole("num_workers", num_workers)
    _check_range("split_time", split_time, split_time > 0, "positive")
    _check_range("thresh_cleansing", thresh_cleansing, thresh_cleansing >= 0, "0 or more")
    _check_range("frac_cleansing", frac_cleansing, 0 < frac_cleansing <= 1, "over 0 and at most 1")
    _check_directory(run_dir)
    parameters = {
        "k": kernel,
        "s": split_time,
        "t": thresh_cleansing,
        "f": frac_cleansing,
        "o": bool(offset_correction),
    }
    with open_stack(stack) as frames:
        seconds = _seconds(frames, times, frame_rate)
        kernel = _fitting(kernel, frames)
        at = moments(seconds[-1], split_time)
        series, light = compute_background(
            frames,
            window_starts(seconds, at, kernel),
            kernel,
            offset=bool(offset_correction),
            num_workers=workers,
            run_dir=run_dir,
            progress=progress,
        )
        used = clean_images(row_ranges(series), thresh_cleansing, frac_cleansing)
        logger.info("%d of %d background images dropped by cleansing", np.sum(~used), used.size)
        images = series if used.all() else series[used]
        index = frame_index(seconds, at[used], split_time)
        return Background(
            images=images,
            index=index,
            offset=None if light is None else brightness_offset(light, brightness(images), index),
            times=at,
            used=used,
            identifier=_identifier("sparsemed", parameters),
            source=frames.source,
        )


def rolling_median_background(
    stack: Any,
    kernel_size: int = 100,
    *,
    times: ArrayLike | None = None,
    frame_rate: float | None = None,
    num_workers: int = 1,
    run_dir: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Background:
    """A background image for every frame: the median of the ``kernel_size`` frames from it on.

    The window of frame ``i`` is ``[i, i + kernel_size)``; the last ``kernel_size`` frames share the image of
    the frame before them, as in dcnum's ``BackgroundRollMed``. There is no cleansing and no offset. The
    images take as much memory as the frames; with a ``run_dir`` they are a memory-mapped file in it.

    Args:
        stack: As for :func:`sparse_median_background`.
        kernel_size: Frames in a window; fewer, with a warning in the log, if the stack has fewer.
        times: As for :func:`sparse_median_background`.
        frame_rate: As for :func:`sparse_median_background`.
        num_workers: As for :func:`sparse_median_background`.
        run_dir: As for :func:`sparse_median_background`.
        progress: Whether to show a progress bar.

    Raises:
        PlanError: As for :func:`sparse_median_background`; so are the others.
        MetadataError: A file without images, or with a time axis that does not fit them.
        ArrayError: A frame cannot be read or is not finite.
        RunError: The same in a worker process; or there are no workers.

    >>> frames = np.arange(7, dtype=np.uint8).reshape(7, 1, 1)
    >>> background = rolling_median_background(frames, kernel_size=4)
    >>> [background.at(frame).item() for frame in range(7)]
    [2, 3, 4, 4, 4, 4, 4]
    """
    kernel, workers = _whole("kernel_size", kernel_size), _whole("num_workers", num_workers)
    _check_directory(run_dir)
    identifier = _identifier("rollmed", {"k": kernel, "b": DCNUM_BATCH})
    with open_stack(stack) as frames:
        seconds = _seconds(frames, times, frame_rate)
        kernel = _fitting(kernel, frames)
        starts = range(max(len(seconds) - kernel, 1))
        images, _ = compute_background(
            frames, starts, kernel, offset=False, num_workers=workers, run_dir=run_dir, progress=progress
        )
        return Background(
            images=images,
            index=np.minimum(np.arange(len(seconds)), starts[-1]),
            offset=None,
            times=seconds[: len(starts)],
            used=np.ones(len(starts), bool),
            identifier=identifier,
            source=frames.source,
        )


def _whole(what: str, value: Any) -> int:
    """A number of things of which there is at least one."""
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1 or isinstance(value, bool):
        raise PlanError(f"{what} must be a whole number, 1 or more, got {value!r}")
    return number


def _check_range(what: str, value: float, right: bool, expected: str) -> None:
    if not (right and math.isfinite(value)):
        raise PlanError(f"{what} must be {expected}, got {value}")


def _check_directory(run_dir: Any) -> None:
    if run_dir is None:
        return
    directory = local_path(run_dir, "run_dir", PlanError)
    if directory.exists() and not directory.is_dir():
        raise PlanError(f"run_dir must be a directory or a new one, {run_dir} is a file")


def _seconds(frames: Stack, times: ArrayLike | None, frame_rate: float | None) -> NDArray[np.float64]:
    """The time axis: what the caller says goes before what the file says."""
    count = frames.shape[0]
    if times is not None and frame_rate is not None:
        raise PlanError("times and frame_rate exclude one another: give the times, or the rate to derive them")
    if frame_rate is not None:
        return time_axis(count, numbers=frames.numbers, rate=frame_rate)
    return time_axis(count, frames.times if times is None else times, frames.numbers, frames.rate)


def _fitting(kernel: int, frames: Stack) -> int:
    """The kernel, or all frames if there are fewer."""
    count = frames.shape[0]
    if kernel > count:
        logger.warning("kernel_size is %d, the stack has %d frames: each image is the median of all", kernel, count)
    return min(kernel, count)


def _identifier(method: str, parameters: dict[str, Any]) -> str:
    """The notation of dcnum: ``method:key=value^key=value``, truth as 0 or 1, whole floats without point.

    >>> _identifier("sparsemed", {"k": 200, "s": 1.0, "f": 0.8, "o": True})
    'sparsemed:k=200^s=1^f=0.8^o=1'
    """
    return f"{method}:" + "^".join(
        f"{key}={int(value) if value == int(value) else value}" for key, value in parameters.items()
    )
