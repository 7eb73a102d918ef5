"""Storage pauses: hosts of one task that get no blocks while their storage fails.

1. A block that failed because storage did is not the cause: no attempt is counted in the first ten minutes. After that
   an error that does not pass is counted, as is a full disk on which other blocks have been done since.
2. Its host gets no blocks of the task for a while. Then one of its workers gets a single block: if that is done the
   pause is over; if it fails for the same reason the next one has to wait twice as long; without an outcome, the
   same time again.
3. Failures of checks, which the driver calls, hold back the whole task.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from blockflow.wire.storage_errors import FailureKind

if TYPE_CHECKING:
    from blockflow.scheduler.events import BlockFailure
    from blockflow.scheduler.retry_policy import FailureHistory

DRIVER = ""
"""Name of the driver in place of a host: it calls the checks."""

REMIND_SECONDS = 600.0
"""How often the user is told again of a pause that lasts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How a kind of failure is waited for, in seconds."""

    first: float
    """Before the first block that tries again."""
    longest: float
    """Between two blocks that try again, at most: the wait is doubled after each that fails."""
    free: float
    """Since the first such failure of a block, during which none is counted."""
    only_alone: bool
    """After that, one is counted only if others have been done since: else the storage is still at fault."""


PATIENCE = {
    FailureKind.FULL: Patience(first=1.0, longest=15.0, free=600.0, only_alone=True),
    FailureKind.STORAGE: Patience(first=1.0, longest=30.0, free=600.0, only_alone=False),
}
"""By kind that passes. A full disk is tried four times a minute; an error that has lasted for ten minutes needs a
user."""


@dataclass(slots=True, kw_only=True)
class Pause:
    """A host without blocks."""

    kind: FailureKind
    disk: str
    since: float
    until: float
    """When a single block may be tried."""
    seconds: float
    """How long the next one waits if that fails."""
    tried: bool = False
    """A block was given out since the last one that failed."""


def is_spared(failure: BlockFailure, history: FailureHistory, done: int, now: float) -> bool:
    """Return whether a failure costs its block nothing; note the first one that storage caused.

    Args:
        failure: What has happened now.
        history: Failures of the block before.
        done: Blocks of the task that are done.
        now: The time.
    """
    patience = PATIENCE.get(failure.kind)
    if patience is None:
        return False
    if history.storage_since is None:
        history.storage_since, history.done_then = now, done
    if now - history.storage_since < patience.free:
        return True
    return patience.only_alone and done == history.done_then


class StoragePauses:
    """The pauses of one task."""

    def __init__(self) -> None:
        self._pauses: dict[str, Pause] = {}
        """By host."""
        self._told: dict[str, float] = {}
        """By disk that the user was told of: when, the last time."""

    def __len__(self) -> int:
        return len(self._pauses)

    def failed(self, host: str, failure: BlockFailure, now: float) -> bool:
        """Count a failure of storage on a host; return whether the user should be told."""
        patience = PATIENCE[failure.kind]
        pause = self._pauses.get(host)
        if pause is None:
            self._pauses[host] = Pause(
                kind=failure.kind,
                disk=failure.disk,
                since=now,
                until=now + patience.first,
                seconds=min(2 * patience.first, patience.longest),
            )
        elif pause.tried:
            pause.tried = False
            pause.until = now + pause.seconds
            pause.seconds = min(2 * pause.seconds, patience.longest)
        told = self._told.get(failure.disk)
        if told is not None and now - told < REMIND_SECONDS:
            return False
        self._told[failure.disk] = now
        return True

    def succeeded(self, host: str) -> Pause | None:
        """Count a block that was done on a host; return the pause that is over, if the user was told of it."""
        pause = self._pauses.get(host)
        if pause is None or not pause.tried:  # it was under way when storage failed
            return None
        del self._pauses[host]
        if any(other.disk == pause.disk for other in self._pauses.values()):
            return None
        return pause if self._told.pop(pause.disk, None) is not None else None

    def until(self, host: str) -> float | None:
        """Return when a single block may be tried on a host; None if it has no pause."""
        pauses = [self._pauses[name] for name in {host, DRIVER} if name in self._pauses]
        return max((pause.until for pause in pauses), default=None)

    def tries(self, host: str, now: float) -> None:
        """Count a block that is granted on a host, or checked by the driver."""
        pause = self._pauses.get(host)
        if pause is not None:
            pause.tried = True
            pause.until = now + pause.seconds
