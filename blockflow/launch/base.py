"""What does a run ask of those who start its workers, whatever they are?

A fleet is the living counterpart of launchers of one kind: it starts one worker for each order, says which have
ended, and owns what it has started until it is gone. Its methods return at once (but `stop`): what takes time is done
by a thread of its own.
"""

from __future__ import annotations

import contextlib
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blockflow.plan.launcher import Launcher


def words_of_exit(code: int) -> str:
    """Return how a process has ended, in words.

    >>> words_of_exit(3), words_of_exit(-9)
    ('ended with code 3', 'was killed by SIGKILL')

    Args:
        code: Its exit code; the negative number of the signal that killed it.
    """
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
    return f"ended with code {code}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One worker to be started."""

    process: int
    """Its number in the run."""
    task: str
    """Id of the task that it works for."""
    launcher: Launcher
    """What to ask for."""
    payload: dict[str, Any]
    """What it is told; see :mod:`blockflow.launch.payload`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnd:
    """A worker's job or process that has ended."""

    process: int
    code: int
    """0 if it ended by itself and without an error."""
    how: str
    """How it ended, in words."""
    certain: bool = True
    """Nothing of it can run any more; not so if its node does not answer."""
    lost: bool = False
    """Its machine is to blame, not what it was to run."""
    printed: str = ""
    """File in which is what it printed before it took over, or what its job did; empty if there is none."""
    output: str = ""
    """The last lines that it printed, if they are known without a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far the workers of a task have come that were asked for and have not ended."""

    waiting: int
    """Not begun: not submitted yet, or in the queue."""
    running: int
    """Begun, as far as the cluster says; whether they have connected is seen elsewhere."""
    reason: str = ""
    """Why the oldest of those that wait does so, in the cluster's words."""


class Fleet(Protocol):
    """Starts, watches and ends workers."""

    def __len__(self) -> int:
        """Workers that were ordered and have not ended."""

    def start(self, order: Order) -> None:
        """Start a worker, soon."""

    def ended(self) -> list[JobEnd]:
        """The workers that have ended since the last call.

        Raises:
            RunError: None can be started; the message says why.
        """

    def look(self) -> None:
        """Look soon how far the workers have come."""

    def standing(self) -> dict[str, Standing]:
        """By task: how far its workers have come."""

    def release(self, processes: Sequence[int], most: int) -> int:
        """Call off workers that have not begun; they are reported as ended.

        Args:
            processes: Which ones, in this order.
            most: How many at most; those that were called off before count.

        Returns:
            How many of them are called off.
        """

    def dismiss(self) -> None:
        """There is no more work: call off what has not begun, and look often for the end of the rest."""

    def stop(self, *, grace: float) -> None:
        """End all workers, and return when they are gone, or cannot be ended; may be called more than once.

        Args:
            grace: Seconds between asking and killing.
        """

    def kill(self) -> None:
        """End all workers at once, and wait for no disk; for when :meth:`stop` hangs."""
