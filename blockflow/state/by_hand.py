"""Driving a scheduler by hand: the caller is the only worker, and takes one block at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs

from blockflow.errors import SchedulerError
from blockflow.plan.block import Block, BlockStatus
from blockflow.state import events as ev
from blockflow.state.checks import call_checks
from blockflow.wire.storage_errors import FailureKind

if TYPE_CHECKING:
    from blockflow.state.scheduler import Scheduler

_MADE_BY_HAND = 0
"""Attempt number of blocks that no scheduler made."""


class ByHand:
    """Turns acquiring and releasing into events of one worker per task."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._granted: dict[tuple[int, int], ev.GrantLease] = {}
        """By task and index of an acquired block."""
        self._joined: set[int] = set()

    def acquire(self, task_id: str) -> Block | None:
        """A block that may run now; None if there is none at the moment."""
        task = self._scheduler.plan.number_of(task_id)
        worker = _worker(task)
        if task not in self._joined:
            self._joined.add(task)
            self._handle(ev.WorkerJoined(worker=worker, task=task))
        granted = self._handle(ev.BlocksAsked(worker=worker))
        self._scheduler.book(task).asking.pop(worker, None)
        if granted is None:
            return None
        if len(granted.indices) > 1:
            self._handle(ev.BlocksReturned(worker=worker, lease=granted.lease, kept=1))
        index = int(granted.indices[0])
        self._granted[task, index] = granted
        block = self._scheduler.plan.tasks[task].block(index, granted.attempt)
        block.status = BlockStatus.PROCESSING
        return block

    def release(self, block: Block) -> None:
        """Report a block that was acquired."""
        task = self._scheduler.plan.number_of(str(block.task_id))
        index = self._scheduler.plan.tasks[task].grid.index_of_number(block.block_id[1])
        if block.status not in (BlockStatus.SUCCESS, BlockStatus.FAILED):
            raise SchedulerError(
                f"set block.status to SUCCESS or FAILED before releasing block {block.block_id}; it is "
                f"{block.status.name}"
            )
        if (task, index) not in self._granted:
            raise SchedulerError(f"block {block.block_id} is released but was not acquired, or was released before")
        granted = self._granted[task, index]
        if block.attempt not in (granted.attempt, _MADE_BY_HAND):
            raise SchedulerError(
                f"block {block.block_id} is released for attempt {block.attempt}, but was acquired again since as "
                f"attempt {granted.attempt}"
            )
        failures: tuple[ev.BlockFailure, ...] = ()
        if block.status is BlockStatus.FAILED:
            failures = (ev.BlockFailure(index=index, error="released with status FAILED"),)
        del self._granted[task, index]
        self._handle(
            ev.BlocksReported(worker=granted.worker, lease=granted.lease, upto=1, seconds=0.0, failures=failures)
        )

    def _handle(self, event: ev.Event) -> ev.GrantLease | None:
        """Handle an event, call the checks it asks for on the spot, and return the lease it leads to."""
        granted = None
        todo = self._scheduler.handle(event, now=0.0)
        while todo:
            instruction = todo.pop(0)
            if isinstance(instruction, ev.GrantLease):
                granted = instruction
            elif isinstance(instruction, ev.RunChecks):
                checked = call_checks(self._scheduler.plan.tasks[instruction.task], instruction)
                # There is no clock here, so nothing could ever be waited for.
                failures = tuple(structs.replace(failure, kind=FailureKind.CODE) for failure in checked.failures)
                todo += self._scheduler.handle(structs.replace(checked, failures=failures), now=0.0)
        return granted


def _worker(task: int) -> int:
    return -1 - task
