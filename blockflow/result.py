"""The result of a run: is every block done, and if not, which ones and why?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

from blockflow.scheduler.block_states import BlockState

if TYPE_CHECKING:
    from blockflow.plan.block import Block
    from blockflow.plan.plan import TaskPlan
    from blockflow.plan.slices import Indices
    from blockflow.scheduler.scheduler import Scheduler
    from blockflow.scheduler.state import TaskRecord, TaskState


class BlockList(Sequence["Block"]):
    """Blocks of one task, made when they are looked at."""

    def __init__(self, plan: TaskPlan, indices: Indices) -> None:
        self._plan = plan
        self.indices = indices
        """C-order indices of the blocks in the grid of the task."""

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, place: int) -> Block: ...

    @overload
    def __getitem__(self, place: slice) -> BlockList: ...

    def __getitem__(self, place: int | slice) -> Block | BlockList:
        if isinstance(place, slice):
            return BlockList(self._plan, self.indices[place])
        return self._plan.block(int(self.indices[place]))

    def __repr__(self) -> str:
        return f"<{len(self)} blocks of task {self._plan.task_id!r}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One reason for which blocks failed for good."""

    task_id: str
    error: str
    """Type and message of the first such exception."""
    where: str
    """File and line of user code; empty if unknown."""
    traceback: str
    """The first traceback; empty if there is none."""
    blocks: BlockList
    """The blocks that failed for this reason."""


class RunResult(Mapping[str, "TaskState"]):
    """How a run ended: true if every block is done or was skipped.

    A mapping from task ids to :class:`TaskState`. The lists below are empty for a result that is true.
    """

    def __init__(
        self,
        states: dict[str, TaskState],
        failed_blocks: dict[str, BlockList],
        orphaned_blocks: dict[str, BlockList],
        causes: list[Cause],
        problems: list[str],
    ) -> None:
        self._states = states
        self.failed_blocks = failed_blocks
        """By task: the blocks that failed for good."""
        self.orphaned_blocks = orphaned_blocks
        """By task: the blocks that could not run because something upstream failed."""
        self.causes = causes
        """Why blocks failed, most frequent first; blocks with the same error at the same place are one cause."""
        self.problems = problems
        """What else kept blocks from running, in words."""

    def __bool__(self) -> bool:
        return all(state.completed_count == state.total_block_count for state in self._states.values())

    def __getitem__(self, task_id: str) -> TaskState:
        return self._states[task_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._states)

    def __len__(self) -> int:
        return len(self._states)

    def __repr__(self) -> str:
        verdict = "complete" if self else "INCOMPLETE"
        tasks = ", ".join(
            f"{name}: {state.completed_count}/{state.total_block_count}{_lost(state)}"
            for name, state in self._states.items()
        )
        first = next((f"; {cause.task_id}: {cause.error}" for cause in self.causes), "")
        return f"<RunResult {verdict}; {tasks}{first}>"

    def summary(self) -> str:
        """The result as text of several lines: blocks of each task, and why some are not done."""
        lines = ["complete" if self else "NOT COMPLETE"]
        lines += [
            f"{name}: {state.completed_count} of {state.total_block_count} blocks done{_lost(state)}"
            for name, state in self._states.items()
        ]
        for cause in self.causes:
            place = f" at {cause.where}" if cause.where else ""
            lines.append(f"{cause.task_id}: {len(cause.blocks)} failed: {cause.error}{place}")
        return "\n".join(lines + self.problems)

    def _repr_html_(self) -> str:
        """The same for notebooks."""
        from html import escape

        return f"<pre>{escape(self.summary())}</pre>"


def _lost(state: TaskState) -> str:
    """Blocks that failed or could not run, in words with a comma in front."""
    counts = ((state.failed_count, "failed"), (state.orphaned_count, "orphaned"))
    return "".join(f", {count} {word}" for count, word in counts if count)


def result_of(scheduler: Scheduler) -> RunResult:
    """The result of a run whose scheduler has finished, or was stopped."""
    books = [scheduler.task(task.number) for task in scheduler.plan.tasks]
    return RunResult(
        states=scheduler.task_states,
        failed_blocks=_lists(books, BlockState.FAILED),
        orphaned_blocks=_lists(books, BlockState.ORPHANED),
        causes=[cause for book in books for cause in _causes(book)],
        problems=[problem for book in books if (problem := _problem(book)) is not None],
    )


def _lists(books: list[TaskRecord], state: BlockState) -> dict[str, BlockList]:
    return {
        book.plan.task_id: BlockList(book.plan, book.blocks.all_of(state)) for book in books if book.blocks.count(state)
    }


def _causes(book: TaskRecord) -> list[Cause]:
    import numpy as np

    groups: dict[tuple[str, str], list[int]] = {}
    for index, failure in book.final_failures.items():
        kind = failure.error.partition(":")[0]
        groups.setdefault((kind, failure.where or failure.error), []).append(index)
    causes = []
    for indices in sorted(groups.values(), key=len, reverse=True):
        first = book.final_failures[indices[0]]
        causes.append(
            Cause(
                task_id=book.plan.task_id,
                error=first.error,
                where=first.where,
                traceback=first.traceback,
                blocks=BlockList(book.plan, np.array(sorted(indices), dtype=np.int64)),
            )
        )
    return causes


def _problem(book: TaskRecord) -> str | None:
    if book.ended:
        return None
    state = book.state
    left = state.total_block_count - state.completed_count - state.failed_count - state.orphaned_count
    name = repr(book.plan.task_id)
    failure = book.breaker.failure
    if book.given_up and failure is not None:
        place = f" at {failure.where}" if failure.where else ""
        told = book.final_failures or not failure.traceback
        return (
            f"task {name} was stopped early: its first {len(book.breaker)} blocks all failed with "
            f"{failure.error}{place}, and none was done; {left} blocks were not tried. If others may succeed, "
            f"Task(..., stop_if_all_fail=False) tries them all{'' if told else chr(10) + failure.traceback.rstrip()}"
        )
    if book.pool.gave_up is not None:
        detail = f"\n{book.pool.detail.rstrip()}" if book.pool.detail else ""
        return f"task {name}: {book.pool.gave_up}; {left} blocks are left{detail}"
    if book.pool.exhausted:
        return (
            f"task {name}: all worker processes ended by themselves while {left} blocks were left. A process function "
            "without argument has to open a Client and ask for blocks until there are no more; if it submits a job, it "
            "has to wait for that job (bsub -K, sbatch --wait, srun)"
        )
    return f"task {name}: {left} blocks were not run"
