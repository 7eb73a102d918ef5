"""The states of the blocks of one task: what has become of each, and which became ready?

Two arrays over the grid, zero-initialised so that pages nobody touches cost nothing: a byte of state, and how many of
the blocks upstream are done. A block is ready when that count reaches its fan-in, which is computed from the plan.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from blockflow.errors import InvalidTransition
from blockflow.state.transitions import IMPOSSIBLE, NEXT_STATE, BlockState, Cause

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blockflow.plan.plan import TaskPlan
    from blockflow.plan.slices import Indices
    from blockflow.state.transitions import States

_STORY_BYTES = 1_000_000
"""Memory per task for what happened to blocks lately, which messages about impossible transitions tell."""

_SLAB = 2**20
"""Blocks that are looked at together where all are."""

_FEW = 4096
"""Where there are no more blocks, how many each of them waits for is looked up, and not computed again and again."""

_ENTRY_BYTES = 300
"""Memory of one change in the story, beside 8 bytes for each block that it concerns."""


class BlockStates:
    """State of every block of one task."""

    def __init__(self, plan: TaskPlan) -> None:
        self.plan = plan
        self.states = np.zeros(plan.grid.size, dtype=np.uint8)
        self.counts = np.zeros(len(BlockState), dtype=np.int64)
        """Number of blocks in each state."""
        self.counts[BlockState.PENDING] = plan.grid.size
        greatest = plan.greatest_fan_in()
        waits = plan.levels.count > 1 or bool(plan.upstream)
        self._inputs_done = np.zeros(plan.grid.size if waits else 0, dtype=np.min_scalar_type(greatest))
        self._fan_ins: Indices | None = None
        """Of all blocks, where they are few; None while nobody has asked."""
        self._restored = False
        self._story: deque[tuple[float, Cause, Indices]] = deque()
        self._story_bytes = 0

    def move(self, indices: Indices, cause: Cause, now: float) -> None:
        """Change the state of blocks; all of them or none.

        Raises:
            InvalidTransition: One of them cannot change for this cause.
        """
        before = self.states[indices]
        after = NEXT_STATE[cause][before]
        if (after == IMPOSSIBLE).any():
            wrong = int(indices[np.argmax(after == IMPOSSIBLE)])
            raise InvalidTransition(self._impossible(wrong, cause))
        self.states[indices] = after
        self.counts -= np.bincount(before, minlength=len(BlockState))
        self.counts += np.bincount(after, minlength=len(BlockState))
        self._remember(now, cause, indices)

    def inputs_done(self, targets: Indices, now: float) -> Indices:
        """Count one finished input for every entry of `targets`; returns the blocks that became ready, sorted."""
        blocks, times = targets, np.ones(1, dtype=np.int64)
        if not _increasing(targets):
            blocks, times = np.unique(targets, return_counts=True)
        done = self._inputs_done[blocks] + times
        self._inputs_done[blocks] = done
        complete = (done == self._fan_in(blocks)) & (self.states[blocks] == BlockState.PENDING)
        ready: Indices = blocks[complete]
        if len(ready):
            self.move(ready, Cause.INPUTS_DONE, now)
        return ready

    def restore(self, states: States) -> None:
        """Start from states that earlier lives of the driver have left, instead of from nothing."""
        ended = (BlockState.DONE, BlockState.FAILED)
        for begin in range(0, len(states), _SLAB):
            slab = states[begin : begin + _SLAB]
            if slab.any():
                for state in ended:
                    self.counts[state] += np.count_nonzero(slab == state)
                self.states[begin : begin + _SLAB] = np.where(np.isin(slab, ended), slab, BlockState.PENDING)
        self.counts[BlockState.PENDING] = self.plan.grid.size - self.count(*ended)
        self._restored = True

    def count_inputs(self, targets: Indices) -> None:
        """Count one finished input for every entry of `targets`, and look at what that makes ready later."""
        np.add.at(self._inputs_done, targets, self._inputs_done.dtype.type(1))

    def complete(self) -> Iterator[Indices]:
        """Make ready what :meth:`count_inputs` has completed; the blocks, sorted, in pieces."""
        for begin in range(0, len(self._inputs_done), _SLAB):
            blocks = np.flatnonzero(self._inputs_done[begin : begin + _SLAB]) + begin
            blocks = blocks[self.states[blocks] == BlockState.PENDING]
            ready = blocks[self._inputs_done[blocks] == self._fan_in(blocks)]
            if len(ready):
                self.move(ready, Cause.INPUTS_DONE, 0.0)
                yield ready

    def waits(self, indices: Indices) -> bool:
        """Whether any of the blocks waits for something upstream."""
        if not len(self._inputs_done):
            return False
        return bool((self._inputs_done[indices] < self._fan_in(indices)).any())

    def only(self, indices: Indices, state: BlockState) -> Indices:
        """Those of the blocks that are in a state, sorted and without repetition."""
        found: Indices = indices[self.states[indices] == state]
        return found if _increasing(found) else np.unique(found)

    def count(self, *states: BlockState) -> int:
        """Number of blocks in any of the states."""
        return int(sum(self.counts[state] for state in states))

    def all_of(self, state: BlockState) -> Indices:
        """Every block in a state: looks at all blocks."""
        return np.flatnonzero(self.states == state)

    def story(self, index: int) -> list[str]:
        """What happened to a block, oldest first, as far as it is remembered."""
        return [
            f"{now:.3f} {cause.name.lower().replace('_', ' ')}"
            for now, cause, indices in self._story
            if index in indices
        ]

    def validate(self) -> None:
        """Recount everything from scratch.

        Raises:
            AssertionError: A number here disagrees with the recount.
        """
        assert (self.counts == np.bincount(self.states, minlength=len(BlockState))).all(), "counts"
        if len(self._inputs_done):
            everything = np.arange(self.plan.grid.size, dtype=np.int64)
            fan_in = self.plan.fan_in(everything)
            assert (self._inputs_done <= fan_in).all(), "more inputs done than there are"
            unmoved = (BlockState.PENDING, BlockState.ORPHANED)
            # What was done before may wait for something that is checked again.
            moved = ~np.isin(self.states, (*unmoved, BlockState.DONE, BlockState.FAILED) if self._restored else unmoved)
            assert (self._inputs_done[moved] == fan_in[moved]).all(), "a block moved before its inputs were done"

    def _fan_in(self, indices: Indices) -> Indices:
        """How many blocks each block waits for."""
        if self.plan.grid.size > _FEW:
            return self.plan.fan_in(indices)
        if self._fan_ins is None:
            self._fan_ins = self.plan.fan_in(np.arange(self.plan.grid.size, dtype=np.int64))
        return self._fan_ins[indices]

    def _remember(self, now: float, cause: Cause, indices: Indices) -> None:
        self._story.append((now, cause, indices.copy()))  # a view would keep all of a lease
        self._story_bytes += _ENTRY_BYTES + indices.nbytes
        while self._story_bytes > _STORY_BYTES:
            self._story_bytes -= _ENTRY_BYTES + self._story.popleft()[2].nbytes

    def _impossible(self, index: int, cause: Cause) -> str:
        state = BlockState(int(self.states[index])).name.lower()
        story = "; ".join(self.story(index)) or "nothing"
        return (
            f"block {index} of task {self.plan.task_id!r} is {state}, "
            f"which {cause.name.lower().replace('_', ' ')} cannot follow; what happened to it: {story}"
        )


def _increasing(indices: Indices) -> bool:
    """Whether indices are sorted without repetition, as those that wait for a single block are; sorting costs more."""
    return bool((indices[1:] > indices[:-1]).all())
