"""Consequences: which other blocks does the end of some blocks release, or orphan?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from blockflow.plan.slices import Slices
from blockflow.state.transitions import BlockState, Cause

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blockflow.plan.slices import Indices
    from blockflow.state.task_book import TaskBook

_MOST_TARGETS = 2**20
"""Blocks that are looked at together: a few times 8 MB of memory."""


def release(books: Sequence[TaskBook], task: int, indices: Indices, now: float) -> set[int]:
    """Count blocks as done for everything that waits for them; returns the tasks with new ready blocks."""
    touched = set()
    for number, targets in waiting_for(books, task, indices):
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
        for below, targets in waiting_for(books, number, indices):
            lost = books[below].blocks.only(targets, BlockState.PENDING)
            if len(lost):
                books[below].blocks.move(lost, Cause.UPSTREAM_GIVEN_UP, now)
                touched.add(below)
                failed.append((below, lost))
    return touched


def waiting_for(books: Sequence[TaskBook], task: int, indices: Indices) -> Iterator[tuple[int, Indices]]:
    """The blocks that wait for any of `indices`, by task, once for each block they wait for."""
    plan = books[task].plan
    if plan.levels.count == 1 and not plan.downstream:
        return
    positions = plan.positions(indices)
    if plan.levels.count > 1:
        for piece in _pieces(plan.levels.downstream(positions)):
            yield task, piece.flat(plan.grid.shape)
    for number, link in plan.downstream:
        for piece in _pieces(link.downstream(positions)):
            yield number, piece.flat(books[number].plan.grid.shape)


def _pieces(slices: Slices) -> Iterator[Slices]:
    """The same blocks, not too many at once: all of a large task may wait for a single block."""
    todo = [slices]
    while todo:
        slices = todo.pop()
        sizes = slices.sizes()
        if sizes.sum() <= _MOST_TARGETS:
            yield slices
        elif len(sizes) > 1:
            half = len(sizes) // 2
            todo += [_members(slices, slice(half, None)), _members(slices, slice(half))]
        else:
            todo += _halves(slices)


def _members(slices: Slices, which: slice) -> Slices:
    return Slices(
        starts=tuple(start[which] for start in slices.starts),
        counts=tuple(count[which] for count in slices.counts),
        steps=slices.steps,
    )


def _halves(slices: Slices) -> list[Slices]:
    """A single product cut in two on its longest axis."""
    axis = int(np.argmax([count[0] for count in slices.counts]))
    half = slices.counts[axis] // 2
    cuts = ((slices.starts[axis] + half * slices.steps[axis], slices.counts[axis] - half), (slices.starts[axis], half))
    return [
        replace(
            slices,
            starts=(*slices.starts[:axis], start, *slices.starts[axis + 1 :]),
            counts=(*slices.counts[:axis], count, *slices.counts[axis + 1 :]),
        )
        for start, count in cuts
    ]
