"""Leases: which worker holds which blocks until when, and how many blocks should it get?

A worker runs the blocks of a lease in order and reports how far it has got, so what is outstanding is always the
tail of the lease.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blockflow.plan.slices import Indices

TARGET_SECONDS = 0.05
"""Work in a lease. A round trip takes well under a millisecond, so 50 ms keep its share below 2 %, and a worker
that dies or a neighbour that waits loses no more than that."""

LARGEST_LEASE = 4096
"""Blocks in a lease: its grant and its report stay below half of the largest message on the wire."""

GROWTH = 8
"""A lease is at most this many times as long as the longest one measured so far: a single block is a poor measure."""

SERVER_PATIENCE = 1.05
"""The server waits this many times the lease before it gives a lease up, the worker only once: clocks differ."""


@dataclass(slots=True, kw_only=True)
class Lease:
    """Blocks granted to one worker."""

    number: int
    worker: int
    task: int
    indices: Indices
    attempt: int
    """Attempt number of the first block."""
    deadline: float
    """When the server takes the outstanding blocks back."""
    reported: int = 0
    """Blocks that the worker is done with, counted from the first."""

    @property
    def outstanding(self) -> Indices:
        """The blocks that the worker has not reported."""
        return self.indices[self.reported :]


class Leases:
    """All leases of a run."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._leases: dict[int, Lease] = {}
        self._next_number = 1
        self._next_attempt = 1

    def __iter__(self) -> Iterator[Lease]:
        return iter(list(self._leases.values()))

    def grant(self, worker: int, task: int, indices: Indices, now: float) -> Lease:
        """Make a lease; its attempt numbers are larger than all before."""
        lease = Lease(
            number=self._next_number,
            worker=worker,
            task=task,
            indices=indices,
            attempt=self._next_attempt,
            deadline=now + self.seconds * SERVER_PATIENCE,
        )
        self._next_number += 1
        self._next_attempt += len(indices)
        self._leases[lease.number] = lease
        return lease

    def held(self, number: int, worker: int) -> Lease | None:
        """A lease, if this worker holds it."""
        lease = self._leases.get(number)
        return lease if lease is not None and lease.worker == worker else None

    def of_worker(self, worker: int) -> list[Lease]:
        """The leases that a worker holds, oldest first."""
        return [lease for lease in self._leases.values() if lease.worker == worker]

    def renew(self, worker: int, now: float) -> None:
        """Move the deadline of everything that a worker holds."""
        for lease in self.of_worker(worker):
            lease.deadline = now + self.seconds * SERVER_PATIENCE

    def end(self, lease: Lease) -> None:
        """Forget a lease."""
        del self._leases[lease.number]


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

    def batch(self, *, waiting: int, takers: int) -> int:
        """How many items to give out at once.

        Args:
            waiting: Items that could be given out now.
            takers: How many share them; half of a fair share at most, so that all end at the same time.
        """
        if self.seconds_each is None:
            return 1
        by_time = int(TARGET_SECONDS / max(self.seconds_each, 1e-9))
        by_share = waiting // (2 * max(1, takers))
        return max(1, min(by_time, by_share, self._largest * GROWTH, LARGEST_LEASE))
