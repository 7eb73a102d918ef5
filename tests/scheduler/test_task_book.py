"""Does the book of a task count and keep what it should, and no more?"""

from __future__ import annotations

import numpy as np
import pytest

from blockflow.plan.plan import compile_plan, single
from blockflow.scheduler.block_states import BlockTrigger
from blockflow.scheduler.events import BlockFailure
from blockflow.scheduler.retry_policy import FailureHistory, PendingRetry
from blockflow.scheduler.state import MOST_TRACEBACKS, TaskRecord, TaskState
from tests.scheduler.plans import line, never


def book(blocks: int = 4, *, checked: bool = False) -> TaskRecord:
    return TaskRecord(compile_plan([line(blocks=blocks, check_function=never if checked else None)]).tasks[0])


def draw(book: TaskRecord, count: int) -> None:
    book.blocks.move(book.ready_queue.take(count), BlockTrigger.INPUTS_DONE, 0.0)


def test_the_state_of_an_untouched_task() -> None:
    assert book().state == TaskState(
        started=False,
        total_block_count=4,
        ready_count=4,
        processing_count=0,
        completed_count=0,
        skipped_count=0,
        failed_count=0,
        orphaned_count=0,
    )
    assert book().state.pending_count == 0
    assert not book().state.is_done()
    assert not book().ended


@pytest.mark.parametrize("ended", [0, 1, 2, 3])
def test_a_task_is_done_when_every_block_has_ended(ended: int) -> None:
    """Failed and orphaned blocks count as ended."""
    counts = [1, 1, 1]
    counts[ended % 3] += 1 if ended < 3 else 0
    state = TaskState(
        started=True,
        total_block_count=4,
        ready_count=0,
        processing_count=0,
        completed_count=counts[0],
        skipped_count=1,
        failed_count=counts[1],
        orphaned_count=counts[2],
    )
    assert state.is_done() == (ended < 3)
    assert state.pending_count == (0 if ended < 3 else 1)


def test_blocks_that_nobody_ran_wait_where_workers_take_them() -> None:
    """Where there is a pre-check, they are not checked a second time."""
    for checked in (False, True):
        task = book(checked=checked)
        draw(task, 4)
        assert task.grantable_count == 0
        task.put_back(np.array([2, 1]))
        assert task.grantable_count == 2
        assert task.ready_count == 2
        assert len(task.cleared) == (2 if checked else 0)


def test_unchecked_blocks_may_not_need_to_run() -> None:
    task = book(checked=True)
    assert (task.ready_count, task.grantable_count, task.runnable_count) == (4, 0, 0)
    draw(task, 2)
    task.cleared.add(single(0))
    task.ready_queue.retry(1, PendingRetry(FailureHistory(), 0.0), 0.0)
    assert (task.ready_count, task.grantable_count, task.runnable_count) == (4, 2, 2)


def test_running_blocks_are_known_to_run() -> None:
    task = book()
    draw(task, 1)
    task.blocks.move(single(0), BlockTrigger.GRANTED, 0.0)
    assert (task.ready_count, task.grantable_count, task.runnable_count) == (3, 3, 4)


def test_all_failures_are_kept_but_not_all_their_tracebacks() -> None:
    task = book(MOST_TRACEBACKS + 2)
    draw(task, MOST_TRACEBACKS + 2)
    for index in range(MOST_TRACEBACKS + 2):
        task.keep_final_failure(BlockFailure(index=index, error="ValueError: no", traceback="Traceback", where="a.py"))
    assert len(task.final_failures) == MOST_TRACEBACKS + 2
    assert sum(failure.traceback == "Traceback" for failure in task.final_failures.values()) == MOST_TRACEBACKS
    assert {failure.error for failure in task.final_failures.values()} == {"ValueError: no"}
    assert {failure.where for failure in task.final_failures.values()} == {"a.py"}


def test_the_past_of_blocks_that_have_ended_is_forgotten() -> None:
    task = book()
    for index in range(4):
        task.histories[index].failures += 1
    task.forget_histories(np.array([0, 2]))
    assert sorted(task.histories) == [1, 3]
    task.keep_final_failure(BlockFailure(index=1, error="ValueError: no"))
    assert sorted(task.histories) == [3]
    task.forget_histories(single(3))
    task.forget_histories(single(3))
    assert not task.histories
