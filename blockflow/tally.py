"""Tally of the chunks that a block stores, so that a missing chunk can be told from one that is empty on purpose.

One for the process. What writes voxels (:mod:`blockflow.arrays.writing`) adds to it; what reports blocks takes it. Only
writes to watched arrays count: the outputs of a task that keeps a record.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["TALLY", "UNKNOWN", "Tally"]

UNKNOWN = -1
"""In place of a number of chunks: no write was seen, or not all of them can have been."""


class Tally:
    """A number of chunks that grows until it is taken.

    >>> tally = Tally()
    >>> tally.watch(["/data/a.zarr"])
    >>> tally.add(3)
    >>> tally.take(), tally.take()
    (3, -1)
    """

    def __init__(self) -> None:
        self.watched: frozenset[str] = frozenset()
        """Places of the arrays whose chunks count, as :func:`blockflow.arrays.writing.place_of_data` says."""
        self._lock = threading.Lock()
        self._chunks = UNKNOWN

    def watch(self, places: Iterable[str]) -> None:
        """Count chunks of these arrays from now on, and of no others."""
        self.watched = frozenset(places)
        self._chunks = UNKNOWN

    def add(self, chunks: int) -> None:
        """Count chunks that were stored; none of them, if that is what was to be stored."""
        with self._lock:
            self._chunks = max(0, self._chunks) + chunks

    def take(self) -> int:
        """Return how many chunks were stored since the last call; :data:`UNKNOWN` if nothing was written."""
        with self._lock:
            chunks, self._chunks = self._chunks, UNKNOWN
        return chunks


TALLY = Tally()
"""That of this process."""
