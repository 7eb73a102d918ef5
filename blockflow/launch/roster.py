"""The roster of a batch system: which workers are wanted, what is known of their jobs, and which have ended?

The driver's loop orders workers and asks how far they have come; another thread submits and watches their jobs. Both
use the roster at once, so each of its methods holds its lock.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blockflow.launch.base import JobEnd, Standing
from blockflow.launch.queue import Phase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blockflow.launch.base import Order
    from blockflow.launch.queue import Member, Seen


@dataclass(slots=True, eq=False)
class JobWorker:
    """A worker that was ordered and has not ended."""

    order: Order
    member: Member | None = None
    """Its job; None before it is submitted."""
    seen: Seen | None = None
    """What the batch system said last."""
    called_off: bool = False
    """It is not needed, if it has not begun."""
    cancelled: bool = False
    """The batch system knows that."""

    @property
    def is_to_be_cancelled(self) -> bool:
        """Whether the batch system has to hear that it is not needed."""
        return self.called_off and self.waits and self.member is not None and not self.cancelled

    @property
    def waits(self) -> bool:
        """Whether it has not begun, as far as one knows."""
        return self.seen is None or self.seen.phase is Phase.WAITING


class Roster:
    """The workers of one fleet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        """Guards all that follows."""
        self._workers: dict[int, JobWorker] = {}
        """By process."""
        self._ended: list[JobEnd] = []

    def __len__(self) -> int:
        return len(self._workers)

    def add(self, order: Order) -> None:
        """Want a worker."""
        with self._lock:
            self._workers[order.process] = JobWorker(order)

    def all(self) -> list[JobWorker]:
        """All that have not ended, in the order in which they were wanted."""
        with self._lock:
            return list(self._workers.values())

    def fresh(self) -> list[JobWorker]:
        """Those that are not submitted."""
        return [worker for worker in self.all() if worker.member is None]

    def submitted(self, workers: Sequence[JobWorker], job: str) -> None:
        """Note of which array workers are the members."""
        with self._lock:
            for index, worker in enumerate(workers):
                worker.member = (job, index)

    def end(self, worker: JobWorker, end: JobEnd) -> None:
        """Note that a worker has ended."""
        with self._lock:
            del self._workers[worker.order.process]
            self._ended.append(end)

    def take_ended(self) -> list[JobEnd]:
        """Those that have ended since the last call."""
        with self._lock:
            ended, self._ended = self._ended, []
        return ended

    def forget_fresh(self) -> None:
        """Forget what is not submitted, and never will be."""
        with self._lock:
            self._workers = {process: each for process, each in self._workers.items() if each.member is not None}

    def standing(self) -> dict[str, Standing]:
        """By task: how far its workers have come."""
        by_task: dict[str, list[JobWorker]] = {}
        for worker in self.all():
            by_task.setdefault(worker.order.task, []).append(worker)
        return {task: _standing(members) for task, members in by_task.items()}

    def release(self, processes: Sequence[int], most: int) -> tuple[int, bool]:
        """Call off workers that have not begun.

        Args:
            processes: Which ones, in this order.
            most: How many at most; those that were called off before count.

        Returns:
            How many of them are called off, and whether any was not before.
        """
        with self._lock:
            known = [worker for process in processes if (worker := self._workers.get(process)) is not None]
            waiting = [worker for worker in known if worker.waits]
            released = sorted(waiting, key=lambda worker: not worker.called_off)[:most]
            news = not all(worker.called_off for worker in released)
            for worker in released:
                worker.called_off = True
        return len(released), news

    def release_all(self) -> None:
        """Call off everything that has not begun, and nothing else."""
        with self._lock:
            for worker in self._workers.values():
                worker.called_off = worker.waits


def _standing(workers: list[JobWorker]) -> Standing:
    waiting = [worker for worker in workers if worker.waits]
    reasons = [worker.seen.said for worker in waiting if worker.seen is not None]
    return Standing(waiting=len(waiting), running=len(workers) - len(waiting), reason=reasons[0] if reasons else "")
