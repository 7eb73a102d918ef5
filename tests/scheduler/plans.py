"""Which plans are the schedulers of these tests given?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockflow.geometry import Roi
from blockflow.plan.plan import Plan, compile_plan
from blockflow.plan.task import Task

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random


def never(_: object) -> bool:
    """A check function of tasks whose checks are answered by the test."""
    raise AssertionError("the test answers checks itself")


def line(
    task_id: str = "t",
    blocks: int = 4,
    *,
    context: int | tuple[int, int] = 0,
    upstream: Sequence[Task] = (),
    step: int = 10,
    **arguments: Any,
) -> Task:
    """A 1-D task: block i writes ``[10 i, 10 i + 10)`` and reads `context` more in front and behind."""
    before, after = context if isinstance(context, tuple) else (context, context)
    return Task(
        task_id,
        Roi((-before,), (blocks * step + before + after,)),
        Roi((-before,), (step + before + after,)),
        Roi((0,), (step,)),
        upstream_tasks=list(upstream),
        **arguments,
    )


def square(task_id: str = "t", side: int = 4, *, context: int = 0, **arguments: Any) -> Task:
    """A 2-D task of `side` x `side` blocks of 10 x 10 with the same context on every side."""
    extent = side * 10 + 2 * context
    return Task(
        task_id,
        Roi((-context, -context), (extent, extent)),
        Roi((-context, -context), (10 + 2 * context,) * 2),
        Roi((0, 0), (10, 10)),
        **arguments,
    )


def random_plan(random: Random, *, checks: bool = True) -> Plan:
    """Up to three tasks on one volume of up to three axes: chains, forks, and tasks on their own."""
    dims = random.choice((1, 2, 3))
    most = random.choice(((2, 6, 30), (2, 3, 5), (1, 2, 3))[dims - 1])
    tasks: list[Task] = []
    for number in range(random.choice((1, 2, 2, 3))):
        above = [task for task in tasks if random.random() < 0.7]
        tasks.append(_random_task(random, f"t{number}", [most] * dims, above, checks))
    return compile_plan(tasks)


def _random_task(random: Random, task_id: str, most: list[int], above: list[Task], checks: bool) -> Task:
    total, read, write = [], [], []
    for blocks in most:
        step = random.randint(1, 3)
        before, after = random.choice((0, 0, 1, 2, 4)), random.choice((0, 0, 1, 2, 4))
        extent = before + step * random.randint(1, blocks) + after
        total.append((random.randint(-1, 1) - before, extent))
        read.append((-before, before + step + after))
        write.append((0, step))
    check = (None, None, never) if checks else (None,)
    return Task(
        task_id,
        _roi(total),
        _roi(read),
        _roi(write),
        check_function=(random.choice(check), random.choice(check)),
        read_write_conflict=random.choice((True, True, False)),
        num_workers=random.randint(1, 3),
        max_retries=random.randint(0, 2),
        upstream_tasks=above,
    )


def _roi(axes: list[tuple[int, int]]) -> Roi:
    return Roi([begin for begin, _ in axes], [extent for _, extent in axes])
