"""Does a ledger know the blocks of tasks that were given a grid?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from blockflow.ledger.carry_over import carry_over
from blockflow.ledger.identity import decode_identity, differences, encode_identity, identity_of, same_blocks
from blockflow.plan.grid import Grid
from blockflow.plan.plan import compile_plan
from blockflow.plan.task import Task
from tests.ledger.runs import RUN
from tests.plan.axes import planned_axes

if TYPE_CHECKING:
    from blockflow.ledger.identity import PlanIdentity


def identity(grid: Grid) -> PlanIdentity:
    return identity_of(compile_plan([Task("t", grid=grid)]))


def grids(dims: int) -> st.SearchStrategy[Grid]:
    axes = st.lists(planned_axes(), min_size=dims, max_size=dims)
    return axes.map(lambda made: Grid(tuple(made))).filter(lambda grid: grid.size <= 200)


@given(grids(1) | grids(2))
def test_a_plan_of_any_grid_is_the_same_when_it_is_read_again(grid: Grid) -> None:
    written = identity(grid)
    read = decode_identity(encode_identity(written, RUN), "plan.json").plan
    assert read == written
    assert read.tasks[0].grid.axes == grid.axes
    assert differences(read, written) == []


def test_blocks_that_are_cut_elsewhere_are_another_plan() -> None:
    balanced = identity(Grid.balanced((100,), 30))
    shifted = identity(Grid.balanced((100,), 30, multiple_of=2))
    assert not same_blocks(balanced.tasks[0], shifted.tasks[0])
    assert differences(balanced, shifted) != []
    clipped = Grid.regular((100,), 30, context=2)
    moved = replace(clipped, axes=(replace(clipped.axes[0], before=1),))
    assert differences(identity(clipped), identity(moved)) != []
    regular = identity(Grid.regular((100,), 25))
    even = identity(Grid.balanced((100,), 26))
    assert differences(even, regular) == ["task 't': the grid is cut in another way: it had (4,) blocks, and has (4,)"]


@given(old_and_new=st.integers(1, 2).flatmap(lambda dims: st.tuples(grids(dims), grids(dims))), data=st.data())
def test_what_is_done_in_one_grid_is_done_in_another(old_and_new: tuple[Grid, Grid], data: st.DataObject) -> None:
    old, new = old_and_new
    undone = data.draw(st.sets(st.integers(0, old.size - 1), max_size=3))
    done = np.array([index not in undone for index in range(old.size)])
    low = [min(a.begin, b.begin) for a, b in zip(old.axes, new.axes, strict=True)]
    high = [max(a.end, b.end) for a, b in zip(old.axes, new.axes, strict=True)]
    written = np.zeros([end - begin for begin, end in zip(low, high, strict=True)], dtype=bool)

    def place(grid: Grid, index: int) -> tuple[slice, ...]:
        return tuple(slice(b - o, e - o) for (b, e), o in zip(grid.write_box(index), low, strict=True))

    for index in np.flatnonzero(done).tolist():
        written[place(old, index)] = True
    assert carry_over(old, done, new).tolist() == [bool(written[place(new, i)].all()) for i in range(new.size)]
