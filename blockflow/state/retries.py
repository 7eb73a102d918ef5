"""Retries: when does a block run again, and for which workers is it better left to others?

1. After its first mishap a block runs again at once if somebody else can have it, after its second some five seconds
   later, after that some thirty: most weather has passed by then. No wait is longer than a tenth of the time that the
   run has lasted, so a short run, which somebody looks at, costs at most a little more.
2. The wait is spread over half of its length, by a hash of block and mishaps: blocks that failed together do not come
   back together.
3. A worker on which the block failed, or that was lost with it, leaves it to one on another host, or at least to
   another one, if such a worker asks for blocks or will soon; but not longer than half a minute.
"""

from __future__ import annotations

from dataclasses import dataclass, field

WAITS = (0.0, 5.0, 30.0)
"""Seconds after the first, the second and every further mishap of a block."""

LARGEST_SHARE = 0.1
"""Of the time that a run has lasted so far, which no wait exceeds."""

PATIENCE = 30.0
"""Seconds for which a block that may run again is left to a better worker that does not come."""


@dataclass(slots=True)
class Mishaps:
    """What went wrong with a block so far."""

    failures: int = 0
    """Failures of the user's code: the block function, and both checks."""
    losses: int = 0
    """Workers that ended while they ran this block, and certainly no other."""
    workers: set[int] = field(default_factory=set)
    """On which it failed, or which were lost with it."""
    hosts: set[str] = field(default_factory=set)
    """Where these workers ran, as far as is known."""
    attempt: int = 0
    """The last that failed."""
    storage_since: float | None = None
    """When it failed for the first time because storage did; None if it never has."""
    done_then: int = 0
    """Blocks of its task that were done by then."""

    def remember(self, worker: int, host: str) -> None:
        """It failed on a worker, or the worker was lost with it."""
        self.workers.add(worker)
        if host:
            self.hosts.add(host)

    def against(self, worker: int, host: str) -> int:
        """How much speaks against a worker: 2 if it went wrong there, 1 if on its host, else 0."""
        return 2 if worker in self.workers else int(host in self.hosts)


@dataclass(slots=True, eq=False)
class Retry:
    """A block that ran before and has to run again."""

    mishaps: Mishaps
    due: float
    """It may run from then on."""


def wait_before(index: int, mishaps: Mishaps, *, others: bool, lasted: float) -> float:
    """Seconds until a block may run again.

    Args:
        index: The block.
        mishaps: What went wrong with it, the last time included.
        others: There is a worker that it did not go wrong on.
        lasted: Seconds since the run began.

    >>> wait_before(0, Mishaps(failures=1), others=True, lasted=1000.0)
    0.0
    >>> 2.5 <= wait_before(7, Mishaps(failures=2), others=True, lasted=1000.0) < 5.0
    True
    """
    times = mishaps.failures + mishaps.losses
    if not others:
        times += 1
    longest = min(WAITS[min(max(times, 1), len(WAITS)) - 1], LARGEST_SHARE * lasted)
    return longest * (0.5 + 0.5 * _fraction(index, times))


def _fraction(index: int, times: int) -> float:
    """A number in [0, 1) that looks random and is always the same: Fibonacci hashing."""
    mixed = (index * 0x9E3779B97F4A7C15 + times * 0xC2B2AE3D27D4EB4F) % 2**64
    return (mixed ^ (mixed >> 32)) % 2**32 / 2**32
