"""Absence: who may still be at work for an earlier life of the driver?

Until all of them are back, or are known to be gone, or their leases have certainly run out, nothing is handed out:
they may be writing blocks that nobody here knows to be taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from blockflow.state.records import RecordWorker


class Absence:
    """Workers that an earlier life of the driver knew."""

    def __init__(self) -> None:
        self._absent: dict[int, RecordWorker] = {}
        self.until: float | None = None
        """When they have all certainly ended; None if nobody is waited for."""

    def begin(self, absent: Iterable[RecordWorker], until: float) -> None:
        """Wait for workers until a time."""
        self._absent.update((known.worker, known) for known in absent)
        self.until = until if self._absent else None

    @property
    def waiting(self) -> bool:
        """Whether nothing may be handed out yet."""
        return self.until is not None

    def __contains__(self, worker: int) -> bool:
        return worker in self._absent

    def __iter__(self) -> Iterator[RecordWorker]:
        return iter(tuple(self._absent.values()))

    def over(self, worker: int) -> RecordWorker | None:
        """A worker is back, or is gone for good; what was known of it, if it was absent."""
        known = self._absent.pop(worker, None)
        if not self._absent:
            self.until = None
        return known

    def passed(self, now: float) -> list[RecordWorker]:
        """Those that cannot be at work any more because time has passed."""
        if self.until is None or now < self.until:
            return []
        return [self._absent[worker] for worker in tuple(self._absent)]
