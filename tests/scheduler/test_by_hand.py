"""Can a scheduler be driven by hand, as daisy's can?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow import Block, BlockStatus, Roi, Scheduler
from blockflow.errors import GeometryError, SchedulerError, TaskGraphError
from tests.scheduler.plans import line, square

if TYPE_CHECKING:
    from random import Random


def release(scheduler: Scheduler, block: Block, *, ok: bool = True) -> None:
    block.status = BlockStatus.SUCCESS if ok else BlockStatus.FAILED
    scheduler.release_block(block)
    scheduler.validate()


def acquire(scheduler: Scheduler, task_id: str = "t") -> Block:
    block = scheduler.acquire_block(task_id)
    scheduler.validate()
    assert block is not None
    return block


def acquire_all(scheduler: Scheduler, task_id: str = "t") -> list[Block]:
    blocks = []
    while block := scheduler.acquire_block(task_id):
        blocks.append(block)
    return blocks


def test_the_order_of_a_square_with_conflicts() -> None:
    """A fact about daisy 1.2.3."""
    scheduler = Scheduler([square(context=10)])
    order = []
    while blocks := acquire_all(scheduler):
        order.append([block.block_id[1] for block in blocks])
        for block in blocks:
            release(scheduler, block)
    assert order == [[12, 23, 25, 40], [8, 17, 19, 32], [7, 16, 18, 31], [4, 11, 13, 24]]
    assert scheduler.task_states["t"].is_done()


def test_a_block_is_being_processed_until_it_is_released() -> None:
    scheduler = Scheduler([line()])
    block = acquire(scheduler)
    assert block.status is BlockStatus.PROCESSING
    assert block.task_id == "t"
    assert block.attempt == 1
    assert (block.read_roi, block.write_roi) == (Roi((0,), (10,)), Roi((0,), (10,)))
    state = scheduler.task_states["t"]
    assert (state.started, state.processing_count, state.ready_count) == (True, 1, 3)
    release(scheduler, block)
    assert scheduler.task_states["t"].completed_count == 1


def test_a_failed_block_comes_again_first_and_then_fails_for_good() -> None:
    scheduler = Scheduler([line("a", 3, max_retries=1), line("b", 1)])
    for attempt in (1, 2):
        block = acquire(scheduler, "a")
        assert (block.index, block.attempt) == (0, attempt)
        release(scheduler, block, ok=False)
    assert scheduler.task_states["a"].failed_count == 1
    assert scheduler.task(0).final_failures[0].error == "released with status FAILED"
    assert acquire(scheduler, "a").index == 1


def test_everything_that_depends_on_a_failed_block_is_orphaned() -> None:
    a = line("a", 3, context=1, max_retries=0)
    scheduler = Scheduler([line("b", 3, upstream=[a], context=1)], count_all_orphans=True)
    release(scheduler, acquire(scheduler, "a"), ok=False)
    states = scheduler.task_states
    assert (states["a"].failed_count, states["a"].orphaned_count) == (1, 2)
    assert states["b"].orphaned_count == 3
    assert all(state.is_done() for state in states.values())
    assert scheduler.acquire_block("b") is None


def test_none_when_nothing_is_ready_and_when_all_is_done() -> None:
    a = line("a", 1)
    scheduler = Scheduler([line("b", 1, upstream=[a])])
    assert scheduler.acquire_block("b") is None
    assert [task.task_id for task in scheduler.get_ready_tasks()] == ["a"]
    block = acquire(scheduler, "a")
    assert scheduler.acquire_block("a") is None
    assert scheduler.acquire_block("b") is None
    release(scheduler, block)
    assert [task.task_id for task in scheduler.get_ready_tasks()] == ["b"]
    assert scheduler.acquire_block("a") is None
    release(scheduler, acquire(scheduler, "b"))
    assert scheduler.acquire_block("b") is None
    assert scheduler.get_ready_tasks() == []


@pytest.mark.parametrize("largest_lease", [1, 3, 100])
def test_blocks_come_one_by_one_whatever_the_leases_of_others(largest_lease: int) -> None:
    scheduler = Scheduler([line(blocks=200)], largest_lease=largest_lease)
    order = []
    while block := scheduler.acquire_block("t"):
        scheduler.validate()
        order.append(block.index)
        release(scheduler, block)
    assert order == list(range(200))
    assert scheduler.finished


@given(st.randoms(use_true_random=False))
def test_blocks_may_be_released_in_any_order(random: Random) -> None:
    scheduler = Scheduler([square(context=10, max_retries=1)], largest_lease=3)
    held: list[Block] = []
    while not scheduler.task_states["t"].is_done():
        if random.random() < 0.5 and (block := scheduler.acquire_block("t")):
            assert block not in held
            held.append(block)
        elif held:
            release(scheduler, held.pop(random.randrange(len(held))), ok=random.random() < 0.9)
    assert not held


# ------------------------------------------------------------------------------------------------- what goes wrong


def test_an_unknown_task() -> None:
    with pytest.raises(TaskGraphError, match="no task is called 'x'; there are 't'"):
        Scheduler([line()]).acquire_block("x")


@pytest.mark.parametrize("status", [BlockStatus.CREATED, BlockStatus.PROCESSING])
def test_a_release_that_does_not_say_how_it_went(status: BlockStatus) -> None:
    scheduler = Scheduler([line()])
    block = acquire(scheduler)
    block.status = status
    with pytest.raises(SchedulerError) as caught:
        scheduler.release_block(block)
    assert str(caught.value) == (
        f"set block.status to SUCCESS or FAILED before releasing block ('t', 0); it is {status.name}"
    )
    release(scheduler, block)


def test_a_block_that_was_never_acquired() -> None:
    scheduler = Scheduler([line()])
    block = scheduler.plan.tasks[0].block(2)
    with pytest.raises(
        SchedulerError, match=r"block \('t', 2\) is released but was not acquired, or was released before"
    ):
        release(scheduler, block)


def test_a_block_that_was_released_before() -> None:
    scheduler = Scheduler([line()])
    block = acquire(scheduler)
    release(scheduler, block)
    with pytest.raises(SchedulerError, match="was released before"):
        release(scheduler, block)
    assert scheduler.task_states["t"].completed_count == 1


def test_a_former_attempt_at_a_block() -> None:
    scheduler = Scheduler([line()])
    first = acquire(scheduler)
    release(scheduler, first, ok=False)
    second = acquire(scheduler)
    assert second == first
    with pytest.raises(
        SchedulerError, match=r"block \('t', 0\) is released for attempt 1, but was acquired again since"
    ):
        release(scheduler, first)
    release(scheduler, second)


def test_blocks_of_others() -> None:
    scheduler = Scheduler([line(blocks=2)])
    with pytest.raises(TaskGraphError, match="no task is called 'other'"):
        release(scheduler, Scheduler([line("other")]).plan.tasks[0].block(0))
    with pytest.raises(GeometryError, match="no block has number 3"):
        release(scheduler, Scheduler([line(blocks=4)]).plan.tasks[0].block(3))


def test_a_block_that_was_made_by_hand_is_known_by_its_id() -> None:
    scheduler = Scheduler([line()])
    block = acquire(scheduler)
    made = Block(block.total_roi, block.read_roi, block.write_roi, task_id="t")
    release(scheduler, made)
    assert scheduler.task_states["t"].completed_count == 1


# ----------------------------------------------------------------------------------------------------------- checks


def test_pre_checks_are_called_on_the_spot() -> None:
    scheduler = Scheduler([line(blocks=100, check_function=lambda block: block.index != 77)])
    assert acquire(scheduler).index == 77
    state = scheduler.task_states["t"]
    assert state.skipped_count == state.completed_count >= 77
    assert scheduler.acquire_block("t") is None
    assert scheduler.task_states["t"].skipped_count == 99


def test_a_pre_check_that_raises_fails_its_block() -> None:
    calls: list[int | None] = []

    def check(block: Block) -> bool:
        calls.append(block.index)
        raise KeyError("no such label")

    scheduler = Scheduler([line(blocks=1, max_retries=2, check_function=check)])
    assert scheduler.acquire_block("t") is None
    assert calls == [0, 0, 0]
    assert scheduler.task_states["t"].failed_count == 1
    assert scheduler.task(0).final_failures[0].error == "pre-check raised KeyError: 'no such label'"


def test_post_checks_are_called_on_the_spot() -> None:
    verdicts = iter([False, True])
    scheduler = Scheduler([line(blocks=1, check_function=(None, lambda _: next(verdicts)))])
    release(scheduler, acquire(scheduler))
    assert scheduler.task_states["t"].ready_count == 1
    release(scheduler, acquire(scheduler))
    assert scheduler.task_states["t"].completed_count == 1
