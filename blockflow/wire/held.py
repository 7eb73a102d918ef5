"""What does a worker hold, and how far is it with it?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blockflow.wire.failures import FailureText
    from blockflow.wire.messages import Failure


@dataclass(slots=True, eq=False)
class HeldLease:
    """A lease as the worker sees it."""

    number: int
    attempt: int
    indices: list[int]
    timeout: float | None = None
    """Seconds that each block may take; None for what holds for all leases."""
    started: int = 0
    """Blocks handed to the user's code so far."""
    done: int = 0
    """Blocks, counted from the first, that the user's code is done with."""
    ended: dict[int, tuple[FailureText | None, float, int | None]] = field(default_factory=dict)
    """By position of a block that is done before an earlier one is: its failure, how long it took, and the number of
    chunks that it has stored."""
    reported: int = 0
    seconds: float = 0.0
    """Time that the unreported blocks took."""
    stored: list[int] = field(default_factory=list)
    """Of the unreported blocks: how many chunks each has stored, if they are counted."""
    failure: Failure | None = None
    """Of the unreported blocks; reported at once, so there is never a second one."""


@dataclass(slots=True, eq=False)
class Given:
    """A block to work on."""

    lease: HeldLease
    position: int
    """Place in the lease."""
    index: int
    attempt: int
