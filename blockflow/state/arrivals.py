"""Arrivals: what may a worker keep that comes, or comes back?

A worker that lost its connection, or its driver, goes on with what it holds. When it is back it claims its leases, one
by one, before it says anything else. A lease that this driver granted is still there unless it has run out. One that
an earlier life granted is taken over if its blocks are free, which they are while absent workers are waited for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from blockflow.errors import RemoteProtocolError
from blockflow.state import events as ev
from blockflow.state.absence import Absence
from blockflow.state.handout import WorkerBook
from blockflow.state.leases import Lease, Leases, server_seconds
from blockflow.state.records import RecordGone, RecordWorker
from blockflow.state.transitions import BlockState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blockflow.state.outcomes import Outcomes
    from blockflow.state.task_book import TaskBook


class Arrivals:
    """Lets workers in; shares the books of the scheduler."""

    def __init__(
        self,
        books: Sequence[TaskBook],
        leases: Leases,
        workers: dict[int, WorkerBook],
        outcomes: Outcomes,
        touched: set[int],
    ) -> None:
        self._books = books
        self._leases = leases
        self._workers = workers
        self._outcomes = outcomes
        self._touched = touched
        self.absence = Absence()

    def await_absent(self, absent: Sequence[RecordWorker], now: float) -> None:
        """Wait for the workers of an earlier life until they are back, or gone, or their leases have run out."""
        self.absence.begin(absent, now + server_seconds(self._leases.seconds))
        for known in absent:
            if known.process is not None:
                self._books[known.task].pool.adopt(known.process)

    def joined(self, event: ev.WorkerJoined, now: float) -> None:
        """A worker is there, or there again with what it held when its connection was lost.

        That is a sign of life: nothing is taken from it while its claims are on their way.
        """
        before = self._workers.get(event.worker)
        if before is not None and before.task != event.task:
            raise RemoteProtocolError(f"worker {event.worker} of task {before.task} joins again for task {event.task}")
        self._workers[event.worker] = WorkerBook(
            task=event.task,
            process=event.process,
            host=event.host,
            outdated=event.outdated,
            unclaimed={lease.number for lease in self._leases.of_worker(event.worker)},
        )
        self._leases.renew(event.worker, now)
        book = self._books[event.task]
        if event.outdated:
            book.workers.discard(event.worker)
        else:
            book.workers.add(event.worker)
        book.pool.joined(event.process)
        book.asking.pop(event.worker, None)
        self._touched.add(event.task)
        # The next life of the driver numbers its processes from the greatest of these on.
        process = event.process if event.process in book.pool.alive else None
        self._outcomes.record(
            RecordWorker(
                worker=event.worker,
                task=event.task,
                process=process,
                host=event.host,
                pid=event.pid,
                started=event.started,
            )
        )

    def claimed(self, event: ev.LeaseClaimed, now: float) -> list[ev.Instruction]:
        """A worker that has just joined says what it holds."""
        worker = self._workers.get(event.worker)
        if worker is None or worker.unclaimed is None:
            raise RemoteProtocolError(f"worker {event.worker} claims lease {event.lease} too late")
        self._leases.renew(event.worker, now)
        worker.unclaimed.discard(event.lease)
        lease = self._leases.held(event.lease, event.worker)
        if lease is not None:
            returned = self._leases.cut(lease, len(event.indices))
            if len(returned):
                self._outcomes.not_run(self._books[lease.task], returned, now)
        stale = lease is None and not self._resume(event, now)
        worker.fenced = worker.fenced and not stale
        return [ev.AcknowledgeReport(worker=event.worker, lease=event.lease, stale=stale)]

    def settle(self, number: int, now: float) -> None:
        """A worker has claimed all that it holds: what else it should have has never reached it."""
        worker = self._workers[number]
        for lease in [self._leases.held(lease, number) for lease in worker.unclaimed or ()]:
            if lease is not None:
                self._leases.end(lease)
                self._outcomes.not_run(self._books[lease.task], lease.outstanding, now)
        worker.unclaimed = None
        if worker.outdated:
            self._books[worker.task].outdated.add(number)
            self._touched.add(worker.task)
        if worker.fenced and number in self.absence:
            self.absence.over(number)
            self._touched.update(range(len(self._books)))

    def lost(self, number: int) -> None:
        """A worker that holds nothing here is not connected any more.

        One of an earlier life that was about to claim what it holds is absent again, and waited for.
        """
        if number in self.absence:
            del self._workers[number]
        else:
            self.gone(number)

    def passed(self, now: float) -> None:
        """Time has passed: who is not back holds nothing any more, and who is has heard what was refused."""
        for known in self.absence.passed(now):
            if known.worker in self._workers:
                self.absence.over(known.worker)
                self._touched.update(range(len(self._books)))
            else:
                self.gone(known.worker)

    def gone(self, number: int) -> None:
        """A worker cannot be at work any more, whether it was ever back or not."""
        known = self.absence.over(number)
        worker = self._workers.pop(number, None)
        left = worker or known
        if left is not None:
            self._books[left.task].pool.left(left.process)
            self._touched.add(left.task)
        if not self.absence.waiting and known is not None:
            self._touched.update(range(len(self._books)))
        if left is not None:
            self._outcomes.record(RecordGone(worker=number))

    def _resume(self, event: ev.LeaseClaimed, now: float) -> bool:
        """Let a worker keep a lease of an earlier life, if nothing speaks against it."""
        book = self._books[self._workers[event.worker].task]
        first = self._leases.first_attempt
        if event.worker not in self.absence or event.lease >= first or event.attempt + len(event.indices) > first:
            return False
        reported = self._known_outcomes(book, event)
        left = event.indices[reported:]
        if not len(left):
            return True
        if not np.isin(book.blocks.states[left], (BlockState.PENDING, BlockState.READY)).all():
            return False
        if book.blocks.waits(left):
            return False
        book.claim(left, now)
        lease = Lease(
            number=event.lease,
            worker=event.worker,
            task=book.plan.number,
            indices=event.indices,
            attempt=event.attempt,
            reported=reported,
        )
        self._leases.hold(lease, now)
        self._touched.add(book.plan.number)
        return True

    def _known_outcomes(self, book: TaskBook, event: ev.LeaseClaimed) -> int:
        """How many blocks of a lease, counted from the first, the earlier life has recorded an outcome of."""
        ended = (BlockState.DONE, BlockState.FAILED)
        for place, index in enumerate(event.indices.tolist()):
            failed = index in book.mishaps and book.mishaps[index].attempt == event.attempt + place
            if book.blocks.states[index] not in ended and not failed:
                return place
        return len(event.indices)
