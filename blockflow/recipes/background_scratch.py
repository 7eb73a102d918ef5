"""Scratch of the background recipe: where do blocks leave what they compute, and what of it is there already?

- In this process: in new arrays.
- With workers: in shared memory, which ends with the run, however that ends.
- With a run directory: in memory-mapped files, which stay.

A run directory keeps one job::

    <run_dir>/background/
        job.json         of which frames, and what
        images.npy       all background images
        brightness.npy   of all frames, if it is wanted
        done.npy         for each image: whether it and its share of the frames are complete

The folder appears complete or not at all, so two processes that begin the same job share it. Images are marked as
done when they are on the disk. Another job is refused, however little it differs.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from blockflow.arrays.shared import SharedArray
from blockflow.errors import PlanError
from blockflow.recipes.replacing import flush, placing_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Scratch", "array_at", "kept_scratch", "new_scratch"]

Place: TypeAlias = NDArray[Any] | SharedArray | Path
"""An array of this process, one in shared memory, or a ``.npy`` file."""

Shape: TypeAlias = tuple[int, int, int]

FOLDER = "background"
JOB = "job.json"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scratch:
    """Places that every process of a run can open."""

    images: Place
    """Shape ``(images, height, width)``."""
    brightness: Place | None
    """Shape ``(frames,)``; None if it is not wanted."""
    done: Path | None = None
    """Shape ``(images,)``; None if nothing is kept."""

    def finish(self, first: int, last: int) -> None:
        """Mark images ``[first, last)`` as complete, if that is kept."""
        if self.done is None:
            return
        for place in (self.images, self.brightness):
            if isinstance(place, Path):
                flush(place)
        array_at(self.done)[first:last] = True
        flush(self.done)


def array_at(place: Place, mode: Literal["r", "r+"] = "r+") -> NDArray[Any]:
    """The array at a place, without a copy.

    >>> array_at(SharedArray.from_array([1, 2]))
    array([1, 2])

    Args:
        place: Where it is.
        mode: Whether a file is mapped for reading only.
    """
    if isinstance(place, Path):
        return np.asarray(np.load(place, mmap_mode=mode))
    return place.view() if isinstance(place, SharedArray) else place


@contextmanager
def new_scratch(shape: Shape, dtype: np.dtype[Any], frames: int | None, *, shared: bool) -> Iterator[Scratch]:
    """Scratch that nobody keeps; arrays of it that are in use when the context ends stay valid.

    >>> with new_scratch((3, 4, 5), np.dtype(np.uint8), 7, shared=True) as scratch:
    ...     images = array_at(scratch.images)
    >>> images.shape, images.max()
    ((3, 4, 5), np.uint8(0))

    Args:
        shape: Of the images.
        dtype: Of the images.
        frames: How many have their brightness computed; None for no brightness.
        shared: Whether other processes need it.

    Raises:
        OSError: There is no room for it.
    """
    with ExitStack() as owned:

        def new(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Place:
            return owned.enter_context(SharedArray.create(shape, dtype)) if shared else np.empty(shape, dtype)

        brightness = None if frames is None else new((frames,), np.dtype(np.float64))
        yield Scratch(images=new(shape, dtype), brightness=brightness)


def kept_scratch(run_dir: Path, job: dict[str, Any], shape: Shape, dtype: np.dtype[Any], frames: int | None) -> Scratch:
    """The scratch of a job in a run directory, made if there is none.

    Args:
        run_dir: Made if it is not there.
        job: What tells the job from others, as JSON can hold it.
        shape: Of the images.
        dtype: Of the images.
        frames: How many have their brightness computed; None for no brightness.

    Raises:
        PlanError: The directory keeps another job, or something else.
        OSError: It cannot be written to, or there is no room.
    """
    folder = run_dir.absolute() / FOLDER
    if not folder.exists():
        run_dir.mkdir(parents=True, exist_ok=True)
        with placing_directory(folder) as part:
            part.mkdir()
            _new_file(part / "images.npy", shape, dtype)
            if frames is not None:
                _new_file(part / "brightness.npy", (frames,), np.dtype(np.float64))
            _new_file(part / "done.npy", shape[:1], np.dtype(bool))
            (part / JOB).write_text(json.dumps(job, indent=2))
    _check_job(folder, job)
    return Scratch(
        images=folder / "images.npy",
        brightness=None if frames is None else folder / "brightness.npy",
        done=folder / "done.npy",
    )


def _new_file(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):  # a full disk is an error now, not a SIGBUS later
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), array.offset, array.nbytes)


def _check_job(folder: Path, job: dict[str, Any]) -> None:
    try:
        kept = dict(json.loads((folder / JOB).read_text()))
    except (OSError, ValueError) as error:
        raise PlanError(f"run_dir must be new or keep a background, {folder} has no usable {JOB}: {error}") from error
    for key in [*job, *kept]:
        if job.get(key) != kept.get(key):
            raise PlanError(
                f"run_dir keeps another job in {folder}: {key} was {kept.get(key)!r} and is {job.get(key)!r} now; "
                "choose another run_dir, or delete that folder"
            )
