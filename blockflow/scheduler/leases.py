"""Leases: blocks granted to a worker until a deadline, and their measured durations.

1. A worker runs its leases in the order in which it got them, and the blocks of a lease in order. It reports how far
   it has got, so what is outstanding of a lease is always its tail.
2. The deadline is the worker's: every message of it moves the deadline of all that it holds, here as on the worker,
   which counts from when it sent the last message that was answered.
3. Leases all last equally long and time does not go back, so workers in the order in which they were last heard are
   workers in the order of their deadlines.
"""

from __future__ import annotations

from collections import OrderedDict, deque
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


TIMEOUT_FACTOR = 10.0
"""Times the longest of the blocks before."""

LEAST_TIMEOUT = 60.0
"""Seconds that every block has."""

MEASURED_REPORTS = 100
"""How many reports of finished blocks are remembered."""

ENOUGH_BLOCKS_MEASURED = 5
"""Finished blocks without which there is no limit."""

TIMEOUT_GROWTH = 4.0
"""How many times longer a block may take after each failure."""

LONGEST_TIMEOUT = 1e9
"""Seconds that fit into a message."""


def server_seconds(lease: float) -> float:
    """Return the seconds that the server waits for a message of a worker.

    >>> server_seconds(60.0), server_seconds(2.0)
    (63.0, 2.5)
    """
    return max(lease * SERVER_PATIENCE, lease + LEAST_PATIENCE)


def first_number(epoch: int) -> int:
    """Return the first number of attempts, leases and workers of a driver; numbers grow with the epoch."""
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
    stealing: bool = False
    """The worker was asked for the blocks that it has not started."""

    @property
    def outstanding(self) -> Indices:
        """Blocks that the worker has not reported."""
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
        """Attempts of earlier drivers of the run have smaller numbers."""
        self._next_number = self._next_attempt = self.first_attempt

    def __iter__(self) -> Iterator[Lease]:
        return (lease for leases in self._of_worker.values() for lease in leases.values())

    @property
    def next_deadline(self) -> float | None:
        """Time at which the first silent worker loses what it holds; None if no worker holds anything."""
        for deadline in self._deadlines.values():
            return deadline
        return None

    def expired(self, now: float) -> list[int]:
        """Return the workers whose deadline has passed."""
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
        """Register a lease granted by this driver or an earlier one."""
        worker = lease.worker
        if len(lease.indices) > 1 or worker in self._of_worker:
            self._divisible[lease.number] = lease
        self._of_worker.setdefault(worker, {})[lease.number] = lease
        self._deadlines.setdefault(worker, now)
        self.renew(worker, now)

    def longest(self, task: int) -> Lease | None:
        """Return the lease of which most blocks can be stolen; None if there is none.

        The first outstanding block of a worker's first lease counts as started.
        """
        left: dict[int, int] = {}
        for lease in self._divisible.values():
            if lease.task == task and not lease.stealing:
                first = next(iter(self._of_worker[lease.worker])) == lease.number
                left[lease.number] = len(lease.outstanding) - first
        number = max(left, key=left.__getitem__, default=0)
        return self._divisible[number] if left.get(number) else None

    def held(self, number: int, worker: int) -> Lease | None:
        """Return a lease if this worker holds it."""
        return self._of_worker.get(worker, {}).get(number)

    def of_worker(self, worker: int) -> list[Lease]:
        """Return the leases that a worker holds, oldest first."""
        return list(self._of_worker.get(worker, {}).values())

    def workers_busy_with(self, task: int) -> int:
        """Return the number of workers that hold blocks of a task."""
        return sum(next(iter(leases.values())).task == task for leases in self._of_worker.values())

    def renew(self, worker: int, now: float) -> None:
        """Move the deadline of everything that a worker holds."""
        if worker in self._deadlines:
            self._deadlines[worker] = now + server_seconds(self.seconds)
            self._deadlines.move_to_end(worker)

    def cut(self, lease: Lease, kept: int) -> Indices:
        """Take back all blocks of a lease but the first `kept`; end it if none is outstanding.

        Returns:
            The blocks taken back.
        """
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


class DurationEstimate:
    """Moving average of the seconds per item, and the batch size that follows from it."""

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
        """Return how many items to hand out at once.

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


class AutoTimeout:
    """Time limit of one task's blocks for ``timeout="auto"``, derived from the blocks before.

    The limit finds blocks that hang, not slow ones: ten times the longest of the last hundred reports, at least a
    minute, and none before a handful of blocks were measured. A block that has failed gets four times as long, and
    again after each failure, so that a block that is only unlike the others succeeds in the end.

    >>> limit = AutoTimeout()
    >>> for seconds in (8.0, 9.0, 20.0, 7.0, 8.0):
    ...     limit.measured(1, seconds)
    >>> limit.seconds(), limit.seconds(failures=1)
    (200.0, 800.0)
    """

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=MEASURED_REPORTS)
        self._blocks = 0

    def measured(self, blocks: int, seconds: float) -> None:
        """Count blocks that were reported together; none of them took longer than `seconds`."""
        self._last.append(seconds)
        self._blocks += blocks

    def seconds(self, failures: int = 0) -> float | None:
        """Return the limit of a block that has failed a number of times; None if too little is known."""
        if self._blocks < ENOUGH_BLOCKS_MEASURED:
            return None
        return min(
            max(LEAST_TIMEOUT, TIMEOUT_FACTOR * max(self._last)) * TIMEOUT_GROWTH ** min(failures, 20), LONGEST_TIMEOUT
        )
