"""Alignment: may the blocks of a task write into chunked arrays at once, and if not, which blocks could?

1. Blocks that share a chunk or shard must not run at once (:mod:`blockflow.plan.storage`). They do not if the levels
   of the task keep them apart: if on every axis they are less far apart than two blocks of a level are.
2. Blocks cut at borders of units never share one. A regular axis is cut there if its first block begins at a border,
   and its step is a multiple of the unit; of all units, if there are several arrays.
"""

from __future__ import annotations

from math import lcm
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, get_args

from blockflow.errors import PlanError
from blockflow.plan.storage import shared_distances

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blockflow.plan.conflicts import Levels
    from blockflow.plan.grid import Axis, Grid
    from blockflow.plan.storage import Stored

SharedChunks: TypeAlias = Literal["refuse", "serialize"]
"""What happens to a task whose blocks share chunks or shards."""

Verdict: TypeAlias = Literal["aligned", "in turn", "shared"]
"""No two blocks share a unit; those that do run one after the other; those that do may run at once."""

SHARED_CHUNKS: tuple[SharedChunks, ...] = get_args(SharedChunks)


def apart_for(grid: Grid, outputs: Sequence[Stored]) -> tuple[int, ...]:
    """How far apart, on some axis, two blocks must be not to share a unit of any output."""
    apart = (1,) * len(grid.shape)
    for output in outputs:
        apart = tuple(max(m, distance + 1) for m, distance in zip(apart, shared_distances(grid, output), strict=True))
    return apart


def verdict_on(grid: Grid, levels: Levels, output: Stored) -> Verdict:
    """Whether blocks may be writing into one chunk or shard of an output at once."""
    distances = shared_distances(grid, output)
    if not any(distances):
        return "aligned"
    ordered = all(distance < modulus for distance, modulus in zip(distances, levels.moduli, strict=True))
    return "in turn" if ordered else "shared"


def check_unshared(task_id: str, grid: Grid, levels: Levels, outputs: Sequence[Stored]) -> None:
    """Refuse a task whose blocks may be writing into one chunk or shard at once.

    Raises:
        PlanError: Says where, and which blocks would be safe.
    """
    for output in outputs:
        if verdict_on(grid, levels, output) == "shared":
            raise PlanError(
                f"task {task_id!r}: two blocks must not write into one {output.kind} at once, and some of these would "
                f"in {output.name}: {'; '.join(_shared_axes(grid, output))}; {advice(grid, outputs)}, or "
                "shared_chunks='serialize' runs such blocks one after the other"
            )


class Safe(NamedTuple):
    """Blocks along one axis that share no chunk or shard; world units."""

    smaller: int
    """The nearest extent of what a block writes that is not larger than now, if there is one."""
    larger: int
    """The nearest that is not smaller."""
    unit: int
    """Cuts at multiples of this are safe."""
    begin: int
    """Where blocks have to begin for that: where they do, or the next border in front of it."""


def safe_axes(grid: Grid, outputs: Sequence[Stored]) -> list[Safe]:
    """The nearest blocks that share no chunk or shard, axis by axis.

    >>> from blockflow import Grid
    >>> from blockflow.plan.storage import Stored
    >>> array = Stored(name="out", box=((0, 100),), voxel_size=(1,), voxel_bytes=1, origin=(0,), chunk=(16,))
    >>> safe_axes(Grid.regular((100,), block=40), [array])
    [Safe(smaller=32, larger=48, unit=16, begin=0)]
    """
    distances = apart_for(grid, outputs)
    return [
        _safe(cut, end - begin, voxel, [(output.origin[axis], output.unit[axis]) for output in outputs], distance > 1)
        for axis, (cut, (begin, end), voxel, distance) in enumerate(
            zip(grid.axes, grid.region, grid.voxel_size, distances, strict=True)
        )
    ]


def _safe(cut: Axis, whole: int, voxel: int, units: list[tuple[int, int]], shared: bool) -> Safe:
    span = cut.template
    block = span.write_end - span.write_begin
    unit = lcm(voxel, *(extent for _, extent in units))
    if not shared:
        return Safe(block, block, unit, cut.begin)
    origin, step = units[0]
    border = cut.begin - (cut.begin - origin) % step
    for begin in range(border, border - unit, -step):
        if unit < whole and all((begin - origin) % extent == 0 for origin, extent in units):
            return Safe(max(unit, block // unit * unit), min(-(-block // unit) * unit, whole), unit, begin)
    return Safe(whole, whole, unit, cut.begin)  # a single block shares nothing


def advice(grid: Grid, outputs: Sequence[Stored]) -> str:
    """Which blocks would be safe; not quite a sentence."""
    axes = safe_axes(grid, outputs)
    moved = [
        f"axis {axis} begins at {safe.begin}" for axis, safe in enumerate(axes) if safe.begin != grid.axes[axis].begin
    ]
    condition = f", if {' and '.join(moved)}" if moved else ""
    shapes = [tuple(safe.smaller for safe in axes), tuple(safe.larger for safe in axes)]
    if grid.tiled:
        return f"a write_roi of shape {_either(shapes)} is safe{condition}"
    voxels = [
        tuple(extent // voxel for extent, voxel in zip(shape, grid.voxel_size, strict=True))
        for shape in [*shapes, tuple(safe.unit for safe in axes)]
    ]
    return f"blocks that write {_either(voxels[:2])} voxels are safe (multiple_of={voxels[2]}){condition}"


def _either(shapes: list[tuple[int, ...]]) -> str:
    return " or ".join(str(shape) for shape in dict.fromkeys(shapes))


def _shared_axes(grid: Grid, output: Stored) -> list[str]:
    found = []
    for axis, (cut, distance) in enumerate(zip(grid.axes, shared_distances(grid, output), strict=True)):
        if distance:
            voxel, span = output.voxel_size[axis], cut.template
            block, begin = span.write_end - span.write_begin, cut.begin - output.origin[axis]
            found.append(
                f"axis {axis} has {output.kind}s of {output.unit[axis] // voxel} voxels, and blocks that write "
                f"{block / voxel:g} voxels from {begin / voxel:g} on"
            )
    return found
