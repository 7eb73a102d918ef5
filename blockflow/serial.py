"""Running everything in this process: the same scheduler, no sockets, and the user's own exceptions.

For finding mistakes: a failure is raised at once, where a debugger can catch it, and nothing is tried again.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from msgspec import structs

from blockflow.errors import PlanError
from blockflow.monitor.pauses import pause_line
from blockflow.plan.block import Block, BlockStatus
from blockflow.plan.returns import ARRAY_REMARK, check_has_begun, check_has_run, is_array
from blockflow.scheduler import events as ev
from blockflow.scheduler.checks import call_checks
from blockflow.scheduler.leases import TARGET_SECONDS
from blockflow.tally import TALLY

if TYPE_CHECKING:
    from collections.abc import Generator

    from blockflow.ledger.run_ledger import RunLedger
    from blockflow.plan.plan import Plan, TaskPlan
    from blockflow.plan.task import Task
    from blockflow.scheduler.scheduler import Scheduler

_LOGGER = logging.getLogger("blockflow")

DIARY_SECONDS = 0.05
"""How often blocks are recorded that nothing waits for."""


def check_serial(plan: Plan) -> None:
    """Refuse what cannot run in this process.

    Raises:
        PlanError: A process function takes no block: it would need a server to ask for blocks.
    """
    for task in plan.tasks:
        if not task.task.takes_block:
            raise PlanError(
                f"the process_function of task {task.task_id!r} takes no block, so it is a worker that needs a server: "
                "run it with multiprocessing=True"
            )


def run_serially(scheduler: Scheduler, ledger: RunLedger | None = None) -> Generator[ev.TellRemark | None]:
    """Run all blocks in this process; an iterator that stops for a moment after each block.

    It yields what people have to be told, or None.

    Args:
        scheduler: Owner of all state.
        ledger: Where everything is recorded; the scheduler has to be recording then.

    Raises:
        PlanError: A process function takes no block.
        Exception: Whatever a process function raises.
    """
    plan = scheduler.plan
    check_serial(plan)
    diary = _Diary(scheduler, ledger)
    if ledger is not None:
        outputs = [output.array for task in plan.tasks for output in task.task.stored_outputs]
        if outputs:
            from blockflow.arrays.writing import places_of

            TALLY.watch(places_of(outputs))
    functions = [_Function(task.task, task.number) for task in plan.tasks]
    todo: deque[ev.Instruction] = deque()
    for task in plan.tasks:
        worker = -1 - task.number  # no other process has to know of it
        todo += scheduler.handle(ev.WorkerJoined(worker=worker, task=task.number), time.monotonic())
        todo += scheduler.handle(ev.BlocksAsked(worker=worker), time.monotonic())
    try:
        while True:
            if not todo:
                due = scheduler.next_deadline()
                if due is None:
                    break
                time.sleep(max(0.0, due - time.monotonic()))  # a block has to wait before it runs again
                todo += scheduler.handle(ev.Ticked(), time.monotonic())
                continue
            instruction = todo.popleft()
            if isinstance(instruction, ev.TellPause):
                _LOGGER.warning("%s", pause_line(plan, instruction))
            if isinstance(instruction, ev.RunChecks):
                began = time.monotonic()
                checked = call_checks(plan.tasks[instruction.task], instruction)
                now = time.monotonic()
                todo += scheduler.handle(structs.replace(checked, seconds=now - began), now)
            elif isinstance(instruction, ev.GrantLease):
                diary.write(plan.tasks[instruction.task])
                lease = _Lease(scheduler, functions[instruction.task], instruction, todo)
                try:
                    while lease.run_next():
                        yield functions[instruction.task].take_remark()
                finally:
                    lease.report()  # what was done before somebody had enough, or a function raised
                todo += scheduler.handle(ev.BlocksAsked(worker=instruction.worker), time.monotonic())
    finally:
        diary.close()
        TALLY.watch([])
    for function in functions:
        function.close()


class _Diary:
    """Writes records in time: before a block runs that may wait for them, and otherwise several at once."""

    def __init__(self, scheduler: Scheduler, ledger: RunLedger | None) -> None:
        self._scheduler = scheduler
        self._ledger = ledger
        self._written = time.monotonic()

    def write(self, task: TaskPlan) -> None:
        """Make durable what a block of a task may follow from."""
        if self._ledger is None:
            return
        waits = task.levels.count > 1 or task.upstream
        if waits or time.monotonic() - self._written > DIARY_SECONDS:
            self.close()

    def close(self) -> None:
        """Make everything durable."""
        if self._ledger is not None:
            self._ledger.write(self._scheduler.take_records())
            self._written = time.monotonic()


class _Function:
    """A process function with the state that its setup makes before the first block."""

    def __init__(self, task: Task, number: int) -> None:
        self._task = task
        self._number = number
        self._states: list[Any] = []
        self._returns_arrays = False
        self._is_told = False

    def __call__(self, block: Block) -> None:
        assert self._task.process_function is not None
        if self._task.setup is not None and not self._states:
            state = self._task.setup()
            check_has_begun(state, "setup")
            self._states.append(state)
        returned = self._task.process_function(block, *self._states)
        if returned is not None:
            check_has_run(returned, "the process function")
            self._returns_arrays = self._returns_arrays or is_array(returned)

    def take_remark(self) -> ev.TellRemark | None:
        """What people have to be told of the function, once."""
        if self._is_told or not self._returns_arrays:
            return None
        self._is_told = True
        return ev.TellRemark(task=self._number, text=ARRAY_REMARK)

    def close(self) -> None:
        """Tear down what was set up."""
        if self._states and self._task.teardown is not None:
            self._task.teardown(self._states.pop())


class _Lease:
    """Runs the blocks of a lease, and reports them: all at once, or often enough for those that wait for them."""

    def __init__(
        self, scheduler: Scheduler, function: _Function, granted: ev.GrantLease, todo: deque[ev.Instruction]
    ) -> None:
        self._scheduler = scheduler
        self._task = scheduler.plan.tasks[granted.task]
        self._function = function
        self._granted = granted
        self._todo = todo
        self._indices = granted.indices.tolist()
        self._done = self._reported = 0
        self._seconds = 0.0
        self._stored: list[int] = []
        self._last_report = time.monotonic()
        self._failures: tuple[ev.BlockFailure, ...] = ()

    def run_next(self) -> bool:
        """Run the next block; false if there is none."""
        if self._done == len(self._indices):
            return False
        index = self._indices[self._done]
        block = self._task.block(index, self._granted.attempt + self._done)
        block.status = BlockStatus.PROCESSING
        began = time.monotonic()
        self._function(block)
        now = time.monotonic()
        self._seconds += now - began
        self._done += 1
        if TALLY.watched:
            self._stored.append(TALLY.take())
        if block.status is BlockStatus.FAILED:
            self._failures = (ev.BlockFailure(index=index, error="block.status was set to FAILED"),)
        if self._failures or now - self._last_report > TARGET_SECONDS:
            self.report()
        return True

    def report(self) -> None:
        """Report what was done since the last time, if anything was."""
        if self._done == self._reported:
            return
        report = ev.BlocksReported(
            worker=self._granted.worker,
            lease=self._granted.lease,
            upto=self._done,
            seconds=self._seconds,
            failures=self._failures,
            stored=tuple(self._stored),
        )
        self._stored = []
        self._reported, self._seconds, self._failures = self._done, 0.0, ()
        self._last_report = time.monotonic()
        self._todo += self._scheduler.handle(report, self._last_report)
