"""State transitions of finished, failed, lost and returned blocks.

Failures of the user's code and lost workers are counted apart: the first use up a block's retries, the second find the
block that ends its workers, after many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from blockflow.plan.plan import single
from blockflow.scheduler import events as ev
from blockflow.scheduler.block_states import BlockState, BlockTrigger
from blockflow.scheduler.propagation import orphan, release
from blockflow.scheduler.retry_policy import PendingRetry, delay_before
from blockflow.scheduler.storage_pauses import is_spared
from blockflow.scheduler.worker_states import ENDS_MID_BLOCK
from blockflow.wire.failures import LONGEST_ERROR

if TYPE_CHECKING:
    from blockflow.plan.slices import Indices
    from blockflow.scheduler.leases import Lease
    from blockflow.scheduler.state import SchedulerState, TaskRecord

MOST_LOSSES = 5
"""Workers that one block may kill before it fails for good (HyperQueue's figure)."""


def blocks_done(
    state: SchedulerState,
    task: TaskRecord,
    indices: Indices,
    attempts: Indices,
    seconds: float,
    now: float,
    stored: Indices | None = None,
) -> None:
    """Record blocks as done: they finished, and their post-check agrees."""
    number = task.plan.number
    state.record(ev.RecordDone(task=number, indices=indices, attempts=attempts, seconds=seconds, stored=stored))
    _satisfied(state, task, indices, BlockTrigger.FINISHED, now)


def blocks_skipped(state: SchedulerState, task: TaskRecord, indices: Indices, now: float) -> None:
    """Record blocks as skipped: they were found done before they ran."""
    state.record(ev.RecordSkipped(task=task.plan.number, indices=indices))
    _satisfied(state, task, indices, BlockTrigger.FOUND_DONE, now)


def _satisfied(state: SchedulerState, task: TaskRecord, indices: Indices, trigger: BlockTrigger, now: float) -> None:
    task.blocks.move(indices, trigger, now)
    task.forget_histories(indices)
    state.dirty.add(task.plan.number)
    release(state, task.plan.number, indices, now)


def attempt_failed(
    state: SchedulerState, task: TaskRecord, failure: ev.BlockFailure, worker: int | None, attempt: int, now: float
) -> list[ev.Instruction]:
    """Count a failure of the user's code, and retry the block or give it up.

    Args:
        state: Of the scheduler.
        task: Of the block.
        failure: What failed.
        worker: On which; None for a pre-check, which has attempt 0.
        attempt: Number of the attempt.
        now: The time.
    """
    history = task.histories[failure.index]
    if is_spared(failure, history, task.blocks.count(BlockState.DONE), now):
        _spare(state, task, failure, worker, attempt, now)
        return []
    history.failures += 1
    history.attempt = attempt
    final = history.failures > task.plan.task.max_retries
    state.record(ev.RecordFailure(task=task.plan.number, attempt=attempt, failure=failure, final=final))
    if worker is None or worker >= 0:  # a scheduler that is driven manually may go on
        task.breaker.failed(failure, times=history.failures, final=final)
    if final:
        _give_up(state, task, failure, now)
    elif worker is None:
        task.ready_queue.add(single(failure.index))  # it must not run before its pre-check agrees
    else:
        _retry(state, task, failure.index, worker, now, lost=False)
    return [ev.TellFailure(task=task.plan.number, failure=failure, final=final)]


def _spare(
    state: SchedulerState, task: TaskRecord, failure: ev.BlockFailure, worker: int | None, attempt: int, now: float
) -> None:
    """Put back a block that failed because storage did, as if it had not run."""
    task.histories[failure.index].attempt = attempt
    state.record(ev.RecordFailure(task=task.plan.number, attempt=attempt, failure=failure, final=False, spared=True))
    if worker is None:
        task.ready_queue.add(single(failure.index))
    else:
        blocks_returned(state, task, single(failure.index), now)


def blocks_returned(state: SchedulerState, task: TaskRecord, indices: Indices, now: float) -> None:
    """Put back blocks that were granted and not run."""
    task.blocks.move(indices, BlockTrigger.GIVEN_BACK, now)
    task.put_back(indices)
    state.dirty.add(task.plan.number)


def leases_lost(
    state: SchedulerState, worker: int, now: float, *, suspicious: bool, how: str = "", output: str = ""
) -> list[ev.Instruction]:
    """Free everything that a worker holds and will not finish.

    Args:
        state: Of the scheduler.
        worker: Its number.
        now: The time.
        suspicious: One of its blocks may have ended it.
        how: How it ended, in words.
        output: The last lines that it printed.
    """
    done: list[ev.Instruction] = []
    known = state.workers[worker]
    suspicious = suspicious and known.state not in ENDS_MID_BLOCK
    for lease in state.leases.of_worker(worker):
        state.leases.end(lease)
        if suspicious:
            done += lease_lost(state, lease, now, how=how, output=output)
            suspicious = False  # it runs its leases in order, so it had not begun the others
            continue
        task, left = state.tasks[lease.task], lease.outstanding
        if known.failure is not None and known.failure.index in left:
            failure, known.failure = known.failure, None
            at = int(np.flatnonzero(lease.indices == failure.index)[0])
            task.hosts.failed(known.host, failure.index, now)
            done += attempt_failed(state, task, failure, worker, lease.attempt + at, now)
            left = left[left != failure.index]
        if len(left):
            blocks_returned(state, task, left, now)
    return done


def lease_lost(
    state: SchedulerState, lease: Lease, now: float, *, how: str = "ended", output: str = ""
) -> list[ev.Instruction]:
    """Retry the blocks of a lease whose worker ended; one of them may have been the cause.

    Args:
        state: Of the scheduler.
        lease: What it ran.
        now: The time.
        how: How it ended, in words.
        output: The last lines that it printed.
    """
    task = state.tasks[lease.task]
    if len(lease.outstanding) == 1:  # no other block can have been the cause
        index = int(lease.outstanding[0])
        attempt = lease.attempt + lease.reported
        history = task.histories[index]
        history.losses += 1
        state.record(ev.RecordLoss(task=lease.task, index=index, attempt=attempt))
        if history.losses == MOST_LOSSES:
            error = f"{MOST_LOSSES} workers ended while they ran this block: the last {how}"
            failure = ev.BlockFailure(index=index, error=error[:LONGEST_ERROR], traceback=output)
            state.record(ev.RecordFailure(task=lease.task, attempt=attempt, failure=failure, final=True))
            task.breaker.failed(failure, times=1, final=True)
            _give_up(state, task, failure, now)
            return [ev.TellFailure(task=lease.task, failure=failure, final=True)]
    for index in lease.outstanding.tolist():
        _retry(state, task, index, lease.worker, now, lost=True)
    return [ev.TellRemark(task=lease.task, text=f"a worker {how} while it had blocks; they are run again")]


def _retry(state: SchedulerState, task: TaskRecord, index: int, worker: int, now: float, *, lost: bool) -> None:
    """Schedule a block to run once more, alone, and on another worker if there is one."""
    task.blocks.move(single(index), BlockTrigger.GIVEN_BACK, now)
    history = task.histories[index]
    known = state.workers.get(worker)
    history.remember(worker, "" if known is None else known.host)
    assert state.began is not None
    others = lost or not task.active_workers <= history.workers  # a lost worker is replaced
    delay = delay_before(index, history, others=others, lasted=now - state.began)
    task.ready_queue.retry(index, PendingRetry(history, now + delay), now)
    state.dirty.add(task.plan.number)


def _give_up(state: SchedulerState, task: TaskRecord, failure: ev.BlockFailure, now: float) -> None:
    task.blocks.move(single(failure.index), BlockTrigger.GIVEN_UP, now)
    task.keep_final_failure(failure)
    state.dirty.add(task.plan.number)
    orphan(state, task.plan.number, single(failure.index), now)
