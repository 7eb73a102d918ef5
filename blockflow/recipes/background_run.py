"""Run of the background recipe: how do all images come about, here or in worker processes?

One task over a grid of one axis, the images; a block is a run of them (:mod:`~blockflow.recipes.background_block`).
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from blockflow.errors import PlanError, RunError
from blockflow.geometry import Roi
from blockflow.logging import get_log_basedir
from blockflow.paths import local_path
from blockflow.plan.task import Task
from blockflow.recipes.background_block import Job, compute_block
from blockflow.recipes.background_handles import identity, shipped
from blockflow.recipes.background_scratch import array_at, kept_scratch, new_scratch
from blockflow.run import run_blockwise

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from numpy.typing import NDArray

    from blockflow.plan.block import Block
    from blockflow.recipes.background_block import Starts
    from blockflow.recipes.background_input import Stack
    from blockflow.result import RunResult

__all__ = ["compute_background"]

TASK = "background"
"""Name of the task, in the progress bar and of the folder of the workers' logs."""

WINDOWS = 16
"""Frames of a block, in windows: a block reads its first window anew, at most one part in so many."""

BLOCKS_PER_WORKER = 4
"""At least, where there are images enough, so that workers end at about the same time."""


def compute_background(
    frames: Stack,
    starts: Starts,
    kernel: int,
    *,
    offset: bool,
    num_workers: int,
    run_dir: str | os.PathLike[str] | None,
    progress: bool,
) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
    """The image of each window and, if an offset is wanted, the brightness of each frame.

    >>> from blockflow.recipes.background_input import Stack
    >>> stack = Stack(np.arange(6, dtype=np.uint8).reshape(6, 1, 1))
    >>> images, light = compute_background(
    ...     stack, [0, 2], 4, offset=True, num_workers=1, run_dir=None, progress=False)
    >>> images.ravel(), light
    (array([2, 4], dtype=uint8), array([0., 1., 2., 3., 4., 5.]))

    Args:
        frames: The stack.
        starts: First frame of the window of each image, ascending.
        kernel: Frames in a window.
        offset: Whether to compute the brightness.
        num_workers: Worker processes; 1 computes in this process.
        run_dir: Where to keep the results of blocks, and to find those of a run of the same job; None keeps
            nothing.
        progress: Whether to show a progress bar.

    Raises:
        PlanError: The run directory keeps another job.
        ArrayError: The frames cannot be shared with workers; or one cannot be read or is not finite (in this process).
        RunError: A block failed in a worker process, or no worker could be started.
    """
    shape = (len(starts), *frames.shape[1:])
    lit = frames.shape[0] if offset else None
    workers = num_workers > 1
    with ExitStack() as context:
        if run_dir is None:
            scratch = context.enter_context(new_scratch(shape, frames.dtype, lit, shared=workers))
        else:
            facts = job_facts(frames, starts, kernel, offset=offset)
            scratch = kept_scratch(local_path(run_dir, "run_dir", PlanError), facts, shape, frames.dtype, lit)
        handle = context.enter_context(shipped(frames)) if workers else frames
        job = Job(frames=handle, starts=starts, kernel=kernel, scratch=scratch)
        images = Roi((0,), (images_per_block(starts, kernel, num_workers),))
        task = Task(
            TASK,
            total_roi=Roi((0,), (len(starts),)),
            read_roi=images,
            write_roi=images,
            process_function=partial(compute_block, job),
            check_function=None if scratch.done is None else _found_in(array_at(scratch.done, "r")),
            read_write_conflict=False,
            num_workers=num_workers,
            fit="shrink",
        )
        result = run_blockwise(task, multiprocessing=workers, progress=progress, summary=False)
        if not result:
            raise RunError(failure(result))
        light = None if scratch.brightness is None else array_at(scratch.brightness, "r")
        return array_at(scratch.images, "r"), light


def images_per_block(starts: Starts, kernel: int, num_workers: int) -> int:
    """How many images a block has: so many that it pays to read a window anew, but some blocks for each worker.

    >>> images_per_block(range(0, 100_000, 10), 200, 2), images_per_block(range(0, 1000, 10), 200, 2)
    (320, 13)
    """
    count = len(starts)
    step = max(1, min(kernel, (starts[-1] - starts[0]) // max(1, count - 1)))
    enough = -(-WINDOWS * kernel // step)
    if num_workers > 1:
        enough = min(enough, -(-count // (BLOCKS_PER_WORKER * num_workers)))
    return int(min(enough, count))


def failure(result: RunResult) -> str:
    """Why there is no background, in words."""
    state = result[TASK]
    missing = state.total_block_count - state.completed_count
    text = f"{missing} of {state.total_block_count} blocks of background images could not be computed"
    reasons = [cause.error for cause in result.causes[:1]] + result.problems
    logs = get_log_basedir()
    where = "" if logs is None else f" (what the workers printed is in {logs / TASK})"
    traceback = result.causes[0].traceback if result.causes else ""
    return f"{text}: {'; '.join(reasons)}{where}\n{traceback}".rstrip()


def job_facts(frames: Stack, starts: Starts, kernel: int, *, offset: bool) -> dict[str, Any]:
    """What tells a job from others.

    >>> from blockflow.recipes.background_input import Stack
    >>> list(job_facts(Stack(np.zeros((3, 4, 5))), [0, 1], 2, offset=True))
    ['shape', 'dtype', 'frames', 'version', 'kernel', 'images', 'windows', 'brightness']
    """
    windows = hashlib.blake2b(np.asarray(starts, np.int64).tobytes(), digest_size=16).hexdigest()
    job = {"kernel": kernel, "images": len(starts), "windows": f"starts with digest {windows}", "brightness": offset}
    return identity(frames) | job


def _found_in(done: NDArray[np.bool_]) -> Callable[[Block], bool]:
    """Whether all images of a block are done."""
    return lambda block: bool(done[block.write_roi.begin[0] : block.write_roi.end[0]].all())
