"""Leases: which worker holds which blocks until when, and how many blocks should it get?

1. A worker runs its leases in the order in which it got them, and the blocks of a lease in order. It reports how far
   it has got, so what is outstanding of a lease is always its tail.
2. The deadline is the worker's: every message of it moves the deadline of all that it holds, here as on the worker,
   which counts from when it sent the last message that was answered.
3. Leases all last equally long and time does not go back, so workers in the order in which they were last heard are
   workers in the order of their deadlines.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blockflow.plan.slices import Indices

TARGET_SECONDS = 0.05
"""Work in a lease. A round trip takes well under a millisecond, so 50 ms keep its share below 2 %, and a worker
that dies or a neighbour that waits loses no more than that."""

LARGEST_LEASE = 16384
"""Blocks in a lease: as many empty ones take a worker 40 ms, and a grant of as many stays below the largest message."""

GROWTH = 8
"""A lease is at most this many times as long as the longest one measured so far: a single block is a poor measure."""

SERVER_PATIENCE = 1.05
"""The server waits this many times the lease before it gives a lease up, the worker only once: clocks differ."""

LEAST_PATIENCE = 0.5
"""Seconds that it waits longer at least: a worker looks at its clock when its lease ends, and may be a little late."""


def server_seconds(lease: float) -> float:
    """How long the server waits for a sign of life from a worker.

    >>> server_seconds(60.0), server_seconds(2.0)
    (63.0, 2.5)
    """
    return max(lease * SERVER_PATIENCE, lease + LEAST_PATIENCE)


def first_number(epoch: int) -> int:
    """The first number of attempts, leases and workers in a life of the driver; they grow from life to life."""
    return (epoch << 40) + 1


@dataclass(slots=True, kw_only=True)
class Lease:
    """Blocks granted to one worker."""

    number: int
    worker: int
    task: int
    indices: Indices
    """Sorted, without repetition."""
    attempt: int
    """Attempt number of the first block."""
    reported: int = 0
    """Blocks that the worker is done with, counted from the first."""
    recalled: bool = False
    """The worker was asked for the blocks that it has not started."""

    @property
    def outstanding(self) -> Indices:
        """The blocks that the worker has not reported."""
        return self.indices[self.reported :]


class Leases:
    """All leases of a run."""

    def __init__(self, seconds: float, epoch: int = 0) -> None:
        self.seconds = seconds
        self._of_worker: dict[int, dict[int, Lease]] = {}
        """By worker that holds any: its leases by number, oldest first."""
        self._deadlines: OrderedDict[int, float] = OrderedDict()
        """By worker that holds any: when the server takes back what it has not reported; earliest first."""
        self._divisible: dict[int, Lease] = {}
        """By number: leases with blocks that their worker has not started when they were granted."""
        self.first_attempt = first_number(epoch)
        """No attempt of an earlier life of the driver has this number, or a larger one."""
        self._next_number = self._next_attempt = self.first_attempt

    def __iter__(self) -> Iterator[Lease]:
        return (lease for leases in self._of_worker.values() for lease in leases.values())

    @property
    def next_deadline(self) -> float | None:
        """When the first worker that stays silent loses what it holds; None if nobody holds anything."""
        for deadline in self._deadlines.values():
            return deadline
        return None

    def expired(self, now: float) -> list[int]:
        """The workers that have been silent for too long."""
        workers = []
        for worker, deadline in self._deadlines.items():
            if deadline > now:
                break
            workers.append(worker)
        return workers

    def grant(self, worker: int, task: int, indices: Indices, now: float) -> Lease:
        """Make a lease; its attempt numbers are larger than all before."""
        lease = Lease(number=self._next_number, worker=worker, task=task, indices=indices, attempt=self._next_attempt)
        self._next_number += 1
        self._next_attempt += len(indices)
        self.hold(lease, now)
        return lease

    def hold(self, lease: Lease, now: float) -> None:
        """Take note of a lease that was granted, by this driver or before it."""
        worker = lease.worker
        if len(lease.indices) > 1 or worker in self._of_worker:
            self._divisible[lease.number] = lease
        self._of_worker.setdefault(worker, {})[lease.number] = lease
        self._deadlines.setdefault(worker, now)
        self.renew(worker, now)

    def longest(self, task: int) -> Lease | None:
        """The lease of which most blocks can be recalled; None if there is none.

        The first outstanding block of a worker's first lease is taken for started.
        """
        left: dict[int, int] = {}
        for lease in self._divisible.values():
            if lease.task == task and not lease.recalled:
                first = next(iter(self._of_worker[lease.worker])) == lease.number
                left[lease.number] = len(lease.outstanding) - first
        number = max(left, key=left.__getitem__, default=0)
        return self._divisible[number] if left.get(number) else None

    def held(self, number: int, worker: int) -> Lease | None:
        """A lease, if this worker holds it."""
        return self._of_worker.get(worker, {}).get(number)

    def of_worker(self, worker: int) -> list[Lease]:
        """The leases that a worker holds, oldest first."""
        return list(self._of_worker.get(worker, {}).values())

    def workers_busy_with(self, task: int) -> int:
        """How many workers hold blocks of a task."""
        return sum(next(iter(leases.values())).task == task for leases in self._of_worker.values())

    def renew(self, worker: int, now: float) -> None:
        """Move the deadline of everything that a worker holds."""
        if worker in self._deadlines:
            self._deadlines[worker] = now + server_seconds(self.seconds)
            self._deadlines.move_to_end(worker)

    def cut(self, lease: Lease, kept: int) -> Indices:
        """Take back all blocks of a lease but the first `kept`, and end it if none is outstanding; those taken back."""
        kept = max(kept, lease.reported)
        returned = lease.indices[kept:]
        lease.indices = lease.indices[:kept]
        if lease.reported == kept:
            self.end(lease)
        return returned

    def end(self, lease: Lease) -> None:
        """Forget a lease."""
        leases = self._of_worker[lease.worker]
        del leases[lease.number]
        self._divisible.pop(lease.number, None)
        if not leases:
            del self._of_worker[lease.worker]
            del self._deadlines[lease.worker]


class Pace:
    """How long one item takes, as a moving average, and how many make a good batch."""

    def __init__(self) -> None:
        self.seconds_each: float | None = None
        self._largest = 0

    def measured(self, items: int, seconds: float) -> None:
        """Count a batch that took a time."""
        each = seconds / items
        # Half of the weight on the newest: a task's blocks are alike, and when they change the next lease should.
        self.seconds_each = each if self.seconds_each is None else (self.seconds_each + each) / 2
        self._largest = max(self._largest, items)

    def batch(self, *, waiting: int, takers: int, largest: int = LARGEST_LEASE) -> int:
        """How many items to give out at once.

        Args:
            waiting: Items that could be given out now.
            takers: How many share them; half of a fair share at most, so that all end at the same time.
            largest: Never more than this.
        """
        if self.seconds_each is None:
            return 1
        by_time = int(TARGET_SECONDS / max(self.seconds_each, 1e-9))
        by_share = waiting // (2 * max(1, takers))
        return max(1, min(by_time, by_share, self._largest * GROWTH, largest))
