"""Does a task get its blocks in the order that it wants?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow import BlockStatus, Roi, Scheduler, Task
from blockflow.plan.order import ranks_for
from blockflow.scheduler.block_states import BlockState
from blockflow.scheduler.propagation import RestoredTask
from tests.scheduler.driver import Simulation


def plane(order: Any, *, conflict: bool = False, **more: Any) -> Task:
    return Task(
        "t",
        Roi((0, 0), (6, 6)),
        Roi((0, 0), (3, 3)) if conflict else Roi((0, 0), (1, 1)),
        Roi((1, 1), (1, 1)) if conflict else Roi((0, 0), (1, 1)),
        order=order,
        read_write_conflict=conflict,
        **more,
    )


def backwards(indices: Any) -> Any:
    return -indices


def test_blocks_come_in_the_order_of_the_keys() -> None:
    assert Simulation(tasks=[plane(backwards)], by_hand=1).run().order() == list(range(35, -1, -1))


def test_near_blocks_come_together() -> None:
    order = Simulation(tasks=[plane("morton")], by_hand=1).run().order()
    assert order[:4] == [0, 1, 6, 7]
    ranks = ranks_for("morton", (6, 6))
    assert ranks is not None
    assert order == ranks.block_at.tolist()


@pytest.mark.parametrize("check", [None, lambda block: block.index % 5 == 0])
@pytest.mark.parametrize("order", ["index", "morton", backwards])
def test_every_block_comes_once_in_any_order(order: Any, check: Any) -> None:
    run = Simulation(tasks=[plane(order, conflict=True, check_function=check)], by_hand=2, largest_lease=7).run()
    expected = [index for index in range(16) if check is None or index % 5]
    assert sorted(run.order()) == expected


def test_the_blocks_of_a_lease_are_sorted_in_any_order() -> None:
    run = Simulation(tasks=[plane(backwards)], by_hand=1, largest_lease=9, seconds=lambda _, __: 0.0001).run()
    assert max(run.lease_sizes()) > 1
    assert sorted(run.order()) == list(range(36))


@given(st.sets(st.integers(0, 35)), st.sampled_from(["index", "morton", backwards]))
def test_a_restored_task_hands_out_the_rest_in_order(done: set[int], order: Any) -> None:
    scheduler = Scheduler([plane(order)])
    states = np.zeros(36, dtype=np.uint8)
    states[list(done)] = BlockState.DONE
    scheduler.restore([RestoredTask(states=states)], [], 0.0)
    scheduler.validate()
    came = []
    while block := scheduler.acquire_block("t"):
        came.append(block.index)
        block.status = BlockStatus.SUCCESS
        scheduler.release_block(block)
    ranks = ranks_for(order, (6, 6))
    whole = list(range(36)) if ranks is None else ranks.block_at.tolist()
    assert came == [index for index in whole if index not in done]
    assert scheduler.task_states["t"].completed_count == 36
