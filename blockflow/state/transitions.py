"""The life of a block: which states are there, and what leads from one to another?

Everything that affects transitions lives in this file. A pair that is missing from the table is impossible: asking
for it raises :class:`InvalidTransition` and changes nothing.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

States: TypeAlias = npt.NDArray[np.uint8]
"""One :class:`BlockState` per block, as bytes."""


class BlockState(IntEnum):
    """Where a block stands. Zero is the state of a block that nothing has touched."""

    PENDING = 0
    """Waits for blocks upstream, or is a root that nobody has asked for."""
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
    """Found done before it ran; counts as done for whoever waits for it."""


class Cause(IntEnum):
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


TRANSITIONS: dict[tuple[BlockState, Cause], BlockState] = {
    (BlockState.PENDING, Cause.INPUTS_DONE): BlockState.READY,
    (BlockState.PENDING, Cause.UPSTREAM_GIVEN_UP): BlockState.ORPHANED,
    (BlockState.READY, Cause.GRANTED): BlockState.RUNNING,
    (BlockState.READY, Cause.FOUND_DONE): BlockState.SKIPPED,
    (BlockState.READY, Cause.GIVEN_UP): BlockState.FAILED,
    (BlockState.PENDING, Cause.CLAIMED): BlockState.RUNNING,
    (BlockState.READY, Cause.CLAIMED): BlockState.RUNNING,
    (BlockState.RUNNING, Cause.FINISHED): BlockState.DONE,
    (BlockState.RUNNING, Cause.GIVEN_BACK): BlockState.READY,
    (BlockState.RUNNING, Cause.GIVEN_UP): BlockState.FAILED,
}

IMPOSSIBLE = 255
"""What the table below holds where there is no transition."""


def _table() -> States:
    table = np.full((len(Cause), len(BlockState)), IMPOSSIBLE, dtype=np.uint8)
    for (before, cause), after in TRANSITIONS.items():
        table[cause, before] = after
    table.flags.writeable = False
    return table


NEXT_STATE: States = _table()
"""``NEXT_STATE[cause, state]``: the table above for whole batches."""

SATISFIED = (BlockState.DONE, BlockState.SKIPPED)
"""States in which a block counts as done for whoever waits for it."""

ENDED = (BlockState.DONE, BlockState.FAILED, BlockState.ORPHANED, BlockState.SKIPPED)
"""States that a block never leaves."""
