"""Is every block where the definition of total, read, write and fit puts it?"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow.errors import GeometryError
from blockflow.plan.grid import RegularAxis
from blockflow.plan.ids import pair
from blockflow.plan.tiling import tile
from blockflow.testing.strategies import tasks
from tests.plan.oracle import Interval, box, meet, places, volume, writable

if TYPE_CHECKING:
    from blockflow.geometry import Box
    from blockflow.plan.task import Task

TASKS = tasks(allow_empty=True)


@given(TASKS)
def test_blocks_are_those_of_the_definition(task: Task) -> None:
    grid, expected = task.grid, places(task)
    assert grid.size == len(expected)
    assert [grid.position(index) for index in range(grid.size)] == [place.position for place in expected]
    assert [grid.read_box(index) for index in range(grid.size)] == [place.read for place in expected]
    assert [grid.write_box(index) for index in range(grid.size)] == [place.write for place in expected]


@given(TASKS)
def test_write_boxes_partition_the_writable_region(task: Task) -> None:
    grid, region = task.grid, writable(task)
    writes = [grid.write_box(index) for index in range(grid.size)]
    assert not any(meet(one, other) for number, one in enumerate(writes) for other in writes[:number])
    written = sum(volume(write) for write in writes)
    inside = sum(
        volume(tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(write, region, strict=True))) for write in writes
    )
    assert volume(region) - inside == task.dropped_voxels()
    if task.fit != "valid":
        assert task.dropped_voxels() == 0
    if task.fit != "overhang":
        assert written == inside, "nothing is written outside the region"


@given(TASKS)
def test_reads_contain_writes_and_stay_in_the_total_unless_they_overhang(task: Task) -> None:
    for index in range(task.grid.size):
        read, write = task.grid.read_box(index), task.grid.write_box(index)
        assert all(a <= c < d <= b for (a, b), (c, d) in zip(read, write, strict=True))
        if task.fit != "overhang":
            assert all(a <= c and d <= b for (a, b), (c, d) in zip(box(task.total_roi), read, strict=True))


@given(TASKS)
def test_index_position_and_number_name_the_same_block(task: Task) -> None:
    grid = task.grid
    for index in range(grid.size):
        assert grid.index(grid.position(index)) == index
        assert grid.index_of_number(grid.number(index)) == index
        assert grid.number(index) >= 0
    assert len({grid.number(index) for index in range(grid.size)}) == grid.size


@given(tasks())
def test_numbers_count_whole_blocks_from_the_start_of_the_total_region(task: Task) -> None:
    for index, place in enumerate(places(task)):
        steps = [end - begin for begin, end in box(task.write_roi)]
        begins = [write[0] - total[0] for write, total in zip(place.write, box(task.total_roi), strict=True)]
        assert task.grid.number(index) == pair([begin // step for begin, step in zip(begins, steps, strict=True)])


@given(tasks())
def test_intervals_of_an_axis_are_the_same_one_by_one_and_as_arrays(task: Task) -> None:
    for axis in task.grid.axes:
        positions = np.arange(axis.count)
        for of in (axis.write_begin, axis.write_end, axis.read_begin, axis.read_end):
            assert of(positions).tolist() == [of(position) for position in range(axis.count)]
        assert all(axis.write_end(here) == axis.write_begin(there) for here, there in pairwise(range(axis.count)))


@given(tasks())
def test_conflict_distance_is_the_smallest_that_is_safe(task: Task) -> None:
    for axis in task.grid.axes:
        assert isinstance(axis, RegularAxis)
        # Position 0 of an axis that is long enough, and not cut.
        reads = (axis.first - axis.before, axis.first + axis.step + axis.after)

        def clash(distance: int, step: int = axis.step, first: int = axis.first, reads: Interval = reads) -> bool:
            to_the_right = first + distance * step < reads[1]
            to_the_left = first + (1 - distance) * step > reads[0]
            return to_the_right or to_the_left

        assert not clash(axis.conflict_distance)
        assert axis.conflict_distance == 1 or clash(axis.conflict_distance - 1)


@given(tasks(), st.integers(0, 10**6))
def test_a_number_that_no_block_has_is_refused(task: Task, number: int) -> None:
    grid = task.grid
    known = {grid.number(index): index for index in range(grid.size)}
    if number in known:
        assert grid.index_of_number(number) == known[number]
    else:
        with pytest.raises(GeometryError, match=rf"^no block has number {number}: it would stand at position \("):
            grid.index_of_number(number)


@given(tasks(), st.integers())
def test_an_index_or_position_that_no_block_has_is_refused(task: Task, anything: int) -> None:
    grid = task.grid
    for index in (-1, grid.size, anything):
        if not 0 <= index < grid.size:
            with pytest.raises(GeometryError, match=rf"^a grid of {grid.size} blocks has no index {index}$"):
                grid.position(index)
    for axis, extent in enumerate(grid.shape):
        for here in (-1, extent):
            position = (*(0 for _ in range(axis)), here, *(0 for _ in grid.shape[axis + 1 :]))
            with pytest.raises(GeometryError, match=r"^a grid of \(.+\) has no position \("):
                grid.index(position)


def test_more_blocks_than_64_bits_can_count_are_refused() -> None:
    voxel: Box = ((0, 1),) * 3
    assert tile(total=((0, 2**21 - 1),) + ((0, 2**21),) * 2, read=voxel, write=voxel, fit="valid").size < 2**63
    with pytest.raises(
        GeometryError,
        match=rf"^no more than 2\*\*63 - 1 blocks can be numbered, got {2**63} in a grid of .+; use larger blocks$",
    ):
        tile(total=((0, 2**21),) * 3, read=voxel, write=voxel, fit="valid")


def test_numbers_do_not_depend_on_the_far_end() -> None:
    def numbers(extent: int) -> list[int]:
        grid = tile(total=((0, extent), (0, 20)), read=((0, 4), (0, 4)), write=((1, 3), (0, 4)), fit="valid")
        return [grid.number(index) for index in range(10)]

    assert numbers(20) == numbers(2000)


LINE: Box = ((0, 10),)


@pytest.mark.parametrize(
    ("read", "write", "message"),
    [
        (((0, 4),), ((1, 5),), r"^read_roi must contain write_roi: axis 0 writes \[1, 5\) and reads only \[0, 4\)$"),
        (((0, 4),), ((-1, 3),), r"^read_roi must contain write_roi: axis 0 writes \[-1, 3\) and reads only \[0, 4\)$"),
        (
            ((0, 4), (0, 4)),
            ((0, 4),),
            r"^total_roi, read_roi and write_roi must have the same number of axes, got 1, 2 and 1$",
        ),
    ],
)
def test_boxes_that_contradict_one_another_are_refused(read: Box, write: Box, message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        tile(total=LINE, read=read, write=write, fit="valid")


@pytest.mark.parametrize("fit", ["Valid", "crop", "", None, []])
def test_unknown_fits_are_refused(fit: object) -> None:
    with pytest.raises(GeometryError, match=r"^fit must be one of 'valid', 'overhang', 'shrink', got "):
        tile(total=LINE, read=((0, 4),), write=((0, 4),), fit=fit)  # type: ignore[arg-type]
