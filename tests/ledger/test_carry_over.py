"""Carry-over: a block is done exactly if every voxel that it writes was written by a block that is done."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow.ledger.carry_over import carry_over
from blockflow.plan.tiling import tile
from blockflow.testing.strategies import tasks

if TYPE_CHECKING:
    from random import Random

    import numpy.typing as npt

    from blockflow.plan.grid import Grid
    from blockflow.plan.task import Task


def voxels(grid: Grid, index: int) -> set[tuple[int, ...]]:
    return set(product(*(range(begin, end) for begin, end in grid.write_box(index))))


def by_hand(old: Grid, done: npt.NDArray[np.bool_], new: Grid) -> list[bool]:
    written = {voxel for index in np.flatnonzero(done).tolist() for voxel in voxels(old, index)}
    return [voxels(new, index) <= written for index in range(new.size)]


@given(st.data(), st.integers(1, 3))
def test_it_is_what_counting_voxels_says(drawn: st.DataObject, dims: int) -> None:
    old, new = (drawn.draw(tasks(dims=dims, max_blocks=27)).grid for _ in range(2))
    flags = drawn.draw(st.lists(st.sampled_from((True, True, True, False)), min_size=old.size, max_size=old.size))
    done = np.array(flags)
    assert carry_over(old, done, new).tolist() == by_hand(old, done, new)


@given(tasks(max_blocks=27), st.randoms())
def test_the_same_grid_keeps_everything(task: Task, random: Random) -> None:
    grid = task.grid
    done = np.array([random.random() < 0.5 for _ in range(grid.size)])
    assert (carry_over(grid, done, grid) == done).all()


@pytest.mark.parametrize("dims", [(1, 2), (2, 1)])
def test_grids_with_other_axes_have_nothing_in_common(dims: tuple[int, int]) -> None:
    old, new = (tile(total=((0, 4),) * n, read=((0, 2),) * n, write=((0, 2),) * n, fit="valid") for n in dims)
    assert not carry_over(old, np.ones(old.size, dtype=bool), new).any()


def test_a_grid_without_blocks_covers_nothing() -> None:
    none = tile(total=((0, 1),), read=((0, 2),), write=((0, 2),), fit="valid")
    some = tile(total=((0, 4),), read=((0, 2),), write=((0, 2),), fit="valid")
    assert carry_over(none, np.zeros(0, dtype=bool), some).tolist() == [False, False]
    assert carry_over(some, np.ones(2, dtype=bool), none).tolist() == []
