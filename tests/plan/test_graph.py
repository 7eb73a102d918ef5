"""Do the public graphs say in Blocks and ROIs what the integer layer says?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow.errors import GeometryError, TaskGraphError
from blockflow.geometry import Roi, roi_of
from blockflow.plan.block import Block
from blockflow.plan.graph import BlockwiseDependencyGraph, DependencyGraph
from blockflow.plan.plan import Plan, TaskPlan, compile_plan
from blockflow.plan.task import Task
from blockflow.testing.strategies import pipelines, plans, tasks
from tests.plan.oracle import inverse, meet, places, upstream_across, writable

if TYPE_CHECKING:
    from collections.abc import Iterable

SMALL = {"max_blocks": 27, "allow_empty": True}


def ids(blocks: Iterable[Block]) -> list[tuple[str | None, int]]:
    return [block.block_id for block in blocks]


def names(planned: TaskPlan, indices: Iterable[int]) -> list[tuple[str | None, int]]:
    """Block ids, sorted as the graph of all tasks sorts them."""
    return sorted((planned.task_id, planned.grid.number(index)) for index in indices)


def own_upstream(planned: TaskPlan) -> list[list[int]]:
    slices = planned.levels.upstream(planned.positions(np.arange(planned.grid.size)))
    return [part.tolist() for part in np.split(slices.flat(planned.grid.shape), np.cumsum(slices.sizes())[:-1])]


def graph_of(task: Task) -> BlockwiseDependencyGraph:
    return BlockwiseDependencyGraph(
        task.task_id, task.read_roi, task.write_roi, task.read_write_conflict, task.fit, total_read_roi=task.total_roi
    )


# -- one task ----------------------------------------------------------------------------------------------------


@given(tasks(max_blocks=27, allow_empty=True))
def test_levels_hold_all_blocks_by_index(task: Task) -> None:
    graph, planned = graph_of(task), compile_plan([task]).tasks[0]
    assert graph.num_blocks == planned.grid.size == len(places(task))
    assert graph.num_levels == planned.levels.count
    level = planned.levels.level(planned.positions(np.arange(planned.grid.size)))
    for number in range(graph.num_levels):
        blocks = list(graph.level_blocks(number))
        assert [block.index for block in blocks] == np.flatnonzero(level == number).tolist()
        assert all(block.task_id == task.task_id for block in blocks)
    assert ids(graph.root_gen()) == ids(graph.level_blocks(0))
    assert graph.num_roots() == len(list(graph.root_gen()))


@given(tasks(max_blocks=27))
def test_relations_of_blocks_are_those_of_indices(task: Task) -> None:
    graph, planned = graph_of(task), compile_plan([task]).tasks[0]
    upstream = own_upstream(planned)
    downstream = inverse(upstream, len(upstream))
    for index in range(planned.grid.size):
        assert [block.index for block in graph.upstream(planned.block(index))] == sorted(upstream[index])
        assert [block.index for block in graph.downstream(planned.block(index))] == downstream[index]


@given(tasks(max_blocks=27))
def test_all_dependencies_come_level_by_level(task: Task) -> None:
    graph = graph_of(task)
    seen: set[Block] = set()
    for block, upstream in graph.enumerate_all_dependencies():
        assert upstream == graph.upstream(block)
        assert seen.issuperset(upstream)
        seen.add(block)
    assert len(seen) == graph.num_blocks


@given(tasks(max_blocks=27), st.data())
def test_subgraph_blocks_are_those_that_meet_the_region(task: Task, data: st.DataObject) -> None:
    axes = [
        (data.draw(st.integers(begin - 3, end + 3)), data.draw(st.integers(1, 9)))
        for begin, end in zip(task.total_roi.begin, task.total_roi.end, strict=True)
    ]
    region = tuple((begin, begin + extent) for begin, extent in axes)
    graph = graph_of(task)
    for read_roi in (False, True):
        expected = [
            index for index, place in enumerate(places(task)) if meet(place.read if read_roi else place.write, region)
        ]
        assert [block.index for block in graph.get_subgraph_blocks(roi_of(region), read_roi)] == expected


@given(tasks(max_blocks=27))
def test_either_total_or_both_give_the_same_graph(task: Task) -> None:
    region = writable(task)
    template: tuple[Any, ...] = (task.read_roi, task.write_roi, task.read_write_conflict, task.fit)
    expected = list(graph_of(task).enumerate_all_dependencies())
    for totals in ((None, roi_of(region)), (task.total_roi, roi_of(region))):
        graph = BlockwiseDependencyGraph(task.task_id, *template, *totals)
        assert list(graph.enumerate_all_dependencies()) == expected


def test_more_blocks_than_are_computed_at_once_come_in_order() -> None:
    line = Task("line", Roi((0,), (20_000,)), Roi((0,), (2,)), Roi((1,), (1,)))
    graph = graph_of(line)
    assert [block.index for block in graph.level_blocks(0)] == list(range(1, 19_999, 2))
    assert [block.index for block in graph.level_blocks(1)] == list(range(0, 19_999, 2))
    assert [block.index for block in DependencyGraph([line]).root_gen("line")] == list(range(1, 19_999, 2))


READ, WRITE = Roi((0, 0), (6, 6)), Roi((1, 2), (2, 2))
"""Context 1 + 3 and 2 + 2."""


def plane(**changes: Any) -> BlockwiseDependencyGraph:
    arguments: dict[str, Any] = {
        "task_id": "plane",
        "block_read_roi": READ,
        "block_write_roi": WRITE,
        "read_write_conflict": True,
        "fit": "valid",
        "total_read_roi": Roi((0, 0), (14, 14)),
    }
    return BlockwiseDependencyGraph(**{**arguments, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"total_read_roi": None}, "total_read_roi or total_write_roi must be given"),
        (
            {"total_write_roi": Roi((0, 0), (10, 10))},
            "total_read_roi must be total_write_roi grown by the block's context, [-1:13, -2:12] (14, 14), "
            "got [0:14, 0:14] (14, 14)",
        ),
        (
            {"total_read_roi": None, "total_write_roi": Roi((0,), (10,))},
            "block_read_roi, block_write_roi and total_write_roi must have the same number of axes, got 2, 2 and 1",
        ),
        (
            {"total_read_roi": None, "total_write_roi": Roi((0, 0), (10, 0))},
            "total_write_roi must have a positive shape: axis 1 begins at 0 and measures 0",
        ),
        (
            {"total_read_roi": None, "total_write_roi": WRITE, "block_read_roi": Roi((0, 0), (None, 6))},
            "block_read_roi must be bounded on every axis: axis 0 begins at None and measures None",
        ),
        (
            {"total_read_roi": None, "total_write_roi": WRITE, "block_write_roi": Roi((0, 0), (6, 9))},
            "read_roi must contain write_roi: axis 1 writes [0, 9) and reads only [0, 6)",
        ),
        (
            {"block_write_roi": Roi((0, -90), (6, 6))},
            "task 'plane': read_roi must contain write_roi: axis 1 writes [-90, -84) and reads only [0, 6)",
        ),
        ({"fit": "crop"}, "task 'plane': fit must be one of 'valid', 'overhang', 'shrink', got 'crop'"),
    ],
)
def test_graphs_of_contradictions_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GeometryError, match=f"^{re.escape(message)}$"):
        plane(**changes)


@pytest.mark.parametrize("level", [-1, 9])
def test_levels_that_are_not_there_are_refused(level: int) -> None:
    with pytest.raises(GeometryError, match=rf"^levels are 0 to 5, got {level}$"):
        plane().level_blocks(level)


def test_regions_of_other_dims_are_refused() -> None:
    with pytest.raises(GeometryError, match=r"^sub_roi has 1 axes, the blocks have 2$"):
        plane().get_subgraph_blocks(Roi((0,), (5,)))


def test_blocks_of_other_tasks_and_grids_are_refused() -> None:
    stranger = Block(Roi((0, 0), (14, 14)), READ, WRITE, task_id="other")
    with pytest.raises(TaskGraphError, match=r"^block \('other', 1\) is not of task 'plane'$"):
        plane().upstream(stranger)
    outside = Block(Roi((0, 0), (14, 14)), READ, WRITE, block_id=1000, task_id="plane")
    with pytest.raises(GeometryError, match=r"^no block has number 1000: it would stand at position "):
        plane().downstream(outside)


def test_a_block_may_come_from_anywhere_if_its_id_is_right() -> None:
    by_hand = Block(Roi((0, 0), (14, 14)), READ, WRITE, task_id="plane")
    (first, *_) = plane().level_blocks(plane().num_levels - 1)
    assert by_hand == first
    assert plane().upstream(by_hand) == plane().upstream(first) != []


# -- all tasks ---------------------------------------------------------------------------------------------------


@given(plans(max_blocks=27, allow_empty=True))
def test_relations_across_tasks_are_those_of_the_boxes(plan: Plan) -> None:
    graph = DependencyGraph.of_plan(plan)
    upstream: dict[tuple[str | None, int], set[tuple[str | None, int]]] = {}
    for planned in plan.tasks:
        across = [(plan.tasks[n], upstream_across(plan.tasks[n].task, planned.task)) for n, _ in planned.upstream]
        for index, own in enumerate(own_upstream(planned)[: planned.grid.size]):
            expected = names(planned, own)
            for other, above in across:
                expected += names(other, above[index])
            block = planned.block(index)
            found = graph.upstream(block)
            assert ids(found) == sorted(expected, key=lambda name: (str(name[0]), name[1]))
            upstream[block.block_id] = set(ids(found))
    for planned in plan.tasks:
        for index in range(planned.grid.size):
            block = planned.block(index)
            waiting = [name for name, above in upstream.items() if block.block_id in above]
            assert ids(graph.downstream(block)) == sorted(waiting, key=lambda name: (str(name[0]), name[1]))


@given(pipelines(max_blocks=27, allow_empty=True))
def test_roots_are_the_blocks_without_upstream(made: list[Task]) -> None:
    graph = DependencyGraph(made)
    plan = compile_plan(made)
    assert graph.task_ids == [planned.task_id for planned in plan.tasks]
    for planned in plan.tasks:
        name = planned.task_id
        roots = {index for index in range(planned.grid.size) if not graph.upstream(planned.block(index))}
        assert {block.index for block in graph.root_gen(name)} == roots
        assert graph.num_roots(name) == len(roots)
        assert graph.num_blocks(name) == planned.grid.size
        assert (name in graph.root_tasks()) == bool(roots) == (name in graph.roots())
    for name, (count, blocks) in graph.roots().items():
        assert count == len(list(blocks)) == graph.num_roots(name)


@given(tasks(max_blocks=27, allow_empty=True))
def test_the_graph_of_one_task_is_part_of_the_graph_of_all(task: Task) -> None:
    one = BlockwiseDependencyGraph.of_plan(compile_plan([task]).tasks[0])
    every = DependencyGraph([task])
    assert set(every.root_gen(task.task_id)) == set(one.root_gen())
    for block in one.root_gen():
        assert sorted(ids(every.downstream(block))) == sorted(ids(one.downstream(block)))


def test_names_that_no_task_has_are_refused() -> None:
    graph = DependencyGraph([Task("only", Roi((0, 0), (14, 14)), READ, WRITE)])
    message = r"^no task is called 'other'; there are 'only'$"
    with pytest.raises(TaskGraphError, match=message):
        graph.num_blocks("other")
    with pytest.raises(TaskGraphError, match=message):
        graph.num_roots("other")
    with pytest.raises(TaskGraphError, match=message):
        next(graph.root_gen("other"))
    with pytest.raises(TaskGraphError, match=r"^no task is called 'None'; there are 'only'$"):
        graph.upstream(Block(Roi((0, 0), (14, 14)), READ, WRITE))


def test_blocks_are_handed_out_in_daisys_order() -> None:
    """What daisy 1.2.3 hands out of 4 x 4 blocks with a context of one block: level after level."""
    graph = BlockwiseDependencyGraph(
        "order", Roi((0, 0), (3, 3)), Roi((1, 1), (1, 1)), True, "valid", total_read_roi=Roi((0, 0), (6, 6))
    )
    assert [[block.block_id[1] for block in graph.level_blocks(level)] for level in range(4)] == [
        [12, 23, 25, 40],
        [8, 17, 19, 32],
        [7, 16, 18, 31],
        [4, 11, 13, 24],
    ]
