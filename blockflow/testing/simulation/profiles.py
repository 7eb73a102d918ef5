"""What goes wrong, and how often? Eight climates in which a run has to survive.

Each schedule of a profile switches every kind of fault off or on by chance (a swarm): a schedule with a bit of
everything rarely gets into the corners where two faults of one kind meet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

WEATHER = (
    "cut",
    "blackhole",
    "one way",
    "slow",
    "crash",
    "pause",
    "preempt",
    "stall",
    "bad worker",
    "driver crash",
    "stale driver",
    "disk full",
    "disk error",
)
"""Kinds of faults that strike at some time: a connection that breaks with data in flight, one that carries nothing
for a while, one that carries nothing in one direction, one that is slow; a worker process that dies, that stands still
and goes on as if nothing had happened, that has to end soon, that fails whatever it runs; a driver that stands still,
that dies, that a second one takes the place of; a disk that takes nothing, or fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A climate.

    >>> PROFILES["tiny lease"].leases
    (2.0, 5.0)
    """

    name: str
    weather: Mapping[str, float] = field(default_factory=dict)
    """How often each kind of fault strikes, compared with the others; what is missing never does."""
    faults: float = 6.0
    """Faults that strike while the work would take place if nothing went wrong, on average."""
    leases: tuple[float, ...] = (60.0,)
    """Seconds of a lease; each schedule picks one."""
    delays: tuple[float, ...] = (0.0005, 0.02)
    """Seconds a message takes on average; each schedule picks one."""
    pauses: tuple[float, ...] = (1.0, 15.0, 60.0, 180.0)
    """Seconds that a process stands still."""
    tasks: tuple[int, int] = (1, 3)
    """Fewest and most tasks."""
    blocks: int = 30
    """Blocks of all tasks together, about; a schedule has from a tenth of that to two thirds."""
    trouble: float = 0.3
    """Share of schedules with blocks that fail, kill or hang, and with checks that refuse."""
    step_crash: float = 0.0
    """Probability that a worker process dies at any one step: a message that comes or leaves, a block that begins or
    ends."""
    stops: float = 0.05
    """Share of schedules in which people stop the run."""
    resizes: float = 0.1
    """Share of schedules in which people change the number of workers of some tasks."""
    restart_seconds: tuple[float, float] = (0.05, 20.0)
    """Least and greatest time in which a dead driver is started again."""


def _frozen(weather: dict[str, float]) -> Mapping[str, float]:
    return MappingProxyType(weather)


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile(name="calm", trouble=0.5, faults=0.5, weather=_frozen({"slow": 1.0, "bad worker": 0.3}), blocks=36),
            Profile(
                name="lossy",
                weather=_frozen(
                    {"cut": 4.0, "blackhole": 2.0, "one way": 2.0, "slow": 2.0, "crash": 0.5, "driver crash": 0.5}
                ),
                faults=10.0,
                delays=(0.0005, 0.02, 1.0),
            ),
            Profile(
                name="pause-heavy",
                weather=_frozen({"pause": 5.0, "stall": 1.0, "cut": 1.0, "crash": 0.3, "driver crash": 0.5}),
                faults=10.0,
                leases=(10.0, 60.0),
            ),
            Profile(
                name="fast-restart",
                weather=_frozen({"crash": 3.0, "driver crash": 6.0, "cut": 2.0, "stale driver": 1.0, "pause": 1.0}),
                faults=9.0,
                delays=(0.0005, 0.02, 0.5),
                step_crash=0.002,
                restart_seconds=(0.01, 1.0),
            ),
            Profile(
                name="preempt storm",
                weather=_frozen({"preempt": 6.0, "crash": 2.0, "cut": 0.5, "bad worker": 0.5}),
                faults=14.0,
                step_crash=0.005,
            ),
            Profile(
                name="disk trouble",
                weather=_frozen(
                    {"stall": 2.0, "disk full": 3.0, "disk error": 1.0, "driver crash": 4.0, "crash": 1.0, "cut": 0.5}
                ),
                faults=8.0,
            ),
            Profile(
                name="tiny lease",
                weather=_frozen(
                    {"slow": 2.0, "pause": 3.0, "blackhole": 2.0, "one way": 2.0, "stall": 1.0, "driver crash": 0.5}
                ),
                faults=10.0,
                leases=(2.0, 5.0),
                delays=(0.0005, 0.05, 0.3),
                pauses=(0.1, 1.0, 2.0, 5.0, 15.0),
            ),
            Profile(
                name="many small tasks",
                weather=_frozen({"crash": 2.0, "cut": 1.0, "pause": 1.0, "preempt": 1.0, "driver crash": 1.0}),
                faults=5.0,
                tasks=(4, 7),
                trouble=0.5,
                stops=0.1,
            ),
        )
    }
)
"""All profiles by name."""
