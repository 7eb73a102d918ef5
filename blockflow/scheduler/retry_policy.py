"""Retry policy: delays of retries, hosts in quarantine, and the circuit breaker of a task.

1. After its first failure or loss a block runs again at once if another worker can take it, after its second some five
   seconds later, after that some thirty. No delay is longer than a tenth of the time that the run has lasted, so short
   runs lose little.
2. The delay is spread over half of its length, by a hash of block and count: blocks that failed together do not come
   back together.
3. A worker on which the block failed, or that was lost with it, leaves it to a worker on another host, or at least to
   another worker, if such a worker asks for blocks or will soon; but not longer than half a minute.
4. A host on which several different blocks in a row have failed, while blocks on other hosts were done, is in
   quarantine. Its workers get nothing for a while, then one of them gets a single block. If that is done, the
   quarantine ends; if it fails, the next one is twice as long. Lost workers do not count, as they may have been
   preempted. The last host of a task is never in quarantine (:mod:`blockflow.scheduler.dispatch`).
5. The circuit breaker opens when a task's first blocks all fail with the same error at the same place, while none is
   done: then the code cannot work. Blocks under way go on; one that is done closes it. Only failures seen by this
   driver count, because the code may have been changed before it started.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blockflow.scheduler.events import BlockFailure

WAITS = (0.0, 5.0, 30.0)
"""Seconds after the first, the second and every further failure or loss of a block."""

LARGEST_SHARE = 0.1
"""Of the time that a run has lasted so far, which no wait exceeds."""

PATIENCE = 30.0
"""Seconds for which a block that may run again is left to a better worker that does not come."""

FAILURES_ON_HOST = 5
"""Different blocks that may fail on a host, one after the other; more than on a worker, which is replaced sooner."""

FIRST_QUARANTINE = 60.0
LONGEST_QUARANTINE = 600.0
"""Seconds in quarantine: doubled with each block that fails after it."""

BREAKER_BLOCKS = 10
"""Different blocks that have to fail. The first blocks lie in one corner of the volume, which may be an odd one; a bug
costs no more than this many, each tried a few times."""

BREAKER_FAILURES = 3
"""Failures after which a block counts, even if it may be tried more often."""


@dataclass(slots=True)
class FailureHistory:
    """Failures and losses of one block so far."""

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
    """When it first failed because storage did; None if it never has."""
    done_then: int = 0
    """Blocks of its task that were done by then."""

    def remember(self, worker: int, host: str) -> None:
        """Remember a worker on which it failed, or which was lost with it."""
        self.workers.add(worker)
        if host:
            self.hosts.add(host)

    def against(self, worker: int, host: str) -> int:
        """Return how much speaks against a worker: 2 if the block failed on it, 1 if on its host, else 0."""
        return 2 if worker in self.workers else int(host in self.hosts)


@dataclass(slots=True, eq=False)
class PendingRetry:
    """Entry of the ready queue for a block that runs again."""

    history: FailureHistory
    due: float
    """It may run from then on."""


def delay_before(index: int, history: FailureHistory, *, others: bool, lasted: float) -> float:
    """Return the seconds until a block may run again.

    Args:
        index: The block.
        history: Its failures and losses, the last one included.
        others: Another worker can take it.
        lasted: Seconds since the run began.

    >>> delay_before(0, FailureHistory(failures=1), others=True, lasted=1000.0)
    0.0
    >>> 2.5 <= delay_before(7, FailureHistory(failures=2), others=True, lasted=1000.0) < 5.0
    True
    """
    times = history.failures + history.losses
    if not others:
        times += 1
    longest = min(WAITS[min(max(times, 1), len(WAITS)) - 1], LARGEST_SHARE * lasted)
    return longest * (0.5 + 0.5 * _fraction(index, times))


def _fraction(index: int, times: int) -> float:
    """A number in [0, 1) that looks random and is always the same: Fibonacci hashing."""
    mixed = (index * 0x9E3779B97F4A7C15 + times * 0xC2B2AE3D27D4EB4F) % 2**64
    return (mixed ^ (mixed >> 32)) % 2**32 / 2**32


@dataclass(slots=True)
class _FailingHost:
    row: set[int] = field(default_factory=set)
    """Blocks that failed there since the last one that did not."""
    before: int = 0
    """Blocks done anywhere when that row began."""
    until: float | None = None
    """When a block may be tried; None if it is not in quarantine."""
    seconds: float = FIRST_QUARANTINE
    tried: bool = False
    """A block was given out since the last one that failed."""


class HostQuarantine:
    """Hosts of one task's workers on which blocks keep failing."""

    def __init__(self) -> None:
        self._bad: dict[str, _FailingHost] = {}
        """By host: since the last block that was done there."""
        self._done = 0
        self.quarantined = 0
        """How many hosts are in quarantine."""

    def succeeded(self, host: str) -> None:
        """Count a block that was done on a host."""
        self._done += 1
        known = self._bad.pop(host, None) if self._bad else None
        self.quarantined -= known is not None and known.until is not None

    def failed(self, host: str, index: int, now: float) -> None:
        """Count a block that failed on a host."""
        if not host:
            return
        known = self._bad.setdefault(host, _FailingHost(before=self._done))
        if known.until is not None:
            if known.tried:
                known.tried = False
                known.seconds = min(2 * known.seconds, LONGEST_QUARANTINE)
                known.until = now + known.seconds
            return
        if len(known.row) < FAILURES_ON_HOST:
            known.row.add(index)
        if len(known.row) == FAILURES_ON_HOST and self._done > known.before:
            known.until = now + known.seconds
            self.quarantined += 1

    def is_quarantined(self, host: str) -> bool:
        """Return whether a host is in quarantine; at its end a single block may be tried."""
        known = self._bad.get(host)
        return known is not None and known.until is not None

    def until(self, host: str) -> float:
        """Return when a block may be tried on a host in quarantine."""
        until = self._bad[host].until
        assert until is not None
        return until

    def tries(self, host: str, now: float) -> None:
        """Count a block that is granted on a host, which may be in quarantine."""
        known = self._bad.get(host)
        if known is not None and known.until is not None:
            known.tried = True
            known.until = now + known.seconds


class CircuitBreaker:
    """Decides from its first failures that a task cannot work."""

    def __init__(self) -> None:
        self.failure: BlockFailure | None = None
        """The first one."""
        self._alike = True
        self._counted: set[int] = set()

    def __len__(self) -> int:
        """Number of blocks that count."""
        return len(self._counted)

    def failed(self, failure: BlockFailure, *, times: int, final: bool) -> None:
        """Count a failure of a block."""
        if self.failure is None:
            self.failure = failure
        self._alike = self._alike and signature(failure) == signature(self.failure)
        if (final or times >= BREAKER_FAILURES) and len(self._counted) < BREAKER_BLOCKS:
            self._counted.add(failure.index)

    @property
    def is_open(self) -> bool:
        """Whether no other block is tried."""
        return self._alike and len(self._counted) >= BREAKER_BLOCKS


def signature(failure: BlockFailure) -> tuple[str, str]:
    """Return type of error and place in the user's code, which tell one cause from another."""
    return failure.error.partition(":")[0], failure.where
