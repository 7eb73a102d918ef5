"""Masks: are exactly those blocks live that touch a voxel which is not zero?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow import Coordinate, Roi, Task
from blockflow.arrays import Array
from blockflow.errors import GeometryError, PlanError
from blockflow.plan import mask as mask_module

if TYPE_CHECKING:
    from pathlib import Path

    from blockflow.plan.grid import Grid


@dataclass
class Case:
    task: Task
    array: Array


@st.composite
def cases(draw: st.DrawFn) -> Case:
    dims = draw(st.integers(1, 3))

    def some(low: int, high: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=dims, max_size=dims))

    block, context, voxel = some(1, 4), some(0, 2), some(1, 5)
    total = [b + 2 * c + extra for b, c, extra in zip(block, context, some(0, 9), strict=True)]
    offset = Coordinate(some(-5, 5))
    shape = some(1, 8)
    data = np.array(draw(st.lists(st.integers(0, 1), min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))))
    begin = Coordinate(
        low + draw(st.integers(1 - size * v, extent - 1))
        for low, size, v, extent in zip(offset + Coordinate(context), shape, voxel, block, strict=True)
    )
    array = Array(data.reshape(shape).astype(np.uint8), offset=begin, voxel_size=voxel)
    read = Roi([0] * dims, [b + 2 * c for b, c in zip(block, context, strict=True)])
    task = Task("t", Roi(offset, total), read, Roi(context, block), fit=draw(st.sampled_from(["valid", "shrink"])))
    return Case(task, array)


def brute_force(grid: Grid, array: Array) -> list[bool]:
    live = []
    for index in range(grid.size):
        found = False
        for place in np.argwhere(np.asarray(array.data) != 0):
            voxel = [
                (o + p * v, o + (p + 1) * v)
                for o, p, v in zip(array.offset, place.tolist(), array.voxel_size, strict=True)
            ]
            box = grid.write_box(index)
            found |= all(max(a[0], b[0]) < min(a[1], b[1]) for a, b in zip(voxel, box, strict=True))
        live.append(found)
    return live


@given(case=cases(), most=st.sampled_from([1, 7, 2**24]), data=st.data())
def test_blocks_are_live_that_touch_a_voxel_which_is_not_zero(case: Case, most: int, data: st.DataObject) -> None:
    before, mask_module.MOST_VOXELS = mask_module.MOST_VOXELS, most
    try:
        mask = mask_module.mask_for(case.array, case.task.grid)
        expected = brute_force(case.task.grid, case.array)
        asked = data.draw(st.lists(st.sampled_from(range(len(expected))), unique=True)) if expected else []
        some = mask.live(np.array(sorted(asked), dtype=np.int64))
        assert some.tolist() == [expected[index] for index in sorted(asked)]
        assert mask.live(np.arange(len(expected))).tolist() == expected
    finally:
        mask_module.MOST_VOXELS = before


def task_with(mask: Any, **more: Any) -> Task:
    return Task("t", Roi((0, 0), (30, 20)), Roi((0, 0), (10, 10)), Roi((0, 0), (10, 10)), mask=mask, **more)


def test_one_flag_per_block() -> None:
    flags = np.array([[True, False], [False, False], [False, True]])
    task = task_with(flags)
    assert task.blocks_to_do is not None
    assert task.blocks_to_do.live(np.arange(6)).tolist() == flags.ravel().tolist()


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (np.ones((2, 2), bool), GeometryError, r"one flag per block, shape \(3, 2\), got \(2, 2\)"),
        (np.ones((3, 2)), PlanError, "mask must be a boolean array with one flag per block"),
        (Array(np.ones((2, 30, 20)), voxel_size=(1, 1)), GeometryError, "no channels"),
        (Array(np.ones(30), voxel_size=(1,)), GeometryError, "the 2 axes of the task"),
        (Array(np.ones((5, 5)), offset=(30, 0), voxel_size=(1, 1)), GeometryError, "must lie where the task writes"),
    ],
)
def test_what_is_no_mask_of_the_task_is_refused(mask: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        task_with(mask)


def test_a_mask_may_be_the_path_of_an_array(tmp_path: Path) -> None:
    import zarr

    array = zarr.create_array(tmp_path / "mask.zarr", shape=(4,), chunks=(4,), dtype="u1", attributes={})
    array[:] = [0, 0, 1, 0]
    task = Task("t", Roi((0,), (4,)), Roi((0,), (2,)), Roi((0,), (2,)), print, mask=tmp_path / "mask.zarr")
    assert task.blocks_to_do is not None
    assert task.blocks_to_do.live(np.arange(2)).tolist() == [False, True]
