"""Are blocks, numbers, levels and dependencies those of daisy, so that its users can move?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pytest

from blockflow.geometry import Roi
from blockflow.plan.graph import BlockwiseDependencyGraph, DependencyGraph
from blockflow.plan.plan import Plan, TaskPlan, compile_plan
from blockflow.plan.regular import RegularAxis
from blockflow.plan.task import Task

if TYPE_CHECKING:
    from blockflow.plan.block import Block
    from blockflow.plan.conflicts import Levels
    from blockflow.plan.slices import Slices

Case: TypeAlias = dict[str, Any]
BlockId: TypeAlias = tuple[str, int]

EXCERPT = Path(__file__).parents[1] / "data" / "daisy"
WHOLE = Path(__file__).parents[3] / "shared" / "oracles" / "daisy"


def load(folder: Path, name: str) -> list[Case]:
    if not (folder / name).exists():
        pytest.skip(f"needs {folder / name}, which does not come with the repository; an excerpt of it is tested")
    cases: list[Case] = json.loads((folder / name).read_text())
    return cases


def task_of(case: Case, upstream: dict[str, Task] | None = None) -> Task:
    return Task(
        case.get("task", "t"),
        total_roi=Roi(*case["total"]),
        read_roi=Roi(*case["read"]),
        write_roi=Roi(*case["write"]),
        read_write_conflict=case["conflict"],
        fit=case["fit"],
        upstream_tasks=[(upstream or {})[name] for name in case.get("upstream", [])],
    )


def plan_of(chain: Case) -> Plan:
    tasks: dict[str, Task] = {}
    for case in chain["tasks"]:
        tasks[case["task"]] = task_of(case, tasks)
    return compile_plan(tasks.values())


def roi(box: Any) -> list[list[int]]:
    return [[begin for begin, _ in box], [end - begin for begin, end in box]]


def own(planned: TaskPlan, relation: Slices) -> list[list[int]]:
    """Numbers of the blocks of each product, sorted."""
    parts = np.split(relation.flat(planned.grid.shape), np.cumsum(relation.sizes())[:-1])
    return [sorted(planned.grid.number(index) for index in part.tolist()) for part in parts]


@pytest.mark.parametrize("folder", [EXCERPT, WHOLE], ids=["excerpt", "whole"])
def test_the_blocks_of_one_task_are_daisys(folder: Path) -> None:
    for case in load(folder, "graphs.json"):
        planned = compile_plan([task_of(case)]).tasks[0]
        grid, levels = planned.grid, planned.levels
        assert (grid.size, levels.count) == (case["num_blocks"], case["num_levels"])
        positions = planned.positions(np.arange(grid.size))
        upstream, downstream = own(planned, levels.upstream(positions)), own(planned, levels.downstream(positions))
        found = [
            [level, grid.number(index), roi(grid.read_box(index)), roi(grid.write_box(index)), above, below]
            for index, (level, above, below) in enumerate(
                zip(levels.level(positions).tolist(), upstream, downstream, strict=True)
            )
        ]
        expected = [[*block[:4], sorted(block[4]), sorted(block[5])] for block in case["blocks"]]
        assert sorted(found) == sorted(expected)


def test_the_public_graph_of_one_task_is_daisys() -> None:
    for case in load(EXCERPT, "graphs.json"):
        total, read, write = (Roi(*case[name]) for name in ("total", "read", "write"))
        graph = BlockwiseDependencyGraph("t", read, write, case["conflict"], case["fit"], total_read_roi=total)
        assert (graph.num_blocks, graph.num_levels) == (case["num_blocks"], case["num_levels"])

        def numbers(blocks: list[Block]) -> list[int]:
            return sorted(block.block_id[1] for block in blocks)

        expected = {
            number: (level, Roi(*reads), Roi(*writes), sorted(above), sorted(below))
            for level, number, reads, writes, above, below in case["blocks"]
        }
        found = {
            block.block_id[1]: (
                level,
                block.read_roi,
                block.write_roi,
                numbers(graph.upstream(block)),
                numbers(graph.downstream(block)),
            )
            for level in range(graph.num_levels)
            for block in graph.level_blocks(level)
        }
        assert found == expected
        assert graph.num_roots() == sum(1 for level, *_ in case["blocks"] if level == 0)


def level_of(levels: Levels, position: tuple[int, ...]) -> int:
    (level,) = levels.level(tuple(np.array([here]) for here in position)).tolist()
    return int(level)


@pytest.mark.parametrize("folder", [EXCERPT, WHOLE], ids=["excerpt", "whole"])
def test_dependencies_between_tasks_are_daisys_upstream_relation(folder: Path) -> None:
    for chain in load(folder, "chains.json"):
        plan = plan_of(chain)
        graph = DependencyGraph.of_plan(plan)
        upstream: dict[BlockId, list[BlockId]] = {}
        for (task_id, number), level, read, write, above in chain["blocks"]:
            planned = plan.tasks[plan.number_of(task_id)]
            index = planned.grid.index_of_number(number)
            assert level_of(planned.levels, planned.grid.position(index)) == level
            assert roi(planned.grid.read_box(index)) == read
            assert roi(planned.grid.write_box(index)) == write
            found = [block.block_id for block in graph.upstream(planned.block(index))]
            expected: list[BlockId] = sorted((name, other) for name, other in above)
            assert found == expected
            upstream[task_id, number] = expected
        assert len(upstream) == sum(planned.grid.size for planned in plan.tasks)
        for planned in plan.tasks:
            roots = {(planned.task_id, planned.grid.number(index)) for index in roots_of(planned)}
            assert roots == {name for name, them in upstream.items() if name[0] == planned.task_id and not them}


def roots_of(planned: TaskPlan) -> list[int]:
    roots = planned.roots()
    found: list[int] = []
    while roots.left:
        found += roots.take(64).tolist()
    return found


def test_the_excerpt_covers_what_it_says() -> None:
    graphs, chains = load(EXCERPT, "graphs.json"), load(EXCERPT, "chains.json")
    assert (len(graphs), len(chains)) == (40, 12)
    kinds = {(len(case["total"][0]), case["fit"], case["conflict"]) for case in graphs}
    assert len(kinds) == 3 * 3 * 2
    assert any(not chain["daisy_downstream_correct"] for chain in chains)
    axes = [axis for case in graphs for axis in task_of(case).grid.axes if isinstance(axis, RegularAxis)]
    assert any(axis.before > axis.step or axis.after > axis.step for axis in axes)
    assert any(axis.before and not axis.after for axis in axes)
    assert any(axis.after and not axis.before for axis in axes)
    assert any(axis.overshoot for axis in axes)
    assert any(task_of(case).dropped_voxels() for case in graphs)
    assert any(begin < 0 for case in graphs for begin in case["total"][0])
