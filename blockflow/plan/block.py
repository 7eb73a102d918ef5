"""A block: what does user code get to see of one piece of work?

Blocks come from a grid and build their ROIs when they are looked at, because most schedulers' time per block
would otherwise be spent on ROIs that nobody reads. This module imports funlib.geometry only then.
"""

from __future__ import annotations

import operator
from enum import Enum
from importlib import import_module
from typing import TYPE_CHECKING, Any

from blockflow.errors import GeometryError
from blockflow.plan.ids import pair

if TYPE_CHECKING:
    from blockflow.geometry import Box, Roi
    from blockflow.plan.grid import Grid


class BlockStatus(Enum):
    """What user code says about a block it was given."""

    CREATED = 0
    PROCESSING = 1
    SUCCESS = 2
    FAILED = 3


class Block:
    """One block of a task: where to read, where to write, and its name.

    Blocks are made by the scheduler. Making one by hand is good for trying a process function:

    >>> from blockflow import Block, Roi
    >>> block = Block(Roi((0, 0), (100, 100)), read_roi=Roi((8, 8), (24, 24)), write_roi=Roi((10, 10), (20, 20)))
    >>> block.block_id, block.write_roi
    ((None, 0), [10:30, 10:30] (20, 20))

    Args:
        total_roi: The region that the blocks of the task tile, context included.
        read_roi: Where the block reads, in world units, half-open.
        write_roi: Where the block writes; lies in `read_roi`.
        block_id: The block's name, or its number in the task; computed from the ROIs if not given, which is right
            only for a whole block: one that is cut by ``fit="shrink"`` does not tell how large the others are.
        task_id: The task that the block belongs to.

    Raises:
        GeometryError: A block id that is none.
    """

    __slots__ = (
        "_block_id",
        "_grid",
        "_read_roi",
        "_total",
        "_total_roi",
        "_write_roi",
        "attempt",
        "index",
        "status",
        "task_id",
    )

    index: int | None
    """C-order number of the block in the grid of its task; None for a block made by hand."""
    attempt: int
    """Number of this grant of the block: it grows with every grant of a run, so a later attempt has a larger one."""
    status: BlockStatus
    """Set it to ``BlockStatus.FAILED`` to report a failure without raising."""
    task_id: str | None
    """The task that the block belongs to."""

    def __init__(
        self,
        total_roi: Roi,
        read_roi: Roi,
        write_roi: Roi,
        block_id: int | tuple[str | None, int] | None = None,
        task_id: str | None = None,
    ) -> None:
        self._grid: Grid | None = None
        self._total: Box | None = None
        self._total_roi: Roi | None = total_roi
        self._read_roi: Roi | None = read_roi
        self._write_roi: Roi | None = write_roi
        self._block_id = None if block_id is None else _checked_id(block_id, task_id)
        self.index = None
        self.attempt = 0
        self.status = BlockStatus.CREATED
        self.task_id = task_id

    @classmethod
    def of_grid(cls, grid: Grid, index: int, *, total: Box, task_id: str | None, attempt: int = 0) -> Block:
        """The block with an index in the grid of a task; its ROIs are built when they are looked at."""
        block = cls.__new__(cls)
        block._grid = grid
        block._total = total
        block._total_roi = block._read_roi = block._write_roi = block._block_id = None
        block.index = index
        block.attempt = attempt
        block.status = BlockStatus.CREATED
        block.task_id = task_id
        return block

    @property
    def total_roi(self) -> Roi:
        """The region that the blocks of the task tile, context included."""
        if self._total_roi is None:
            assert self._total is not None
            self._total_roi = _roi(self._total)
        return self._total_roi

    @property
    def read_roi(self) -> Roi:
        """Where the block reads, in world units, half-open."""
        if self._read_roi is None:
            grid, index = self._place()
            self._read_roi = _roi(grid.read_box(index))
        return self._read_roi

    @property
    def write_roi(self) -> Roi:
        """Where the block writes, in world units, half-open."""
        if self._write_roi is None:
            grid, index = self._place()
            self._write_roi = _roi(grid.write_box(index))
        return self._write_roi

    @property
    def block_id(self) -> tuple[str | None, int]:
        """``(task_id, number)``; the number is that of :func:`blockflow.plan.ids.pair`, equal to daisy's."""
        if self._block_id is None:
            if self._grid is not None:
                grid, index = self._place()
                number = grid.number(index)
            else:
                number = _number(self.total_roi, self.write_roi)
            self._block_id = (self.task_id, number)
        return self._block_id

    @property
    def position(self) -> tuple[int, ...] | None:
        """The n-D index of the block in the grid of its task; None for a block made by hand."""
        return None if self._grid is None or self.index is None else self._grid.position(self.index)

    def refresh(self, *targets: Any) -> None:
        """Make sure that what is read next sees what blocks before this one have written on other hosts.

        Arrays of :func:`~blockflow.arrays.open_ds` and those that ``map_blocks`` hands over do this by themselves. A
        function that opens files by itself (``zarr.open``, ``tifffile``, ``numpy.load``) calls this before it reads;
        it is needed where a file system caches (NFS, SMB, GlusterFS, sshfs), and does nothing on others.

        >>> import tempfile, zarr
        >>> from blockflow import Block, Roi
        >>> block = Block(Roi((0,), (8,)), read_roi=Roi((0,), (4,)), write_roi=Roi((0,), (4,)))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     array = zarr.create_array(f"{folder}/x.zarr", shape=(8,), chunks=(4,), dtype="u1")
        ...     block.refresh(array, f"{folder}/notes.txt")

        Args:
            targets: Arrays of zarr or blockflow, and paths of arrays, files, or folders of files. Of an array, the
                chunks that meet the read ROI are refreshed; of a folder, the files in it.

        Raises:
            ArrayError: One of them is something else.
        """
        refresh = import_module("blockflow.arrays.refreshing").refresh
        for target in targets:
            refresh(target, self.read_roi)

    def copy(self) -> Block:
        """A block with the same place, name and status."""
        twin = Block.__new__(Block)
        for name in Block.__slots__:
            setattr(twin, name, getattr(self, name))
        return twin

    def _place(self) -> tuple[Grid, int]:
        assert self._grid is not None
        assert self.index is not None
        return self._grid, self.index

    def __eq__(self, other: object) -> bool:
        return self.block_id == other.block_id if isinstance(other, Block) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.block_id)

    def __repr__(self) -> str:
        task, number = self.block_id
        return f"{task}/{number} with read ROI {self.read_roi} and write ROI {self.write_roi}"

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in Block.__slots__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


def _roi(box: Box) -> Roi:
    from blockflow.geometry import roi_of

    return roi_of(box)


def _checked_id(block_id: Any, task_id: str | None) -> tuple[str | None, int]:
    """``(task_id, number)`` from either form of a block id."""
    is_pair = isinstance(block_id, (tuple, list)) and len(block_id) == 2
    name, number = block_id if is_pair else (task_id, block_id)
    if isinstance(number, bool) or not hasattr(number, "__index__") or number < 0:
        raise GeometryError(f"block_id must be a number >= 0 or (task_id, number), got {block_id!r}")
    return name, operator.index(number)


def _number(total: Roi, write: Roi) -> int:
    """The number of a block that was made by hand."""
    from blockflow.geometry import box_of

    whole, writes = box_of(total, "total_roi"), box_of(write, "write_roi")
    if len(whole) != len(writes):
        raise GeometryError(f"total_roi and write_roi must have the same number of axes, got {total} and {write}")
    return pair([(begin - origin) // (end - begin) for (origin, _), (begin, end) in zip(whole, writes, strict=True)])
