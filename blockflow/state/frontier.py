"""The frontier of one task: which block is handed out next?

In this order: blocks that ran before and have to run again (alone, so that a block that kills workers takes no other
with it), then the smallest index that is ready. Ready blocks are a heap; roots that nobody has drawn yet come from
the plan and cost nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from blockflow.plan.roots import Roots
    from blockflow.plan.slices import Indices


class Smallest:
    """A bag of blocks that gives back the smallest indices first."""

    def __init__(self) -> None:
        self._heap: list[int] = []

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def next(self) -> int | None:
        """The smallest index; None if there is none."""
        return self._heap[0] if self._heap else None

    def add(self, indices: Indices) -> None:
        """Add blocks."""
        if len(indices) > len(self._heap):
            self._heap.extend(indices.tolist())
            heapify(self._heap)
        else:
            for index in indices.tolist():
                heappush(self._heap, index)

    def take(self, at_most: int, *, below: int | None = None) -> Indices:
        """The smallest indices, sorted.

        Args:
            at_most: Take no more than this many.
            below: Take only indices smaller than this one.
        """
        taken: list[int] = []
        while self._heap and len(taken) < at_most and (below is None or self._heap[0] < below):
            taken.append(heappop(self._heap))
        return np.array(taken, dtype=np.int64)

    def members(self) -> list[int]:
        """All blocks, in no order; for tests."""
        return list(self._heap)


class Frontier:
    """Blocks of one task that may be handed out."""

    def __init__(self, roots: Roots) -> None:
        self._roots = roots
        self._ready = Smallest()
        self.again: OrderedDict[int, set[int]] = OrderedDict()
        """By block that ran before and has to run again, oldest first: workers that should not get it."""

    def __len__(self) -> int:
        return len(self._ready) + self._roots.left + len(self.again)

    @property
    def undrawn_roots(self) -> int:
        """Roots that were never handed out; their state is still pending."""
        return self._roots.left

    def waiting(self) -> list[int]:
        """All blocks here but the undrawn roots; for tests."""
        return [*self._ready.members(), *self.again]

    def add(self, indices: Indices) -> None:
        """Add blocks that became ready."""
        self._ready.add(indices)

    def take(self, at_most: int) -> Indices:
        """The next blocks that do not run again, sorted; fewer if there are no more."""
        parts: list[Indices] = []
        left = at_most
        while left and (self._ready or self._roots.left):
            ready, root = self._ready.next, self._roots.next
            if root is not None and (ready is None or root < ready):
                parts.append(self._roots.take(left, below=ready))
            else:
                parts.append(self._ready.take(left, below=root))
            left -= len(parts[-1])
        if len(parts) == 1:
            return parts[0]
        # Roots come smallest first only within each of their boxes.
        return np.sort(np.concatenate([np.empty(0, dtype=np.int64), *parts]))
