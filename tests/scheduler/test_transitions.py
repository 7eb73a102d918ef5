"""Is every change of a block's state either in the table, or refused without a trace?"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from blockflow.errors import InvalidTransition
from blockflow.plan.plan import compile_plan
from blockflow.scheduler.block_states import (
    BLOCK_TRANSITIONS,
    ENDED,
    IMPOSSIBLE,
    NEXT_STATE,
    SATISFIED,
    BlockState,
    BlockStates,
    BlockTrigger,
)
from tests.scheduler.plans import line


@pytest.mark.parametrize(("state", "cause"), list(product(BlockState, BlockTrigger)))
def test_every_pair_is_in_the_table_or_refused(state: BlockState, cause: BlockTrigger) -> None:
    blocks = BlockStates(compile_plan([line(blocks=3)]).tasks[0])
    blocks.states[1] = state
    blocks.counts += np.bincount(blocks.states, minlength=len(BlockState)) - blocks.counts
    before, counts = blocks.states.copy(), blocks.counts.copy()
    if (state, cause) in BLOCK_TRANSITIONS:
        blocks.move(np.array([1]), cause, 0.0)
        assert blocks.states.tolist() == [0, BLOCK_TRANSITIONS[state, cause], 0]
    else:
        with pytest.raises(InvalidTransition, match=f"block 1 of task 't' is {state.name.lower()}, which"):
            blocks.move(np.array([1]), cause, 0.0)
        assert (blocks.states == before).all()
        assert (blocks.counts == counts).all()
    assert blocks.counts.tolist() == np.bincount(blocks.states, minlength=len(BlockState)).tolist()


def test_the_array_is_the_table() -> None:
    assert NEXT_STATE.shape == (len(BlockTrigger), len(BlockState))
    for state, cause in product(BlockState, BlockTrigger):
        assert NEXT_STATE[cause, state] == BLOCK_TRANSITIONS.get((state, cause), IMPOSSIBLE)


def test_the_array_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        NEXT_STATE[0, 0] = 0


def test_states_that_end_are_never_left_and_the_others_are() -> None:
    assert {state for state, _ in BLOCK_TRANSITIONS} == set(BlockState) - set(ENDED)
    assert set(SATISFIED) < set(ENDED)


def test_every_state_can_be_reached() -> None:
    reached = {BlockState.PENDING}
    for _ in BlockState:
        reached |= {after for (before, _), after in BLOCK_TRANSITIONS.items() if before in reached}
    assert reached == set(BlockState)


def test_every_cause_leads_somewhere() -> None:
    assert {cause for _, cause in BLOCK_TRANSITIONS} == set(BlockTrigger)


def test_an_untouched_block_is_pending() -> None:
    assert BlockState(0) is BlockState.PENDING
