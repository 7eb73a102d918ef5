"""Does a task of a billion blocks cost nothing before a block of it is touched?"""

from __future__ import annotations

import tracemalloc
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pytest

from blockflow.geometry import Roi
from blockflow.plan.graph import BlockwiseDependencyGraph, DependencyGraph
from blockflow.plan.plan import compile_plan, single
from blockflow.plan.task import Task

if TYPE_CHECKING:
    from collections.abc import Iterator

MEGABYTE = 2**20


@pytest.fixture
def at_most_two_megabytes() -> Iterator[None]:
    """Fails if the test allocates more: a byte for each block would be a thousand."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * MEGABYTE


def billion(dims: int, *, conflict: bool, task_id: str = "billion", upstream_tasks: tuple[Task, ...] = ()) -> Task:
    """10^9 blocks of one voxel, with a context of one."""
    side = round(10 ** (9 / dims))
    return Task(
        task_id,
        Roi((-1,) * dims, (side + 2,) * dims),
        Roi((-1,) * dims, (3,) * dims),
        Roi((0,) * dims, (1,) * dims),
        read_write_conflict=conflict,
        upstream_tasks=list(upstream_tasks),
    )


@pytest.mark.usefixtures("at_most_two_megabytes")
@pytest.mark.parametrize("conflict", [True, False])
@pytest.mark.parametrize("dims", [1, 3])
def test_a_billion_blocks_are_planned_without_being_listed(dims: int, conflict: bool) -> None:
    task = billion(dims, conflict=conflict)
    (planned,) = compile_plan([task]).tasks
    assert planned.grid.size == 10**9
    assert task.dropped_voxels() == 0
    roots = planned.roots()
    assert roots.count == (10**9 // 2**dims if conflict else 10**9)
    # The blocks of level 0 stand at odd positions on every axis.
    first = planned.grid.index((1,) * dims) if conflict else 0
    assert roots.take(100)[0] == first
    last = planned.grid.size - 1
    assert planned.fan_in(np.array([first, last])).tolist() == [0, 0]
    assert planned.grid.index_of_number(planned.grid.number(last)) == last
    assert planned.levels.downstream(planned.positions(single(first))).sizes().tolist() == [2 if conflict else 0]


@pytest.mark.usefixtures("at_most_two_megabytes")
@pytest.mark.parametrize("conflict", [True, False])
def test_links_between_billions_are_ranges(conflict: bool) -> None:
    above = billion(3, conflict=conflict, task_id="above")
    below = billion(3, conflict=conflict, task_id="below", upstream_tasks=(above,))
    planned = compile_plan([below]).tasks[1]
    assert planned.roots().count == 0, "every block reads something that the other task writes"
    middle = single(planned.grid.index((500, 500, 500)))
    in_task = 2 if conflict else 0  # in the level before only the last residue differs
    assert planned.fan_in(middle).tolist() == [27 + in_task]


@pytest.mark.usefixtures("at_most_two_megabytes")
def test_a_block_that_waits_for_a_billion_is_counted_without_listing_them() -> None:
    above = billion(3, conflict=False, task_id="above")
    whole = Roi((0,) * 3, (1000,) * 3)
    planned = compile_plan([Task("sum", whole, whole, whole, upstream_tasks=[above])]).tasks[1]
    assert planned.fan_in(single(0)).tolist() == [10**9]
    assert planned.greatest_fan_in() >= 10**9
    assert planned.roots().count == 0


@pytest.mark.usefixtures("at_most_two_megabytes")
@pytest.mark.parametrize("conflict", [True, False])
def test_public_graphs_are_lazy(conflict: bool) -> None:
    task = billion(3, conflict=conflict)
    graph = BlockwiseDependencyGraph(
        "billion", task.read_roi, task.write_roi, conflict, "valid", total_read_roi=task.total_roi
    )
    assert graph.num_blocks == 10**9
    assert graph.num_roots() == DependencyGraph([task]).num_roots("billion") == 10**9 // (8 if conflict else 1)
    roots = list(islice(graph.root_gen(), 10))
    assert [block.index for block in roots] == [
        block.index for block in islice(DependencyGraph([task]).root_gen("billion"), 10)
    ]
    assert len(graph.get_subgraph_blocks(Roi((500,) * 3, (2,) * 3), read_roi=True)) == 64
    block, upstream = next(iter(graph.enumerate_all_dependencies()))
    assert (block, upstream) == (roots[0], [])
