"""What becomes of blocks that were handed out: done, failed, lost, or not run at all?

Failures of the user's code and lost workers are counted apart: the first cost a block its retries, the second only find
out, after many, that the block itself ends its workers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockflow.plan.plan import single
from blockflow.state import events as ev
from blockflow.state.consequences import orphan, release
from blockflow.state.records import Record, RecordDone, RecordFailure, RecordLoss, RecordSkipped
from blockflow.state.retries import Retry, wait_before
from blockflow.state.storage_pauses import is_spared
from blockflow.state.transitions import BlockState, Cause
from blockflow.wire.failures import LONGEST_ERROR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blockflow.plan.slices import Indices
    from blockflow.state.handout import WorkerBook
    from blockflow.state.leases import Lease
    from blockflow.state.task_book import TaskBook

MOST_LOSSES = 5
"""Workers that one block may kill before it fails for good (HyperQueue's figure)."""


class Outcomes:
    """Changes the state of blocks that ended, and of those that wait for them; shares the books of the scheduler.

    Args:
        books: Of all tasks.
        workers: By number.
        touched: Collects the tasks in which something changed.
        records: Collects what has to be durable; None if nothing has to be.
    """

    def __init__(
        self,
        books: Sequence[TaskBook],
        workers: dict[int, WorkerBook],
        touched: set[int],
        records: list[Record] | None,
    ) -> None:
        self._books = books
        self._workers = workers
        self._touched = touched
        self._records = records
        self._began: float | None = None

    def begin(self, now: float) -> None:
        """Something happens: the first time, the run begins."""
        if self._began is None:
            self._began = now

    def record(self, record: Record) -> None:
        """Something has to be durable before anybody hears of what follows from it."""
        if self._records is not None:
            self._records.append(record)

    def done(
        self,
        book: TaskBook,
        indices: Indices,
        attempts: Indices,
        seconds: float,
        now: float,
        stored: Indices | None = None,
    ) -> None:
        """Blocks are done, and their post-check agrees."""
        self.record(
            RecordDone(task=book.plan.number, indices=indices, attempts=attempts, seconds=seconds, stored=stored)
        )
        self._satisfied(book, indices, Cause.FINISHED, now)

    def skipped(self, book: TaskBook, indices: Indices, now: float) -> None:
        """Blocks were found done before they ran."""
        self.record(RecordSkipped(task=book.plan.number, indices=indices))
        self._satisfied(book, indices, Cause.FOUND_DONE, now)

    def _satisfied(self, book: TaskBook, indices: Indices, cause: Cause, now: float) -> None:
        book.blocks.move(indices, cause, now)
        book.forget_mishaps(indices)
        self._touched.add(book.plan.number)
        self._touched |= release(self._books, book.plan.number, indices, now)

    def failed(
        self, book: TaskBook, failure: ev.BlockFailure, worker: int | None, attempt: int, now: float
    ) -> list[ev.Instruction]:
        """An attempt failed in the user's code: on a worker, or (None, attempt 0) in the pre-check."""
        mishaps = book.mishaps[failure.index]
        if is_spared(failure, mishaps, book.blocks.count(BlockState.DONE), now):
            self._spared(book, failure, worker, attempt, now)
            return []
        mishaps.failures += 1
        mishaps.attempt = attempt
        final = mishaps.failures > book.plan.task.max_retries
        self.record(RecordFailure(task=book.plan.number, attempt=attempt, failure=failure, final=final))
        if worker is None or worker >= 0:  # somebody who drives the scheduler by hand may go on
            book.first_blocks.failed(failure, times=mishaps.failures, final=final)
        if final:
            self._give_up(book, failure, now)
        elif worker is None:
            book.frontier.add(single(failure.index))  # it must not run before its pre-check agrees
        else:
            self._run_again(book, failure.index, worker, now, lost=False)
        return [ev.TellFailure(task=book.plan.number, failure=failure, final=final)]

    def _spared(self, book: TaskBook, failure: ev.BlockFailure, worker: int | None, attempt: int, now: float) -> None:
        """Storage is to blame for a failure: the block waits for a worker as if it had not run."""
        book.mishaps[failure.index].attempt = attempt
        self.record(RecordFailure(task=book.plan.number, attempt=attempt, failure=failure, final=False, spared=True))
        if worker is None:
            book.frontier.add(single(failure.index))
        else:
            self.not_run(book, single(failure.index), now)

    def not_run(self, book: TaskBook, indices: Indices, now: float) -> None:
        """Blocks were handed out, but are given back."""
        book.blocks.move(indices, Cause.GIVEN_BACK, now)
        book.put_back(indices)
        self._touched.add(book.plan.number)

    def lost(self, lease: Lease, now: float, *, how: str = "ended", output: str = "") -> list[ev.Instruction]:
        """A worker ended while it ran a lease; one of the blocks that it has not reported may have been the cause.

        Args:
            lease: What it ran.
            now: The time.
            how: How it ended, in words.
            output: The last lines that it printed.
        """
        book = self._books[lease.task]
        if len(lease.outstanding) == 1:  # no other block can have been the cause
            index = int(lease.outstanding[0])
            attempt = lease.attempt + lease.reported
            book.mishaps[index].losses += 1
            self.record(RecordLoss(task=lease.task, index=index, attempt=attempt))
            if book.mishaps[index].losses == MOST_LOSSES:
                error = f"{MOST_LOSSES} workers ended while they ran this block: the last {how}"
                failure = ev.BlockFailure(index=index, error=error[:LONGEST_ERROR], traceback=output)
                self.record(RecordFailure(task=lease.task, attempt=attempt, failure=failure, final=True))
                book.first_blocks.failed(failure, times=1, final=True)
                self._give_up(book, failure, now)
                return [ev.TellFailure(task=lease.task, failure=failure, final=True)]
        for index in lease.outstanding.tolist():
            self._run_again(book, index, lease.worker, now, lost=True)
        return [ev.TellRemark(task=lease.task, text=f"a worker {how} while it had blocks; they are run again")]

    def _run_again(self, book: TaskBook, index: int, worker: int, now: float, *, lost: bool) -> None:
        """A block runs once more, alone, and not on the same worker if there is another."""
        book.blocks.move(single(index), Cause.GIVEN_BACK, now)
        mishaps = book.mishaps[index]
        known = self._workers.get(worker)
        mishaps.remember(worker, "" if known is None else known.host)
        assert self._began is not None
        others = lost or not book.workers <= mishaps.workers  # somebody comes in place of a worker that was lost
        wait = wait_before(index, mishaps, others=others, lasted=now - self._began)
        book.frontier.retry(index, Retry(mishaps, now + wait), now)
        self._touched.add(book.plan.number)

    def _give_up(self, book: TaskBook, failure: ev.BlockFailure, now: float) -> None:
        book.blocks.move(single(failure.index), Cause.GIVEN_UP, now)
        book.give_up(failure)
        self._touched.add(book.plan.number)
        self._touched |= orphan(self._books, book.plan.number, single(failure.index), now)
