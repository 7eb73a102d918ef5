"""Is a task of a grid a task like any other: levels, links, masks, and what crosses the wire?"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow.arrays import Array
from blockflow.errors import GeometryError, PlanError
from blockflow.geometry import Coordinate, Roi
from blockflow.plan.conflicts import levels_of
from blockflow.plan.grid import Grid
from blockflow.plan.links import Link
from blockflow.plan.plan import compile_plan
from blockflow.plan.slices import positions_of
from blockflow.plan.task import Task
from blockflow.wire import messages as wire
from tests.plan.axes import balanced_axes, planned_axes
from tests.plan.oracle import Place, ancestors, conflict, inverse, meet

if TYPE_CHECKING:
    from blockflow.plan.slices import Slices


def grids(dims: int | None = None, most: int = 64) -> st.SearchStrategy[Grid]:
    """Any axes, in grids of a few blocks."""
    least, greatest = (1, 2) if dims is None else (dims, dims)
    axes = st.lists(planned_axes(), min_size=least, max_size=greatest)
    return axes.map(lambda made: Grid(tuple(made))).filter(lambda grid: grid.size <= most)


def places(grid: Grid) -> list[Place]:
    return [Place(grid.position(i), grid.read_box(i), grid.write_box(i)) for i in range(grid.size)]


def related(slices: Slices, shape: tuple[int, ...]) -> list[list[int]]:
    ends = np.cumsum(slices.sizes())[:-1]
    return [sorted(part.tolist()) for part in np.split(slices.flat(shape), ends)]


def everywhere(grid: Grid) -> Any:
    return positions_of(np.arange(grid.size), grid.shape)


@given(grids())
def test_conflicting_blocks_are_ordered(grid: Grid) -> None:
    levels = levels_of(grid, read_write_conflict=True)
    earlier = ancestors(related(levels.upstream(everywhere(grid)), grid.shape))
    for (one, a), (other, b) in combinations(enumerate(places(grid)), 2):
        if conflict(a, b):
            assert one in earlier[other] or other in earlier[one]


@given(st.data(), st.integers(1, 2))
def test_tasks_wait_for_what_writes_where_they_read(data: st.DataObject, dims: int) -> None:
    above, below = data.draw(grids(dims)), data.draw(grids(dims))
    link = Link(above, below)
    expected = [
        [i for i, other in enumerate(places(above)) if meet(other.write, block.read)] for block in places(below)
    ]
    assert related(link.upstream(everywhere(below)), above.shape) == expected
    assert related(link.downstream(everywhere(above)), below.shape) == inverse(expected, above.size)
    found = set(product(*(range(*bounds) for bounds in link.waiting())))
    assert found == {block.position for block, them in zip(places(below), expected, strict=True) if them}
    task = Task("below", grid=below, upstream_tasks=[Task("above", grid=above)])
    planned = compile_plan([task]).tasks[1]
    assert planned.fan_in(np.arange(below.size)).max() <= planned.greatest_fan_in()


@given(grid=grids(), data=st.data())
def test_masks_name_the_blocks_that_touch_something(grid: Grid, data: st.DataObject) -> None:
    region = [(begin, min(end, begin + 12)) for begin, end in grid.region]
    flags = np.zeros([end - begin for begin, end in region], dtype=bool)
    for _ in range(data.draw(st.integers(0, 3))):
        flags[tuple(data.draw(st.integers(0, n - 1)) for n in flags.shape)] = True
    task = Task("t", grid=grid, mask=Array(flags, offset=[begin for begin, _ in region]))
    assert task.blocks_to_do is not None
    voxels = (np.argwhere(flags) + [begin for begin, _ in region]).tolist()
    assert task.blocks_to_do.live(np.arange(grid.size)).tolist() == [
        any(meet(place.write, tuple((x, x + 1) for x in voxel)) for voxel in voxels) for place in places(grid)
    ]


@given(grids())
def test_any_grid_crosses_the_wire(grid: Grid) -> None:
    welcome = wire.Welcome(1, wire.layout_of(grid), grid.total, 60_000_000, None, False)
    arrived = wire.decode_from_driver(wire.encode(welcome))
    assert arrived == welcome
    assert isinstance(arrived, wire.Welcome)
    assert wire.grid_of(arrived.axes).axes == grid.axes


def test_balanced_grids_cross_the_wire_whatever_their_size() -> None:
    grid = Grid.balanced((2**40, 2**40, 1000), (2**21, 2**20, None), overlap=(999, 10, 0), multiple_of=(7, 1, 1))
    welcome = wire.Welcome(1, wire.layout_of(grid), grid.total, 60_000_000, None, False)
    assert grid.size > 2**39
    assert len(wire.encode(welcome)) < 300


@given(st.lists(balanced_axes(), min_size=1, max_size=3), st.data())
def test_numbers_name_blocks_of_balanced_grids(axes: Any, data: st.DataObject) -> None:
    grid = Grid(tuple(axes))
    index = data.draw(st.integers(0, grid.size - 1))
    assert grid.index_of_number(grid.number(index)) == index


# -- the constructor ---------------------------------------------------------------------------------------------

ROIS: dict[str, Any] = {"total_roi": Roi((0,), (10,)), "read_roi": Roi((0,), (4,)), "write_roi": Roi((1,), (2,))}
GRID = Grid.regular((10, 20), block=(4, 5), context=(1, (0, 2)), offset=(-8, 100), voxel_size=(4, 1))


def test_rois_follow_from_the_grid() -> None:
    task = Task("t", grid=GRID)
    assert task.grid == GRID
    assert task.voxel_size == Coordinate(4, 1)
    assert task.total_roi == Roi((-8, 100), (40, 20))
    assert task.read_roi == Roi((-12, 100), (24, 7))
    assert task.write_roi == Roi((-8, 100), (16, 5))
    (planned,) = compile_plan([task]).tasks
    block = planned.block(0)
    assert (block.block_id, block.total_roi, block.read_roi) == (("t", 0), task.total_roi, Roi((-8, 100), (20, 7)))


def test_context_that_is_not_clipped_belongs_to_the_total() -> None:
    task = Task("t", grid=Grid.regular((10,), block=4, context=1, clip=False))
    assert task.total_roi == Roi((-1,), (12,))
    assert task.read_roi == Roi((-1,), (6,))
    assert task.grid == Task("t", task.total_roi, task.read_roi, task.write_roi, fit="shrink").grid


def test_what_a_grid_leaves_out_is_counted() -> None:
    task = Task("t", grid=Grid.regular((10, 10), block=4, fit="valid", voxel_size=(3, 1)))
    assert task.dropped_voxels() == 100 - 64
    assert Task("t", grid=Grid.regular((10, 10), block=4, fit="overhang")).dropped_voxels() == 0


def test_tasks_of_grids_are_replaced_like_others() -> None:
    of_grid, of_rois = Task("t", grid=GRID), Task("t", **ROIS)
    again = replace(of_grid, max_retries=7)
    assert (again.grid, again.total_roi, again.max_retries) == (GRID, of_grid.total_roi, 7)
    other = Grid.regular((10, 20), block=10, voxel_size=(4, 1))
    assert replace(of_grid, grid=other).total_roi == Roi((0, 0), (40, 20))
    assert replace(of_rois, total_roi=Roi((0,), (30,))).grid.size == 14
    assert replace(of_rois, fit="shrink").grid == of_rois.grid
    assert Task("other", grid=of_rois.grid).grid == of_rois.grid
    changes: dict[str, Any] = {"grid": None, "fit": "shrink", "voxel_size": None, **ROIS}
    moved = replace(of_grid, **changes)
    assert moved.total_roi == ROIS["total_roi"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"grid": GRID, "total_roi": ROIS["total_roi"], "read_roi": ROIS["read_roi"]},
            PlanError,
            "task 't': a grid says what ROIs say, so give one or the others: got grid and total_roi, read_roi",
        ),
        ({}, PlanError, "task 't' needs a grid, or total_roi, read_roi and write_roi; total_roi and read_roi and"),
        (
            {**ROIS, "read_roi": None},
            PlanError,
            "task 't' needs a grid, or total_roi, read_roi and write_roi; read_roi",
        ),
        ({"grid": (3, 4)}, PlanError, "task 't': grid must be a blockflow.Grid, got tuple: (3, 4)"),
        ({"grid": GRID, "fit": "shrink"}, PlanError, "task 't': a grid has its own fit, drop fit='shrink'"),
        ({"grid": GRID, "voxel_size": (1, 1)}, GeometryError, "task 't': voxel_size must be that of the grid, (4, 1)"),
    ],
)
def test_what_contradicts_itself_is_refused(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        Task("t", **arguments)


def test_the_grid_of_a_task_cannot_be_changed() -> None:
    with pytest.raises(PlanError, match="grid of task 't' cannot be changed any more"):
        Task("t", grid=GRID).grid = GRID
