"""State machine of one worker as the scheduler sees it: states, triggers, transition table.

A worker is a connected client. It may stay at work after its connection is lost, so it is forgotten only when it can
certainly not write any more. A pair that is missing from the table is impossible: asking for it raises
:class:`~blockflow.errors.InvalidTransition` and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

from blockflow.errors import InvalidTransition

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blockflow.scheduler.events import BlockFailure


class WorkerState(IntEnum):
    """Life-cycle state of a worker."""

    ACTIVE = 0
    """Connected; may be given blocks."""
    DRAINING = 1
    """Connected; gets no more blocks, and finishes or returns what it holds."""
    ENDING = 2
    """Connected; has announced that its process ends in the middle of its blocks."""
    UNREACHABLE = 3
    """Not connected; holds its leases until they expire."""
    UNREACHABLE_ENDING = 4
    """Not connected since its connection broke after it had announced its end."""
    GONE = 5
    """Cannot write any more; the scheduler forgets it."""


class WorkerTrigger(IntEnum):
    """Cause of a change of a worker's state."""

    REJOINED = 0
    """It is back with a new connection."""
    DISMISSED = 1
    """It gets nothing more: the run stops, its task shrinks, or too many blocks failed on it."""
    ANNOUNCED_END = 2
    """It says that its process is about to end in the middle of its blocks."""
    DISCONNECTED = 3
    """Its connection is lost; its process may live."""
    LEFT = 4
    """It said goodbye, its process is known to be dead, or its leases have expired without a connection."""


WORKER_TRANSITIONS: Mapping[tuple[WorkerState, WorkerTrigger], WorkerState] = {
    (WorkerState.ACTIVE, WorkerTrigger.REJOINED): WorkerState.ACTIVE,
    (WorkerState.DRAINING, WorkerTrigger.REJOINED): WorkerState.ACTIVE,
    (WorkerState.ENDING, WorkerTrigger.REJOINED): WorkerState.ACTIVE,
    (WorkerState.UNREACHABLE, WorkerTrigger.REJOINED): WorkerState.ACTIVE,
    (WorkerState.UNREACHABLE_ENDING, WorkerTrigger.REJOINED): WorkerState.ACTIVE,
    (WorkerState.ACTIVE, WorkerTrigger.DISMISSED): WorkerState.DRAINING,
    (WorkerState.DRAINING, WorkerTrigger.DISMISSED): WorkerState.DRAINING,
    (WorkerState.ENDING, WorkerTrigger.DISMISSED): WorkerState.ENDING,
    (WorkerState.ACTIVE, WorkerTrigger.ANNOUNCED_END): WorkerState.ENDING,
    (WorkerState.DRAINING, WorkerTrigger.ANNOUNCED_END): WorkerState.ENDING,
    (WorkerState.ENDING, WorkerTrigger.ANNOUNCED_END): WorkerState.ENDING,
    (WorkerState.ACTIVE, WorkerTrigger.DISCONNECTED): WorkerState.UNREACHABLE,
    (WorkerState.DRAINING, WorkerTrigger.DISCONNECTED): WorkerState.UNREACHABLE,
    (WorkerState.ENDING, WorkerTrigger.DISCONNECTED): WorkerState.UNREACHABLE_ENDING,
    (WorkerState.UNREACHABLE, WorkerTrigger.DISCONNECTED): WorkerState.UNREACHABLE,
    (WorkerState.UNREACHABLE_ENDING, WorkerTrigger.DISCONNECTED): WorkerState.UNREACHABLE_ENDING,
    (WorkerState.ACTIVE, WorkerTrigger.LEFT): WorkerState.GONE,
    (WorkerState.DRAINING, WorkerTrigger.LEFT): WorkerState.GONE,
    (WorkerState.ENDING, WorkerTrigger.LEFT): WorkerState.GONE,
    (WorkerState.UNREACHABLE, WorkerTrigger.LEFT): WorkerState.GONE,
    (WorkerState.UNREACHABLE_ENDING, WorkerTrigger.LEFT): WorkerState.GONE,
}

CONNECTED = frozenset({WorkerState.ACTIVE, WorkerState.DRAINING, WorkerState.ENDING})
"""States in which a worker's messages are taken in."""

ENDS_MID_BLOCK = frozenset({WorkerState.ENDING, WorkerState.UNREACHABLE_ENDING})
"""States in which the end of the worker's process casts no suspicion on its blocks: it was announced."""


@dataclass(slots=True, kw_only=True)
class WorkerRecord:
    """All that the scheduler knows about one worker."""

    number: int
    task: int
    process: int | None
    """Number of the process that a launcher started for it; None for a worker from elsewhere."""
    host: str = ""
    """Host it runs on; empty if unknown."""
    state: WorkerState = WorkerState.ACTIVE
    failure: BlockFailure | None = None
    """Block that made it announce its end, and how; None if no block did."""
    failed_in_a_row: set[int] = field(default_factory=set)
    """Blocks that failed on it since its last success."""
    unclaimed: set[int] | None = None
    """Leases that it should hold and has not claimed since it joined; None once it has claimed all it will."""
    outdated: bool = False
    """Whether it has other code than this driver would send: it keeps what it holds, and gets nothing new."""
    fenced: bool = True
    """Whether no block that it may be writing was granted to another worker; false after a refused claim."""

    @property
    def is_connected(self) -> bool:
        """Whether it has a connection."""
        return self.state in CONNECTED

    def move(self, trigger: WorkerTrigger) -> None:
        """Change the state.

        Raises:
            InvalidTransition: The trigger cannot occur in this state.
        """
        after = WORKER_TRANSITIONS.get((self.state, trigger))
        if after is None:
            raise InvalidTransition(
                f"worker {self.number} is {self.state.name.lower()}, which "
                f"{trigger.name.lower().replace('_', ' ')} cannot follow"
            )
        self.state = after
