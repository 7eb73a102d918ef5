"""The dependency graph as users see it: which blocks are there, and which waits for which?

Thin views of the compiled plan that speak of :class:`Block`. The order of blocks within one answer is that of their
indices. Nothing is stored per block.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from blockflow.errors import GeometryError, TaskGraphError
from blockflow.geometry import Roi, box_of, roi_of
from blockflow.plan.plan import Plan, TaskPlan, compile_plan, single
from blockflow.plan.slices import Slices, positions_of
from blockflow.plan.task import Task
from blockflow.plan.tiling import contexts_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from blockflow.plan.block import Block
    from blockflow.plan.grid import Fit

_BATCH = 4096
"""Blocks computed at once while iterating: large enough to amortise numpy's cost per call."""


class BlockwiseDependencyGraph:
    """The blocks of one task and the order that read-write conflicts put on them.

    >>> from blockflow import BlockwiseDependencyGraph, Roi
    >>> graph = BlockwiseDependencyGraph(
    ...     "smooth", Roi((0,), (4,)), Roi((1,), (2,)), True, "valid", total_read_roi=Roi((0,), (12,))
    ... )
    >>> graph.num_blocks, graph.num_levels
    (5, 2)
    >>> [block.block_id for block in graph.root_gen()]
    [('smooth', 1), ('smooth', 3)]
    >>> [block.block_id for block in graph.upstream(next(graph.level_blocks(1)))]
    [('smooth', 1)]

    Args:
        task_id: Name of the task.
        block_read_roi: Where a block reads; the template.
        block_write_roi: Where a block writes; part of the template.
        read_write_conflict: Whether blocks conflict when one reads where the other writes.
        fit: ``"valid"``, ``"overhang"`` or ``"shrink"``.
        total_read_roi: The region that the read ROIs tile, context included.
        total_write_roi: The region that is written, without the context. One of the two totals is needed; with
            both, they must differ by the block's context.

    Raises:
        GeometryError: ROIs that contradict one another.
    """

    def __init__(
        self,
        task_id: str,
        block_read_roi: Roi,
        block_write_roi: Roi,
        read_write_conflict: bool,
        fit: Fit,
        total_read_roi: Roi | None = None,
        total_write_roi: Roi | None = None,
    ) -> None:
        total = _total_read_roi(block_read_roi, block_write_roi, total_read_roi, total_write_roi)
        task = Task(task_id, total, block_read_roi, block_write_roi, read_write_conflict=read_write_conflict, fit=fit)
        self._plan = compile_plan([task]).tasks[0]

    @classmethod
    def of_plan(cls, plan: TaskPlan) -> BlockwiseDependencyGraph:
        """The graph of a compiled task."""
        graph = cls.__new__(cls)
        graph._plan = plan
        return graph

    @property
    def num_blocks(self) -> int:
        """Number of blocks."""
        return self._plan.grid.size

    @property
    def num_levels(self) -> int:
        """Number of levels; blocks of one level never conflict."""
        return self._plan.levels.count

    def num_roots(self) -> int:
        """Number of blocks that wait for no other block of this task."""
        return prod(self._level_shape(0))

    def root_gen(self) -> Iterator[Block]:
        """The blocks that wait for no other block of this task."""
        return self.level_blocks(0)

    def level_blocks(self, level: int) -> Iterator[Block]:
        """The blocks of one level.

        Raises:
            GeometryError: There is no such level.
        """
        if not 0 <= level < self.num_levels:
            raise GeometryError(f"levels are 0 to {self.num_levels - 1}, got {level}")
        return (self._plan.block(index) for index in self._level_indices(level))

    def upstream(self, block: Block) -> list[Block]:
        """The blocks of this task that a block waits for."""
        return self._blocks(self._plan.levels.upstream(self._plan.positions(single(self._index(block)))))

    def downstream(self, block: Block) -> list[Block]:
        """The blocks of this task that wait for a block."""
        return self._blocks(self._plan.levels.downstream(self._plan.positions(single(self._index(block)))))

    def enumerate_all_dependencies(self) -> Iterator[tuple[Block, list[Block]]]:
        """Every block with the blocks of this task that it waits for, level by level."""
        for level in range(self.num_levels):
            for block in self.level_blocks(level):
                yield block, self.upstream(block)

    def get_subgraph_blocks(self, sub_roi: Roi, read_roi: bool = False) -> list[Block]:
        """The blocks whose write ROI meets a region.

        Args:
            sub_roi: The region, in world units.
            read_roi: Take the blocks whose *read* ROI meets it instead.
        """
        box = box_of(sub_roi, "sub_roi")
        axes = self._plan.grid.axes
        if len(box) != len(axes):
            raise GeometryError(f"sub_roi has {len(box)} axes, the blocks have {len(axes)}")
        ranges = [
            (axis.reading if read_roi else axis.writing)(single(begin), single(end))
            for axis, (begin, end) in zip(axes, box, strict=True)
        ]
        return self._blocks(
            Slices(
                starts=tuple(start for start, _ in ranges),
                counts=tuple(stop - start for start, stop in ranges),
                steps=(1,) * len(axes),
            )
        )

    def _index(self, block: Block) -> int:
        task_id, number = block.block_id
        if task_id != self._plan.task_id:
            raise TaskGraphError(f"block {block.block_id} is not of task {self._plan.task_id!r}")
        return self._plan.grid.index_of_number(number)

    def _blocks(self, slices: Slices) -> list[Block]:
        return [self._plan.block(index) for index in slices.flat(self._plan.grid.shape).tolist()]

    def _level_shape(self, level: int) -> list[int]:
        """How many positions of a level there are on each axis."""
        levels, firsts = self._plan.levels, self._plan.levels.first_positions(level)
        return [
            -(-(extent - first) // step)
            for extent, first, step in zip(levels.shape, firsts, levels.moduli, strict=True)
        ]

    def _level_indices(self, level: int) -> Iterator[int]:
        levels, firsts, shape = self._plan.levels, self._plan.levels.first_positions(level), self._level_shape(level)
        total = prod(shape)
        for begin in range(0, total, _BATCH):
            digits = positions_of(np.arange(begin, min(total, begin + _BATCH)), tuple(shape))
            positions = [first + step * digit for first, step, digit in zip(firsts, levels.moduli, digits, strict=True)]
            yield from np.ravel_multi_index(positions, levels.shape).tolist()


class DependencyGraph:
    """The blocks of all tasks of a run, and which waits for which, in its own task and in others.

    Args:
        tasks: The tasks; those upstream of them belong to the graph as well.

    Raises:
        PlanError: Tasks that cannot be run together.
    """

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._plan = compile_plan(tasks)

    @classmethod
    def of_plan(cls, plan: Plan) -> DependencyGraph:
        """The graph of a compiled plan."""
        graph = cls.__new__(cls)
        graph._plan = plan
        return graph

    @property
    def task_ids(self) -> list[str]:
        """Names of all tasks, upstream tasks first."""
        return [task.task_id for task in self._plan.tasks]

    def num_blocks(self, task_id: str) -> int:
        """Number of blocks of a task."""
        return self._task(task_id).grid.size

    def num_roots(self, task_id: str) -> int:
        """Number of blocks of a task that wait for nothing."""
        return self._task(task_id).roots().count

    def root_gen(self, task_id: str) -> Iterator[Block]:
        """The blocks of a task that wait for nothing."""
        task = self._task(task_id)
        roots = task.roots()
        while roots.left:
            for index in roots.take(_BATCH).tolist():
                yield task.block(index)

    def root_tasks(self) -> list[str]:
        """Names of the tasks that have a block that waits for nothing."""
        return [task.task_id for task in self._plan.tasks if task.roots().count]

    def roots(self) -> dict[str, tuple[int, Iterator[Block]]]:
        """Number of roots and the roots themselves, for every task that has any."""
        return {name: (self.num_roots(name), self.root_gen(name)) for name in self.root_tasks()}

    def upstream(self, block: Block) -> list[Block]:
        """All blocks that a block waits for, sorted by block id."""
        return self._related(block, upstream=True)

    def downstream(self, block: Block) -> list[Block]:
        """All blocks that wait for a block, sorted by block id: exactly the inverse of :meth:`upstream`."""
        return self._related(block, upstream=False)

    def _task(self, task_id: str) -> TaskPlan:
        return self._plan.tasks[self._plan.number_of(task_id)]

    def _related(self, block: Block, *, upstream: bool) -> list[Block]:
        task_id, number = block.block_id
        task = self._task(str(task_id))
        positions = task.positions(single(task.grid.index_of_number(number)))
        own = task.levels.upstream(positions) if upstream else task.levels.downstream(positions)
        found = [(task, own)]
        for other, link in task.upstream if upstream else task.downstream:
            slices = link.upstream(positions) if upstream else link.downstream(positions)
            found.append((self._plan.tasks[other], slices))
        blocks = [
            planned.block(index) for planned, slices in found for index in slices.flat(planned.grid.shape).tolist()
        ]
        return sorted(blocks, key=lambda block: (str(block.block_id[0]), block.block_id[1]))


def _total_read_roi(read: Roi, write: Roi, total_read: Roi | None, total_write: Roi | None) -> Roi:
    """The total read ROI from whichever totals were given."""
    if total_write is None:
        if total_read is None:
            raise GeometryError("total_read_roi or total_write_roi must be given")
        return total_read
    reads, writes = box_of(read, "block_read_roi"), box_of(write, "block_write_roi")
    whole = box_of(total_write, "total_write_roi")
    if not len(reads) == len(writes) == len(whole):
        raise GeometryError(
            "block_read_roi, block_write_roi and total_write_roi must have the same number of axes, "
            f"got {len(reads)}, {len(writes)} and {len(whole)}"
        )
    contexts = contexts_of(reads, writes)
    derived = roi_of(
        tuple((begin - before, end + after) for (begin, end), (before, after) in zip(whole, contexts, strict=True))
    )
    if total_read is not None and total_read != derived:
        raise GeometryError(
            f"total_read_roi must be total_write_roi grown by the block's context, {derived}, got {total_read}"
        )
    return derived
