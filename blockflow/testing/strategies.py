"""Hypothesis strategies: which tilings, tasks and pipelines could a user come up with?

For tests of your own pipelines: they try what nobody thinks of, such as context on one side only or larger than a
block, remainders, negative offsets, and upstream tasks that lie somewhere else. Everything drawn is valid and small.
This module needs hypothesis, which blockflow does not install.

>>> from blockflow.testing.strategies import tasks
>>> from hypothesis import given, settings
>>> @settings(max_examples=10, deadline=None)
... @given(tasks("smooth", dims=2))
... def test_blocks_read_where_they_write(task):
...     for index in range(task.grid.size):
...         for reads, writes in zip(task.grid.read_box(index), task.grid.write_box(index)):
...             assert reads[0] <= writes[0] < writes[1] <= reads[1]
>>> test_blocks_read_where_they_write()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from blockflow.errors import GeometryError
from blockflow.geometry import Roi, coordinate_of
from blockflow.optional import not_installed
from blockflow.plan.grid import FITS, Grid
from blockflow.plan.plan import Plan, compile_plan
from blockflow.plan.task import Task

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError(not_installed("blockflow.testing.strategies needs", "hypothesis")) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from blockflow.plan.grid import Fit

__all__ = ["Limits", "Template", "grids", "pipelines", "plans", "tasks", "templates"]

_STEP = 4
"""Greatest extent of a block's write ROI on one axis, in voxels."""
_CONTEXT = 9
"""Greatest context on one side, in voxels: more than two blocks, so that context larger than a block is common."""
_OFFSET = 4
"""Greatest distance from the origin, in voxels: most regions of a pipeline meet, and some do not."""
_DIMS = 6
"""Greatest number of axes, if it is not given."""


class Template(TypedDict):
    """The arguments of :class:`blockflow.Task` that say where its blocks are: ``Task("smooth", **template)``.

    >>> sorted(Template.__annotations__)
    ['fit', 'read_roi', 'read_write_conflict', 'total_roi', 'write_roi']
    """

    total_roi: Roi
    read_roi: Roi
    write_roi: Roi
    fit: Fit
    read_write_conflict: bool


class Limits(TypedDict, total=False):
    """What every strategy of this module can be told.

    >>> limits: Limits = {"dims": 3, "max_blocks": 27}
    >>> strategy = tasks("smooth", **limits)
    """

    dims: int | None
    """Number of axes; drawn from 1 to 6 if neither this nor `voxel_size` is given."""
    voxel_size: Sequence[int] | None
    """World units per voxel, per axis: all ROIs are multiples of it. Default: 1."""
    max_blocks: int
    """Greatest number of blocks of one task. Default: 64."""
    allow_empty: bool
    """Whether a task may have no block at all; such a task can be planned but not run. Default: False."""


@st.composite
def templates(draw: st.DrawFn, **limits: Unpack[Limits]) -> Template:
    """Total, read and write ROIs that fit together.

    Args:
        draw: Passed by hypothesis.
        **limits: See :class:`Limits`.

    Raises:
        GeometryError: When an example is drawn: `dims` and `voxel_size` disagree.

    >>> strategy = templates(voxel_size=(40, 4, 4))
    """
    dims, voxels = _axes(draw, limits)
    fit: Fit = draw(st.sampled_from(FITS))
    side = _side(limits.get("max_blocks", 64), dims)
    empty = limits.get("allow_empty", False) and draw(st.sampled_from((False, False, False, True)))
    total, read, write = [], [], []
    for voxel in voxels:
        step = draw(st.integers(1, _STEP))
        before, after = draw(_contexts()), draw(_contexts())
        # Where "valid" needs room for a whole block, the others are content with a voxel.
        least = 1 - before - after if empty else step if fit == "valid" else 1
        room = draw(st.integers(least, side * step))
        begin, shift = draw(_offsets()), draw(_offsets())
        total.append((begin * voxel, (before + room + after) * voxel))
        read.append((shift * voxel, (before + step + after) * voxel))
        write.append(((shift + before) * voxel, step * voxel))
    return {
        "total_roi": _roi(total),
        "read_roi": _roi(read),
        "write_roi": _roi(write),
        "fit": fit,
        "read_write_conflict": draw(st.booleans()),
    }


@st.composite
def grids(draw: st.DrawFn, *, dims: int | None = None, max_blocks: int = 64) -> Grid:
    """Regular and balanced grids over small arrays that lie anywhere: ``Task("smooth", grid=grid)``.

    Args:
        draw: Passed by hypothesis.
        dims: Number of axes; drawn from 1 to 6 if not given.
        max_blocks: Greatest number of blocks.

    >>> strategy = grids(dims=2)
    """
    dims = draw(st.integers(1, _DIMS)) if dims is None else dims
    side = _side(max_blocks, dims)
    shape, sizes = [], []
    for _ in range(dims):
        sizes.append(draw(st.integers(1, _STEP)))
        shape.append(draw(st.integers(1, side * sizes[-1])))
    place: dict[str, Any] = {
        "offset": [draw(_offsets()) for _ in shape],
        "voxel_size": [draw(st.integers(1, 3)) for _ in shape],
    }
    if draw(st.booleans()):
        blocks = [min(size, extent) for size, extent in zip(sizes, shape, strict=True)]
        contexts = [(draw(_contexts()), draw(_contexts())) for _ in shape]
        return Grid.regular(shape, blocks, contexts, fit=draw(st.sampled_from(FITS)), clip=draw(st.booleans()), **place)
    # Of a block that reads `size + overlap`, `size` is its own: there are no more blocks than of regular ones.
    overlaps = [draw(_contexts()) for _ in shape]
    largest = [size + overlap for size, overlap in zip(sizes, overlaps, strict=True)]
    return Grid.balanced(shape, largest, overlap=overlaps, exact=draw(st.booleans()), **place)


@st.composite
def tasks(
    draw: st.DrawFn,
    task_id: str = "task",
    *,
    process_function: Callable[..., Any] | None = None,
    upstream_tasks: Iterable[Task] = (),
    **limits: Unpack[Limits],
) -> Task:
    """Tasks over small regions.

    Args:
        draw: Passed by hypothesis.
        task_id: Name of the task.
        process_function: What the task does.
        upstream_tasks: Tasks whose results the task reads; they must have the same number of axes.
        **limits: See :class:`Limits`.

    >>> strategy = tasks("smooth", dims=3)
    """
    return Task(
        task_id,
        **draw(templates(**limits)),
        process_function=process_function,
        upstream_tasks=list(upstream_tasks),
        voxel_size=limits.get("voxel_size"),
    )


@st.composite
def pipelines(
    draw: st.DrawFn,
    *,
    process_function: Callable[..., Any] | None = None,
    max_tasks: int = 4,
    **limits: Unpack[Limits],
) -> list[Task]:
    """Tasks that read one another's results: chains, diamonds, and tasks on their own; upstream tasks first.

    Args:
        draw: Passed by hypothesis.
        process_function: What every task does.
        max_tasks: Greatest number of tasks.
        **limits: See :class:`Limits`.

    >>> strategy = pipelines(dims=2, max_tasks=3)
    """
    made: list[Task] = []
    limits["dims"] = _axes(draw, limits)[0]
    for number in range(draw(st.integers(1, max_tasks))):
        above = draw(st.just([]) | st.lists(st.sampled_from(made), min_size=1, unique_by=id)) if made else []
        made.append(draw(tasks(f"task_{number}", process_function=process_function, upstream_tasks=above, **limits)))
    return made


def plans(
    *, process_function: Callable[..., Any] | None = None, max_tasks: int = 4, **limits: Unpack[Limits]
) -> st.SearchStrategy[Plan]:
    """The compiled plans of :func:`pipelines`, which takes the same arguments.

    >>> strategy = plans(dims=2)
    """
    return pipelines(process_function=process_function, max_tasks=max_tasks, **limits).map(compile_plan)


def _contexts() -> st.SearchStrategy[int]:
    """None at all as often as some: context on one side only is where mistakes are made."""
    return st.just(0) | st.integers(1, _CONTEXT)


def _offsets() -> st.SearchStrategy[int]:
    return st.integers(-_OFFSET, _OFFSET)


def _axes(draw: st.DrawFn, limits: Limits) -> tuple[int, Sequence[int]]:
    """Number of axes, and the voxel size."""
    dims, voxel_size = limits.get("dims"), limits.get("voxel_size")
    if voxel_size is None:
        dims = draw(st.integers(1, _DIMS)) if dims is None else dims
        return dims, (1,) * dims
    voxels = coordinate_of(voxel_size, "voxel_size")
    if dims not in (None, len(voxels)):
        raise GeometryError(f"dims must be the number of axes of voxel_size, {len(voxels)}, got {dims}")
    return len(voxels), voxels


def _side(max_blocks: int, dims: int) -> int:
    """The greatest number of blocks per axis so that there are no more than `max_blocks` in all."""
    side = 1
    while (side + 1) ** dims <= max_blocks:
        side += 1
    return side


def _roi(axes: list[tuple[int, int]]) -> Roi:
    return Roi([begin for begin, _ in axes], [extent for _, extent in axes])
