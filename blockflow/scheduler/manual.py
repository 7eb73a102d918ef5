"""Manual scheduling: a caller takes one block at a time from a scheduler, without workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import structs

from blockflow.errors import SchedulerError
from blockflow.plan.block import Block, BlockStatus
from blockflow.scheduler import events as ev
from blockflow.scheduler.checks import call_checks
from blockflow.wire.storage_errors import FailureKind

if TYPE_CHECKING:
    from blockflow.plan.plan import Plan

_NO_ATTEMPT = 0
"""Attempt number of blocks that no scheduler made."""


class HandlesEvents(Protocol):
    """Interface of a scheduler that this module needs."""

    plan: Plan

    def handle(self, event: ev.Event, now: float) -> list[ev.Instruction]:
        """Change the state, and return what has to be done."""


class ManualScheduling:
    """Turns acquiring and releasing into events of one worker per task."""

    def __init__(self) -> None:
        self._granted: dict[tuple[int, int], ev.GrantLease] = {}
        """By task and index of an acquired block."""
        self._joined: set[int] = set()

    def acquire(self, scheduler: HandlesEvents, task_id: str) -> Block | None:
        """Return a block that may run now; None if there is none at the moment."""
        task = scheduler.plan.number_of(task_id)
        worker = -1 - task
        if task not in self._joined:
            self._joined.add(task)
            _handle(scheduler, ev.WorkerJoined(worker=worker, task=task))
        granted = _handle(scheduler, ev.BlocksAsked(worker=worker))
        if granted is None:
            _handle(scheduler, ev.AskWithdrawn(worker=worker))
            return None
        if len(granted.indices) > 1:
            _handle(scheduler, ev.BlocksReturned(worker=worker, lease=granted.lease, kept=1))
        index = int(granted.indices[0])
        self._granted[task, index] = granted
        block = scheduler.plan.tasks[task].block(index, granted.attempt)
        block.status = BlockStatus.PROCESSING
        return block

    def release(self, scheduler: HandlesEvents, block: Block) -> None:
        """Report a block that was acquired."""
        task = scheduler.plan.number_of(str(block.task_id))
        index = scheduler.plan.tasks[task].grid.index_of_number(block.block_id[1])
        if block.status not in (BlockStatus.SUCCESS, BlockStatus.FAILED):
            raise SchedulerError(
                f"set block.status to SUCCESS or FAILED before releasing block {block.block_id}; it is "
                f"{block.status.name}"
            )
        if (task, index) not in self._granted:
            raise SchedulerError(f"block {block.block_id} is released but was not acquired, or was released before")
        granted = self._granted[task, index]
        if block.attempt not in (granted.attempt, _NO_ATTEMPT):
            raise SchedulerError(
                f"block {block.block_id} is released for attempt {block.attempt}, but was acquired again since as "
                f"attempt {granted.attempt}"
            )
        failures: tuple[ev.BlockFailure, ...] = ()
        if block.status is BlockStatus.FAILED:
            failures = (ev.BlockFailure(index=index, error="released with status FAILED"),)
        del self._granted[task, index]
        report = ev.BlocksReported(worker=granted.worker, lease=granted.lease, upto=1, seconds=0.0, failures=failures)
        _handle(scheduler, report)


def _handle(scheduler: HandlesEvents, event: ev.Event) -> ev.GrantLease | None:
    """Handle an event, call the checks it asks for on the spot, and return the lease it leads to."""
    granted = None
    todo = scheduler.handle(event, now=0.0)
    while todo:
        instruction = todo.pop(0)
        if isinstance(instruction, ev.GrantLease):
            granted = instruction
        elif isinstance(instruction, ev.RunChecks):
            checked = call_checks(scheduler.plan.tasks[instruction.task], instruction)
            # There is no clock here, so storage that fails cannot be waited for.
            failures = tuple(structs.replace(failure, kind=FailureKind.CODE) for failure in checked.failures)
            todo += scheduler.handle(structs.replace(checked, failures=failures), now=0.0)
    return granted
