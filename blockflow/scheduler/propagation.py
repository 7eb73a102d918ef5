"""Propagation of ended blocks: which blocks become ready, which are orphaned, in bulk.

1. A block that is done or skipped counts as one finished input for each block that waits for it.
2. A block that failed for good orphans everything that waits for it, directly or not.
3. :func:`restore` does both for the blocks that earlier drivers have recorded. Skipped and orphaned blocks are not
   restored: checks are asked again, and orphans follow from failures.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from blockflow.plan.slices import Slices
from blockflow.scheduler.block_states import BlockState, BlockTrigger

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blockflow.plan.slices import Indices
    from blockflow.scheduler.block_states import States
    from blockflow.scheduler.events import BlockFailure
    from blockflow.scheduler.retry_policy import FailureHistory
    from blockflow.scheduler.state import SchedulerState, TaskRecord

_MOST_TARGETS = 2**20
"""Blocks that are looked at together: a few times 8 MB of memory."""

_SLAB = 2**18
"""Blocks per step whose dependants are counted when a run is restored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoredTask:
    """What earlier drivers have recorded about one task."""

    states: States
    """DONE and FAILED where blocks have ended so, else 0; one byte for each block of the grid."""
    failures: dict[int, BlockFailure] = field(default_factory=dict)
    """By block that failed for good: its last failure."""
    histories: dict[int, FailureHistory] = field(default_factory=dict)
    """By block that has not ended: its failures and losses."""


def release(state: SchedulerState, task: int, indices: Indices, now: float) -> None:
    """Count blocks as finished inputs of the blocks that wait for them, and queue those that become ready."""
    for number, targets in _dependants(state.tasks, task, indices):
        ready = state.tasks[number].blocks.inputs_done(targets, now)
        if len(ready):
            state.tasks[number].ready_queue.add(ready)
            state.dirty.add(number)


def orphan(state: SchedulerState, task: int, indices: Indices, now: float) -> None:
    """Orphan everything that waits, directly or not, for blocks that failed for good."""
    failed = [(task, indices)]
    while failed:
        number, indices = failed.pop()
        for below, targets in _dependants(state.tasks, number, indices):
            lost = state.tasks[below].blocks.only(targets, BlockState.PENDING)
            if len(lost):
                state.tasks[below].blocks.move(lost, BlockTrigger.UPSTREAM_GIVEN_UP, now)
                state.dirty.add(below)
                failed.append((below, lost))


def restore(state: SchedulerState, restored: Sequence[RestoredTask]) -> None:
    """Give the blocks of tasks that are new the states that earlier drivers have recorded."""
    for task, known in zip(state.tasks, restored, strict=True):
        task.blocks.restore(known.states)
        task.ready_queue.pass_over(task.blocks.states)
        task.final_failures.update(known.failures)
        task.histories.update(known.histories)
    for number, task in enumerate(state.tasks):
        if not task.blocks.count(BlockState.DONE):
            continue
        for begin in range(0, task.plan.grid.size, _SLAB):
            done = np.flatnonzero(task.blocks.states[begin : begin + _SLAB] == BlockState.DONE) + begin
            for below, targets in _dependants(state.tasks, number, done):
                state.tasks[below].blocks.count_inputs(targets)
    for task in state.tasks:
        for ready in task.blocks.complete():
            task.ready_queue.add(ready)
    for number, task in enumerate(state.tasks):
        failed = task.blocks.all_of(BlockState.FAILED) if task.blocks.count(BlockState.FAILED) else ()
        if len(failed):
            orphan(state, number, np.asarray(failed), 0.0)
    state.touch_all()


def _dependants(tasks: Sequence[TaskRecord], task: int, indices: Indices) -> Iterator[tuple[int, Indices]]:
    """Return the blocks that wait for any of `indices`, by task, once for each block they wait for."""
    plan = tasks[task].plan
    if plan.levels.count == 1 and not plan.downstream:
        return
    positions = plan.positions(indices)
    if plan.levels.count > 1:
        for piece in _pieces(plan.levels.downstream(positions)):
            yield task, piece.flat(plan.grid.shape)
    for number, link in plan.downstream:
        for piece in _pieces(link.downstream(positions)):
            yield number, piece.flat(tasks[number].plan.grid.shape)


def _pieces(slices: Slices) -> Iterator[Slices]:
    """Split blocks into pieces of bounded size: all of a large task may wait for a single block."""
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
    """Cut a single product in two on its longest axis."""
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
