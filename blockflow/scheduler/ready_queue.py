"""Ready queue of one task: blocks that may be granted, in the order in which they are granted.

1. Retried blocks come first, alone, so that a block that kills workers takes no other with it. Some wait before.
2. Then the smallest ready index comes, or the smallest rank where the task gives an order.

Roots that were never drawn come from the plan and cost nothing.
"""

from __future__ import annotations

import mmap
from collections import OrderedDict
from heapq import heappop, heappush
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from blockflow.plan.order import Ranks
    from blockflow.plan.roots import Roots
    from blockflow.plan.slices import Indices
    from blockflow.scheduler.block_states import States
    from blockflow.scheduler.retry_policy import PendingRetry


_UNIX = hasattr(mmap, "MADV_DONTNEED")

_ROOTS_AT_ONCE = 2**20

_PAGE = max(4096, mmap.PAGESIZE)
"""Blocks that are looked through at once for the next ones: whole pages of memory."""


class IndexSet:
    """Set of blocks that returns the smallest indices first.

    A byte for each block of the grid, and the number of members on each page of it, so that empty pages are passed
    over. Memory is used only where there are members: untouched pages cost nothing, and pages that
    have become empty are given back to the system.
    """

    def __init__(self, size: int) -> None:
        self._memory = _zeros(size)
        self._members = np.frombuffer(self._memory, dtype=np.bool_, count=size)
        self._on_page = np.zeros(size // _PAGE + 1, dtype=np.int64)
        self._page = 0
        """No page before this one has members."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def next(self) -> int | None:
        """The smallest index; None if there is none."""
        if not self._count:
            return None
        begin = self._first_page() * _PAGE
        return begin + int(self._members[begin : begin + _PAGE].argmax())

    def add(self, indices: Indices) -> None:
        """Add blocks that are not members; none of them twice."""
        if len(indices):
            pages = indices // _PAGE
            self._members[indices] = True
            np.add.at(self._on_page, pages, 1)
            self._page = min(self._page, int(pages.min()))
            self._count += len(indices)

    def take(self, at_most: int, *, below: int | None = None) -> Indices:
        """The smallest indices, sorted.

        Args:
            at_most: Take no more than this many.
            below: Take only indices smaller than this one.
        """
        parts = [np.empty(0, dtype=np.int64)]
        while at_most and self._count:
            begin = self._first_page() * _PAGE
            end = begin + _PAGE if below is None else min(begin + _PAGE, below)
            taken = np.flatnonzero(self._members[begin:end])[:at_most] + begin
            if not len(taken):
                break
            parts.append(taken)
            self._members[taken] = False
            self._on_page[self._page] -= len(taken)
            if not self._on_page[self._page]:
                _forget(self._memory, begin)
            self._count -= len(taken)
            at_most -= len(taken)
        return np.concatenate(parts)

    def remove(self, indices: Indices) -> None:
        """Take out those of the blocks that are members."""
        if self._count:
            here = indices[self._members[indices]]
            self._members[here] = False
            np.subtract.at(self._on_page, here // _PAGE, 1)
            self._count -= len(here)

    def members(self) -> list[int]:
        """All blocks: looks at the whole grid."""
        return np.flatnonzero(self._members).tolist()

    def _first_page(self) -> int:
        if not self._on_page[self._page]:
            self._page += int((self._on_page[self._page :] > 0).argmax())
        return self._page


def _zeros(size: int) -> mmap.mmap:
    """Memory for at least as many bytes, which are zero; for this process alone."""
    size = max(1, size)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) if _UNIX else mmap.mmap(-1, size)


def _forget(memory: mmap.mmap, begin: int) -> None:
    """Give a page of zeros back to the system; it reads as zeros again."""
    if _UNIX:
        memory.madvise(mmap.MADV_DONTNEED, begin, min(_PAGE, len(memory) - begin))


class RankedSet(IndexSet):
    """Set of blocks that returns the smallest ranks first; `next` is a rank."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__(len(ranks.of_block))
        self._ranks = ranks

    def add(self, indices: Indices) -> None:
        """Add blocks that are not members; none of them twice."""
        super().add(self._ranks.of_block[indices])

    def take(self, at_most: int, *, below: int | None = None) -> Indices:
        """The first blocks, sorted by index.

        Args:
            at_most: Take no more than this many.
            below: Take only blocks of smaller rank than this one.
        """
        return np.sort(self._ranks.block_at[super().take(at_most, below=below)])

    def remove(self, indices: Indices) -> None:
        """Take out those of the blocks that are members."""
        super().remove(self._ranks.of_block[indices])

    def members(self) -> list[int]:
        """All blocks: looks at the whole grid."""
        members: list[int] = self._ranks.block_at[super().members()].tolist()
        return members


class RankedRoots(RankedSet):
    """Roots of a task with an order of its own; all are drawn at once."""

    def __init__(self, roots: Roots, ranks: Ranks) -> None:
        super().__init__(ranks)
        while roots.left:
            self.add(roots.take(_ROOTS_AT_ONCE))

    @property
    def left(self) -> int:
        """Number of roots that have not been handed out."""
        return len(self)

    def pass_over(self, states: States) -> None:
        """Keep only roots whose entry in `states` is zero."""
        self.remove(np.flatnonzero(states))

    def claimed(self, indices: Indices) -> None:
        """Remove roots that a returning worker holds."""
        self.remove(indices)


class ReadyQueue:
    """Blocks of one task that may be granted.

    Args:
        roots: The blocks that wait for nothing.
        size: Number of blocks in the grid.
        ranks: The order that the task wants; None for that of indices.
    """

    def __init__(self, roots: Roots, size: int, ranks: Ranks | None = None) -> None:
        self._roots = roots if ranks is None else RankedRoots(roots, ranks)
        self._ready = IndexSet(size) if ranks is None else RankedSet(ranks)
        self.retries: OrderedDict[int, PendingRetry] = OrderedDict()
        """Blocks to be retried now, oldest first."""
        self._delayed: dict[int, PendingRetry] = {}
        """Blocks to be retried later."""
        self._due: list[tuple[float, int]] = []
        """Heap of due times and blocks; may hold blocks that were claimed meanwhile."""

    def __len__(self) -> int:
        return len(self._ready) + self._roots.left + len(self.retries) + len(self._delayed)

    @property
    def delayed_count(self) -> int:
        """Number of blocks to be retried later."""
        return len(self._delayed)

    @property
    def next_due(self) -> float | None:
        """Time at which the first of them may run; None if there is none."""
        return self._due[0][0] if self._due else None

    def retry(self, index: int, retry: PendingRetry, now: float) -> None:
        """Schedule a block to run again, now or later."""
        if retry.due <= now:
            self.retries[index] = retry
        else:
            self._delayed[index] = retry
            heappush(self._due, (retry.due, index))

    def release_delayed(self, now: float) -> None:
        """Move blocks whose delay is over to the retries."""
        while self._due and self._due[0][0] <= now:
            _, index = heappop(self._due)
            if index in self._delayed:
                self.retries[index] = self._delayed.pop(index)

    @property
    def undrawn_roots(self) -> int:
        """Number of roots that were never drawn; their state is still pending."""
        return self._roots.left

    def waiting(self) -> list[int]:
        """All blocks here but the undrawn roots: looks at the whole grid."""
        return [*self._ready.members(), *self.retries, *self._delayed]

    def pass_over(self, states: States) -> None:
        """Skip roots whose entry in `states` is not zero when they are drawn, now or later."""
        self._roots.pass_over(states)

    def claimed(self, indices: Indices, roots: Indices) -> None:
        """Remove blocks, some of them undrawn roots, that a returning worker holds."""
        self._ready.remove(indices)
        self._roots.claimed(roots)
        for index in indices.tolist():
            self.retries.pop(index, None)
            self._delayed.pop(index, None)

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
