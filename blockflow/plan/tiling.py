"""Tiling: which blocks does the template of a task make when it is shifted over a total region?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockflow.errors import GeometryError
from blockflow.plan.grid import Grid
from blockflow.plan.regular import FITS, Fit, RegularAxis

if TYPE_CHECKING:
    from blockflow.geometry import Box


def tile(*, total: Box, read: Box, write: Box, fit: Fit, voxel_size: tuple[int, ...] = ()) -> Grid:
    """Tile a total region with a block.

    The template is shifted so that its read box begins where the total region does; its write box then moves in
    steps of its own extent through the region that can be written, which is `total` without the context.

    Args:
        total: The region that the read boxes tile, context included; world units, half-open.
        read: Read box of the template; only its place relative to `write` matters.
        write: Write box of the template; must lie in `read`.
        fit: ``"valid"`` drops the blocks that do not fit, ``"overhang"`` keeps whole every block that begins to
            write inside, ``"shrink"`` cuts those blocks at the end.
        voxel_size: World units per voxel; 1 if not given.

    Raises:
        GeometryError: The boxes contradict one another, `fit` is unknown, or there are 2**63 blocks or more.
    """
    if fit not in FITS:
        raise GeometryError(f"fit must be one of {', '.join(map(repr, FITS))}, got {fit!r}")
    if not len(total) == len(read) == len(write):
        raise GeometryError(
            "total_roi, read_roi and write_roi must have the same number of axes, "
            f"got {len(total)}, {len(read)} and {len(write)}"
        )
    axes, region = [], []
    for whole, writes, (before, after) in zip(total, write, contexts_of(read, write), strict=True):
        step = writes[1] - writes[0]
        first, end = whole[0] + before, whole[1] - after
        room = max(0, end - first)
        count = room // step if fit == "valid" else -(-room // step)
        overshoot = count * step - room if fit == "shrink" else 0
        axes.append(
            RegularAxis(
                first=first,
                step=step,
                count=count,
                before=before,
                after=after,
                overshoot=overshoot,
                shift=before // step,
            )
        )
        region.append((first, first + room))
    return Grid(tuple(axes), tuple(region), voxel_size, tiled=True)


def contexts_of(read: Box, write: Box) -> list[tuple[int, int]]:
    """How far a read box reaches beyond its write box, per axis: in front of it, and behind it.

    Raises:
        GeometryError: It does not contain the write box.

    >>> contexts_of(((0, 10), (0, 5)), ((1, 8), (0, 5)))
    [(1, 2), (0, 0)]
    """
    contexts = []
    for axis, (reads, writes) in enumerate(zip(read, write, strict=True)):
        if not reads[0] <= writes[0] < writes[1] <= reads[1]:
            raise GeometryError(
                f"read_roi must contain write_roi: axis {axis} writes [{writes[0]}, {writes[1]}) "
                f"and reads only [{reads[0]}, {reads[1]})"
            )
        contexts.append((writes[0] - reads[0], reads[1] - writes[1]))
    return contexts
