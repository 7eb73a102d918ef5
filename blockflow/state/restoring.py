"""Restoring: how does a scheduler go on where an earlier life of its driver has ended?

1. Blocks that are done or failed for good get these states, in bulk; nothing else is remembered of them.
2. Whatever waits for done blocks counts them; what is complete becomes ready. What waits for failed ones is orphaned.
3. Skipped and orphaned blocks are not restored: checks are asked again, and orphans follow from failures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from blockflow.state.consequences import orphan, waiting_for
from blockflow.state.transitions import BlockState, States

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blockflow.state.events import BlockFailure
    from blockflow.state.retries import Mishaps
    from blockflow.state.task_book import TaskBook

_SLAB = 2**18
"""Blocks that are counted for those that wait for them at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskHistory:
    """What earlier lives have left of one task."""

    states: States
    """DONE and FAILED where blocks have ended so, else 0; one byte for each block of the grid."""
    failures: dict[int, BlockFailure] = field(default_factory=dict)
    """By block that failed for good: its last failure."""
    mishaps: dict[int, Mishaps] = field(default_factory=dict)
    """By block that has not ended: how often it failed, and how often a worker was lost with it."""


def restore(books: Sequence[TaskBook], histories: Sequence[TaskHistory]) -> None:
    """Give the blocks of tasks that nothing has happened to yet the states that their history tells."""
    for book, history in zip(books, histories, strict=True):
        book.blocks.restore(history.states)
        book.frontier.pass_over(book.blocks.states)
        book.final_failures.update(history.failures)
        book.mishaps.update(history.mishaps)
    for number, book in enumerate(books):
        if not book.blocks.count(BlockState.DONE):
            continue
        for begin in range(0, book.plan.grid.size, _SLAB):
            done = np.flatnonzero(book.blocks.states[begin : begin + _SLAB] == BlockState.DONE) + begin
            for below, targets in waiting_for(books, number, done):
                books[below].blocks.count_inputs(targets)
    for book in books:
        for ready in book.blocks.complete():
            book.frontier.add(ready)
    for number, book in enumerate(books):
        failed = book.blocks.all_of(BlockState.FAILED) if book.blocks.count(BlockState.FAILED) else ()
        if len(failed):
            orphan(books, number, np.asarray(failed), 0.0)
