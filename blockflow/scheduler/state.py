"""State of a scheduler: the one owner of what is known about tasks, workers and leases.

:class:`SchedulerState` is passed to functions that are named after events; no other object keeps a reference to its
parts. :class:`TaskRecord` holds everything about one task, :class:`TaskState` the numbers that users see.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from msgspec import structs

from blockflow.plan.launcher import is_local
from blockflow.plan.order import ranks_for
from blockflow.plan.plan import single
from blockflow.scheduler.block_states import ENDED, SATISFIED, BlockState, BlockStates, BlockTrigger
from blockflow.scheduler.leases import AutoTimeout, DurationEstimate
from blockflow.scheduler.ready_queue import IndexSet, RankedSet, ReadyQueue
from blockflow.scheduler.retry_policy import CircuitBreaker, FailureHistory, HostQuarantine
from blockflow.scheduler.storage_pauses import StoragePauses
from blockflow.scheduler.worker_pool import WorkerPool
from blockflow.scheduler.worker_states import WorkerState, WorkerTrigger

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from blockflow.plan.plan import Plan, TaskPlan
    from blockflow.plan.slices import Indices
    from blockflow.scheduler.events import BlockFailure, Record, RecordWorker
    from blockflow.scheduler.leases import Leases
    from blockflow.scheduler.worker_states import WorkerRecord

NOTHING: Indices = np.empty(0, dtype=np.int64)
"""No blocks."""

MOST_TRACEBACKS = 1_000
"""Failed blocks of a task whose tracebacks are kept (8 MB); if all of a large task fail, the rest say the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskState:
    """Progress of a task, in numbers of blocks."""

    started: bool
    """Whether a process of the task was started or one of its blocks granted."""
    total_block_count: int
    ready_count: int
    """Blocks whose inputs are done."""
    processing_count: int
    """Blocks held by a worker."""
    completed_count: int
    """Done or skipped blocks."""
    skipped_count: int
    """Blocks found done by a pre-check or a mask."""
    failed_count: int
    """Blocks that failed for good."""
    orphaned_count: int
    """Blocks that cannot run because something upstream failed for good."""

    @property
    def pending_count(self) -> int:
        """Blocks that wait for something upstream."""
        return self.total_block_count - (
            self.ready_count + self.processing_count + self.completed_count + self.failed_count + self.orphaned_count
        )

    @property
    def unended_count(self) -> int:
        """Blocks that are neither done, skipped, failed nor orphaned."""
        return self.total_block_count - (self.completed_count + self.failed_count + self.orphaned_count)

    def is_done(self) -> bool:
        """Return whether nothing is left to do; failed and orphaned blocks count as ended."""
        return self.unended_count == 0


class TaskRecord:
    """Everything that the scheduler knows about one task.

    Args:
        plan: The compiled task.
    """

    def __init__(self, plan: TaskPlan) -> None:
        self.plan = plan
        self.blocks = BlockStates(plan)
        ranks = ranks_for(plan.task.order, plan.grid.shape)
        self.ready_queue = ReadyQueue(plan.roots(), plan.grid.size, ranks)
        self.pool = WorkerPool(plan.workers)
        self.in_jobs = not is_local(plan.launchers)
        """Workers without blocks keep machines of a cluster from other users."""
        self.durations = DurationEstimate()
        self.auto_timeout = AutoTimeout()
        self.check_durations = DurationEstimate()
        self.hosts = HostQuarantine()
        self.storage = StoragePauses()
        self.breaker = CircuitBreaker()
        self.started = False
        self.active_workers: set[int] = set()
        """Workers in state ACTIVE; kept by :func:`move_worker`."""
        self.outdated_workers: set[int] = set()
        """Workers with the code of an earlier driver that have claimed what they hold: to be told that they may go."""
        self.waiting_workers: dict[int, float] = {}
        """Active workers that wait for a lease, in the order in which they asked, with the time."""
        self.histories: defaultdict[int, FailureHistory] = defaultdict(FailureHistory)
        """By block that has failed or was lost and has not ended."""
        self.final_failures: dict[int, BlockFailure] = {}
        """By block that failed for good: its last failure."""
        checked = plan.grid.size if plan.task.is_checked else 0
        self.cleared = RankedSet(ranks) if checked and ranks is not None else IndexSet(checked)
        """Ready blocks whose pre-check says that they have to run."""
        self.being_checked = NOTHING
        """Ready blocks whose pre-check is under way."""
        self.verifying: dict[int, tuple[int, int]] = {}
        """By finished block whose post-check is under way: the worker that ran it, and the attempt."""
        self.stored: dict[int, int] = {}
        """By finished block whose post-check is under way: chunks that it has stored, if they are counted."""

    @property
    def ready_count(self) -> int:
        """Blocks that could be granted now, or after their pre-check."""
        return len(self.ready_queue) + len(self.cleared)

    @property
    def grantable_count(self) -> int:
        """Blocks that wait for nothing but a worker."""
        if self.plan.task.is_checked:
            return len(self.cleared) + len(self.ready_queue.retries)
        return len(self.ready_queue) - self.ready_queue.delayed_count

    @property
    def runnable_count(self) -> int:
        """Blocks that run or certainly have to run: as many processes may be of use."""
        return self.grantable_count + self.ready_queue.delayed_count + self.blocks.count(BlockState.RUNNING)

    @property
    def has_succeeded(self) -> bool:
        """Whether a block was done, by this driver or before: the user's code can work."""
        found_done = self.plan.task.pre_check is not None or self.plan.task.check_blocks is not None
        return self.blocks.count(BlockState.DONE) + found_done * self.blocks.count(BlockState.SKIPPED) > 0

    @property
    def given_up(self) -> bool:
        """Whether nothing is granted because the circuit breaker is open; one block that is done closes it."""
        may_open = self.plan.task.stop_if_all_fail and not self.verifying
        return self.breaker.is_open and may_open and not self.has_succeeded

    def claim(self, indices: Indices, now: float) -> None:
        """Mark grantable blocks as running on a worker that outlived its driver."""
        undrawn = indices[self.blocks.states[indices] == BlockState.PENDING]
        self.blocks.move(indices, BlockTrigger.CLAIMED, now)
        self.ready_queue.claimed(indices, undrawn)
        self.cleared.remove(indices)

    def timeout_of(self, index: int | None = None) -> float | None:
        """Return the automatic timeout of a block, or of any block; None without an automatic limit."""
        if self.plan.task.timeout != "auto":
            return None
        history = None if index is None else self.histories.get(index)
        return self.auto_timeout.seconds(0 if history is None else history.failures)

    def put_back(self, indices: Indices) -> None:
        """Let blocks that were granted but not run wait for a worker again."""
        (self.cleared if self.plan.task.is_checked else self.ready_queue).add(indices)

    def keep_final_failure(self, failure: BlockFailure) -> None:
        """Keep the last failure of a block that failed for good."""
        if len(self.final_failures) >= MOST_TRACEBACKS:
            failure = structs.replace(failure, traceback="")
        self.final_failures[failure.index] = failure
        self.forget_histories(single(failure.index))

    def forget_histories(self, indices: Indices) -> None:
        """Forget failures and losses of blocks that have ended."""
        if self.histories:
            for index in self.histories.keys() & indices.tolist():
                del self.histories[index]

    @property
    def ended(self) -> bool:
        """Whether every block is in a state that it never leaves."""
        return not self.unended_count

    @property
    def unended_count(self) -> int:
        """Blocks in a state that they will leave."""
        return self.plan.grid.size - self.blocks.count(*ENDED)

    @property
    def state(self) -> TaskState:
        """Progress, as users see it."""
        count = self.blocks.count
        return TaskState(
            started=self.started,
            total_block_count=self.plan.grid.size,
            ready_count=count(BlockState.READY) + self.ready_queue.undrawn_roots,
            processing_count=count(BlockState.RUNNING),
            completed_count=count(*SATISFIED),
            skipped_count=count(BlockState.SKIPPED),
            failed_count=count(BlockState.FAILED),
            orphaned_count=count(BlockState.ORPHANED),
        )


@dataclass(slots=True, kw_only=True)
class SchedulerState:
    """All state of a scheduler."""

    plan: Plan
    tasks: list[TaskRecord]
    """By task number."""
    leases: Leases
    resources: Mapping[str, int]
    """Amount of each resource that tasks may require."""
    largest_lease: int
    """Blocks in a lease at most."""
    recording: bool
    """Whether records are kept."""
    workers: dict[int, WorkerRecord] = field(default_factory=dict)
    """By worker number: every worker that is not gone."""
    awaited: dict[int, RecordWorker] = field(default_factory=dict)
    """By number: workers of an earlier driver that may hold blocks. Nothing is granted while there are any."""
    awaited_until: float | None = None
    """Time at which all awaited workers' leases have expired; None if no worker is awaited."""
    dirty: set[int] = field(default_factory=set)
    """Tasks to which something happened since the last dispatch."""
    records: list[Record] = field(default_factory=list)
    """Records that the driver has not taken yet."""
    began: float | None = None
    """Time of the first event."""
    next_process: int = 0
    """Number of the next process to be started."""
    over: list[bool] = field(default_factory=list)
    """By task: whether nothing can happen in it any more."""
    steal_times: dict[int, float] = field(default_factory=dict)
    """By task in which a worker waits though no block is ready: when to steal blocks for it."""
    wake_times: dict[int, float] = field(default_factory=dict)
    """By task in which something can be granted later without an event: when."""
    stopping: bool = False
    """Nothing is granted any more."""
    finished: bool = False
    """Nothing can happen any more."""

    def task_of(self, worker: int) -> TaskRecord:
        """Return the task that a worker works for."""
        return self.tasks[self.workers[worker].task]

    def record(self, record: Record) -> None:
        """Keep a record until the driver takes it."""
        if self.recording:
            self.records.append(record)

    def touch_all(self) -> None:
        """Dispatch in all tasks after this event."""
        self.dirty.update(range(len(self.tasks)))


def move_worker(state: SchedulerState, number: int, trigger: WorkerTrigger) -> None:
    """Change the state of a worker, and the sets of its task that depend on it."""
    worker = state.workers[number]
    worker.move(trigger)
    task = state.tasks[worker.task]
    if worker.state is WorkerState.ACTIVE:
        task.active_workers.add(number)
    else:
        task.active_workers.discard(number)
        task.waiting_workers.pop(number, None)
    state.dirty.add(worker.task)
    if worker.state is WorkerState.GONE:
        del state.workers[number]


def dismiss(state: SchedulerState, workers: Iterable[int]) -> None:
    """Give workers nothing more."""
    for number in workers:
        move_worker(state, number, WorkerTrigger.DISMISSED)
