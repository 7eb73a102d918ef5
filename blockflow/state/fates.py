"""Fates: what becomes of blocks that ended, failed, were lost, or were handed out in vain?

Failures of the user's code and lost workers are counted apart: a block fails for good after one failure more than its
task allows, or when it has killed five workers while no other block can have been the cause.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockflow.plan.plan import single
from blockflow.state import events as ev
from blockflow.state.consequences import orphan, release
from blockflow.state.transitions import Cause

if TYPE_CHECKING:
    from blockflow.plan.slices import Indices
    from blockflow.state.leases import Lease
    from blockflow.state.task_book import TaskBook

MOST_LOSSES = 5
"""Workers that one block may kill before it fails for good (HyperQueue's figure)."""


class Fates:
    """Moves blocks to where an event sends them, and notes which tasks that concerns."""

    def __init__(self, books: list[TaskBook]) -> None:
        self._books = books
        self.touched = set(range(len(books)))
        """Tasks to which something happened since the last look."""

    def take_touched(self) -> set[int]:
        """Tasks to which something happened since the last call."""
        touched, self.touched = self.touched, set()
        return touched

    def end(self, book: TaskBook, indices: Indices, cause: Cause, now: float) -> None:
        """Blocks are done or skipped."""
        book.blocks.move(indices, cause, now)
        book.forget_mishaps(indices)
        self.touched.add(book.plan.number)
        self.touched |= release(self._books, book.plan.number, indices, now)

    def failed(self, book: TaskBook, failure: ev.BlockFailure, worker: int | None, now: float) -> list[ev.Instruction]:
        """An attempt failed in the user's code: on a worker, or in the pre-check."""
        book.mishaps[failure.index].failures += 1
        final = book.mishaps[failure.index].failures > book.plan.task.max_retries
        if final:
            self._give_up(book, failure, now)
        elif worker is None:
            book.frontier.add(single(failure.index))  # it must not run before its pre-check agrees
        else:
            self._run_again(book, failure.index, worker, now)
        return [ev.TellFailure(task=book.plan.number, failure=failure, final=final)]

    def lose(self, lease: Lease, now: float) -> list[ev.Instruction]:
        """A worker was lost that was running one of the outstanding blocks of a lease."""
        book = self._books[lease.task]
        if len(lease.outstanding) == 1:  # no other block can have been the cause
            index = int(lease.outstanding[0])
            book.mishaps[index].losses += 1
            if book.mishaps[index].losses == MOST_LOSSES:
                failure = ev.BlockFailure(index=index, error=f"{MOST_LOSSES} workers ended while they ran this block")
                self._give_up(book, failure, now)
                return [ev.TellFailure(task=lease.task, failure=failure, final=True)]
        for index in lease.outstanding.tolist():
            self._run_again(book, index, lease.worker, now)
        return []

    def put_back(self, task: int, indices: Indices, now: float) -> None:
        """Blocks were handed out, but not run."""
        self._books[task].blocks.move(indices, Cause.GIVEN_BACK, now)
        self._books[task].put_back(indices)
        self.touched.add(task)

    def _run_again(self, book: TaskBook, index: int, worker: int, now: float) -> None:
        """A block runs once more, alone, and not on the same worker if there is another."""
        book.blocks.move(single(index), Cause.GIVEN_BACK, now)
        book.mishaps[index].workers.add(worker)
        book.frontier.again[index] = book.mishaps[index].workers
        self.touched.add(book.plan.number)

    def _give_up(self, book: TaskBook, failure: ev.BlockFailure, now: float) -> None:
        book.blocks.move(single(failure.index), Cause.GIVEN_UP, now)
        book.give_up(failure)
        self.touched.add(book.plan.number)
        self.touched |= orphan(self._books, book.plan.number, single(failure.index), now)
