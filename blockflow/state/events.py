"""What happens to the scheduler, and what it wants done.

Events are in the past tense, instructions in the imperative. A *worker* is a connected client; a *process* is a slot
that the launcher fills: a function in it may open no client, one, or several. These are msgspec structs because
twenty dataclasses would take ten milliseconds to define.
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
    """Whether the block is to blame, or storage."""
    disk: str = ""
    """What storage failed on, if it did; empty if unknown."""


class Phase(Enum):
    """When a check function is called."""

    BEFORE = "pre-check"
    AFTER = "post-check"


# ----------------------------------------------------------------------------------------------------------- events


class WorkerJoined(Struct, frozen=True, kw_only=True):
    """A client has connected and is known to belong to a task; or is back, and keeps what it held."""

    worker: int
    task: int
    process: int | None = None
    """The slot it runs in, if it was started by a launcher."""
    host: str = ""
    """Where it runs; empty if unknown."""
    pid: int = 0
    started: str = ""
    """When that process started; its number may be given to others."""
    outdated: bool = False
    """It has other code than this driver would send."""


class LeaseClaimed(Struct, frozen=True, kw_only=True):
    """A worker that is back says what it holds; it claims everything before it says anything else."""

    worker: int
    lease: int
    attempt: int
    """Attempt number of the first block."""
    indices: Indices


class BlocksReported(Struct, frozen=True, kw_only=True):
    """A worker is done with the blocks of a lease up to a position."""

    worker: int
    lease: int
    upto: int
    """Blocks of the lease that it is done with, counted from the first."""
    seconds: float
    """Time that the newly reported blocks took together."""
    failures: tuple[BlockFailure, ...] = ()
    stored: tuple[int, ...] = ()
    """How many chunks each newly reported block has stored, -1 if that is unknown; empty if nobody counts."""


class BlocksAsked(Struct, frozen=True, kw_only=True):
    """A worker wants a lease."""

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
    """How the process ended, in words; empty if that is not known."""
    output: str = ""
    """The last lines that it printed, as far as they are known."""


class WorkerUnable(Struct, frozen=True, kw_only=True):
    """A client cannot begin; it will leave, and its process end."""

    worker: int
    error: str
    """Type and message of the exception on one line."""
    traceback: str = ""
    where: str = ""


class WorkerEnding(Struct, frozen=True, kw_only=True):
    """A client's process is about to end in the middle of its blocks, which are free when its connection has ended."""

    worker: int
    failure: BlockFailure | None = None
    """Which of its blocks is to blame, and how; None if nobody is."""


class ConnectionLost(Struct, frozen=True, kw_only=True):
    """A client is not connected any more, but may still be at work until its leases end."""

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
    """The last lines that it printed, as far as they are known."""
    lost: bool = False
    """Its machine is to blame, not what it was to run."""


class WorkersWanted(Struct, frozen=True, kw_only=True):
    """Somebody wants another number of processes for a task."""

    task: int
    workers: int


class BlocksChecked(Struct, frozen=True, kw_only=True):
    """A check function has looked at blocks."""

    task: int
    phase: Phase
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
    """Tell a worker that there is nothing more for it; what it holds it may finish or return."""

    worker: int


class CutOff(Struct, frozen=True, kw_only=True):
    """Close the connection of a worker: what it held was taken back, and nothing that it hears may renew it.

    If it lives, it comes back and says what it holds.
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
    phase: Phase
    indices: Indices


class TellFailure(Struct, frozen=True, kw_only=True):
    """Let people know that an attempt failed."""

    task: int
    failure: BlockFailure
    final: bool
    """The block will not be tried again."""


class TellPause(Struct, frozen=True, kw_only=True):
    """Let people know that a task waits for its storage on a host, or goes on."""

    task: int
    host: str
    """Empty for the driver's, where checks are called."""
    disk: str
    """Empty if unknown."""
    error: str = ""
    """What storage said; empty if it is over."""
    full: bool = False
    """There is no space left."""
    seconds: float = 0.0
    """How long it lasted, if it is over."""


class TellRemark(Struct, frozen=True, kw_only=True):
    """Let people know of something that is not the failure of a block."""

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
