"""Workers that join, come back or are awaited: what they may keep.

A worker that lost its connection, or its driver, goes on with what it holds. When it is back it claims its leases, one
by one, before any other message. A lease that this driver granted is still there unless it has expired. One that an
earlier driver granted is taken over if its blocks are free, which they are while awaited workers are waited for:
workers of an earlier driver may be writing blocks that this one does not know to be taken, so nothing is granted until
all of them are back, known to be gone, or without a lease that could still be running.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from blockflow.errors import RemoteProtocolError
from blockflow.scheduler import events as ev
from blockflow.scheduler.block_states import BlockState
from blockflow.scheduler.completion import blocks_returned
from blockflow.scheduler.leases import Lease, server_seconds
from blockflow.scheduler.state import move_worker
from blockflow.scheduler.worker_states import WorkerRecord, WorkerTrigger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blockflow.scheduler.state import SchedulerState, TaskRecord


def await_workers(state: SchedulerState, awaited: Sequence[ev.RecordWorker], now: float) -> None:
    """Wait for the workers of an earlier driver until they are back, or gone, or their leases have expired."""
    state.awaited.update((known.worker, known) for known in awaited)
    state.awaited_until = now + server_seconds(state.leases.seconds) if state.awaited else None
    for known in awaited:
        if known.process is not None:
            state.tasks[known.task].pool.adopt(known.process)
            state.next_process = max(state.next_process, known.process + 1)


def on_worker_joined(state: SchedulerState, event: ev.WorkerJoined, now: float) -> list[ev.Instruction]:
    """Let a worker in, or in again with what it held when its connection was lost.

    That is a sign of life: nothing is taken from it while its claims are on their way.
    """
    before = state.workers.get(event.worker)
    if before is None:
        worker = state.workers[event.worker] = WorkerRecord(number=event.worker, task=event.task, process=event.process)
    elif before.task == event.task:
        worker = before
        worker.process, worker.failure, worker.fenced = event.process, None, True
        worker.failed_in_a_row.clear()
    else:
        raise RemoteProtocolError(f"worker {event.worker} of task {before.task} joins again for task {event.task}")
    worker.host, worker.outdated = event.host, event.outdated
    worker.unclaimed = {lease.number for lease in state.leases.of_worker(event.worker)}
    move_worker(state, event.worker, WorkerTrigger.REJOINED)
    if event.outdated:
        move_worker(state, event.worker, WorkerTrigger.DISMISSED)
    state.leases.renew(event.worker, now)
    task = state.tasks[event.task]
    task.waiting_workers.pop(event.worker, None)
    task.pool.joined(event.process)
    # The next driver numbers its processes from the greatest recorded one on.
    process = event.process if event.process in task.pool.alive else None
    state.record(
        ev.RecordWorker(
            worker=event.worker,
            task=event.task,
            process=process,
            host=event.host,
            pid=event.pid,
            started=event.started,
        )
    )
    return []


def on_lease_claimed(state: SchedulerState, event: ev.LeaseClaimed, now: float) -> list[ev.Instruction]:
    """Let a worker that has just joined keep a lease, or tell it that it may not."""
    worker = state.workers.get(event.worker)
    if worker is None or worker.unclaimed is None:
        raise RemoteProtocolError(f"worker {event.worker} claims lease {event.lease} too late")
    state.leases.renew(event.worker, now)
    worker.unclaimed.discard(event.lease)
    lease = state.leases.held(event.lease, event.worker)
    if lease is not None:
        returned = state.leases.cut(lease, len(event.indices))
        if len(returned):
            blocks_returned(state, state.tasks[lease.task], returned, now)
    stale = lease is None and not _take_over(state, event, now)
    worker.fenced = worker.fenced and not stale
    return [ev.AcknowledgeReport(worker=event.worker, lease=event.lease, stale=stale)]


def settle_claims(state: SchedulerState, number: int, now: float) -> None:
    """Take back leases that never reached a worker: it has claimed all that it holds."""
    worker = state.workers[number]
    for lease in [state.leases.held(lease, number) for lease in worker.unclaimed or ()]:
        if lease is not None:
            state.leases.end(lease)
            blocks_returned(state, state.tasks[lease.task], lease.outstanding, now)
    worker.unclaimed = None
    if worker.outdated:
        state.tasks[worker.task].outdated_workers.add(number)
        state.dirty.add(worker.task)
    if worker.fenced and number in state.awaited:
        _await_no_more(state, number)
        state.touch_all()


def forget_disconnected(state: SchedulerState, number: int) -> None:
    """Forget a worker that holds nothing and is not connected any more.

    One of an earlier driver that was about to claim what it holds is awaited again.
    """
    if number in state.awaited:
        move_worker(state, number, WorkerTrigger.LEFT)
    else:
        worker_gone(state, number)


def end_waiting(state: SchedulerState, now: float) -> None:
    """Stop waiting for awaited workers once their leases have certainly expired."""
    if state.awaited_until is None or now < state.awaited_until:
        return
    for number in tuple(state.awaited):
        if number in state.workers:
            _await_no_more(state, number)
            state.touch_all()
        else:
            worker_gone(state, number)


def worker_gone(state: SchedulerState, number: int) -> None:
    """Forget a worker that cannot be at work any more, whether it was ever back or not."""
    known = _await_no_more(state, number)
    worker = state.workers.get(number)
    if worker is not None:
        move_worker(state, number, WorkerTrigger.LEFT)
    left = worker or known
    if left is not None:
        state.tasks[left.task].pool.left(left.process)
        state.dirty.add(left.task)
        state.record(ev.RecordGone(worker=number))
    if state.awaited_until is None and known is not None:
        state.touch_all()


def _await_no_more(state: SchedulerState, number: int) -> ev.RecordWorker | None:
    known = state.awaited.pop(number, None)
    if not state.awaited:
        state.awaited_until = None
    return known


def _take_over(state: SchedulerState, event: ev.LeaseClaimed, now: float) -> bool:
    """Let a worker keep a lease of an earlier driver if its blocks are free; return whether it may."""
    task = state.task_of(event.worker)
    first = state.leases.first_attempt
    if event.worker not in state.awaited or event.lease >= first or event.attempt + len(event.indices) > first:
        return False
    reported = _recorded_count(task, event)
    left = event.indices[reported:]
    if not len(left):
        return True
    if not np.isin(task.blocks.states[left], (BlockState.PENDING, BlockState.READY)).all():
        return False
    if task.blocks.waits(left):
        return False
    task.claim(left, now)
    lease = Lease(
        number=event.lease,
        worker=event.worker,
        task=task.plan.number,
        indices=event.indices,
        attempt=event.attempt,
        reported=reported,
    )
    state.leases.hold(lease, now)
    state.dirty.add(task.plan.number)
    return True


def _recorded_count(task: TaskRecord, event: ev.LeaseClaimed) -> int:
    """Return how many blocks of a lease, from the first, have an outcome that an earlier driver recorded."""
    ended = (BlockState.DONE, BlockState.FAILED)
    for place, index in enumerate(event.indices.tolist()):
        failed = index in task.histories and task.histories[index].attempt == event.attempt + place
        if task.blocks.states[index] not in ended and not failed:
            return place
    return len(event.indices)
