"""The book of one task: everything that the scheduler knows about it.

Plain data with a few questions; all changes are made by :mod:`blockflow.state.scheduler`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from msgspec import structs

from blockflow.plan.launcher import is_local
from blockflow.plan.order import ranks_for
from blockflow.plan.plan import single
from blockflow.state.block_states import BlockStates
from blockflow.state.first_blocks import FirstBlocks
from blockflow.state.frontier import Frontier, Ranked, Smallest
from blockflow.state.hosts import Hosts
from blockflow.state.leases import Pace
from blockflow.state.limits import Limit
from blockflow.state.pool import Pool
from blockflow.state.retries import Mishaps
from blockflow.state.storage_pauses import StoragePauses
from blockflow.state.transitions import ENDED, SATISFIED, BlockState, Cause

if TYPE_CHECKING:
    from blockflow.plan.plan import TaskPlan
    from blockflow.plan.slices import Indices
    from blockflow.state.events import BlockFailure

NOTHING: Indices = np.empty(0, dtype=np.int64)
"""No blocks."""

MOST_TRACEBACKS = 1_000
"""Failed blocks of a task whose tracebacks are kept (8 MB); if all of a large task fail, the rest say the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskState:
    """How far a task has got, in numbers of blocks."""

    started: bool
    """A process of the task was started, or one of its blocks handed out."""
    total_block_count: int
    ready_count: int
    """Everything upstream is done."""
    processing_count: int
    """Held by a worker."""
    completed_count: int
    """Done or skipped."""
    skipped_count: int
    """Found done by a pre-check or a mask."""
    failed_count: int
    """Failed for good."""
    orphaned_count: int
    """Something upstream failed for good."""

    @property
    def pending_count(self) -> int:
        """Blocks that wait for something upstream."""
        return self.total_block_count - (
            self.ready_count + self.processing_count + self.completed_count + self.failed_count + self.orphaned_count
        )

    @property
    def unended_count(self) -> int:
        """Blocks that something is left to do for; failed and orphaned ones have ended."""
        return self.total_block_count - (self.completed_count + self.failed_count + self.orphaned_count)

    def is_done(self) -> bool:
        """Whether nothing is left to do; failed and orphaned blocks count as ended."""
        return self.unended_count == 0


class TaskBook:
    """What the scheduler knows about one task."""

    def __init__(self, plan: TaskPlan) -> None:
        self.plan = plan
        self.blocks = BlockStates(plan)
        ranks = ranks_for(plan.task.order, plan.grid.shape)
        self.frontier = Frontier(plan.roots(), plan.grid.size, ranks)
        self.pool = Pool(plan.workers)
        self.outdated: set[int] = set()
        """Workers with the code of an earlier driver that have claimed what they hold: they are to be dismissed."""
        self.in_jobs = not is_local(plan.launchers)
        """Workers that wait in vain keep machines from others."""
        self.pace = Pace()
        """Of the blocks."""
        self.limit = Limit()
        """How long a block may take, if the task leaves that to us."""
        self.check_pace = Pace()
        """Of the pre-checks."""
        self.hosts = Hosts()
        self.storage = StoragePauses()
        self.first_blocks = FirstBlocks()
        self.started = False
        self.workers: set[int] = set()
        """Workers that may be given blocks: they are connected, and were not dismissed."""
        self.asking: dict[int, float] = {}
        """Those of them that wait for a lease, in the order in which they asked, with the time."""
        self.mishaps: defaultdict[int, Mishaps] = defaultdict(Mishaps)
        """By block that failed or was lost, and has not ended: how often, and where."""
        self.final_failures: dict[int, BlockFailure] = {}
        """By block that failed for good: its last failure."""
        checked = plan.grid.size if plan.task.is_checked else 0
        self.cleared = Ranked(ranks) if checked and ranks is not None else Smallest(checked)
        """Ready blocks whose pre-check says that they have to run."""
        self.being_checked = NOTHING
        """Ready blocks whose pre-check is under way."""
        self.verifying: dict[int, tuple[int, int]] = {}
        """By finished block whose post-check is under way: the worker that ran it, and the attempt."""
        self.stored: dict[int, int] = {}
        """By finished block whose post-check is under way: how many chunks it has stored, if they are counted."""

    @property
    def ready(self) -> int:
        """Blocks that could be handed out, or could be after their pre-check."""
        return len(self.frontier) + len(self.cleared)

    @property
    def to_run(self) -> int:
        """Blocks that wait for nothing but a worker."""
        if self.plan.task.is_checked:
            return len(self.cleared) + len(self.frontier.again)
        return len(self.frontier) - self.frontier.later

    @property
    def known_to_run(self) -> int:
        """Blocks that run or certainly have to: as many processes may be of use."""
        return self.to_run + self.frontier.later + self.blocks.count(BlockState.RUNNING)

    @property
    def works(self) -> bool:
        """Whether a block was done, now or before: the user's code can work."""
        found_done = self.plan.task.pre_check is not None or self.plan.task.check_blocks is not None
        return self.blocks.count(BlockState.DONE) + found_done * self.blocks.count(BlockState.SKIPPED) > 0

    @property
    def given_up(self) -> bool:
        """Whether nothing is handed out because all first blocks fail for the same reason; one that is done ends it."""
        return self.first_blocks.say_no and self.plan.task.stop_if_all_fail and not self.verifying and not self.works

    def claim(self, indices: Indices, now: float) -> None:
        """Blocks that could be handed out are held by a worker that outlived its driver."""
        undrawn = indices[self.blocks.states[indices] == BlockState.PENDING]
        self.blocks.move(indices, Cause.CLAIMED, now)
        self.frontier.claimed(indices, undrawn)
        self.cleared.remove(indices)

    def seconds_for(self, index: int | None = None) -> float | None:
        """How long a block may take, or any, if the task leaves that to us; None for no limit of ours."""
        if self.plan.task.timeout != "auto":
            return None
        known = None if index is None else self.mishaps.get(index)
        return self.limit.seconds(0 if known is None else known.failures)

    def put_back(self, indices: Indices) -> None:
        """Blocks that were handed out, but not run, wait for a worker again."""
        (self.cleared if self.plan.task.is_checked else self.frontier).add(indices)

    def give_up(self, failure: BlockFailure) -> None:
        """Keep the last failure of a block that has failed for good."""
        if len(self.final_failures) >= MOST_TRACEBACKS:
            failure = structs.replace(failure, traceback="")
        self.final_failures[failure.index] = failure
        self.forget_mishaps(single(failure.index))

    def forget_mishaps(self, indices: Indices) -> None:
        """Blocks have ended: what happened to them before does not matter any more."""
        if self.mishaps:
            for index in self.mishaps.keys() & indices.tolist():
                del self.mishaps[index]

    @property
    def ended(self) -> bool:
        """Every block is in a state that it never leaves."""
        return not self.unended

    @property
    def unended(self) -> int:
        """Blocks that something is left to do for."""
        return self.plan.grid.size - self.blocks.count(*ENDED)

    @property
    def state(self) -> TaskState:
        """The numbers that people see."""
        count = self.blocks.count
        return TaskState(
            started=self.started,
            total_block_count=self.plan.grid.size,
            ready_count=count(BlockState.READY) + self.frontier.undrawn_roots,
            processing_count=count(BlockState.RUNNING),
            completed_count=count(*SATISFIED),
            skipped_count=count(BlockState.SKIPPED),
            failed_count=count(BlockState.FAILED),
            orphaned_count=count(BlockState.ORPHANED),
        )
