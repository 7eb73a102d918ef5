"""Small plans, records, and a run directory that is opened as a driver would."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from blockflow.geometry import Roi
from blockflow.ledger.identity import PlanIdentity, identity_of
from blockflow.ledger.owner import Process
from blockflow.ledger.records import BlockFailed, BlocksDone
from blockflow.ledger.store import RunStore, open_store
from blockflow.plan.plan import Plan, compile_plan
from blockflow.plan.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from blockflow.ledger.disk import Disk

ME = Process(host="here", pid=1, boot_id="boot", started=1)
RUN = "ab" * 16
OTHER = Process(host="there", pid=2, boot_id="other", started=2)


def task(name: str = "smooth", *, blocks: tuple[int, ...] = (4, 5), step: int = 10, **others: object) -> Task:
    """A task of so many blocks per axis, without context."""
    extent = tuple(count * step for count in blocks)
    block = Roi((0,) * len(blocks), (step,) * len(blocks))
    return Task(name, Roi((0,) * len(blocks), extent), block, block, **others)  # type: ignore[arg-type]


def plan_of(*tasks: Task) -> Plan:
    return compile_plan(tasks or (task(),))


def identity(*tasks: Task) -> PlanIdentity:
    return identity_of(plan_of(*tasks))


def nobody(process: Process, me: Process) -> bool | None:
    """Every other driver is dead."""
    return False


def opened(
    disk: Disk,
    plan: PlanIdentity | None = None,
    *,
    me: Process = ME,
    alive: Callable[[Process, Process], bool | None] = nobody,
    now: float = 1000.0,
    new_run: str = RUN,
    reset: bool = False,
    accept_change: bool = False,
    take_over: bool = False,
) -> RunStore:
    return open_store(
        disk,
        Path("run"),
        plan or identity(),
        me=me,
        alive=alive,
        clock=lambda: now,
        new_run=new_run,
        reset=reset,
        accept_change=accept_change,
        take_over=take_over,
    )


def done(*blocks: int, task: int = 0, attempt: int = 7, microseconds: int = 1000) -> BlocksDone:
    """A record of blocks that are done; sorted."""
    runs: list[int] = []
    end = 0
    for block in blocks:
        runs += [block - end, 1]
        end = block + 1
    return BlocksDone(task, tuple(runs), attempt, microseconds)


def failed(block: int, *, task: int = 0, final: bool = False, error: str = "ValueError: no") -> BlockFailed:
    return BlockFailed(task, block, 7, final, error, "Traceback", "script.py:3")
