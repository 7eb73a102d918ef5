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
from blockflow.plan.plan import Plan, compile_plan, single
from blockflow.state import events as ev
from blockflow.state.by_hand import ByHand
from blockflow.state.consequences import orphan, release
from blockflow.state.frontier import Again
from blockflow.state.handout import Handout, WorkerBook
from blockflow.state.leases import Lease, Leases
from blockflow.state.task_book import TaskBook, TaskState
from blockflow.state.transitions import BlockState, Cause

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blockflow.plan.block import Block
    from blockflow.plan.slices import Indices
    from blockflow.plan.task import Task

LEASE_SECONDS = 60.0
"""How long a silent worker keeps its blocks. Heartbeats come six times as often; a dead node is noticed after a
minute, where others take two (Parsl), five (dask) or ten (daisy 2)."""

MOST_LOSSES = 5
"""Workers that one block may kill before it fails for good (HyperQueue's figure)."""

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

    Raises:
        PlanError: Tasks that cannot be run together.
    """

    def __init__(
        self,
        tasks: Iterable[Task] | Plan,
        count_all_orphans: bool = True,
        *,
        largest_lease: int = 1,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self.plan = compile_plan(tasks) if not isinstance(tasks, Plan) else tasks
        self._books = [TaskBook(task) for task in self.plan.tasks]
        self._leases = Leases(lease_seconds)
        self._workers: dict[int, WorkerBook] = {}
        self._handout = Handout(self._books, self._leases, self._workers, largest_lease)
        self._by_hand = ByHand(self)
        self._dirty = set(range(len(self._books)))

    # ---------------------------------------------------------------------------------------------- questions

    @property
    def task_states(self) -> dict[str, TaskState]:
        """How far each task has got."""
        return {book.plan.task_id: book.state for book in self._books}

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
        times = [lease.deadline for lease in self._leases]
        times += [due for book in self._books if (due := book.frontier.due()) is not None]
        return min(times, default=None)

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
            RemoteProtocolError: A worker reports something that cannot be; nothing has changed.
            InvalidTransition: A bug in blockflow; nothing has changed.
        """
        done: list[ev.Instruction] = []
        match event:
            case ev.WorkerJoined():
                self._workers[event.worker] = WorkerBook(task=event.task, process=event.process)
                self._books[event.task].workers.add(event.worker)
            case ev.BlocksAsked():
                self._asked(event.worker)
            case ev.BlocksReported():
                done += self._reported(event, now)
            case ev.BlocksReturned():
                self._returned(event, now)
            case ev.HeartbeatReceived():
                self._leases.renew(event.worker, now)
            case ev.WorkerLeft():
                done += self._left(event, now)
            case ev.ConnectionLost():
                self._disconnected(event.worker)
            case ev.ProcessEnded():
                self._books[event.task].pool.ended(event.process, clean=event.clean, how=event.how)
                self._dirty.add(event.task)
            case ev.BlocksChecked():
                done += self._checked(event, now)
            case ev.Ticked():
                done += self._ticked(now)
            case ev.StopAsked():
                self._handout.stopping = True
                self._dirty.update(range(len(self._books)))
                done += [ev.RecallLease(worker=lease.worker, lease=lease.number) for lease in self._leases]
            case _:
                assert_never(event)
        dirty, self._dirty = self._dirty, set()
        return done + self._handout.follow_up(dirty, now)

    def _asked(self, worker: int) -> None:
        book = self._known(worker)
        if not book.dismissed:
            self._books[book.task].asking[worker] = None
            self._dirty.add(book.task)

    def _reported(self, event: ev.BlocksReported, now: float) -> list[ev.Instruction]:
        book = self._books[self._known(event.worker).task]
        lease = self._leases.held(event.lease, event.worker)
        if lease is None:
            return [ev.AcknowledgeReport(worker=event.worker, lease=event.lease, stale=True)]
        _check_report(event, lease)
        done: list[ev.Instruction] = [ev.AcknowledgeReport(worker=event.worker, lease=event.lease, stale=False)]
        self._leases.renew(event.worker, now)
        if event.upto <= lease.reported:
            return done  # said before
        reported = lease.indices[lease.reported : event.upto]
        lease.reported = event.upto
        if event.upto == len(lease.indices):
            self._leases.end(lease)
        book.pace.measured(len(reported), event.seconds)
        good = reported
        if event.failures:
            good = reported[~np.isin(reported, [failure.index for failure in event.failures])]
        if book.plan.task.post_check is not None and len(good):
            book.verifying.update(dict.fromkeys(good.tolist(), event.worker))
            done.append(ev.RunChecks(task=book.plan.number, phase=ev.Phase.AFTER, indices=good))
        elif len(good):
            self._end(book, good, Cause.FINISHED, now)
        for failure in event.failures:
            done += self._failed(book, failure, event.worker, now)
        done += self._count_failures_in_a_row(event, len(good))
        return done

    def _count_failures_in_a_row(self, event: ev.BlocksReported, good: int) -> list[ev.Instruction]:
        worker = self._workers[event.worker]
        if good:
            worker.failed_in_a_row.clear()
        worker.failed_in_a_row.update(failure.index for failure in event.failures)
        if len(worker.failed_in_a_row) < FAILURES_IN_A_ROW or worker.process is None:
            return []
        self._books[worker.task].asking.pop(event.worker, None)
        worker.dismissed = True
        return [ev.DismissWorker(worker=event.worker)]

    def _returned(self, event: ev.BlocksReturned, now: float) -> None:
        lease = self._leases.held(event.lease, event.worker)
        if lease is None:
            return
        kept = max(event.kept, lease.reported)
        if kept >= len(lease.indices):
            return
        book = self._books[lease.task]
        returned = lease.indices[kept:]
        lease.indices = lease.indices[:kept]
        if lease.reported == kept:
            self._leases.end(lease)
        book.blocks.move(returned, Cause.GIVEN_BACK, now)
        book.frontier.add(returned)
        self._dirty.add(lease.task)

    def _left(self, event: ev.WorkerLeft, now: float) -> list[ev.Instruction]:
        if event.worker not in self._workers:
            return []
        done = [
            instruction
            for lease in self._leases.of_worker(event.worker)
            for instruction in self._lost(lease, now, suspicious=event.crashed)
        ]
        self._forget(event.worker)
        return done

    def _disconnected(self, worker: int) -> None:
        if worker not in self._workers:
            return
        self._workers[worker].connected = False
        self._books[self._workers[worker].task].asking.pop(worker, None)
        if not self._leases.of_worker(worker):
            self._forget(worker)

    def _ticked(self, now: float) -> list[ev.Instruction]:
        done: list[ev.Instruction] = []
        for lease in self._leases:
            if lease.deadline <= now:
                done += self._lost(lease, now, suspicious=True)
                if not self._workers[lease.worker].connected and not self._leases.of_worker(lease.worker):
                    self._forget(lease.worker)
        self._dirty.update(range(len(self._books)))
        return done

    def _checked(self, event: ev.BlocksChecked, now: float) -> list[ev.Instruction]:
        book = self._books[event.task]
        self._dirty.add(event.task)
        done: list[ev.Instruction] = []
        if event.phase is ev.Phase.BEFORE:
            total = len(event.passed) + len(event.refused) + len(event.failures)
            book.check_pace.measured(total, event.seconds)
            book.being_checked.clear()
            if len(event.passed):
                self._end(book, event.passed, Cause.FOUND_DONE, now)
            book.cleared.extend(event.refused.tolist())
            for failure in event.failures:
                done += self._failed(book, failure, None, now)
            return done
        if len(event.passed):
            for index in event.passed.tolist():
                del book.verifying[index]
            self._end(book, event.passed, Cause.FINISHED, now)
        refused = tuple(
            ev.BlockFailure(index=index, error="the post-check says that the block is not good")
            for index in event.refused.tolist()
        )
        for failure in refused + event.failures:
            done += self._failed(book, failure, book.verifying.pop(failure.index), now)
        return done

    # -------------------------------------------------------------------------------- what events have in common

    def _end(self, book: TaskBook, indices: Indices, cause: Cause, now: float) -> None:
        """Blocks are done or skipped."""
        book.blocks.move(indices, cause, now)
        self._dirty.add(book.plan.number)
        self._dirty |= release(self._books, book.plan.number, indices, now)

    def _failed(self, book: TaskBook, failure: ev.BlockFailure, worker: int | None, now: float) -> list[ev.Instruction]:
        """An attempt failed in the user's code."""
        history = book.failures.setdefault(failure.index, [])
        history.append((worker, failure))
        final = len(history) > book.plan.task.max_retries
        if final:
            self._give_up(book, failure, now)
        else:
            self._run_again(book, failure.index, frozenset(who for who, _ in history if who is not None), now)
        return [ev.TellFailure(task=book.plan.number, failure=failure, final=final)]

    def _lost(self, lease: Lease, now: float, *, suspicious: bool) -> list[ev.Instruction]:
        """A worker will not finish a lease; with `suspicious` one of its blocks may have been the cause."""
        book = self._books[lease.task]
        outstanding = lease.outstanding
        self._leases.end(lease)
        self._dirty.add(lease.task)
        if not suspicious:
            book.blocks.move(outstanding, Cause.GIVEN_BACK, now)
            book.frontier.add(outstanding)
            return []
        done: list[ev.Instruction] = []
        alone = len(outstanding) == 1
        for index in outstanding.tolist():
            book.losses[index] = book.losses.get(index, 0) + alone
            if book.losses[index] >= MOST_LOSSES:
                failure = ev.BlockFailure(index=index, error=f"{MOST_LOSSES} workers ended while they ran this block")
                self._give_up(book, failure, now)
                done.append(ev.TellFailure(task=lease.task, failure=failure, final=True))
            else:
                self._run_again(book, index, frozenset({lease.worker}), now)
        return done

    def _run_again(self, book: TaskBook, index: int, avoid: frozenset[int], now: float) -> None:
        if book.blocks.states[index] == BlockState.RUNNING:
            book.blocks.move(single(index), Cause.GIVEN_BACK, now)
        book.frontier.add_again(Again(index=index, avoid=avoid, not_before=now))
        self._dirty.add(book.plan.number)

    def _give_up(self, book: TaskBook, failure: ev.BlockFailure, now: float) -> None:
        book.final_failures[failure.index] = failure
        book.blocks.move(single(failure.index), Cause.GIVEN_UP, now)
        self._dirty.add(book.plan.number)
        self._dirty |= orphan(self._books, book.plan.number, single(failure.index), now)

    def _known(self, worker: int) -> WorkerBook:
        if worker not in self._workers:
            raise RemoteProtocolError(f"worker {worker} speaks without having joined")
        return self._workers[worker]

    def _forget(self, worker: int) -> None:
        book = self._books[self._workers.pop(worker).task]
        book.workers.discard(worker)
        book.asking.pop(worker, None)
        self._dirty.add(book.plan.number)

    def validate(self) -> None:
        """Recount everything from scratch; for tests.

        Raises:
            AssertionError: Two places disagree.
        """
        for book in self._books:
            book.blocks.validate()
            held = [lease.outstanding for lease in self._leases if lease.task == book.plan.number]
            running = np.concatenate([*held, np.array(list(book.verifying), dtype=np.int64)])
            assert len(np.unique(running)) == len(running), "a block is held twice"
            assert (np.sort(running) == book.blocks.all_of(BlockState.RUNNING)).all(), "running blocks and leases"
            waiting = book.frontier.waiting() + list(book.cleared) + list(book.being_checked)
            ready = book.blocks.all_of(BlockState.READY)
            assert sorted(waiting) == ready.tolist(), "ready blocks and the places where they wait"


def _check_report(event: ev.BlocksReported, lease: Lease) -> None:
    if not 0 < event.upto <= len(lease.indices):
        raise RemoteProtocolError(
            f"worker {event.worker} reports {event.upto} blocks of lease {event.lease}, which has {len(lease.indices)}"
        )
    if event.failures and event.upto > lease.reported:
        strangers = {failure.index for failure in event.failures}.difference(
            lease.indices[lease.reported : event.upto].tolist()
        )
        if strangers:
            raise RemoteProtocolError(
                f"worker {event.worker} reports failures of blocks {sorted(strangers)} that its report does not cover"
            )
