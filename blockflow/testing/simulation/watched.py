"""What does the scheduler decide? The product's own, looked at over its shoulder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockflow.scheduler.leases import LARGEST_LEASE
from blockflow.scheduler.scheduler import Scheduler

if TYPE_CHECKING:
    from blockflow.ledger.run_ledger import RunLedger
    from blockflow.plan.plan import Plan
    from blockflow.scheduler import events as ev
    from blockflow.testing.simulation.facts import Grant
    from blockflow.testing.simulation.judge import Judge


class WatchedScheduler(Scheduler):
    """A scheduler whose every decision the judge sees.

    Args:
        plan: What is run.
        judge: Sees it.
        lease_seconds: How long a silent worker keeps its blocks.
        ledger: Where everything is recorded, if it is.
    """

    def __init__(self, plan: Plan, judge: Judge, lease_seconds: float, ledger: RunLedger | None) -> None:
        super().__init__(
            plan,
            largest_lease=LARGEST_LEASE,
            lease_seconds=lease_seconds,
            epoch=0 if ledger is None else ledger.epoch,
            recording=ledger is not None,
        )
        self._judge = judge
        self.ghosts: dict[int, Grant] = {}
        """By lease that was granted and not sent yet."""
        self.owner = True
        """No other driver has taken over."""

    def handle(self, event: ev.Event, now: float) -> list[ev.Instruction]:
        """Handle an event, and let the judge see it."""
        instructions = super().handle(event, now)
        ghosts = self._judge.saw(self, event, instructions) if self.owner else self._judge.overheard(instructions)
        for ghost in ghosts:
            self.ghosts[ghost.lease] = ghost
        return instructions
