"""The scheduler: what has to be done now that this has happened?

``Scheduler.handle(event, now)`` is the only way to change the state of a run; it returns what has to be done. It does
no IO and reads no clock. One event is handled in three steps:

1. the event changes the states of blocks, leases and workers;
2. blocks that ended release, or orphan, what waits for them, in their own task and downstream;
3. workers that wait are given leases, or are dismissed where nothing is left, checks are asked for ahead of demand,
   and processes are started where blocks could run (:mod:`blockflow.state.handout`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

import numpy as np

from blockflow.errors import RemoteProtocolError
from blockflow.plan.graph import DependencyGraph
from blockflow.plan.plan import Plan, compile_plan
from blockflow.plan.requirements import check_resources
from blockflow.state import events as ev
from blockflow.state.arrivals import Arrivals
from blockflow.state.by_hand import ByHand
from blockflow.state.handout import Handout, WorkerBook
from blockflow.state.leases import Lease, Leases
from blockflow.state.outcomes import Outcomes
from blockflow.state.resources import Resources
from blockflow.state.restoring import restore
from blockflow.state.storage_pauses import DRIVER
from blockflow.state.task_book import NOTHING, TaskBook, TaskState
from blockflow.state.validation import validate
from blockflow.wire.storage_errors import FailureKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from blockflow.plan.block import Block
    from blockflow.plan.slices import Indices
    from blockflow.plan.task import Task
    from blockflow.state.records import Record, RecordWorker
    from blockflow.state.restoring import TaskHistory

LEASE_SECONDS = 60.0
"""How long a silent worker keeps its blocks. Heartbeats come six times as often; a dead node is noticed after a
minute, where others take two (Parsl), five (dask) or ten (daisy 2)."""

FAILURES_IN_A_ROW = 3
"""Different blocks that may fail on a worker, one after the other, before it is replaced."""


class Scheduler:
    """The only owner of the state of blocks, leases and workers.

    Driven by a coordinator through :meth:`handle`, or by hand:

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
        epoch: Number of this life of the driver; attempts of later lives have larger numbers.
        recording: Keep records for :meth:`take_records`.
        resources: How much there is of what tasks require, by name.

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
        self._books = [TaskBook(task) for task in self.plan.tasks]
        self.epoch = epoch
        self._leases = Leases(lease_seconds, epoch)
        self._workers: dict[int, WorkerBook] = {}
        self._by_hand = ByHand(self)
        self._touched = set(range(len(self._books)))
        """Tasks to which something happened."""
        self._records: list[Record] = []
        self._outcomes = Outcomes(self._books, self._workers, self._touched, self._records if recording else None)
        self._arrivals = Arrivals(self._books, self._leases, self._workers, self._outcomes, self._touched)
        self._handout = Handout(
            self._books,
            self._leases,
            self._workers,
            largest_lease,
            self._arrivals.absence,
            Resources(resources or {}, self._books, self._leases),
        )

    # ---------------------------------------------------------------------------------------------- questions

    @property
    def task_states(self) -> dict[str, TaskState]:
        """How far each task has got."""
        return {book.plan.task_id: book.state for book in self._books}

    @property
    def lease_seconds(self) -> float:
        """How long a silent worker keeps its blocks."""
        return self._leases.seconds

    @property
    def dependency_graph(self) -> DependencyGraph:
        """Which block waits for which."""
        return DependencyGraph.of_plan(self.plan)

    @property
    def finished(self) -> bool:
        """Nothing can happen any more."""
        return self._handout.finished

    def book(self, task: int) -> TaskBook:
        """Everything known about a task; for reading only."""
        return self._books[task]

    def get_ready_tasks(self) -> list[Task]:
        """The tasks that have a block which could be handed out."""
        return [book.plan.task for book in self._books if book.ready]

    def next_deadline(self) -> float | None:
        """The time at which a :class:`Ticked` will have something to do."""
        handout = self._handout
        first = self._leases.next_deadline
        for time in (handout.next_recall, handout.next_look, self._arrivals.absence.until):
            if time is not None and (first is None or time < first):
                first = time
        return first

    # ------------------------------------------------------------------------------------- from life to life

    def restore(self, histories: Sequence[TaskHistory], absent: Sequence[RecordWorker], now: float) -> None:
        """Go on where an earlier life of the driver has ended; to be called before any event.

        Args:
            histories: What is known of each task, in the order of the plan.
            absent: Workers that the earlier life knew. Nothing is handed out until they are back or gone, or could
                not hold anything any more; those that are back keep what they claim.
            now: The time.
        """
        restore(self._books, histories)
        self._touched.update(range(len(self._books)))
        self._arrivals.await_absent(absent, now)
        processes = [known.process for known in absent if known.process is not None]
        self._handout.next_process = max(processes, default=-1) + 1

    def take_records(self) -> list[Record]:
        """What has happened since the last call and must be durable before anything that was decided since is said."""
        records = self._records[:]
        self._records.clear()
        return records

    @property
    def absent(self) -> list[RecordWorker]:
        """Workers of an earlier life that may hold blocks; nothing is handed out while there are any."""
        return list(self._arrivals.absence)

    def overdue(self, now: float) -> list[int]:
        """Workers that lose what they hold at the next :class:`Ticked`, because they have been silent."""
        return self._leases.expired(now)

    # ------------------------------------------------------------------------------------------------ by hand

    def acquire_block(self, task_id: str) -> Block | None:
        """A block of a task that may run now; None if there is none at the moment.

        Pre-checks are called here, on the spot.

        Raises:
            TaskGraphError: No task has that name.
        """
        return self._by_hand.acquire(task_id)

    def release_block(self, block: Block) -> None:
        """Give back a block that :meth:`acquire_block` returned; ``block.status`` says how it went.

        Raises:
            SchedulerError: The block was not acquired, or its status is neither SUCCESS nor FAILED.
        """
        self._by_hand.release(block)

    # ----------------------------------------------------------------------------------------- events

    def handle(self, event: ev.Event, now: float) -> list[ev.Instruction]:
        """Change the state, and say what has to be done.

        Args:
            event: What happened.
            now: Seconds on any clock that never goes back.

        Raises:
            RemoteProtocolError: A worker says something that cannot be; nothing has changed.
            InvalidTransition: A bug in blockflow; the scheduler must not be used any more.
        """
        done: list[ev.Instruction] = []
        self._outcomes.begin(now)
        match event:
            case ev.WorkerJoined():
                self._arrivals.joined(event, now)
            case ev.LeaseClaimed():
                done += self._arrivals.claimed(event, now)
            case ev.BlocksAsked():
                self._asked(event.worker, now)
            case ev.BlocksReported():
                done += self._reported(event, now)
            case ev.BlocksReturned():
                self._returned(event, now)
            case ev.HeartbeatReceived() if event.seen:
                self._leases.renew(event.worker, now)
            case ev.HeartbeatReceived():
                self._alive(event.worker, now)
            case ev.WorkerLeft():
                done += self._left(event, now)
            case ev.WorkerUnable():
                done += self._unable(event, now)
            case ev.WorkerEnding():
                self._ending(event, now)
            case ev.ConnectionLost():
                done += self._disconnected(event, now)
            case ev.ProcessEnded():
                done += self._ended(event)
            case ev.WorkersWanted():
                self._books[event.task].pool.resize(event.workers)
                self._touched.add(event.task)
            case ev.BlocksChecked():
                done += self._checked(event, now)
            case ev.Ticked():
                done += self._ticked(now)
            case ev.StopAsked():
                done += self._stop()
            case _:
                assert_never(event)
        reporter = event.worker if isinstance(event, ev.BlocksReported) else None
        done += self._handout.follow_up(self._touched, now, reporter)
        self._touched.clear()
        return done

    def _asked(self, worker: int, now: float) -> None:
        book = self._books[self._known(worker, now).task]
        self._leases.renew(worker, now)
        if worker in book.workers:
            book.pool.reached(self._workers[worker].process)
            book.asking.setdefault(worker, now)
            self._touched.add(book.plan.number)

    def _alive(self, worker: int, now: float) -> None:
        book = self._books[self._known(worker, now).task]
        self._leases.renew(worker, now)
        if book.frontier.again:  # they may have waited for another worker, which does not come
            self._touched.add(book.plan.number)

    def _reported(self, event: ev.BlocksReported, now: float) -> list[ev.Instruction]:
        book = self._books[self._known(event.worker, now).task]
        lease = self._leases.held(event.lease, event.worker)
        if lease is not None:
            _check_report(event, lease)
        self._leases.renew(event.worker, now)
        done: list[ev.Instruction] = [ev.AcknowledgeReport(worker=event.worker, lease=event.lease, stale=lease is None)]
        if lease is None or event.upto <= lease.reported:
            return done  # not its own any more, or said before
        reported = lease.indices[lease.reported : event.upto]
        attempts = np.arange(lease.attempt + lease.reported, lease.attempt + event.upto, dtype=np.int64)
        stored = _stored_by(event, len(reported))
        lease.reported = event.upto
        if event.upto == len(lease.indices):
            self._leases.end(lease)
        self._touched.add(book.plan.number)
        book.pace.measured(len(reported), event.seconds)
        if not event.failures:
            book.limit.measured(len(reported), event.seconds)
        good = reported
        if event.failures:
            fine = ~np.isin(reported, [failure.index for failure in event.failures])
            attempt_of = dict(zip(reported.tolist(), attempts.tolist(), strict=True))
            good, attempts = reported[fine], attempts[fine]
            stored = None if stored is None else stored[fine]
            for failure in event.failures:
                done += self._outcomes.failed(book, failure, event.worker, attempt_of[failure.index], now)
        if book.plan.task.post_check is not None and len(good):
            runs = zip(good.tolist(), attempts.tolist(), strict=True)
            book.verifying.update((index, (event.worker, attempt)) for index, attempt in runs)
            if stored is not None:
                book.stored.update(zip(good.tolist(), stored.tolist(), strict=True))
            done.append(ev.RunChecks(task=book.plan.number, phase=ev.Phase.AFTER, indices=good))
        elif len(good):
            self._outcomes.done(book, good, attempts, event.seconds, now, stored)
        return done + self._count_failures_in_a_row(event, len(good), now)

    def _count_failures_in_a_row(self, event: ev.BlocksReported, good: int, now: float) -> list[ev.Instruction]:
        worker = self._workers[event.worker]
        book = self._books[worker.task]
        if good:
            worker.failed_in_a_row.clear()
            book.hosts.succeeded(worker.host)
        done = self._note_storage(book, worker.host, event.failures, good, now)
        for failure in event.failures:
            if failure.kind is FailureKind.CODE:
                worker.failed_in_a_row.add(failure.index)
                book.hosts.failed(worker.host, failure.index, now)
        replaceable = worker.process is not None and event.worker in book.workers
        if len(worker.failed_in_a_row) < FAILURES_IN_A_ROW or not replaceable:
            return done
        self._leave_alone(event.worker)
        return [*done, ev.DismissWorker(worker=event.worker)]

    def _note_storage(
        self, book: TaskBook, host: str, failures: Iterable[ev.BlockFailure], good: int, now: float
    ) -> list[ev.Instruction]:
        """Let a host wait for its storage, or go on; what people and its workers have to hear of that."""
        task, done = book.plan.number, list[ev.Instruction]()
        over = book.storage.succeeded(host) if good and len(book.storage) else None
        if over is not None:
            done.append(ev.TellPause(task=task, host=host, disk=over.disk, seconds=now - over.since))
        for failure in failures:
            if failure.kind is FailureKind.CODE:
                continue
            if book.storage.failed(host, failure, now):
                full = failure.kind is FailureKind.FULL
                done.append(ev.TellPause(task=task, host=host, disk=failure.disk, error=failure.error, full=full))
            done += self._handout.recall_all(task, host)
        return done

    def _returned(self, event: ev.BlocksReturned, now: float) -> None:
        self._known(event.worker, now)
        lease = self._leases.held(event.lease, event.worker)
        if lease is not None and not lease.reported <= event.kept <= len(lease.indices):
            raise RemoteProtocolError(
                f"worker {event.worker} returns all but {event.kept} blocks of lease {event.lease}, which has "
                f"{len(lease.indices)}, {lease.reported} of them reported"
            )
        self._leases.renew(event.worker, now)
        if lease is None or event.kept == len(lease.indices):
            return
        self._outcomes.not_run(self._books[lease.task], self._leases.cut(lease, event.kept), now)

    def _left(self, event: ev.WorkerLeft, now: float) -> list[ev.Instruction]:
        done: list[ev.Instruction] = []
        if event.worker in self._workers:
            self._leave_alone(event.worker)
            done += self._lose(
                event.worker, now, suspicious=event.crashed, how=event.how or "ended", output=event.output
            )
        self._arrivals.gone(event.worker)
        return done

    def _ended(self, event: ev.ProcessEnded) -> list[ev.Instruction]:
        pool = self._books[event.task].pool
        bad = pool.ended(event.process, clean=event.clean, how=event.how, output=event.output, lost=event.lost)
        self._touched.add(event.task)
        if not bad:
            return []
        return [ev.TellRemark(task=event.task, text=f"a worker process {bad}, before it asked for a block")]

    def _unable(self, event: ev.WorkerUnable, now: float) -> list[ev.Instruction]:
        worker = self._known(event.worker, now)
        why = f"could not begin: {event.error}" + (f" ({event.where})" if event.where else "")
        self._books[worker.task].pool.unable(worker.process, why, event.traceback)
        self._leave_alone(event.worker)
        return [ev.TellRemark(task=worker.task, text=f"a worker {why}")]

    def _ending(self, event: ev.WorkerEnding, now: float) -> None:
        worker = self._known(event.worker, now)
        held = self._leases.of_worker(event.worker)
        if event.failure is not None and any(event.failure.index in lease.outstanding for lease in held):
            worker.failure = event.failure  # else the block is not its own any more
        worker.ending = True
        self._leave_alone(event.worker)

    def _disconnected(self, event: ev.ConnectionLost, now: float) -> list[ev.Instruction]:
        worker = event.worker
        if worker not in self._workers:
            return []
        done: list[ev.Instruction] = []
        if self._workers[worker].ending and not event.broken:  # the end of its connection is the end of its process
            done += self._lose(worker, now, suspicious=False)
        self._workers[worker].connected = False
        self._leave_alone(worker)
        if not self._leases.of_worker(worker):
            self._arrivals.lost(worker)
        return done

    def _ticked(self, now: float) -> list[ev.Instruction]:
        done: list[ev.Instruction] = []
        for worker in self._leases.expired(now):
            silent = f"said nothing for {self._leases.seconds:g} s"
            done += self._lose(worker, now, suspicious=True, how=silent)
            known = self._workers[worker]
            self._books[known.task].pool.silent(known.process)
            if known.connected:
                self._books[known.task].asking.pop(worker, None)  # it asks again when it is back
                done.append(ev.CutOff(worker=worker))
            else:
                self._arrivals.gone(worker)
        self._arrivals.passed(now)
        self._touched.update(self._handout.to_look_at(now))
        return done + self._handout.recalls(now)

    def _stop(self) -> list[ev.Instruction]:
        if self._handout.stopping:
            return []
        self._handout.stopping = True
        self._touched.update(range(len(self._books)))
        holders = {lease.worker for lease in self._leases if self._workers[lease.worker].connected}
        for worker in holders:
            self._leave_alone(worker)
        return [ev.DismissWorker(worker=worker) for worker in sorted(holders)]

    def _checked(self, event: ev.BlocksChecked, now: float) -> list[ev.Instruction]:
        book = self._books[event.task]
        self._touched.add(event.task)
        told = self._note_storage(book, DRIVER, event.failures, len(event.passed) + len(event.refused), now)
        if event.phase is ev.Phase.BEFORE:
            total = len(event.passed) + len(event.refused) + len(event.failures)
            book.check_pace.measured(total, event.seconds)
            book.being_checked = NOTHING
            if len(event.passed):
                self._outcomes.skipped(book, event.passed, now)
            book.cleared.add(event.refused)
            for failure in event.failures:
                told += self._outcomes.failed(book, failure, None, 0, now)
            return told
        if len(event.passed):
            attempts = [book.verifying.pop(index)[1] for index in event.passed.tolist()]
            stored = np.array([book.stored.pop(index, -1) for index in event.passed.tolist()], dtype=np.int64)
            self._outcomes.done(book, event.passed, np.array(attempts, dtype=np.int64), 0.0, now, stored)
        refused = tuple(
            ev.BlockFailure(index=index, error="refused by the post-check") for index in event.refused.tolist()
        )
        for failure in refused + event.failures:
            told += self._outcomes.failed(book, failure, *book.verifying.pop(failure.index), now)
        return told

    # -------------------------------------------------------------------------------- what events have in common

    def _lose(
        self, worker: int, now: float, *, suspicious: bool, how: str = "", output: str = ""
    ) -> list[ev.Instruction]:
        """A worker will not finish what it holds; with `suspicious` one of the blocks may have been the cause."""
        done: list[ev.Instruction] = []
        known = self._workers[worker]
        suspicious = suspicious and not known.ending
        for lease in self._leases.of_worker(worker):
            self._leases.end(lease)
            if suspicious:
                done += self._outcomes.lost(lease, now, how=how, output=output)
                suspicious = False  # it runs its leases in order, so it had not begun the others
                continue
            book, left = self._books[lease.task], lease.outstanding
            if known.failure is not None and known.failure.index in left:
                failure, known.failure = known.failure, None
                at = int(np.flatnonzero(lease.indices == failure.index)[0])
                book.hosts.failed(known.host, failure.index, now)
                done += self._outcomes.failed(book, failure, worker, lease.attempt + at, now)
                left = left[left != failure.index]
            if len(left):
                self._outcomes.not_run(book, left, now)
        return done

    def _known(self, worker: int, now: float) -> WorkerBook:
        known = self._workers.get(worker)
        if known is None or not known.connected:
            raise RemoteProtocolError(f"worker {worker} speaks without having joined")
        if known.unclaimed is not None:
            self._arrivals.settle(worker, now)
        return known

    def _leave_alone(self, worker: int) -> None:
        """Give a worker nothing more."""
        book = self._books[self._workers[worker].task]
        book.workers.discard(worker)
        book.asking.pop(worker, None)
        self._touched.add(book.plan.number)

    def validate(self) -> None:
        """Recount everything from scratch; for tests.

        Raises:
            AssertionError: Two places disagree.
        """
        validate(self._books, self._leases, self._workers)


def _stored_by(event: ev.BlocksReported, blocks: int) -> Indices | None:
    """How many chunks each of the last blocks that a report speaks of has stored; None if nobody has counted."""
    if not event.stored:
        return None
    stored = np.full(blocks, -1, dtype=np.int64)
    said = event.stored[-blocks:]
    stored[blocks - len(said) :] = said
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
