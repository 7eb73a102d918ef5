"""How far have a run's jobs on clusters come? Waiting in a queue, running, and connected are three things.

A job that runs for long and has not connected shows that its node cannot reach the driver, or that starting is slow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from blockflow.escaping import escape_line

if TYPE_CHECKING:
    from collections.abc import Mapping

EVERY_SECONDS = 10.0
"""How often lines are printed at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workforce:
    """The workers of a task on clusters."""

    waiting: int
    """Jobs that have not begun."""
    running: int
    """Jobs that have, as far as the cluster says."""
    connected: int
    """Workers of the task that are connected, wherever they run."""
    reason: str = ""
    """Why jobs wait, in the cluster's words."""

    def __str__(self) -> str:
        """The numbers as text.

        >>> str(Workforce(waiting=8, running=4, connected=3, reason="PENDING (Resources)"))
        '3 workers connected; 4 jobs run, 8 wait: PENDING (Resources)'
        """
        why = f": {escape_line(self.reason)}" if self.waiting and self.reason else ""
        return f"{self.connected} workers connected; {self.running} jobs run, {self.waiting} wait{why}"


class JobTeller:
    """Tells people of jobs when something has changed, but not too often."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}
        self._next = float("-inf")

    def lines(self, workforces: Mapping[str, Workforce], now: float) -> list[str]:
        """What to print now.

        Args:
            workforces: By task that has jobs on clusters.
            now: The time, in seconds.
        """
        if now < self._next:
            return []
        news = {task: f"{task}: {workforce}" for task, workforce in workforces.items()}
        lines = [line for task, line in news.items() if self._told.get(task) != line]
        self._told.update(news)
        if lines:
            self._next = now + EVERY_SECONDS
        return lines
