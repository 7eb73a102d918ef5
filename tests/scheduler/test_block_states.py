"""Do the arrays know what has become of each block?"""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow.errors import InvalidTransition
from blockflow.plan.plan import TaskPlan, compile_plan, single
from blockflow.scheduler.block_states import BlockState, BlockStates, BlockTrigger
from tests.scheduler.driver import Simulation
from tests.scheduler.plans import line


def plan(blocks: int = 4) -> TaskPlan:
    return compile_plan([line(blocks=blocks)]).tasks[0]


def some(*indices: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(indices, dtype=np.int64)


def fan_in_task(inputs: int) -> TaskPlan:
    """A task of one block that reads all blocks of the task upstream."""
    above = line("above", inputs, step=1)
    return compile_plan([line("below", 1, step=inputs, upstream=[above])]).tasks[1]


@pytest.mark.parametrize("blocks", [4096, 4097])
def test_a_block_is_ready_when_all_that_it_reads_is_done_however_many_there_are(blocks: int) -> None:
    above = line("above", 2 * blocks, step=1)
    states = BlockStates(compile_plan([line("below", blocks, step=2, upstream=[above])]).tasks[1])
    last = blocks - 1
    assert states.waits(some(last))
    assert states.inputs_done(some(0, last), 0.0).tolist() == []
    assert states.inputs_done(some(last), 1.0).tolist() == [last]
    assert not states.waits(some(last))
    states.validate()


def test_a_batch_moves_as_a_whole_or_not_at_all() -> None:
    blocks = BlockStates(plan())
    blocks.move(some(0, 1, 2), BlockTrigger.INPUTS_DONE, 0.0)
    blocks.move(some(1), BlockTrigger.GRANTED, 1.0)
    with pytest.raises(InvalidTransition, match=r"block 1 .* is running, which granted cannot follow"):
        blocks.move(some(0, 1, 2), BlockTrigger.GRANTED, 2.0)
    assert blocks.states.tolist() == [BlockState.READY, BlockState.RUNNING, BlockState.READY, BlockState.PENDING]
    assert blocks.count(BlockState.READY) == 2
    assert blocks.count(BlockState.READY, BlockState.PENDING) == 3
    blocks.validate()


def test_the_message_tells_the_story_of_the_block() -> None:
    blocks = BlockStates(plan())
    blocks.move(some(0, 1), BlockTrigger.INPUTS_DONE, 0.5)
    blocks.move(some(0), BlockTrigger.GRANTED, 1.0)
    blocks.move(some(1), BlockTrigger.GRANTED, 1.25)
    blocks.move(some(1), BlockTrigger.FINISHED, 2.0)
    with pytest.raises(InvalidTransition) as caught:
        blocks.move(some(1), BlockTrigger.FINISHED, 3.0)
    assert str(caught.value) == (
        "block 1 of task 't' is done, which finished cannot follow; "
        "what happened to it: 0.500 inputs done; 1.250 granted; 2.000 finished"
    )


def test_the_message_about_an_untouched_block() -> None:
    with pytest.raises(InvalidTransition, match=r"is pending, which finished cannot follow; .* to it: nothing$"):
        BlockStates(plan()).move(some(3), BlockTrigger.FINISHED, 0.0)


@pytest.mark.parametrize("batch", [1, 7, 1_000, 1_000_000])
def test_the_story_forgets_what_is_long_ago(batch: int) -> None:
    """Its memory is bounded, whether blocks come one by one or all at once, as views or not."""
    blocks = BlockStates(plan(1_000_000))
    lease = np.arange(batch, dtype=np.int64)
    blocks.move(np.arange(1_000_000), BlockTrigger.INPUTS_DONE, 0.0)
    tracemalloc.start()
    for now in range(10_000 if batch < 1_000 else 300 if batch == 1_000 else 2):
        for cause in (BlockTrigger.GRANTED, BlockTrigger.GIVEN_BACK):
            blocks.move(lease[:batch], cause, float(now))
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert size < 2_000_000
    assert len(blocks.story(0)) < 10_000


def test_blocks_become_ready_when_their_last_input_is_done() -> None:
    """Block i waits for 2 i and 2 i + 1."""
    above = line("above", 8)
    blocks = BlockStates(compile_plan([line("below", 4, step=20, upstream=[above])]).tasks[1])
    assert blocks.inputs_done(some(0, 3, 0, 1), 0.0).tolist() == [0]
    assert blocks.inputs_done(some(2), 0.0).tolist() == []
    assert blocks.inputs_done(some(), 0.0).tolist() == []
    assert blocks.inputs_done(some(3, 2, 1), 0.0).tolist() == [1, 2, 3]
    assert blocks.states.tolist() == [BlockState.READY] * 4
    blocks.validate()


def test_an_orphan_does_not_become_ready() -> None:
    above = line("above", 2)
    blocks = BlockStates(compile_plan([line("below", 1, step=20, upstream=[above])]).tasks[1])
    blocks.move(some(0), BlockTrigger.UPSTREAM_GIVEN_UP, 0.0)
    assert blocks.inputs_done(some(0, 0), 0.0).tolist() == []
    blocks.validate()


@pytest.mark.parametrize("inputs", [1, 2, 254, 255, 256, 257, 65_535, 65_536])
def test_counting_inputs_never_wraps(inputs: int) -> None:
    task = fan_in_task(inputs)
    assert task.fan_in(single(0)).tolist() == [inputs]
    blocks = BlockStates(task)
    assert blocks.inputs_done(np.zeros(inputs - 1, dtype=np.int64), 0.0).tolist() == []
    assert blocks.inputs_done(some(0), 0.0).tolist() == [0]
    blocks.validate()


@pytest.mark.parametrize("inputs", [255, 256])
def test_a_block_with_many_inputs_runs_after_all_of_them(inputs: int) -> None:
    above = line("above", inputs, step=1)
    run = Simulation(tasks=[line("below", 1, step=inputs, upstream=[above])], by_hand=3).run()
    assert run.order("below") == [0]
    assert run.runs[-1].task == "below"
    assert len(run.runs) == inputs + 1


@given(st.lists(st.integers(0, 5), max_size=8))
def test_only_gives_those_in_a_state_once(indices: list[int]) -> None:
    blocks = BlockStates(plan(6))
    blocks.move(some(0, 2, 4), BlockTrigger.INPUTS_DONE, 0.0)
    found = blocks.only(np.array(indices, dtype=np.int64), BlockState.READY)
    assert found.tolist() == sorted({index for index in indices if index % 2 == 0})
    assert blocks.all_of(BlockState.READY).tolist() == [0, 2, 4]


def test_a_task_where_nothing_waits_counts_no_inputs() -> None:
    """No memory for what is never needed."""
    blocks = BlockStates(plan())
    assert len(blocks._inputs_done) == 0


@pytest.mark.parametrize("wrong", ["counts", "too many inputs", "too early"])
def test_validate_finds_what_is_wrong(wrong: str) -> None:
    blocks = BlockStates(fan_in_task(2))
    if wrong == "counts":
        blocks.counts[BlockState.PENDING] += 1
    elif wrong == "too many inputs":
        blocks._inputs_done[0] = 3
    else:
        blocks.move(some(0), BlockTrigger.INPUTS_DONE, 0.0)
    with pytest.raises(AssertionError):
        blocks.validate()
