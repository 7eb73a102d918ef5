"""Masks and bulk checks: are the right blocks skipped, and is everything else run?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from blockflow import BlockStatus, Roi, Scheduler, Task
from blockflow.errors import PlanError
from blockflow.scheduler.block_states import BlockState

if TYPE_CHECKING:
    from blockflow.plan.slices import Indices


def make_task(blocks: int = 10, **more: Any) -> Task:
    return Task("t", Roi((0,), (blocks,)), Roi((0,), (1,)), Roi((0,), (1,)), lambda block: None, **more)


def run_by_hand(task: Task) -> tuple[Scheduler, list[int]]:
    scheduler, ran = Scheduler([task]), []
    while block := scheduler.acquire_block("t"):
        assert block.index is not None
        ran.append(block.index)
        block.status = BlockStatus.SUCCESS
        scheduler.release_block(block)
        scheduler.validate()
    return scheduler, ran


def test_masked_blocks_are_skipped_and_never_called_done() -> None:
    flags = np.arange(10) % 3 == 0
    scheduler, ran = run_by_hand(make_task(mask=flags))
    assert ran == [0, 3, 6, 9]
    state = scheduler.task_states["t"]
    assert (state.skipped_count, state.completed_count) == (6, 10)
    assert scheduler.task(0).blocks.all_of(BlockState.SKIPPED).tolist() == np.flatnonzero(~flags).tolist()


def test_mask_bulk_check_and_pre_check_are_asked_in_this_order_about_what_is_left() -> None:
    asked_in_bulk: list[int] = []
    asked_alone: list[int] = []

    def done_in_bulk(indices: Indices) -> Any:
        asked_in_bulk.extend(indices.tolist())
        return indices % 2 == 0

    def done_alone(block: Any) -> bool:
        asked_alone.append(block.index)
        return bool(block.index == 1)

    task = make_task(mask=np.arange(10) < 6, check_blocks=done_in_bulk, check_function=done_alone)
    _, ran = run_by_hand(task)
    assert asked_in_bulk == [0, 1, 2, 3, 4, 5]
    assert asked_alone == [1, 3, 5]
    assert ran == [3, 5]


def test_few_live_blocks_among_millions_are_found_in_a_few_large_questions() -> None:
    sizes: list[int] = []

    def done(indices: Indices) -> Any:
        sizes.append(len(indices))
        return indices != 2_999_999

    scheduler, ran = run_by_hand(make_task(3_000_000, check_blocks=done, read_write_conflict=False))
    assert ran == [2_999_999]
    assert len(sizes) < 30
    assert scheduler.task_states["t"].is_done()


@pytest.mark.parametrize("answer", [[True, True], np.zeros(1), None])
def test_a_bulk_check_that_does_not_answer_for_each_block_is_refused(answer: Any) -> None:
    scheduler = Scheduler([make_task(check_blocks=lambda indices: answer)])
    with pytest.raises(PlanError, match="check_blocks of task 't' must return 1 booleans"):
        scheduler.acquire_block("t")
