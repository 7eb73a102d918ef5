"""The book of one task: everything that the scheduler knows about it.

Plain data with a few questions; all changes are made by :mod:`blockflow.state.scheduler`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blockflow.state.block_states import BlockStates
from blockflow.state.frontier import Frontier
from blockflow.state.leases import Pace
from blockflow.state.pool import Pool
from blockflow.state.transitions import ENDED, SATISFIED, BlockState

if TYPE_CHECKING:
    from blockflow.plan.plan import TaskPlan
    from blockflow.state.events import BlockFailure


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

    def is_done(self) -> bool:
        """Whether nothing is left to do; failed and orphaned blocks count as ended."""
        return self.completed_count + self.failed_count + self.orphaned_count == self.total_block_count


class TaskBook:
    """What the scheduler knows about one task."""

    def __init__(self, plan: TaskPlan) -> None:
        self.plan = plan
        self.blocks = BlockStates(plan)
        self.frontier = Frontier(plan.roots())
        self.pool = Pool(plan.task.num_workers)
        self.pace = Pace()
        """Of the blocks."""
        self.check_pace = Pace()
        """Of the pre-checks."""
        self.started = False
        self.workers: set[int] = set()
        self.asking: dict[int, None] = {}
        """Workers that wait for a lease, in the order in which they asked."""
        self.failures: dict[int, list[tuple[int | None, BlockFailure]]] = {}
        """By block: the workers it failed on (None for its pre-check), and how."""
        self.losses: dict[int, int] = {}
        """By block: how many workers died while running it."""
        self.final_failures: dict[int, BlockFailure] = {}
        """By block that failed for good: its last failure."""
        self.cleared: deque[int] = deque()
        """Blocks whose pre-check says that they have to run."""
        self.being_checked: set[int] = set()
        """Ready blocks whose pre-check is under way."""
        self.verifying: dict[int, int] = {}
        """By finished block whose post-check is under way: the worker that ran it."""

    @property
    def ready(self) -> int:
        """Blocks that could be handed out, or could be after their pre-check."""
        return len(self.frontier) + len(self.cleared)

    @property
    def known_to_run(self) -> int:
        """Blocks that run or certainly have to: as many processes may be of use."""
        waiting = len(self.cleared) + self.frontier.runs_again if self.plan.task.pre_check else len(self.frontier)
        return waiting + self.blocks.count(BlockState.RUNNING)

    @property
    def ended(self) -> bool:
        """Every block is in a state that it never leaves."""
        return self.blocks.count(*ENDED) == self.plan.grid.size

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
