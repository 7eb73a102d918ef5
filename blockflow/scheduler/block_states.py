"""State machine of blocks: states, triggers, transition table, and the states of all blocks of a task.

Everything that affects the transitions of a block lives in this file. A pair that is missing from the table is
impossible: asking for it raises :class:`~blockflow.errors.InvalidTransition` and changes nothing.

:class:`BlockStates` holds two arrays over the grid, zero-initialised so that untouched pages cost no memory: a byte of
state, and the number of finished blocks upstream. A block is ready when that number reaches its fan-in, which is
computed from the plan.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from blockflow.errors import InvalidTransition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blockflow.plan.plan import TaskPlan
    from blockflow.plan.slices import Indices

States: TypeAlias = npt.NDArray[np.uint8]
"""One :class:`BlockState` per block, as bytes."""


class BlockState(IntEnum):
    """State of a block. Zero is the state of a block that nothing has touched."""

    PENDING = 0
    """Waits for blocks upstream, or is a root that was never drawn."""
    READY = 1
    """Everything upstream is done; waits for its pre-check or a worker."""
    RUNNING = 2
    """Granted to a worker, or finished there and waiting for its post-check."""
    DONE = 3
    """Finished and recorded."""
    FAILED = 4
    """Failed for good."""
    ORPHANED = 5
    """Cannot run because something upstream failed for good."""
    SKIPPED = 6
    """Found done before it ran; counts as done for blocks that wait for it."""


class BlockTrigger(IntEnum):
    """Why a block changes its state."""

    INPUTS_DONE = 0
    """The last block upstream is done, or there never was one."""
    GRANTED = 1
    """A worker got it."""
    FINISHED = 2
    """The worker that holds it reports success, and the post-check agrees."""
    GIVEN_BACK = 3
    """It was lost, returned or failed, and may run again."""
    GIVEN_UP = 4
    """It failed once more than it may."""
    FOUND_DONE = 5
    """Its pre-check, or a mask, says that there is nothing to do."""
    UPSTREAM_GIVEN_UP = 6
    """Something that it waits for will never be done."""
    CLAIMED = 7
    """A worker that outlived its driver still runs it."""


BLOCK_TRANSITIONS: dict[tuple[BlockState, BlockTrigger], BlockState] = {
    (BlockState.PENDING, BlockTrigger.INPUTS_DONE): BlockState.READY,
    (BlockState.PENDING, BlockTrigger.UPSTREAM_GIVEN_UP): BlockState.ORPHANED,
    (BlockState.READY, BlockTrigger.GRANTED): BlockState.RUNNING,
    (BlockState.READY, BlockTrigger.FOUND_DONE): BlockState.SKIPPED,
    (BlockState.READY, BlockTrigger.GIVEN_UP): BlockState.FAILED,
    (BlockState.PENDING, BlockTrigger.CLAIMED): BlockState.RUNNING,
    (BlockState.READY, BlockTrigger.CLAIMED): BlockState.RUNNING,
    (BlockState.RUNNING, BlockTrigger.FINISHED): BlockState.DONE,
    (BlockState.RUNNING, BlockTrigger.GIVEN_BACK): BlockState.READY,
    (BlockState.RUNNING, BlockTrigger.GIVEN_UP): BlockState.FAILED,
}

IMPOSSIBLE = 255
"""Entry of the table below where there is no transition."""


def _table() -> States:
    table = np.full((len(BlockTrigger), len(BlockState)), IMPOSSIBLE, dtype=np.uint8)
    for (before, trigger), after in BLOCK_TRANSITIONS.items():
        table[trigger, before] = after
    table.flags.writeable = False
    return table


NEXT_STATE: States = _table()
"""``NEXT_STATE[trigger, state]``: the table above for whole batches."""

SATISFIED = (BlockState.DONE, BlockState.SKIPPED)
"""States in which a block counts as done for blocks that wait for it."""

ENDED = (BlockState.DONE, BlockState.FAILED, BlockState.ORPHANED, BlockState.SKIPPED)
"""States that a block never leaves."""


_STORY_BYTES = 1_000_000
"""Bytes per task for the latest changes, which messages about impossible transitions show."""

_SLAB = 2**20
"""Blocks per step where all blocks of a grid are looked at."""

_FEW = 4096
"""Up to this grid size fan-ins are kept in a table instead of computed at each use."""

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
        """Of all blocks, where they are few; None until first needed."""
        self._restored = False
        self._story: deque[tuple[float, BlockTrigger, Indices]] = deque()
        self._story_bytes = 0

    def move(self, indices: Indices, trigger: BlockTrigger, now: float) -> None:
        """Change the state of blocks; all of them or none.

        Raises:
            InvalidTransition: One of them cannot change for this trigger.
        """
        before = self.states[indices]
        after = NEXT_STATE[trigger][before]
        if (after == IMPOSSIBLE).any():
            wrong = int(indices[np.argmax(after == IMPOSSIBLE)])
            raise InvalidTransition(self._impossible(wrong, trigger))
        self.states[indices] = after
        self.counts -= np.bincount(before, minlength=len(BlockState))
        self.counts += np.bincount(after, minlength=len(BlockState))
        self._remember(now, trigger, indices)

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
            self.move(ready, BlockTrigger.INPUTS_DONE, now)
        return ready

    def restore(self, states: States) -> None:
        """Start from the states that earlier drivers of this run have recorded."""
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
        """Count one finished input for every entry of `targets`; :meth:`complete` makes blocks ready."""
        np.add.at(self._inputs_done, targets, self._inputs_done.dtype.type(1))

    def complete(self) -> Iterator[Indices]:
        """Make ready what :meth:`count_inputs` has completed; the blocks, sorted, in pieces."""
        for begin in range(0, len(self._inputs_done), _SLAB):
            blocks = np.flatnonzero(self._inputs_done[begin : begin + _SLAB]) + begin
            blocks = blocks[self.states[blocks] == BlockState.PENDING]
            ready = blocks[self._inputs_done[blocks] == self._fan_in(blocks)]
            if len(ready):
                self.move(ready, BlockTrigger.INPUTS_DONE, 0.0)
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
        """Return the changes of a block's state, oldest first, as far as they are remembered."""
        return [
            f"{now:.3f} {trigger.name.lower().replace('_', ' ')}"
            for now, trigger, indices in self._story
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

    def _remember(self, now: float, trigger: BlockTrigger, indices: Indices) -> None:
        self._story.append((now, trigger, indices.copy()))  # a view would keep all of a lease
        self._story_bytes += _ENTRY_BYTES + indices.nbytes
        while self._story_bytes > _STORY_BYTES:
            self._story_bytes -= _ENTRY_BYTES + self._story.popleft()[2].nbytes

    def _impossible(self, index: int, trigger: BlockTrigger) -> str:
        state = BlockState(int(self.states[index])).name.lower()
        story = "; ".join(self.story(index)) or "nothing"
        return (
            f"block {index} of task {self.plan.task_id!r} is {state}, "
            f"which {trigger.name.lower().replace('_', ' ')} cannot follow; what happened to it: {story}"
        )


def _increasing(indices: Indices) -> bool:
    """Whether indices are sorted without repetition, as those that wait for a single block are; sorting costs more."""
    return bool((indices[1:] > indices[:-1]).all())
