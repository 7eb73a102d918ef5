"""Vocabulary of the scheduler: events, instructions and records.

Events say what happened, in the past tense. Instructions say what to do, in the imperative. Records are what must be
durable before any instruction that follows from them leaves; a driver with a ledger takes them from
:meth:`Scheduler.take_records <blockflow.scheduler.scheduler.Scheduler.take_records>`. A *worker* is a connected client;
a *process* is a slot that a launcher fills: it may open no client, one, or several. All are msgspec structs, because
defining as many dataclasses takes ten milliseconds.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct

from blockflow.wire.storage_errors import FailureKind

if TYPE_CHECKING:
    from blockflow.plan.slices import Indices


class BlockFailure(Struct, frozen=True, kw_only=True):
    """One failed attempt at a block."""

    index: int
    """The block, in C order of its task's grid."""
    error: str
    """Type and message of the exception on one line."""
    traceback: str = ""
    """The worker's traceback; empty if there is none."""
    where: str = ""
    """The last line of user code in the traceback; with the type of the error it tells one cause from another."""
    kind: FailureKind = FailureKind.CODE
    """Cause: the block, or storage."""
    disk: str = ""
    """Storage that failed, if it did; empty if unknown."""


class CheckPhase(Enum):
    """Time of a check: before or after a block runs."""

    BEFORE = "pre-check"
    AFTER = "post-check"


# ----------------------------------------------------------------------------------------------------------- events


class WorkerJoined(Struct, frozen=True, kw_only=True):
    """A client has joined a task; or is back, and keeps what it held."""

    worker: int
    task: int
    process: int | None = None
    """The slot it runs in, if it was started by a launcher."""
    host: str = ""
    """Where it runs; empty if unknown."""
    pid: int = 0
    started: str = ""
    """When that process started, as its pid may be reused."""
    outdated: bool = False
    """Whether it has other code than this driver would send."""


class LeaseClaimed(Struct, frozen=True, kw_only=True):
    """A worker that is back claims a lease; it claims all before any other message."""

    worker: int
    lease: int
    attempt: int
    """Attempt number of the first block."""
    indices: Indices


class BlocksReported(Struct, frozen=True, kw_only=True):
    """A worker has finished the blocks of a lease up to a position."""

    worker: int
    lease: int
    upto: int
    """Number of finished blocks of the lease, counted from the first."""
    seconds: float
    """Seconds that the newly reported blocks took together."""
    failures: tuple[BlockFailure, ...] = ()
    stored: tuple[int, ...] = ()
    """Chunks that each newly reported block has stored, -1 if unknown; empty if they are not counted."""


class BlocksAsked(Struct, frozen=True, kw_only=True):
    """A worker waits for a lease."""

    worker: int


class AskWithdrawn(Struct, frozen=True, kw_only=True):
    """A worker no longer waits for a lease."""

    worker: int


class BlocksReturned(Struct, frozen=True, kw_only=True):
    """A worker gives back the blocks of a lease that it has not started."""

    worker: int
    lease: int
    kept: int
    """Blocks of the lease that it has started, counted from the first."""


class HeartbeatReceived(Struct, frozen=True, kw_only=True):
    """A worker is alive and renews its leases."""

    worker: int
    seen: bool = False
    """The driver sees that it lives; the worker has not said so."""


class WorkerLeft(Struct, frozen=True, kw_only=True):
    """A client is gone and can certainly not write any more."""

    worker: int
    crashed: bool
    """Its process died; if not, it said goodbye."""
    how: str = ""
    """How the process ended, in words; empty if unknown."""
    output: str = ""
    """Last lines that it printed, as far as they are known."""


class WorkerUnable(Struct, frozen=True, kw_only=True):
    """A client cannot begin; it leaves, and its process ends."""

    worker: int
    error: str
    """Type and message of the exception on one line."""
    traceback: str = ""
    where: str = ""


class WorkerEnding(Struct, frozen=True, kw_only=True):
    """A client's process is about to end in the middle of its blocks.

    The blocks are free when its connection has ended.
    """

    worker: int
    failure: BlockFailure | None = None
    """Block that is the reason, and its failure; None if no block is."""


class ConnectionLost(Struct, frozen=True, kw_only=True):
    """A client has lost its connection, and may be at work until its leases expire."""

    worker: int
    broken: bool = False
    """The connection broke: the process at its other end did not close it, nor the system when it ended."""


class ProcessEnded(Struct, frozen=True, kw_only=True):
    """A process that the launcher started has ended."""

    process: int
    task: int
    clean: bool
    """It ended by itself and without an error."""
    how: str = ""
    """How it ended, in words."""
    output: str = ""
    """Last lines that it printed, as far as they are known."""
    lost: bool = False
    """Its machine was lost; the process itself did not fail."""


class WorkersWanted(Struct, frozen=True, kw_only=True):
    """A user wants another number of processes for a task."""

    task: int
    workers: int


class BlocksChecked(Struct, frozen=True, kw_only=True):
    """A check function has looked at blocks."""

    task: int
    phase: CheckPhase
    passed: Indices
    """Pre-check: done already. Post-check: good."""
    refused: Indices
    """Pre-check: still to be done. Post-check: not good."""
    failures: tuple[BlockFailure, ...]
    """Blocks for which the function raised."""
    seconds: float


class Ticked(Struct, frozen=True, kw_only=True):
    """Time has passed."""


class StopAsked(Struct, frozen=True, kw_only=True):
    """Nothing more may be granted; workers finish or return what they hold."""


Event: TypeAlias = (
    WorkerJoined
    | LeaseClaimed
    | BlocksReported
    | BlocksAsked
    | AskWithdrawn
    | BlocksReturned
    | HeartbeatReceived
    | WorkerLeft
    | WorkerUnable
    | WorkerEnding
    | ConnectionLost
    | ProcessEnded
    | WorkersWanted
    | BlocksChecked
    | Ticked
    | StopAsked
)

# ----------------------------------------------------------------------------------------------------- instructions


class GrantLease(Struct, frozen=True, kw_only=True):
    """Give blocks to a worker."""

    worker: int
    task: int
    lease: int
    attempt: int
    """Attempt number of the first block; the others follow it."""
    indices: Indices
    timeout: float | None = None
    """Seconds that each block may take; None for what was said before, which may be no limit."""


class AcknowledgeReport(Struct, frozen=True, kw_only=True):
    """Tell a worker that a report was counted, or that its lease is not its own any more."""

    worker: int
    lease: int
    stale: bool


class RecallLease(Struct, frozen=True, kw_only=True):
    """Ask a worker for the blocks of a lease that it has not started."""

    worker: int
    lease: int


class DismissWorker(Struct, frozen=True, kw_only=True):
    """Tell a worker that it gets nothing more; it may finish or return what it holds."""

    worker: int


class CutOff(Struct, frozen=True, kw_only=True):
    """Close the connection of a worker whose leases have expired, so that no late answer renews them.

    If it lives, it comes back and claims what it holds.
    """

    worker: int


class StartProcess(Struct, frozen=True, kw_only=True):
    """Start a process for a task."""

    task: int
    process: int
    delay: float
    """Seconds to wait before."""


class RunChecks(Struct, frozen=True, kw_only=True):
    """Call a check function on blocks."""

    task: int
    phase: CheckPhase
    indices: Indices


class TellFailure(Struct, frozen=True, kw_only=True):
    """Report a failed attempt to the user."""

    task: int
    failure: BlockFailure
    final: bool
    """The block will not be tried again."""


class TellPause(Struct, frozen=True, kw_only=True):
    """Report to the user that a task waits for its storage on a host, or goes on."""

    task: int
    host: str
    """Empty for the driver's, where checks are called."""
    disk: str
    """Empty if unknown."""
    error: str = ""
    """Error of the storage; empty if the pause is over."""
    full: bool = False
    """Whether there is no space left."""
    seconds: float = 0.0
    """Length of a pause that is over."""


class TellRemark(Struct, frozen=True, kw_only=True):
    """Report to the user something that is not the failure of a block."""

    task: int
    text: str
    """One line."""


Instruction: TypeAlias = (
    GrantLease
    | AcknowledgeReport
    | RecallLease
    | DismissWorker
    | CutOff
    | StartProcess
    | RunChecks
    | TellFailure
    | TellPause
    | TellRemark
)

# ---------------------------------------------------------------------------------------------------------- records


class RecordDone(Struct, frozen=True, kw_only=True):
    """Blocks are done, for the attempts that held them."""

    task: int
    indices: Indices
    attempts: Indices
    """For each block, the attempt that did it."""
    seconds: float
    """Time that they took together."""
    stored: Indices | None = None
    """Chunks that each block has stored, -1 if unknown; None if unknown for all."""


class RecordSkipped(Struct, frozen=True, kw_only=True):
    """Blocks were found done by a pre-check or a mask; no worker computed them."""

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
    """Storage was the cause: the attempt has ended, and costs the block nothing."""


class RecordLoss(Struct, frozen=True, kw_only=True):
    """A worker ended while it ran this block and certainly no other."""

    task: int
    index: int
    attempt: int


class RecordWorker(Struct, frozen=True, kw_only=True):
    """A worker has joined; it may hold blocks until it is gone."""

    worker: int
    task: int
    process: int | None
    host: str
    pid: int
    started: str = ""
    """When that process started, as its pid may be reused."""


class RecordGone(Struct, frozen=True, kw_only=True):
    """A worker holds nothing any more and cannot come back with anything."""

    worker: int


Record: TypeAlias = RecordDone | RecordSkipped | RecordFailure | RecordLoss | RecordWorker | RecordGone
