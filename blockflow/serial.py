"""Running everything in this process: the same scheduler, no sockets, and the user's own exceptions.

For finding mistakes: a failure is raised at once, where a debugger can catch it, and nothing is tried again.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from msgspec import structs

from blockflow.errors import PlanError
from blockflow.plan.block import BlockStatus
from blockflow.state import events as ev
from blockflow.state.checks import call_checks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blockflow.plan.plan import Plan
    from blockflow.state.scheduler import Scheduler


def run_serially(plan: Plan, scheduler: Scheduler) -> Iterator[None]:
    """Run all blocks in this process; an iterator that stops for a moment after each block.

    Raises:
        PlanError: A process function takes no block: it would need a server to ask for blocks.
        Exception: Whatever a process function raises.
    """
    for task in plan.tasks:
        if not task.task.takes_block:
            raise PlanError(
                f"the process_function of task {task.task_id!r} takes no block, so it is a worker that needs a server: "
                "run it with multiprocessing=True"
            )
    todo: deque[ev.Instruction] = deque()
    for task in plan.tasks:
        todo += scheduler.handle(ev.WorkerJoined(worker=task.number, task=task.number), time.monotonic())
        todo += scheduler.handle(ev.BlocksAsked(worker=task.number), time.monotonic())
    while todo:
        instruction = todo.popleft()
        if isinstance(instruction, ev.RunChecks):
            began = time.monotonic()
            checked = call_checks(plan.tasks[instruction.task], instruction)
            now = time.monotonic()
            todo += scheduler.handle(structs.replace(checked, seconds=now - began), now)
        elif isinstance(instruction, ev.GrantLease):
            for done in _process(plan, instruction):
                todo += scheduler.handle(done, time.monotonic())
            yield


def _process(plan: Plan, granted: ev.GrantLease) -> Iterator[ev.Event]:
    """Run a lease of one block, report it, and ask for the next one."""
    planned = plan.tasks[granted.task]
    (index,) = granted.indices.tolist()
    block = planned.block(index, granted.attempt)
    block.status = BlockStatus.PROCESSING
    assert planned.task.process_function is not None
    began = time.monotonic()
    planned.task.process_function(block)
    seconds = time.monotonic() - began
    failures: tuple[ev.BlockFailure, ...] = ()
    if block.status is BlockStatus.FAILED:
        failures = (ev.BlockFailure(index=index, error="block.status was set to FAILED"),)
    yield ev.BlocksReported(worker=granted.worker, lease=granted.lease, upto=1, seconds=seconds, failures=failures)
    yield ev.BlocksAsked(worker=granted.worker)
