"""Hosts: on which does nothing of a task succeed, so that it is left alone for a while?

1. A host is in quarantine when several different blocks in a row have failed there, while blocks on other hosts were
   done: then it is not the user's code. Lost workers do not count, they may have been preempted.
2. Its workers get nothing for a while, then one of them gets a single block. If that is done all is well; if it fails
   the next one has to wait twice as long; if nothing is heard of it, the same time again.
3. The last host that workers of the task are on is never in quarantine (:mod:`blockflow.state.handout`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

FAILURES_ON_HOST = 5
"""Different blocks that may fail on a host, one after the other; more than on a worker, which is replaced sooner."""

FIRST_QUARANTINE = 60.0
LONGEST_QUARANTINE = 600.0
"""Seconds in quarantine: doubled with each block that fails after it."""


@dataclass(slots=True)
class _Host:
    row: set[int] = field(default_factory=set)
    """Blocks that failed there since the last one that did not."""
    before: int = 0
    """Blocks done anywhere when that row began."""
    until: float | None = None
    """When a block may be tried; None if it is not in quarantine."""
    seconds: float = FIRST_QUARANTINE
    tried: bool = False
    """A block was given out since the last one that failed."""


class Hosts:
    """How the hosts of one task's workers fare."""

    def __init__(self) -> None:
        self._bad: dict[str, _Host] = {}
        """By host: since the last block that was done there."""
        self._done = 0
        self.quarantined = 0
        """How many hosts are in quarantine."""

    def succeeded(self, host: str) -> None:
        """A block was done on a host."""
        self._done += 1
        known = self._bad.pop(host, None) if self._bad else None
        self.quarantined -= known is not None and known.until is not None

    def failed(self, host: str, index: int, now: float) -> None:
        """A block failed on a host."""
        if not host:
            return
        known = self._bad.setdefault(host, _Host(before=self._done))
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
        """Whether a host is in quarantine; at its end, a single block may be tried."""
        known = self._bad.get(host)
        return known is not None and known.until is not None

    def until(self, host: str) -> float:
        """When a block may be tried on a host that is in quarantine."""
        until = self._bad[host].until
        assert until is not None
        return until

    def tries(self, host: str, now: float) -> None:
        """A block is given out on a host, which may be in quarantine."""
        known = self._bad.get(host)
        if known is not None and known.until is not None:
            known.tried = True
            known.until = now + known.seconds
