"""Scheduler: event in, instructions out; the only way to change the state of a run.

``Scheduler.handle(event, now)`` does no IO and reads no clock. One event is handled in three steps:

1. the handler of the event changes the states of blocks, leases and workers (:data:`HANDLERS`);
2. blocks that ended release, or orphan, what waits for them, in their own task and downstream
   (:mod:`blockflow.scheduler.propagation`);
3. waiting workers are granted leases, or are dismissed where nothing is left, checks are asked for ahead of demand, and
   processes are started where blocks could run (:mod:`blockflow.scheduler.dispatch`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from blockflow.errors import RemoteProtocolError
from blockflow.plan.graph import DependencyGraph
from blockflow.plan.plan import Plan, compile_plan
from blockflow.plan.requirements import check_resources
from blockflow.scheduler import events as ev
from blockflow.scheduler import reconnect
from blockflow.scheduler.completion import attempt_failed, blocks_done, blocks_returned, blocks_skipped, leases_lost
from blockflow.scheduler.dispatch import dispatch, next_dispatch, steal, steal_all, wake
from blockflow.scheduler.leases import Lease, Leases
from blockflow.scheduler.manual import ManualScheduling
from blockflow.scheduler.propagation import RestoredTask, restore
from blockflow.scheduler.state import NOTHING, SchedulerState, TaskRecord, TaskState, dismiss, move_worker
from blockflow.scheduler.storage_pauses import DRIVER
from blockflow.scheduler.validation import validate
from blockflow.scheduler.worker_states import WorkerState, WorkerTrigger
from blockflow.wire.storage_errors import FailureKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from blockflow.plan.block import Block
    from blockflow.plan.slices import Indices
    from blockflow.plan.task import Task
    from blockflow.scheduler.worker_states import WorkerRecord

LEASE_SECONDS = 60.0
"""How long a silent worker keeps its blocks. Heartbeats come six times as often; a dead node is noticed after a
minute, where others take two (Parsl), five (dask) or ten (daisy 2)."""

FAILURES_IN_A_ROW = 3
"""Different blocks that may fail on a worker, one after the other, before it is replaced."""


class Scheduler:
    """The only owner of the state of blocks, leases and workers.

    Driven by a coordinator through :meth:`handle`, or manually:

    >>> from blockflow import BlockStatus, Roi, Scheduler, Task
    >>> task = Task("t", Roi((0,), (30,)), Roi((0,), (10,)), Roi((0,), (10,)))
    >>> scheduler = Scheduler([task])
    >>> while block := scheduler.acquire_block("t"):
    ...     block.status = BlockStatus.SUCCESS
    ...     scheduler.release_block(block)
    >>> scheduler.task_states["t"].is_done()
    True

    Args:
        tasks: The tasks to run; those upstream of them are run too.
        count_all_orphans: Accepted for compatibility; orphans are always counted.
        largest_lease: Blocks in a lease at most.
        lease_seconds: How long a silent worker keeps its blocks.
        epoch: Number of this driver among those of the run; attempts of later ones have larger numbers.
        recording: Keep records for :meth:`take_records`.
        resources: Amount of each resource that tasks require, by name.

    Raises:
        PlanError: Tasks that cannot be run together, or require more than there is.
    """

    def __init__(
        self,
        tasks: Iterable[Task] | Plan,
        count_all_orphans: bool = True,
        *,
        largest_lease: int = 1,
        lease_seconds: float = LEASE_SECONDS,
        epoch: int = 0,
        recording: bool = False,
        resources: Mapping[str, int] | None = None,
    ) -> None:
        self.plan = compile_plan(tasks) if not isinstance(tasks, Plan) else tasks
        check_resources([task.task for task in self.plan.tasks], resources or {})
        self.epoch = epoch
        self._manual = ManualScheduling()
        self._state = SchedulerState(
            plan=self.plan,
            tasks=[TaskRecord(task) for task in self.plan.tasks],
            leases=Leases(lease_seconds, epoch),
            resources=dict(resources or {}),
            largest_lease=largest_lease,
            recording=recording,
            over=[False] * len(self.plan.tasks),
        )
        self._state.touch_all()

    # ---------------------------------------------------------------------------------------------- questions

    @property
    def task_states(self) -> dict[str, TaskState]:
        """Progress of each task, by id."""
        return {task.plan.task_id: task.state for task in self._state.tasks}

    @property
    def lease_seconds(self) -> float:
        """How long a silent worker keeps its blocks."""
        return self._state.leases.seconds

    @property
    def dependency_graph(self) -> DependencyGraph:
        """Dependencies between blocks."""
        return DependencyGraph.of_plan(self.plan)

    @property
    def finished(self) -> bool:
        """Whether nothing can happen any more."""
        return self._state.finished

    def task(self, number: int) -> TaskRecord:
        """Return everything known about a task; for reading only."""
        return self._state.tasks[number]

    def get_ready_tasks(self) -> list[Task]:
        """Return the tasks that have a block which could be granted."""
        return [task.plan.task for task in self._state.tasks if task.ready_count]

    def next_deadline(self) -> float | None:
        """Return the time at which a :class:`Ticked` will have something to do; None if never."""
        state = self._state
        times = (state.leases.next_deadline, state.awaited_until, next_dispatch(state))
        return min((time for time in times if time is not None), default=None)

    # ------------------------------------------------------------------------------------ from driver to driver

    def restore(self, tasks: Sequence[RestoredTask], awaited: Sequence[ev.RecordWorker], now: float) -> None:
        """Go on where an earlier driver of the run has ended; to be called before any event.

        Args:
            tasks: What was recorded of each task, in the order of the plan.
            awaited: Workers that the earlier driver knew. Nothing is granted until they are back or gone, or could
                not hold anything any more; those that are back keep what they claim.
            now: The time.
        """
        restore(self._state, tasks)
        reconnect.await_workers(self._state, awaited, now)

    def take_records(self) -> list[ev.Record]:
        """Return the records since the last call: durable before any later instruction is carried out."""
        records = self._state.records[:]
        self._state.records.clear()
        return records

    @property
    def awaited_workers(self) -> list[ev.RecordWorker]:
        """Workers of an earlier driver that may hold blocks; nothing is granted while there are any."""
        return list(self._state.awaited.values())

    def overdue(self, now: float) -> list[int]:
        """Return the workers that lose what they hold at the next :class:`Ticked`, because they are silent."""
        return self._state.leases.expired(now)

    # ----------------------------------------------------------------------------------------------- manually

    def acquire_block(self, task_id: str) -> Block | None:
        """Return a block of a task that may run now; None if there is none at the moment.

        Pre-checks are called here, on the spot.

        Args:
            task_id: Name of the task.

        Raises:
            TaskGraphError: No task has that name.
        """
        return self._manual.acquire(self, task_id)

    def release_block(self, block: Block) -> None:
        """Give back a block that :meth:`acquire_block` returned; ``block.status`` says how it went.

        Args:
            block: The block.

        Raises:
            SchedulerError: The block was not acquired, or its status is neither SUCCESS nor FAILED.
        """
        self._manual.release(self, block)

    # ------------------------------------------------------------------------------------------------ events

    def handle(self, event: ev.Event, now: float) -> list[ev.Instruction]:
        """Change the state, and return what has to be done.

        Args:
            event: What happened.
            now: Seconds on any clock that never goes back.

        Raises:
            RemoteProtocolError: A worker says something that cannot be; nothing has changed.
            InvalidTransition: A bug in blockflow; the scheduler must not be used any more.
        """
        state = self._state
        if state.began is None:
            state.began = now
        done = HANDLERS[type(event)](state, event, now)
        reporter = event.worker if isinstance(event, ev.BlocksReported) else None
        return done + dispatch(state, now, reporter)

    def validate(self) -> None:
        """Recount everything from scratch; for tests.

        Raises:
            AssertionError: Two places disagree.
        """
        validate(self._state)


# -------------------------------------------------------------------------------------------- events of workers


def on_blocks_asked(state: SchedulerState, event: ev.BlocksAsked, now: float) -> list[ev.Instruction]:
    """Queue a worker that waits for a lease."""
    worker = _sender(state, event.worker, now)
    state.leases.renew(event.worker, now)
    if worker.state is WorkerState.ACTIVE:
        task = state.tasks[worker.task]
        task.pool.reached(worker.process)
        task.waiting_workers.setdefault(event.worker, now)
        state.dirty.add(worker.task)
    return []


def on_ask_withdrawn(state: SchedulerState, event: ev.AskWithdrawn, now: float) -> list[ev.Instruction]:
    """Take a worker out of the queue."""
    worker = _sender(state, event.worker, now)
    state.tasks[worker.task].waiting_workers.pop(event.worker, None)
    return []


def on_heartbeat_received(state: SchedulerState, event: ev.HeartbeatReceived, now: float) -> list[ev.Instruction]:
    """Renew the leases of a worker."""
    if not event.seen:
        worker = _sender(state, event.worker, now)
        if state.tasks[worker.task].ready_queue.retries:  # left to another worker, which may not come
            state.dirty.add(worker.task)
    state.leases.renew(event.worker, now)
    return []


def on_blocks_reported(state: SchedulerState, event: ev.BlocksReported, now: float) -> list[ev.Instruction]:
    """Count finished and failed blocks of a lease."""
    task = state.tasks[_sender(state, event.worker, now).task]
    lease = state.leases.held(event.lease, event.worker)
    if lease is not None:
        _check_report(event, lease)
    state.leases.renew(event.worker, now)
    done: list[ev.Instruction] = [ev.AcknowledgeReport(worker=event.worker, lease=event.lease, stale=lease is None)]
    if lease is None or event.upto <= lease.reported:
        return done  # not its own any more, or reported before
    reported = lease.indices[lease.reported : event.upto]
    attempts = np.arange(lease.attempt + lease.reported, lease.attempt + event.upto, dtype=np.int64)
    stored = _stored_by(event, len(reported))
    lease.reported = event.upto
    if event.upto == len(lease.indices):
        state.leases.end(lease)
    state.dirty.add(task.plan.number)
    task.durations.measured(len(reported), event.seconds)
    if not event.failures:
        task.auto_timeout.measured(len(reported), event.seconds)
    good = reported
    if event.failures:
        fine = ~np.isin(reported, [failure.index for failure in event.failures])
        attempt_of = dict(zip(reported.tolist(), attempts.tolist(), strict=True))
        good, attempts = reported[fine], attempts[fine]
        stored = None if stored is None else stored[fine]
        for failure in event.failures:
            done += attempt_failed(state, task, failure, event.worker, attempt_of[failure.index], now)
    if task.plan.task.post_check is not None and len(good):
        runs = zip(good.tolist(), attempts.tolist(), strict=True)
        task.verifying.update((index, (event.worker, attempt)) for index, attempt in runs)
        if stored is not None:
            task.stored.update(zip(good.tolist(), stored.tolist(), strict=True))
        done.append(ev.RunChecks(task=task.plan.number, phase=ev.CheckPhase.AFTER, indices=good))
    elif len(good):
        blocks_done(state, task, good, attempts, event.seconds, now, stored)
    return done + _replace_failing_worker(state, event, len(good), now)


def on_blocks_returned(state: SchedulerState, event: ev.BlocksReturned, now: float) -> list[ev.Instruction]:
    """Put back the blocks of a lease that a worker has not started."""
    _sender(state, event.worker, now)
    lease = state.leases.held(event.lease, event.worker)
    if lease is not None and not lease.reported <= event.kept <= len(lease.indices):
        raise RemoteProtocolError(
            f"worker {event.worker} returns all but {event.kept} blocks of lease {event.lease}, which has "
            f"{len(lease.indices)}, {lease.reported} of them reported"
        )
    state.leases.renew(event.worker, now)
    if lease is not None and event.kept < len(lease.indices):
        blocks_returned(state, state.tasks[lease.task], state.leases.cut(lease, event.kept), now)
    return []


def on_worker_ending(state: SchedulerState, event: ev.WorkerEnding, now: float) -> list[ev.Instruction]:
    """Note that a worker's process ends in the middle of its blocks."""
    worker = _sender(state, event.worker, now)
    held = state.leases.of_worker(event.worker)
    if event.failure is not None and any(event.failure.index in lease.outstanding for lease in held):
        worker.failure = event.failure  # else the block is not its own any more
    move_worker(state, event.worker, WorkerTrigger.ANNOUNCED_END)
    return []


def on_worker_left(state: SchedulerState, event: ev.WorkerLeft, now: float) -> list[ev.Instruction]:
    """Free the blocks of a worker that can certainly not write any more."""
    done: list[ev.Instruction] = []
    if event.worker in state.workers:
        how = event.how or "ended"
        done += leases_lost(state, event.worker, now, suspicious=event.crashed, how=how, output=event.output)
    reconnect.worker_gone(state, event.worker)
    return done


def on_worker_unable(state: SchedulerState, event: ev.WorkerUnable, now: float) -> list[ev.Instruction]:
    """Note why a worker cannot begin, and give it nothing."""
    worker = _sender(state, event.worker, now)
    why = f"could not begin: {event.error}" + (f" ({event.where})" if event.where else "")
    state.tasks[worker.task].pool.unable(worker.process, why, event.traceback)
    dismiss(state, [event.worker])
    return [ev.TellRemark(task=worker.task, text=f"a worker {why}")]


def on_connection_lost(state: SchedulerState, event: ev.ConnectionLost, now: float) -> list[ev.Instruction]:
    """Note that a worker has no connection; it may be at work until its leases expire."""
    worker = state.workers.get(event.worker)
    if worker is None:
        return []
    done: list[ev.Instruction] = []
    if worker.state is WorkerState.ENDING and not event.broken:  # the end of its connection is that of its process
        done += leases_lost(state, event.worker, now, suspicious=False)
    move_worker(state, event.worker, WorkerTrigger.DISCONNECTED)
    if not state.leases.of_worker(event.worker):
        reconnect.forget_disconnected(state, event.worker)
    return done


# ----------------------------------------------------------------------------------------- events of the driver


def on_process_ended(state: SchedulerState, event: ev.ProcessEnded, now: float) -> list[ev.Instruction]:
    """Count the end of a process that a launcher started."""
    pool = state.tasks[event.task].pool
    bad = pool.ended(event.process, clean=event.clean, how=event.how, output=event.output, lost=event.lost)
    state.dirty.add(event.task)
    if not bad:
        return []
    return [ev.TellRemark(task=event.task, text=f"a worker process {bad}, before it asked for a block")]


def on_workers_wanted(state: SchedulerState, event: ev.WorkersWanted, now: float) -> list[ev.Instruction]:
    """Scale a task to another number of processes."""
    state.tasks[event.task].pool.resize(event.workers)
    state.dirty.add(event.task)
    return []


def on_blocks_checked(state: SchedulerState, event: ev.BlocksChecked, now: float) -> list[ev.Instruction]:
    """Skip, clear or fail blocks as a check function says."""
    task = state.tasks[event.task]
    state.dirty.add(event.task)
    told = _note_storage(state, task, DRIVER, event.failures, len(event.passed) + len(event.refused), now)
    if event.phase is ev.CheckPhase.BEFORE:
        total = len(event.passed) + len(event.refused) + len(event.failures)
        task.check_durations.measured(total, event.seconds)
        task.being_checked = NOTHING
        if len(event.passed):
            blocks_skipped(state, task, event.passed, now)
        task.cleared.add(event.refused)
        for failure in event.failures:
            told += attempt_failed(state, task, failure, None, 0, now)
        return told
    if len(event.passed):
        attempts = [task.verifying.pop(index)[1] for index in event.passed.tolist()]
        stored = np.array([task.stored.pop(index, -1) for index in event.passed.tolist()], dtype=np.int64)
        blocks_done(state, task, event.passed, np.array(attempts, dtype=np.int64), 0.0, now, stored)
    refused = tuple(ev.BlockFailure(index=index, error="refused by the post-check") for index in event.refused.tolist())
    for failure in refused + event.failures:
        told += attempt_failed(state, task, failure, *task.verifying.pop(failure.index), now)
    return told


def on_ticked(state: SchedulerState, event: ev.Ticked, now: float) -> list[ev.Instruction]:
    """Take back expired leases, end the wait for awaited workers, and steal blocks that are due."""
    done: list[ev.Instruction] = []
    for number in state.leases.expired(now):
        done += leases_lost(state, number, now, suspicious=True, how=f"said nothing for {state.leases.seconds:g} s")
        worker = state.workers[number]
        task = state.tasks[worker.task]
        task.pool.silent(worker.process)
        if worker.is_connected:
            task.waiting_workers.pop(number, None)  # it asks again when it is back
            done.append(ev.CutOff(worker=number))
        else:
            reconnect.worker_gone(state, number)
    reconnect.end_waiting(state, now)
    wake(state, now)
    return done + steal(state, now)


def on_stop_asked(state: SchedulerState, event: ev.StopAsked, now: float) -> list[ev.Instruction]:
    """Grant nothing more, and dismiss the workers that hold blocks."""
    if state.stopping:
        return []
    state.stopping = True
    state.touch_all()
    holders = sorted({lease.worker for lease in state.leases if state.workers[lease.worker].is_connected})
    dismiss(state, holders)
    return [ev.DismissWorker(worker=worker) for worker in holders]


Handler: TypeAlias = "Callable[[SchedulerState, Any, float], list[ev.Instruction]]"

HANDLERS: Mapping[type[ev.Event], Handler] = {
    ev.WorkerJoined: reconnect.on_worker_joined,
    ev.LeaseClaimed: reconnect.on_lease_claimed,
    ev.BlocksAsked: on_blocks_asked,
    ev.AskWithdrawn: on_ask_withdrawn,
    ev.HeartbeatReceived: on_heartbeat_received,
    ev.BlocksReported: on_blocks_reported,
    ev.BlocksReturned: on_blocks_returned,
    ev.WorkerEnding: on_worker_ending,
    ev.WorkerLeft: on_worker_left,
    ev.WorkerUnable: on_worker_unable,
    ev.ConnectionLost: on_connection_lost,
    ev.ProcessEnded: on_process_ended,
    ev.WorkersWanted: on_workers_wanted,
    ev.BlocksChecked: on_blocks_checked,
    ev.Ticked: on_ticked,
    ev.StopAsked: on_stop_asked,
}
"""Handler of each event: changes the state, and returns what has to be done at once."""


# ------------------------------------------------------------------------------------- what handlers have in common


def _sender(state: SchedulerState, number: int, now: float) -> WorkerRecord:
    """Return the connected worker that sent a message; it has claimed all that it will.

    Raises:
        RemoteProtocolError: It never joined, or is not connected.
    """
    worker = state.workers.get(number)
    if worker is None or not worker.is_connected:
        raise RemoteProtocolError(f"worker {number} sent a message before it joined")
    if worker.unclaimed is not None:
        reconnect.settle_claims(state, number, now)
    return worker


def _replace_failing_worker(
    state: SchedulerState, event: ev.BlocksReported, good: int, now: float
) -> list[ev.Instruction]:
    """Dismiss a worker on which several different blocks in a row have failed."""
    worker = state.workers[event.worker]
    task = state.tasks[worker.task]
    if good:
        worker.failed_in_a_row.clear()
        task.hosts.succeeded(worker.host)
    done = _note_storage(state, task, worker.host, event.failures, good, now)
    for failure in event.failures:
        if failure.kind is FailureKind.CODE:
            worker.failed_in_a_row.add(failure.index)
            task.hosts.failed(worker.host, failure.index, now)
    replaceable = worker.process is not None and worker.state is WorkerState.ACTIVE
    if len(worker.failed_in_a_row) < FAILURES_IN_A_ROW or not replaceable:
        return done
    dismiss(state, [event.worker])
    return [*done, ev.DismissWorker(worker=event.worker)]


def _note_storage(
    state: SchedulerState, task: TaskRecord, host: str, failures: Iterable[ev.BlockFailure], good: int, now: float
) -> list[ev.Instruction]:
    """Let a host wait for its storage, or go on; return what the user and its workers have to be told."""
    number, done = task.plan.number, list[ev.Instruction]()
    over = task.storage.succeeded(host) if good and len(task.storage) else None
    if over is not None:
        done.append(ev.TellPause(task=number, host=host, disk=over.disk, seconds=now - over.since))
    for failure in failures:
        if failure.kind is FailureKind.CODE:
            continue
        if task.storage.failed(host, failure, now):
            full = failure.kind is FailureKind.FULL
            done.append(ev.TellPause(task=number, host=host, disk=failure.disk, error=failure.error, full=full))
        done += steal_all(state, number, host)
    return done


def _stored_by(event: ev.BlocksReported, count: int) -> Indices | None:
    """Return the chunks that each of the newly reported blocks has stored; None if they are not counted."""
    if not event.stored:
        return None
    stored = np.full(count, -1, dtype=np.int64)
    said = event.stored[-count:]
    stored[count - len(said) :] = said
    return stored


def _check_report(event: ev.BlocksReported, lease: Lease) -> None:
    if not 0 < event.upto <= len(lease.indices):
        raise RemoteProtocolError(
            f"worker {event.worker} reports {event.upto} blocks of lease {event.lease}, which has {len(lease.indices)}"
        )
    if event.failures and event.upto > lease.reported:
        failed = [failure.index for failure in event.failures]
        strangers = set(failed).difference(lease.indices[lease.reported : event.upto].tolist())
        if strangers:
            raise RemoteProtocolError(
                f"worker {event.worker} reports failures of blocks {sorted(strangers)} that its report does not cover"
            )
        if len(set(failed)) < len(failed):
            raise RemoteProtocolError(f"worker {event.worker} reports two failures of one block: {sorted(failed)}")
