"""Does a compiled plan hold all tasks in an order in which they can run, and say what cannot?"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from blockflow.errors import GeometryError, PlanError, TaskGraphError
from blockflow.geometry import Roi
from blockflow.plan.plan import Plan, check_runnable, compile_plan, dropped_voxels_warning, single
from blockflow.plan.task import Task
from blockflow.testing.strategies import pipelines, plans
from tests.plan.oracle import upstream_across


def do_nothing(block: object) -> None:
    """A process function."""


def line(task_id: str, *upstream_tasks: Task, extent: int = 12, **others: Any) -> Task:
    """A task of blocks that write 2 voxels and read 4."""
    roi = Roi((0,), (extent,))
    return Task(task_id, roi, Roi((0,), (4,)), Roi((1,), (2,)), upstream_tasks=list(upstream_tasks), **others)


@given(pipelines())
def test_every_task_stands_behind_those_it_waits_for(made: list[Task]) -> None:
    plan = compile_plan(made[::-1])
    assert sorted(task.task_id for task in plan.tasks) == sorted(task.task_id for task in made)
    for number, planned in enumerate(plan.tasks):
        assert planned.number == number
        assert plan.number_of(planned.task_id) == number
        assert [plan.tasks[other].task for other, _ in planned.upstream] == planned.task.upstream_tasks
        assert all(other < number for other, _ in planned.upstream)
        assert all(other > number for other, _ in planned.downstream)
        for other, link in planned.upstream:
            assert (number, link) in plan.tasks[other].downstream
            assert (link.upstream_grid, link.downstream_grid) == (plan.tasks[other].grid, planned.grid)


@given(plans(allow_empty=True))
def test_fan_in_counts_all_upstream_blocks_and_has_a_bound(plan: Plan) -> None:
    for planned in plan.tasks:
        indices = np.arange(planned.grid.size)
        fan_in = planned.fan_in(indices)
        parts = [planned.levels.upstream(planned.positions(indices)).sizes().tolist()]
        for other, _ in planned.upstream:
            parts.append([len(above) for above in upstream_across(plan.tasks[other].task, planned.task)])
        assert fan_in.tolist() == [sum(counts) for counts in zip(*parts, strict=True)]
        assert max(fan_in, default=0) <= planned.greatest_fan_in()


@given(plans())
def test_blocks_are_those_of_the_grid(plan: Plan) -> None:
    for planned in plan.tasks:
        block = planned.block(planned.grid.size - 1, attempt=3)
        assert block.block_id == (planned.task_id, planned.grid.number(planned.grid.size - 1))
        assert (block.index, block.attempt) == (planned.grid.size - 1, 3)
        assert block.total_roi == planned.task.total_roi


def test_the_given_order_is_kept_as_far_as_possible() -> None:
    first, second = line("first"), line("second")
    last = line("last", second)
    assert [planned.task_id for planned in compile_plan([first, last, second]).tasks] == ["first", "second", "last"]
    assert [planned.task_id for planned in compile_plan(iter([last, first])).tasks] == ["second", "last", "first"]


def test_a_diamond_is_compiled_once_and_an_upstream_task_given_twice_counts_once() -> None:
    top = line("top")
    left, right = line("left", top, top), line("right", top)
    plan = compile_plan([line("bottom", left, right), left])
    assert [planned.task_id for planned in plan.tasks] == ["top", "left", "right", "bottom"]
    assert [[other for other, _ in planned.upstream] for planned in plan.tasks] == [[], [0], [0], [1, 2]]
    assert [[other for other, _ in planned.downstream] for planned in plan.tasks] == [[1, 2], [3], [3], []]


def test_chains_may_be_longer_than_the_recursion_limit() -> None:
    last = line("0")
    for number in range(1, 3000):
        last = line(str(number), last)
    assert [planned.task_id for planned in compile_plan([last]).tasks] == [str(number) for number in range(3000)]


def test_no_task_at_all_is_refused() -> None:
    with pytest.raises(TaskGraphError, match=r"^there is no task to run$"):
        compile_plan([])


@pytest.mark.parametrize("upstream_of_another", [False, True])
def test_two_tasks_with_one_id_are_refused(upstream_of_another: bool) -> None:
    one, other = line("same"), line("same")
    with pytest.raises(TaskGraphError, match=r"^two tasks are called 'same'; every task needs an id of its own$"):
        compile_plan([one, line("below", other) if upstream_of_another else other])


def test_tasks_that_wait_for_one_another_are_refused() -> None:
    first = line("first")
    second = line("second", first)
    third = line("third", second)
    first.upstream_tasks.append(third)
    circle = "'third' -> 'second' -> 'first' -> 'third'"
    with pytest.raises(TaskGraphError, match=rf"^tasks wait for one another in a circle: {circle}$"):
        compile_plan([line("last", third)])


def test_a_task_that_waits_for_itself_is_refused() -> None:
    task = line("only")
    task.upstream_tasks.append(task)
    with pytest.raises(TaskGraphError, match=r"^tasks wait for one another in a circle: 'only' -> 'only'$"):
        compile_plan([task])


def test_tasks_of_different_dims_cannot_depend_on_one_another() -> None:
    plane = Task("plane", Roi((0, 0), (8, 8)), Roi((0, 0), (4, 4)), Roi((1, 1), (2, 2)))
    with pytest.raises(
        PlanError, match=r"^task 'line' has 1 axes, its upstream task 'plane' has 2; they must be the same$"
    ):
        compile_plan([line("line", plane)])
    assert len(compile_plan([line("line"), plane]).tasks) == 2, "independent tasks may differ"


@pytest.mark.parametrize("wrong", [5, "task", None])
def test_what_is_no_task_is_refused(wrong: Any) -> None:
    message = rf"^tasks must be blockflow.Task objects, got {re.escape(repr(wrong))}$"
    with pytest.raises(TaskGraphError, match=message):
        compile_plan([line("first"), wrong])
    task = line("first")
    task.upstream_tasks.append(wrong)
    with pytest.raises(TaskGraphError, match=message):
        compile_plan([task])


def test_a_task_in_place_of_a_list_is_refused() -> None:
    with pytest.raises(TaskGraphError, match=r"^tasks must be a list of tasks, got the task 'first' itself$"):
        compile_plan(line("first"))  # type: ignore[arg-type]


def test_a_name_that_no_task_has_is_refused() -> None:
    with pytest.raises(TaskGraphError, match=r"^no task is called 'second'; there are 'first', 'last'$"):
        compile_plan([line("last", line("first"))]).number_of("second")


def test_a_plan_with_blocks_and_functions_is_runnable() -> None:
    check_runnable(
        compile_plan([line("last", line("first", process_function=do_nothing), process_function=do_nothing)])
    )


def test_a_task_without_process_function_is_not_runnable() -> None:
    with pytest.raises(PlanError, match=r"^task 'first' has no process_function$"):
        check_runnable(compile_plan([line("last", line("first"), process_function=do_nothing)]))


def test_a_task_without_blocks_is_not_runnable() -> None:
    message = (
        "task 'small' has no block: axis 0 of total_roi is [0, 3), and one block reads 4 of it, 1 + 1 of these as "
        "context; fit='shrink' or 'overhang' keeps a part block"
    )
    with pytest.raises(PlanError, match=f"^{re.escape(message)}$"):
        check_runnable(compile_plan([line("small", extent=3, process_function=do_nothing)]))


@pytest.mark.parametrize("fit", ["valid", "overhang", "shrink"])
def test_no_other_fit_is_advised_where_there_is_only_context(fit: str) -> None:
    message = (
        "task 'small' has no block: axis 0 of total_roi is [0, 2), and one block reads 4 of it, 1 + 1 of these as "
        "context"
    )
    with pytest.raises(PlanError, match=f"^{re.escape(message)}$"):
        check_runnable(compile_plan([line("small", extent=2, fit=fit, process_function=do_nothing)]))


def test_dropped_voxels_are_told() -> None:
    assert dropped_voxels_warning(line("even")) is None
    assert dropped_voxels_warning(line("odd", extent=13, fit="shrink")) is None
    assert dropped_voxels_warning(line("odd", extent=13)) == (
        "task 'odd' leaves out 1 voxels at the end of total_roi that do not fill a block (fit='valid'): "
        "use fit='shrink' or fit='overhang', or a total_roi that is a multiple of the block"
    )


def test_an_index_outside_the_grid_has_no_block() -> None:
    planned = compile_plan([line("line")]).tasks[0]
    with pytest.raises(GeometryError, match=r"^a grid of 5 blocks has no index 5$"):
        _ = planned.block(5).write_roi


def test_single_is_a_batch_of_one() -> None:
    assert single(7).tolist() == [7]
    assert single(7).dtype == np.int64
