"""Does a run survive everything? A whole cluster in memory, on a virtual clock, in which everything goes wrong.

The scheduler, the conversation with workers and the framing of messages are the product's own; only clocks, sockets,
disks and processes are replaced. One seed decides everything that happens, so that whatever goes wrong can be looked at
again:

>>> from blockflow.testing.simulation import simulate
>>> report = simulate(7, "lossy")
>>> report.violations
()
>>> simulate(7, "lossy").event_hash == report.event_hash
True

``python -m blockflow.testing.simulation --profile lossy --schedules 1000`` runs many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockflow.testing.simulation.cluster import Cluster
from blockflow.testing.simulation.judge import BrokenPromise
from blockflow.testing.simulation.profiles import PROFILES, Profile
from blockflow.testing.simulation.report import Report, Violation, summary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blockflow.plan.plan import Plan

__all__ = ["PROFILES", "Profile", "Report", "Violation", "schedules", "simulate", "summary"]


def simulate(seed: int, profile: str | Profile = "calm", plan: Plan | None = None) -> Report:
    """Run a plan in a simulated cluster, and watch whether every promise is kept.

    >>> simulate(0, "calm").outcome
    'finished'

    Args:
        seed: Decides everything that happens.
        profile: What goes wrong, and how often: one of :data:`PROFILES`, or its name.
        plan: What is run; a small random one if not given. Its functions are not called.

    Raises:
        KeyError: No profile has that name.
    """
    climate = PROFILES[profile] if isinstance(profile, str) else profile
    cluster = Cluster(seed, climate, plan)
    violations: tuple[Violation, ...] = ()
    try:
        outcome = cluster.live()
    except BrokenPromise as broken:
        outcome = "broken"
        story = tuple(cluster.judge.story(broken.keys))
        violations = (Violation(promise=broken.promise, what=broken.what, story=story),)
    except Exception as error:  # whatever the product raises here, it would have raised in a run
        outcome = "broken"
        story = tuple(cluster.judge.story((), last=20))
        violations = (Violation(promise="error", what=f"{type(error).__name__}: {error}", story=story),)
    return Report(
        profile=climate.name,
        seed=seed,
        event_hash=cluster.judge.event_hash,
        events=cluster.judge.events,
        seconds=cluster.agenda.now,
        blocks=len(cluster.scenario.natures),
        executions=cluster.judge.executions,
        outcome=outcome,
        faults=cluster.faults,
        violations=violations,
    )


def schedules(number: int, profile: str | Profile = "calm", *, seed: int = 0) -> Iterator[Report]:
    """Simulate with one seed after the other.

    >>> [report.outcome for report in schedules(2, "calm")]
    ['finished', 'finished']

    Args:
        number: How many.
        profile: What goes wrong, and how often.
        seed: The first seed.
    """
    return (simulate(seed + step, profile) for step in range(number))
