"""Records: what must be durable before anybody hears of what follows from it?

The scheduler makes them where blocks end and workers come and go; a driver that keeps a ledger takes them from
:meth:`Scheduler.take_records <blockflow.state.scheduler.Scheduler.take_records>` and writes them before it sends
anything that was decided later. :mod:`blockflow.state.restoring` reads what they tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    from blockflow.plan.slices import Indices
    from blockflow.state.events import BlockFailure


class RecordDone(Struct, frozen=True, kw_only=True):
    """Blocks are done, for the attempts that held them."""

    task: int
    indices: Indices
    attempts: Indices
    """For each block, the attempt that did it."""
    seconds: float
    """Time that they took together."""
    stored: Indices | None = None
    """For each block, how many chunks it has stored, -1 if that is unknown; None if it is for all."""


class RecordSkipped(Struct, frozen=True, kw_only=True):
    """Blocks were found done by a pre-check or a mask; nobody has earned them."""

    task: int
    indices: Indices


class RecordFailure(Struct, frozen=True, kw_only=True):
    """User code failed on a block."""

    task: int
    attempt: int
    """0 if it never ran, because its pre-check failed."""
    failure: BlockFailure
    final: bool
    """It is not tried again."""
    spared: bool = False
    """Storage was to blame: the attempt has ended, and costs the block nothing."""


class RecordLoss(Struct, frozen=True, kw_only=True):
    """A worker ended while it ran this block, and certainly no other."""

    task: int
    index: int
    attempt: int


class RecordWorker(Struct, frozen=True, kw_only=True):
    """A worker has come: until it leaves, it may hold blocks."""

    worker: int
    task: int
    process: int | None
    host: str
    pid: int
    started: str = ""
    """When that process started; its number may be given to others."""


class RecordGone(Struct, frozen=True, kw_only=True):
    """A worker holds nothing any more, and will not come back with anything."""

    worker: int


Record: TypeAlias = RecordDone | RecordSkipped | RecordFailure | RecordLoss | RecordWorker | RecordGone
