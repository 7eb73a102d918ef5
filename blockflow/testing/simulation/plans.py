"""What is there to do in a simulated run, and what do its blocks do? Small random plans, and the nature of each block.

Nobody's code is called: a block takes some virtual time, and then succeeds, fails, kills its process or hangs. That is
part of the plan, not of the weather: it happens whatever the cluster does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blockflow.geometry import Roi
from blockflow.plan.plan import Plan, compile_plan
from blockflow.plan.task import Task

if TYPE_CHECKING:
    from random import Random

    from blockflow.plan.block import Block
    from blockflow.testing.simulation.profiles import Profile

Key = tuple[int, int]
"""Task number and index of a block."""

EVER = 10**9

_PACES = ("many", "few", "one", "leases", "uneven")
"""How long blocks take: so short that a lease has many or a few of them, or one; about as long as a lease lasts; or
each as it likes, so that a lease may have short ones and long ones."""


_FEW_TASKS = 3
"""Where there are more tasks, each has few workers."""


@dataclass(slots=True)
class Nature:
    """What a block does."""

    seconds: float
    fails: int = 0
    """Times that it fails before it succeeds."""
    kills: int = 0
    """Times that it kills its process before it succeeds."""
    hangs: int = 0
    """Times that it never ends before it succeeds."""
    done_before: bool = False
    """Its pre-check finds it done."""
    check_raises: int = 0
    """Times that its pre-check raises an error."""
    refused: int = 0
    """Times that its post-check refuses what it did."""
    begun: int = 0
    """Times that it was begun."""


@dataclass(slots=True)
class Scenario:
    """A plan, and the nature of its blocks."""

    plan: Plan
    natures: dict[Key, Nature] = field(default_factory=dict)
    check_seconds: float = 0.001
    """How long a check of one block takes."""

    @property
    def work(self) -> float:
        """Seconds that all blocks take together if every one of them runs once."""
        return sum(nature.seconds for nature in self.natures.values())


class Checks:
    """The check functions of one task, as its blocks want them to answer."""

    def __init__(self) -> None:
        self.natures: dict[int, Nature] = {}
        """By Cantor number of the block."""

    def pre(self, block: Block) -> bool:
        """Whether the block is done already."""
        nature = self.natures[block.block_id[1]]
        if nature.check_raises:
            nature.check_raises -= 1
            raise OSError("the simulated pre-check cannot look")
        return nature.done_before

    def post(self, block: Block) -> bool:
        """Whether what the block did is good."""
        nature = self.natures[block.block_id[1]]
        if nature.refused:
            nature.refused -= 1
            return False
        return True


def make_scenario(random: Random, profile: Profile, lease: float, plan: Plan | None = None) -> Scenario:
    """A random plan for a profile, or the given one, with a nature for each of its blocks."""
    troubled = random.random() < profile.trouble
    checks: list[Checks | None] = []
    if plan is None:
        plan, checks = _make_plan(random, profile, lease, troubled=troubled)
    scenario = Scenario(plan, check_seconds=random.choice((0.0001, 0.001, 0.001, 2.0)))
    for task in plan.tasks:
        pace = random.choice(_PACES)
        check = checks[task.number] if checks else None
        for index in range(task.grid.size):
            nature = Nature(_seconds(random, pace, lease))
            if troubled:
                _trouble(random, nature, lease, hangs=task.task.timeout is not None)
            if check is not None:
                check.natures[task.grid.number(index)] = nature
            scenario.natures[task.number, index] = nature
    return scenario


def _seconds(random: Random, pace: str, lease: float) -> float:
    """How long a block takes."""
    match pace:
        case "many":
            return random.uniform(0.001, 0.02)
        case "few":
            return random.uniform(0.01, 0.2)
        case "one":
            return random.uniform(0.5, 5.0)
        case "leases":
            return random.uniform(lease / 6.0, lease * 1.25)
        case _:
            return float(0.001 * (1250.0 * lease) ** (random.random() ** 2))


def _trouble(random: Random, nature: Nature, lease: float, *, hangs: bool) -> None:
    """Make one block in four a difficult one."""
    match random.randrange(24):
        case 0 | 1:
            nature.fails = random.choice((1, 1, 2, 3, EVER))
        case 2:
            nature.kills = random.choice((1, 2, 4, EVER))
        case 3 if hangs:
            nature.hangs = random.choice((1, 1, 2, EVER))
        case 4:
            nature.done_before = True
        case 5:
            nature.check_raises = random.choice((1, 1, EVER))
        case 6:
            nature.refused = random.choice((1, 2, EVER))
        case 7:
            nature.seconds = min(6.0 * lease, 20.0 * nature.seconds)


def _make_plan(random: Random, profile: Profile, lease: float, *, troubled: bool) -> tuple[Plan, list[Checks | None]]:
    """Chains, forks and tasks on their own; the checks of each task, in the order of the plan."""
    amount = random.randint(*profile.tasks)
    dims = random.choice((1, 2, 2, 3))
    blocks = profile.blocks * random.choice((0.1, 0.2, 0.3, 0.7)) / amount
    tasks: list[Task] = []
    checks: dict[str, Checks | None] = {}
    for number in range(amount):
        above = [task for task in tasks[-3:] if random.random() < 0.5]
        check = Checks() if troubled and random.random() < 0.5 else None
        timeout = random.choice((None, None, 2.0 * lease))
        workers = random.choice((1, 2, 2, 3, 4) if amount <= _FEW_TASKS else (1, 1, 2))
        tasks.append(_make_task(random, f"t{number}", dims, max(1.0, blocks), above, check, timeout, workers))
        checks[tasks[-1].task_id] = check if tasks[-1].is_checked or tasks[-1].post_check is not None else None
    plan = compile_plan(tasks)
    return plan, [checks[task.task_id] for task in plan.tasks]


def _make_task(
    random: Random,
    task_id: str,
    dims: int,
    blocks: float,
    above: list[Task],
    check: Checks | None,
    timeout: float | None,
    workers: int,
) -> Task:
    total, read, write = [], [], []
    for _ in range(dims):
        step = random.choice((2, 4))
        before, after = random.choice((0, 0, 1, 3)), random.choice((0, 0, 1, 3))
        extent = before + step * max(1, round(blocks ** (1 / dims))) + after + random.choice((0, 1))
        total.append((-before, extent))
        read.append((-before, before + step + after))
        write.append((0, step))
    pre = check.pre if check is not None and random.random() < 0.5 else None
    post = check.post if check is not None and random.random() < 0.5 else None
    return Task(
        task_id,
        _roi(total),
        _roi(read),
        _roi(write),
        check_function=(pre, post) if pre or post else None,
        read_write_conflict=random.random() < 0.8,
        fit=random.choice(("valid", "shrink", "overhang")),
        num_workers=workers,
        max_retries=random.choice((0, 1, 2)),
        timeout=timeout,
        upstream_tasks=above,
    )


def _roi(axes: list[tuple[int, int]]) -> Roi:
    return Roi([begin for begin, _ in axes], [extent for _, extent in axes])
