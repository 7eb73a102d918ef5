"""Ending: is it time for a worker to stop, and what becomes of the block under way?

A worker ends early because it was told to by a signal (a preempted job, ``scancel``, an operator), or because its job
is about to reach its time limit. It then takes nothing more, gives back what it has not started, and

1. finishes the block under way if there is time: before a time limit that is known, judged by how long its blocks have
   taken; after a signal until a second one comes, or until the batch system's grace, if that is known, is over;
2. else gives it back unharmed by ending in the middle of it. Nobody is to blame for that.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING

from blockflow.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Mapping

MARGIN = 5.0
"""Seconds before the time limit at which a block under way is given back: the driver has to hear of it."""

ECHO_SECONDS = 0.5
"""A signal that comes again so soon is the same one, sent to the process and to its group."""

REMEMBERED = 20
"""Blocks by which the length of the next one is judged: it is taken to be the longest of them."""


class Advice(Enum):
    """What a worker should do."""

    GO_ON = "go on"
    FINISH = "take nothing more"
    ABANDON = "end at once"


class Ending:
    """Whether a worker should end.

    Args:
        limit: When its job will be ended, on the clock of all other times here; None if unknown.
    """

    def __init__(self, limit: float | None = None) -> None:
        self._limit = None if limit is None else limit - MARGIN
        self._signals = 0
        self._last_signal = float("-inf")
        self._blocks: deque[float] = deque(maxlen=REMEMBERED)

    def signalled(self, now: float, grace: float | None = None) -> None:
        """The process was told to end.

        Args:
            now: The time.
            grace: Seconds that it has from now on, if whoever started it knows; the first time counts.
        """
        if now - self._last_signal >= ECHO_SECONDS:
            self._signals += 1
        self._last_signal = now
        if self._signals == 1 and grace is not None:
            self._limit = now + grace if self._limit is None else min(self._limit, now + grace)

    def measured(self, seconds: float) -> None:
        """A block took a time."""
        self._blocks.append(seconds)

    def advice(self, now: float, began: float | None, *, dismissed: bool) -> Advice:
        """What to do now.

        Args:
            now: The time.
            began: When the oldest block under way began; None if there is none.
            dismissed: The driver wants nothing more from this worker, so a signal is meant to end it at once.
        """
        if self._signals > 1 or (self._signals and dismissed):
            return Advice.ABANDON
        if self._limit is None:
            return Advice.FINISH if self._signals else Advice.GO_ON
        usual = max(self._blocks, default=0.0)
        free_at = now if began is None else max(now, began + usual)
        if began is not None and (now >= self._limit or (self._signals and free_at > self._limit)):
            return Advice.ABANDON
        return Advice.FINISH if self._signals or free_at + usual >= self._limit else Advice.GO_ON


def time_limit(environment: Mapping[str, str]) -> float | None:
    """When the job of a process will be ended, in seconds since 1970; None if unknown.

    ``BLOCKFLOW_END_TIME`` says so, or else ``SLURM_JOB_END_TIME``, which Slurm sets in every job.

    Raises:
        PlanError: ``BLOCKFLOW_END_TIME`` is no such time.

    >>> time_limit({"SLURM_JOB_END_TIME": "1767225600"})
    1767225600.0
    """
    ours = environment.get("BLOCKFLOW_END_TIME")
    if ours is not None:
        limit = _seconds(ours)
        if limit is None:
            raise PlanError(f"BLOCKFLOW_END_TIME must be seconds since 1970, as `date +%s` prints them, got {ours!r}")
        return limit
    return _seconds(environment.get("SLURM_JOB_END_TIME", ""))


def _seconds(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdigit() and len(text) <= 12 else None
