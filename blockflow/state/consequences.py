"""Consequences: which other blocks does the end of some blocks release, or orphan?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockflow.state.transitions import BlockState, Cause

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blockflow.plan.slices import Indices
    from blockflow.state.task_book import TaskBook


def release(books: Sequence[TaskBook], task: int, indices: Indices, now: float) -> set[int]:
    """Count blocks as done for everything that waits for them; returns the tasks with new ready blocks."""
    touched = set()
    for number, targets in _waiting_for(books, task, indices):
        ready = books[number].blocks.inputs_done(targets, now)
        if len(ready):
            books[number].frontier.add(ready)
            touched.add(number)
    return touched


def orphan(books: Sequence[TaskBook], task: int, indices: Indices, now: float) -> set[int]:
    """Give up everything that waits, directly or not, for blocks that failed; returns the tasks concerned."""
    touched = set()
    failed = [(task, indices)]
    while failed:
        number, indices = failed.pop()
        for below, targets in _waiting_for(books, number, indices):
            lost = books[below].blocks.only(targets, BlockState.PENDING)
            if len(lost):
                books[below].blocks.move(lost, Cause.UPSTREAM_GIVEN_UP, now)
                touched.add(below)
                failed.append((below, lost))
    return touched


def _waiting_for(books: Sequence[TaskBook], task: int, indices: Indices) -> Iterator[tuple[int, Indices]]:
    """The blocks that wait for any of `indices`, per task, once for each block they wait for."""
    plan = books[task].plan
    if plan.levels.count == 1 and not plan.downstream:
        return
    positions = plan.positions(indices)
    if plan.levels.count > 1:
        yield task, plan.levels.downstream(positions).flat(plan.grid.shape)
    for number, link in plan.downstream:
        yield number, link.downstream(positions).flat(books[number].plan.grid.shape)
