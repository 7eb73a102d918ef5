"""The plan of a run: all tasks compiled into integers, in an order in which they can run.

Tasks that are given only as somebody's upstream belong to the run as well. Compiling checks what can be wrong
between tasks; it costs a few microseconds per task and nothing per block.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from blockflow.errors import PlanError, TaskGraphError
from blockflow.plan.alignment import check_unshared
from blockflow.plan.block import Block
from blockflow.plan.launcher import Launcher, launchers_of, workers_of
from blockflow.plan.links import Link
from blockflow.plan.roots import Roots
from blockflow.plan.slices import Indices, Positions, positions_of
from blockflow.plan.task import Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from blockflow.geometry import Box
    from blockflow.plan.conflicts import Levels
    from blockflow.plan.grid import Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPlan:
    """One task as integers."""

    task: Task
    number: int
    """Place of the task in the plan; every upstream task has a smaller one."""
    grid: Grid
    total: Box
    levels: Levels
    upstream: tuple[tuple[int, Link], ...]
    """Number of each upstream task, and what this task reads of it."""
    downstream: tuple[tuple[int, Link], ...]
    """Number of each task that reads this one's output, and what it reads."""
    launchers: tuple[Launcher, ...] = ()
    """How its workers come to life; empty for processes of this machine."""

    @property
    def workers(self) -> int:
        """Greatest number of workers that are started for it."""
        return workers_of(self.launchers, self.task.num_workers)

    @property
    def task_id(self) -> str:
        """Name of the task."""
        return self.task.task_id

    def positions(self, indices: Indices) -> Positions:
        """Positions of blocks from their indices."""
        return positions_of(indices, self.grid.shape)

    def fan_in(self, indices: Indices) -> Indices:
        """How many blocks each block waits for, in its own task and in others."""
        positions = self.positions(indices)
        total = self.levels.upstream(positions).sizes()
        for _, link in self.upstream:
            total = total + link.upstream(positions).sizes()
        return total

    def roots(self) -> Roots:
        """The blocks that wait for nothing."""
        return Roots(self.levels, (link.waiting() for _, link in self.upstream))

    def block(self, index: int, attempt: int = 0) -> Block:
        """The block with an index."""
        return Block.of_grid(self.grid, index, total=self.total, task_id=self.task_id, attempt=attempt)

    def greatest_fan_in(self) -> int:
        """No block waits for more blocks than this."""
        in_task = prod(min(modulus, 2) for modulus in self.levels.moduli)
        return in_task + sum(_greatest_size(link) for _, link in self.upstream)


@dataclass(frozen=True, slots=True)
class Plan:
    """All tasks of a run; each stands behind its upstream tasks."""

    tasks: tuple[TaskPlan, ...]

    def number_of(self, task_id: str) -> int:
        """The number of a task.

        Raises:
            TaskGraphError: No task has that name.
        """
        for task in self.tasks:
            if task.task_id == task_id:
                return task.number
        names = ", ".join(repr(task.task_id) for task in self.tasks)
        raise TaskGraphError(f"no task is called {task_id!r}; there are {names}")


def compile_plan(tasks: Iterable[Task], launcher: Any = None) -> Plan:
    """Compile tasks, and all tasks upstream of them.

    Args:
        tasks: What to do.
        launcher: How workers come to life for tasks that do not say it themselves.

    Raises:
        TaskGraphError: No task at all, something else than a task, two tasks with one id, or tasks that wait for
            one another.
        PlanError: Tasks that depend on one another have different numbers of axes.
    """
    if isinstance(tasks, Task):
        raise TaskGraphError(f"tasks must be a list of tasks, got the task {tasks.task_id!r} itself")
    ordered = _upstream_first(list(tasks))
    if not ordered:
        raise TaskGraphError("there is no task to run")
    launchers = launchers_of(launcher, "run_blockwise")
    grids = [task.grid for task in ordered]
    numbers = {id(task): number for number, task in enumerate(ordered)}
    upstream: list[list[tuple[int, Link]]] = [[] for _ in ordered]
    downstream: list[list[tuple[int, Link]]] = [[] for _ in ordered]
    for number, task in enumerate(ordered):
        for above in {id(task): task for task in task.upstream_tasks}.values():
            other = numbers[id(above)]
            if len(grids[other].shape) != len(grids[number].shape):
                raise PlanError(
                    f"task {task.task_id!r} has {len(grids[number].shape)} axes, its upstream task "
                    f"{above.task_id!r} has {len(grids[other].shape)}; they must be the same"
                )
            link = Link(grids[other], grids[number])
            upstream[number].append((other, link))
            downstream[other].append((number, link))
    return Plan(
        tuple(
            TaskPlan(
                task=task,
                number=number,
                grid=grids[number],
                total=task.total_box,
                levels=task.levels(),
                upstream=tuple(upstream[number]),
                downstream=tuple(downstream[number]),
                launchers=task.launchers or launchers,
            )
            for number, task in enumerate(ordered)
        )
    )


def check_runnable(plan: Plan) -> None:
    """Refuse a plan that has nothing to run, or must not run.

    Raises:
        PlanError: A task has no block, or no process function, or its blocks would share chunks of an output.
    """
    for planned in plan.tasks:
        task = planned.task
        if planned.grid.size == 0:
            axis = planned.grid.shape.index(0)
            begin, end = planned.total[axis]
            span = planned.grid.axes[axis].template
            before, after = span.write_begin - span.read_begin, span.read_end - span.write_end
            hint = "; fit='shrink' or 'overhang' keeps a part block" if end - begin > before + after else ""
            raise PlanError(
                f"task {task.task_id!r} has no block: axis {axis} of total_roi is [{begin}, {end}), and one block "
                f"reads {span.read_end - span.read_begin} of it, {before} + {after} of these as context{hint}"
            )
        if task.process_function is None:
            raise PlanError(f"task {task.task_id!r} has no process_function")
        check_unshared(task.task_id, planned.grid, planned.levels, task.stored_outputs)


def dropped_voxels_warning(task: Task) -> str | None:
    """What to say about voxels that no block of a task writes; None if there are none."""
    dropped = task.dropped_voxels()
    if not dropped:
        return None
    return (
        f"task {task.task_id!r} leaves out {dropped} voxels at the end of total_roi that do not fill a block "
        "(fit='valid'): use fit='shrink' or fit='overhang', or a total_roi that is a multiple of the block"
    )


def _upstream_first(tasks: Sequence[Task]) -> list[Task]:
    """All reachable tasks, each behind those it waits for; in the given order as far as possible."""
    ordered: list[Task] = []
    by_name: dict[str, Task] = {}
    done: set[int] = set()
    # An explicit stack, because chains of tasks may be longer than Python's recursion limit.
    path: list[Task] = []
    on_path: set[int] = set()
    stack: list[tuple[Task, bool]] = [(task, False) for task in reversed(tasks)]
    while stack:
        task, left = stack.pop()
        if left:
            path.pop()
            on_path.discard(id(task))
            done.add(id(task))
            ordered.append(task)
            continue
        if id(task) in on_path:
            names = [step.task_id for step in path[path.index(task) :]] + [task.task_id]
            raise TaskGraphError(f"tasks wait for one another in a circle: {' -> '.join(map(repr, names))}")
        if id(task) in done:
            continue
        if not isinstance(task, Task):
            raise TaskGraphError(f"tasks must be blockflow.Task objects, got {task!r}")
        if by_name.setdefault(task.task_id, task) is not task:
            raise TaskGraphError(f"two tasks are called {task.task_id!r}; every task needs an id of its own")
        path.append(task)
        on_path.add(id(task))
        stack.append((task, True))
        stack.extend((above, False) for above in reversed(task.upstream_tasks))
    return ordered


def _greatest_size(link: Link) -> int:
    """No block of the downstream grid meets more blocks of the upstream grid than this."""
    size = 1
    for above, below in zip(link.upstream_grid.axes, link.downstream_grid.axes, strict=True):
        size *= above.most_writing(below.longest_read)
    return size


def single(index: int) -> Indices:
    """One index as a batch."""
    return np.array([index], dtype=np.int64)
