"""How did simulated runs go?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A promise that was broken."""

    promise: str
    """Which one, in a word or two."""
    what: str
    """What happened."""
    story: tuple[str, ...] = ()
    """What happened to the blocks concerned before, oldest first."""

    def __str__(self) -> str:
        return "\n    ".join((f"{self.promise}: {self.what}", *self.story))


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One simulated run."""

    profile: str
    seed: int
    event_hash: str
    """Everything that happened, in order; the same for the same seed, profile and code."""
    events: int
    """Things that happened."""
    seconds: float
    """Virtual time that the run took."""
    blocks: int
    executions: int
    """Times that a block was begun."""
    outcome: str
    """"finished", "stopped" or "gave up": no process of a task could be started."""
    faults: Counter[str] = field(default_factory=Counter)
    """What went wrong, by kind."""
    violations: tuple[Violation, ...] = ()
    """Promises that were broken; a run ends with the first."""

    def __str__(self) -> str:
        head = (
            f"{self.profile} {self.seed}: {self.outcome} after {self.seconds:.1f} s, {self.executions} executions of "
            f"{self.blocks} blocks, {sum(self.faults.values())} faults, hash {self.event_hash[:12]}"
        )
        return "\n  ".join((head, *map(str, self.violations)))


def summary(reports: Iterable[Report]) -> str:
    """Many runs on a few lines.

    >>> print(summary([]))
    0 schedules, 0 violations, 0 faults in 0.0 virtual hours; 0 executions of 0 blocks
    """
    faults: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    schedules = violations = executions = blocks = 0
    hours = 0.0
    for report in reports:
        schedules += 1
        violations += len(report.violations)
        executions += report.executions
        blocks += report.blocks
        hours += report.seconds / 3600
        faults += report.faults
        outcomes[report.outcome] += 1
    lines = [
        f"{schedules} schedules, {violations} violations, {faults.total()} faults in {hours:.1f} virtual hours; "
        f"{executions} executions of {blocks} blocks"
    ]
    if outcomes:
        lines.append("  " + ", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes.items())))
    if faults:
        lines.append("  " + ", ".join(f"{number} {kind}" for kind, number in faults.most_common()))
    return "\n".join(lines)
