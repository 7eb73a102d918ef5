"""The frontier of one task: which block is handed out next?

In this order: blocks that ran before and have to run again (alone, so that a block that kills workers takes no other
with it), then the smallest index that is ready. Ready blocks are a heap; roots that nobody has drawn yet come from
the plan and cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from blockflow.plan.roots import Roots
    from blockflow.plan.slices import Indices


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """A block that has to run again."""

    index: int
    avoid: frozenset[int]
    """Workers that it failed on; another one is preferred."""
    not_before: float
    """Time from which it may run."""


class Frontier:
    """Blocks of one task that may be handed out."""

    def __init__(self, roots: Roots) -> None:
        self._roots = roots
        self._ready: list[int] = []
        self._again: list[Again] = []

    def __len__(self) -> int:
        return len(self._ready) + self._roots.left + len(self._again)

    @property
    def undrawn_roots(self) -> int:
        """Roots that were never handed out; their state is still pending."""
        return self._roots.left

    @property
    def runs_again(self) -> int:
        """Blocks that have run before and have to run again."""
        return len(self._again)

    def waiting(self) -> list[int]:
        """All blocks here but the undrawn roots; for tests."""
        return self._ready + [again.index for again in self._again]

    def add(self, indices: Indices) -> None:
        """Add blocks that became ready."""
        if len(indices) > len(self._ready):
            self._ready.extend(indices.tolist())
            heapify(self._ready)
        else:
            for index in indices.tolist():
                heappush(self._ready, index)

    def add_again(self, again: Again) -> None:
        """Add a block that has to run again."""
        self._again.append(again)

    def due(self) -> float | None:
        """The earliest time at which a block that runs again may do so; None if there is none."""
        return min((again.not_before for again in self._again), default=None)

    def take_again(self, worker: int, others: frozenset[int], now: float) -> int | None:
        """A block that has to run again and may do so on this worker.

        Args:
            worker: Who would get it.
            others: Further workers that could; a block keeps away from a worker it failed on while there are any
                that it has not failed on.
            now: The time.
        """
        for place, again in enumerate(self._again):
            if again.not_before <= now and (worker not in again.avoid or others <= again.avoid):
                del self._again[place]
                return again.index
        return None

    def take(self, at_most: int) -> Indices:
        """The next blocks that are ready, sorted; fewer if there are no more."""
        drawn: list[int] = []
        roots: list[Indices] = []
        left = at_most
        while left:
            first, upcoming = self._ready[0] if self._ready else None, self._roots.next
            if upcoming is not None and (first is None or upcoming < first):
                roots.append(self._roots.take(left, below=first))
                left -= len(roots[-1])
            elif first is not None:
                drawn.append(heappop(self._ready))
                left -= 1
            else:
                break
        if not drawn and len(roots) == 1:
            return roots[0]
        return np.sort(np.concatenate([np.array(drawn, dtype=np.int64), *roots]))
