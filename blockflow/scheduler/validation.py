"""Recount of a scheduler's state from scratch, for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from blockflow.scheduler.block_states import ENDED, BlockState
from blockflow.scheduler.worker_states import WorkerState

if TYPE_CHECKING:
    from blockflow.scheduler.state import SchedulerState


def validate(state: SchedulerState) -> None:
    """Recount everything; costs time and memory for every block.

    Raises:
        AssertionError: Two places disagree.
    """
    for number, task in enumerate(state.tasks):
        task.blocks.validate()
        held = [lease.outstanding for lease in state.leases if lease.task == number]
        running = np.concatenate([*held, np.array(list(task.verifying), dtype=np.int64)])
        assert len(np.unique(running)) == len(running), "a block is held twice"
        assert (np.sort(running) == task.blocks.all_of(BlockState.RUNNING)).all(), "running blocks and leases"
        waiting = task.ready_queue.waiting() + task.cleared.members() + task.being_checked.tolist()
        ready = task.blocks.all_of(BlockState.READY)
        assert sorted(waiting) == ready.tolist(), "ready blocks and the places where they wait"
        workers = {key for key, worker in state.workers.items() if worker.task == number}
        active = {key for key in workers if state.workers[key].state is WorkerState.ACTIVE}
        assert task.active_workers == active, "active workers of the task"
        assert task.waiting_workers.keys() <= active, "a worker waits that may be given nothing"
        assert not np.isin(task.blocks.states[sorted(task.histories)], ENDED).any(), "the history of a block that ended"
        failed = task.blocks.all_of(BlockState.FAILED)
        assert sorted(task.final_failures) == failed.tolist(), "failed blocks and their failures"
    for lease in state.leases:
        assert lease.worker in state.workers, "a lease without a worker"
        assert len(lease.outstanding), "a lease without blocks"
    assert all(key == worker.number for key, worker in state.workers.items()), "numbers of workers"
    assert (state.awaited_until is None) == (not state.awaited), "awaited workers and the end of the wait"
