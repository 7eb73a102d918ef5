"""Do the public strategies draw what they promise, and say what they need?"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

import blockflow.testing
from blockflow.errors import GeometryError
from blockflow.plan.grid import BalancedAxis, RegularAxis
from blockflow.plan.plan import Plan, check_runnable, compile_plan
from blockflow.plan.task import Task
from blockflow.testing.strategies import Limits, Template, grids, pipelines, plans, tasks, templates

LIMITS: st.SearchStrategy[Limits] = st.fixed_dictionaries(
    {}, optional={"dims": st.integers(1, 6), "max_blocks": st.integers(1, 200), "allow_empty": st.booleans()}
).map(lambda drawn: Limits(**drawn))  # type: ignore[typeddict-item]


def do_nothing(block: object) -> None:
    """A process function."""


@given(st.data(), LIMITS)
def test_limits_are_kept(data: st.DataObject, limits: Limits) -> None:
    for task in data.draw(pipelines(process_function=do_nothing, **limits)):
        assert len(task.grid.shape) == limits.get("dims", len(task.grid.shape))
        assert task.grid.size <= limits.get("max_blocks", 64)
        assert task.grid.size > 0 or limits.get("allow_empty")


@given(templates(voxel_size=(40, 4)))
def test_templates_are_arguments_of_a_task_on_the_voxel_grid(template: Template) -> None:
    task = Task("smooth", **template, voxel_size=(40, 4))
    for roi in (task.total_roi, task.read_roi, task.write_roi):
        for ends in (roi.begin, roi.end):
            assert [end % voxel for end, voxel in zip(ends, (40, 4), strict=True)] == [0, 0]


@given(plans(process_function=do_nothing, max_tasks=3))
def test_plans_can_be_run(plan: Plan) -> None:
    assert 1 <= len(plan.tasks) <= 3
    assert len({len(planned.grid.shape) for planned in plan.tasks}) == 1
    check_runnable(plan)


@given(st.data())
def test_tasks_take_upstream_tasks_and_a_function(data: st.DataObject) -> None:
    above = data.draw(tasks("above", dims=2))
    below = data.draw(tasks("below", dims=2, process_function=do_nothing, upstream_tasks=[above]))
    assert (below.task_id, below.upstream_tasks, below.process_function) == ("below", [above], do_nothing)
    assert [planned.task_id for planned in compile_plan([below]).tasks] == ["above", "below"]


@given(st.data(), st.none() | st.integers(1, 6), st.integers(1, 100))
def test_grids_keep_their_limits_and_are_tasks(data: st.DataObject, dims: int | None, max_blocks: int) -> None:
    grid = data.draw(grids(dims=dims, max_blocks=max_blocks))
    assert dims in (None, len(grid.shape))
    assert 1 <= len(grid) <= max_blocks
    check_runnable(compile_plan([Task("t", grid=grid, process_function=do_nothing)]))


SEARCH = settings(max_examples=1000, derandomize=True, database=None, phases=[Phase.generate])


GRIDS: dict[str, Any] = {
    "balanced": lambda grid: any(isinstance(axis, BalancedAxis) and axis.count > 1 for axis in grid.axes),
    "exact": lambda grid: any(isinstance(axis, BalancedAxis) and axis.least > axis.unit for axis in grid.axes),
    "clipped": lambda grid: any(isinstance(axis, RegularAxis) and axis.bounds for axis in grid.axes),
    "a voxel size": lambda grid: max(grid.voxel_size) > 1,
}


@pytest.mark.parametrize("kind", GRIDS)
def test_grids_of_all_kinds_are_drawn(kind: str) -> None:
    assert GRIDS[kind](find(grids(), GRIDS[kind], settings=SEARCH))


INTERESTING: dict[str, Any] = {
    "context on one side only": lambda task: any((axis.before == 0) != (axis.after == 0) for axis in task.grid.axes),
    "context larger than a block": lambda task: any(axis.before > axis.step for axis in task.grid.axes),
    "a remainder": lambda task: task.dropped_voxels() > 0,
    "a cut block": lambda task: any(axis.overshoot for axis in task.grid.axes),
    "a negative offset": lambda task: min(task.total_roi.begin) < 0,
    "six axes": lambda task: len(task.grid.shape) == 6,
    "no conflicts": lambda task: not task.read_write_conflict,
    "no block": lambda task: task.grid.size == 0,
}


@pytest.mark.parametrize("kind", INTERESTING)
def test_what_nobody_thinks_of_is_drawn(kind: str) -> None:
    assert INTERESTING[kind](find(tasks(allow_empty=True), INTERESTING[kind], settings=SEARCH))


@pytest.mark.parametrize("upstream", [0, 1, 2])
def test_tasks_on_their_own_chains_and_joins_are_drawn(upstream: int) -> None:
    made = find(pipelines(), lambda made: len(made[-1].upstream_tasks) == upstream, settings=SEARCH)
    assert len(made) > upstream


def test_dims_and_voxel_size_must_agree() -> None:
    with pytest.raises(GeometryError, match=r"^dims must be the number of axes of voxel_size, 2, got 3"):
        find(templates(dims=3, voxel_size=(4, 4)), lambda template: True, settings=SEARCH)


def test_without_hypothesis_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    monkeypatch.delitem(sys.modules, "blockflow.testing.strategies")
    monkeypatch.delattr(blockflow.testing, "strategies", raising=False)
    with pytest.raises(ImportError, match=r"needs hypothesis, which is not installed: pip install hypothesis$"):
        importlib.import_module("blockflow.testing.strategies")
