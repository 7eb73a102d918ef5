"""One block of the background recipe: what does a worker do with a run of images?

1. It opens the frames and the scratch.
2. It computes the images of its windows, each the next in one :class:`~blockflow.recipes.sliding_median`.
3. It computes the brightness of its share of the frames: the frames are shared out in proportion to images, in
   stored chunks, so that one grid of blocks does both and no chunk is decompressed by two.
4. It marks its images as done where that is kept.

Blocks share neither images nor frames that they write, so they can run in any order, at once and again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from blockflow.recipes.background_handles import reopened
from blockflow.recipes.background_scratch import array_at
from blockflow.recipes.background_steps import WALL, brightness
from blockflow.recipes.sliding_median import compute_images

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from blockflow.plan.block import Block
    from blockflow.recipes.background_input import Stack
    from blockflow.recipes.background_scratch import Scratch

__all__ = ["Job", "Starts", "compute_block"]

Starts: TypeAlias = "Sequence[int] | NDArray[np.intp]"
"""First frame of the window of each image, ascending."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Job:
    """What all blocks have in common."""

    frames: Any
    """A stack of this process, or a handle for others."""
    starts: Starts
    kernel: int
    """Frames in a window."""
    scratch: Scratch
    """Where the results go."""


def compute_block(job: Job, block: Block) -> None:
    """Compute the images of a block, and the brightness of its frames if that is wanted.

    Args:
        job: What all blocks have in common.
        block: Its write ROI is a range of images.
    """
    (first,), (last,) = block.write_roi.begin, block.write_roi.end
    with reopened(job.frames) as frames:
        compute_images(frames, job.starts[first:last], job.kernel, array_at(job.scratch.images)[first:last])
        if job.scratch.brightness is not None:
            light = array_at(job.scratch.brightness)
            begin, end = (_share(frames, image, len(job.starts)) for image in (first, last))
            for begin_portion, end_portion in frames.portions(begin, end):
                light[begin_portion:end_portion] = brightness(frames.frames(begin_portion, end_portion, WALL))
    job.scratch.finish(first, last)


def _share(frames: Stack, image: int, images: int) -> int:
    """The frame at which the share of an image begins; for the number of images, where the last share ends.

    >>> import numpy as np
    >>> from blockflow.recipes.background_input import Stack
    >>> [_share(Stack(np.zeros((10, 2, 2), np.uint8)), image, 4) for image in range(5)]
    [0, 2, 5, 7, 10]
    """
    count = frames.shape[0]
    frame = count * image // images
    return frame if image == images else frame - frame % frames.chunk
