"""How far does a region reach when it is grown to whole blocks of a grid?"""

from __future__ import annotations

from blockflow.errors import GeometryError
from blockflow.geometry import Box, Roi, box_of, roi_of


def expand_roi_to_grid(sub_roi: Roi, total_roi: Roi, read_roi: Roi, write_roi: Roi) -> Roi:
    """A region grown to whole write ROIs of the blocks of a task.

    >>> from blockflow import Roi, expand_roi_to_grid
    >>> expand_roi_to_grid(Roi((3,), (6,)), Roi((0,), (30,)), Roi((0,), (9,)), Roi((2,), (5,)))
    [2:12] (10)

    Args:
        sub_roi: The region, in world units.
        total_roi: The region that the read ROIs of the task tile; not a limit for the result.
        read_roi: Read ROI of the task.
        write_roi: Write ROI of the task; lies in `read_roi`.

    Raises:
        GeometryError: A ROI that is unbounded or empty, or has other axes than the rest.
    """
    total, read, write = box_of(total_roi, "total_roi"), box_of(read_roi, "read_roi"), box_of(write_roi, "write_roi")
    if not len(total) == len(read) == len(write):
        raise GeometryError(
            "total_roi, read_roi and write_roi must have the same number of axes, "
            f"got {len(total)}, {len(read)} and {len(write)}"
        )
    origin = [begin + w - r for (begin, _), (r, _), (w, _) in zip(total, read, write, strict=True)]
    return _expanded(box_of(sub_roi, "sub_roi"), origin, write)


def expand_write_roi_to_grid(roi: Roi, write_roi: Roi) -> Roi:
    """A region grown to multiples of the shape of a write ROI, counted from the origin of the world.

    >>> from blockflow import Roi, expand_write_roi_to_grid
    >>> expand_write_roi_to_grid(Roi((3,), (4,)), Roi((0,), (5,)))
    [0:10] (10)

    Args:
        roi: The region, in world units.
        write_roi: Only its shape matters.

    Raises:
        GeometryError: A ROI that is unbounded or empty, or has other axes than the other.
    """
    write = box_of(write_roi, "write_roi")
    return _expanded(box_of(roi, "roi"), [0] * len(write), write)


def _expanded(box: Box, origin: list[int], block: Box) -> Roi:
    if len(box) != len(block):
        raise GeometryError(f"the region has {len(box)} axes, write_roi has {len(block)}")
    steps = [end - begin for begin, end in block]
    return roi_of(
        tuple(
            (o + (begin - o) // step * step, o - (o - end) // step * step)
            for (begin, end), o, step in zip(box, origin, steps, strict=True)
        )
    )
