"""Limits: how long may a block take, judged by those before it?

For tasks with ``timeout="auto"``. A limit is there to find blocks that hang, not slow ones, so it is generous: ten
times the longest of the last hundred reports, never less than a minute, and none before a handful were measured. A
block that failed, perhaps because it took too long, has four times as long the next time, and again: one that is only
unlike the others gets through, and one that hangs is given up in the end.
"""

from __future__ import annotations

from collections import deque

FACTOR = 10.0
"""Times the longest of the blocks before."""

LEAST = 60.0
"""Seconds that every block has."""

REPORTS = 100
"""How many reports of finished blocks are remembered."""

ENOUGH = 5
"""Finished blocks without which there is no limit."""

GROWTH = 4.0
"""How many times longer a block may take after each failure."""

LONGEST = 1e9
"""Seconds that fit into a message."""


class Limit:
    """The time limit of one task's blocks.

    >>> limit = Limit()
    >>> for seconds in (8.0, 9.0, 20.0, 7.0, 8.0):
    ...     limit.measured(1, seconds)
    >>> limit.seconds(), limit.seconds(failures=1)
    (200.0, 800.0)
    """

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=REPORTS)
        self._blocks = 0

    def measured(self, blocks: int, seconds: float) -> None:
        """Blocks that were reported together were done, and took a time: none of them took longer."""
        self._last.append(seconds)
        self._blocks += blocks

    def seconds(self, failures: int = 0) -> float | None:
        """How long a block may take that has failed a number of times; None if not enough is known."""
        if self._blocks < ENOUGH:
            return None
        return min(max(LEAST, FACTOR * max(self._last)) * GROWTH ** min(failures, 20), LONGEST)
