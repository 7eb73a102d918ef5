"""The transition table of workers: complete, closed, and refused where it has no entry."""

import pytest

from blockflow.errors import InvalidTransition
from blockflow.scheduler.worker_states import (
    CONNECTED,
    ENDS_MID_BLOCK,
    WORKER_TRANSITIONS,
    WorkerRecord,
    WorkerState,
    WorkerTrigger,
)


def test_every_worker_can_leave_and_none_comes_back_from_the_end() -> None:
    for state in WorkerState:
        left = WORKER_TRANSITIONS.get((state, WorkerTrigger.LEFT))
        assert left is (None if state is WorkerState.GONE else WorkerState.GONE)
    assert not [trigger for (state, trigger) in WORKER_TRANSITIONS if state is WorkerState.GONE]


def test_only_a_worker_that_rejoins_becomes_active() -> None:
    for (before, trigger), after in WORKER_TRANSITIONS.items():
        if after is WorkerState.ACTIVE:
            assert trigger is WorkerTrigger.REJOINED, (before, trigger)


def test_an_announced_end_is_remembered_without_a_connection() -> None:
    worker = WorkerRecord(number=1, task=0, process=None)
    worker.move(WorkerTrigger.ANNOUNCED_END)
    assert worker.state in CONNECTED & ENDS_MID_BLOCK
    worker.move(WorkerTrigger.DISCONNECTED)
    assert worker.state in ENDS_MID_BLOCK - CONNECTED
    assert not worker.is_connected


def test_an_impossible_change_raises_and_changes_nothing() -> None:
    worker = WorkerRecord(number=7, task=0, process=None, state=WorkerState.UNREACHABLE)
    with pytest.raises(InvalidTransition, match="worker 7 is unreachable, which announced end cannot follow"):
        worker.move(WorkerTrigger.ANNOUNCED_END)
    assert worker.state is WorkerState.UNREACHABLE
