"""A task: what is to be done, where, in which blocks, and after what?

A task is data. Everything that can be wrong with it alone is refused when it is made; what can be wrong between
tasks is refused when they are compiled into a plan (:mod:`blockflow.plan.plan`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, field
from math import inf
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from blockflow.errors import GeometryError, PlanError, TaskGraphError
from blockflow.geometry import Coordinate, Roi, box_of, coordinate_of, roi_of
from blockflow.plan.alignment import SHARED_CHUNKS, SharedChunks, apart_for
from blockflow.plan.arguments import (
    RoiOfGrid,
    check_callable,
    check_takes_state,
    checked_name,
    is_from_grid,
    takes_block,
)
from blockflow.plan.conflicts import levels_of
from blockflow.plan.launcher import Launcher, launchers_of
from blockflow.plan.mask import Mask, mask_for
from blockflow.plan.order import check_order
from blockflow.plan.requirements import Requirements
from blockflow.plan.storage import stored
from blockflow.plan.tiling import tile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from blockflow.geometry import Box
    from blockflow.plan.block import Block
    from blockflow.plan.conflicts import Levels
    from blockflow.plan.grid import Fit, Grid
    from blockflow.plan.report import TaskReport
    from blockflow.plan.storage import Stored

CheckFunction: TypeAlias = "Callable[[Block], bool]"

_COMPILED = frozenset(
    {
        "check_blocks",
        "check_function",
        "fit",
        "grid",
        "inputs",
        "mask",
        "order",
        "outputs",
        "process_function",
        "read_roi",
        "requires",
        "setup",
        "shared_chunks",
        "task_id",
        "teardown",
        "total_roi",
        "voxel_size",
        "write_roi",
    }
)
"""What a task derives its other attributes from: a later change would be ignored."""


@dataclass(eq=False)
class Task:
    """A function over all blocks of a region.

    >>> from blockflow import Roi, Task
    >>> def smooth(block): ...
    >>> task = Task("smooth", Roi((0, 0), (100, 100)), Roi((0, 0), (24, 24)), Roi((2, 2), (20, 20)), smooth)
    >>> task.grid.shape
    (4, 4)

    A grid says the same in place of the three ROIs:

    >>> from blockflow import Grid
    >>> task = Task("smooth", grid=Grid.balanced((100, 100), max_size=24, overlap=4), process_function=smooth)
    >>> task.total_roi, task.grid.shape
    ([0:100, 0:100] (100, 100), (5, 5))

    All ROIs are in world units, half-open. Arguments after `upstream_tasks` are keyword-only. A task's region, blocks
    and functions cannot be changed any more: make another one with :func:`dataclasses.replace`.

    Raises:
        GeometryError: ROIs that contradict one another or do not lie on the voxel grid, or an unknown `fit`.
        TaskGraphError: An id that cannot name a folder, or an upstream task that is none.
        PlanError: Any other argument that cannot be right.
    """

    task_id: str
    """Name of the task, and of the folder of its logs."""
    total_roi: Roi = None  # type: ignore[assignment]  # no task is without, once it is made
    """The region that the read ROIs tile, context included. From the grid if there is one: its region and context."""
    read_roi: Roi = None  # type: ignore[assignment]
    """Where a block reads; the template that is shifted over `total_roi`. With a grid, a whole block of it."""
    write_roi: Roi = None  # type: ignore[assignment]
    """Where a block writes; part of the template, lies in `read_roi`. Write ROIs do not overlap."""
    process_function: Callable[..., Any] | None = None
    """Called with each block in a worker process; if it takes no argument, called once in each worker process to be
    the worker itself, with a :class:`blockflow.Client`. None for a task that is only planned or driven by hand."""
    check_function: CheckFunction | tuple[CheckFunction | None, CheckFunction | None] | None = None
    """``pre(block)``, or ``(pre, post)``. Pre: true if the block is done already; it is then skipped. Post: called
    when a worker is done with the block; false makes that attempt a failure. Both are called in the driver's
    process, on a thread of their own."""
    init_callback_fn: Callable[[Any], Any] | None = None
    """Called once with the task's context, before its first worker starts."""
    read_write_conflict: bool = True
    """Never run two blocks at once if one reads where the other writes."""
    num_workers: int = 1
    """Greatest number of worker processes."""
    max_retries: int = 2
    """How often a block is tried again after a failure of user code. Lost and preempted workers cost nothing."""
    fit: Fit = "valid"
    """What happens to blocks that do not fit: ``"valid"`` drops, ``"overhang"`` keeps whole, ``"shrink"`` cuts. A
    grid has a ``fit`` of its own."""
    timeout: float | Literal["auto"] | None = None
    """Seconds after which a block's worker is killed and the block counts as failed; None for no limit. ``"auto"``
    finds blocks that hang: ten times the longest of those before, at least a minute, none before a handful are done; a
    block that has failed may take four times as long the next time."""
    upstream_tasks: list[Task] = field(default_factory=list, repr=False)
    """Tasks whose results this one reads."""
    _: KW_ONLY
    grid: Grid = field(default=None, repr=False)  # type: ignore[assignment]
    """The blocks of this task: given in place of the three ROIs, or made from them."""
    max_workers: int | None = None
    """Another name of `num_workers`, which is asked from then on: None in a task that is made."""
    voxel_size: Any = None
    """World units per voxel, per axis; if given, every ROI must measure whole voxels, and so must the context."""
    setup: Callable[[], Any] | None = None
    """Called once in each worker process before its first block, to load a model or open a file. What it returns is
    passed on: the process function is then called as ``process_function(block, state)``."""
    teardown: Callable[[Any], Any] | None = None
    """Called with what `setup` returned when a worker process has no more blocks; not if it is killed."""
    blocks_per_process: int | None = None
    """A worker process ends after so many blocks, and another one takes its place: for functions that leak memory, or
    change what they should not. None for no limit."""
    launcher: Any = None
    """How its workers come to life: ``Local(8)``, ``Slurm(...)``, ``LSF(...)``, ``Command(...)``, ``Dask(...)``, or a
    list of these, each of which says how many it may start. None for what :func:`blockflow.run_blockwise` is told."""
    mask: Any = None
    """Which blocks have anything to do; the others are skipped. Either a boolean array with one flag per block, or a
    :class:`blockflow.arrays.Array` over the volume, or the path of one, of any voxel size: a block has something to do
    if any voxel that its write ROI touches is not zero. Outside the array there is nothing to do."""
    check_blocks: Callable[[Any], Any] | None = None
    """A pre-check of many blocks at once: called with an int64 array of block indices (C order in the grid), returns
    as many booleans, true where a block is done already."""
    stop_if_all_fail: bool = True
    """Stop this task early if its first ten blocks all fail for good with the same type of error at the same place, and
    none is done: the others would only be burnt. Blocks that were done before count as done. The result says so."""
    order: Any = "index"
    """Which of several ready blocks comes first: ``"index"`` (C order), ``"morton"`` (near ones together), or a
    function that is given block indices as int64 and returns as many keys; the smallest comes first. Any order but the
    first needs 16 bytes for each block of the grid."""
    requires: Any = None
    """Resources that a worker of this task holds while it has blocks, as ``{"gpu": 1}``;
    ``run_blockwise(resources=...)`` says how much there is. Called, ``task.requires()`` gives the tasks whose results
    this one reads."""
    inputs: Sequence[Any] = field(default=(), repr=False)
    """What blocks read: arrays (:class:`blockflow.arrays.Array`, zarr) or paths. :meth:`plan` says how much of them."""
    outputs: Sequence[Any] = field(default=(), repr=False)
    """What blocks write, each into its write ROI: arrays or paths. Two blocks that would write into one chunk or
    shard at once are refused before the run."""
    shared_chunks: SharedChunks = "refuse"
    """``"serialize"`` runs blocks that share a chunk or shard of an output one after the other instead."""

    also_read: tuple[Any, ...] = field(init=False, default=(), repr=False)
    """Arrays that blocks read beside `inputs`, of any axes: a run directory is bound to them too. Set by operations."""
    launchers: tuple[Launcher, ...] = field(init=False, repr=False)
    """`launcher` as a tuple; empty if it says nothing."""
    stored_inputs: tuple[Stored, ...] = field(init=False, repr=False)
    """Where `inputs` lie, and how they are cut into chunks."""
    stored_outputs: tuple[Stored, ...] = field(init=False, repr=False)
    """Where `outputs` lie, and how they are cut into chunks."""
    takes_block: bool = field(init=False, repr=False)
    """Whether the process function takes a block; if not it is a worker of its own."""
    pre_check: CheckFunction | None = field(init=False, repr=False)
    """The function that finds a block done before it runs."""
    blocks_to_do: Mask | None = field(init=False, repr=False)
    """The mask, as a question about blocks."""
    post_check: CheckFunction | None = field(init=False, repr=False)
    """The function that decides whether a finished block is good."""

    def __post_init__(self) -> None:
        self.task_id = checked_name(self.task_id)
        self.upstream_tasks = _checked_upstream(self.task_id, self.upstream_tasks)
        if is_from_grid(self.grid, self.total_roi, self.read_roi, self.write_roi, self.task_id):
            self._take_grid()
        else:
            self._take_rois()
        self._check_numbers()
        self.launchers = launchers_of(self.launcher, f"task {self.task_id!r}")
        self._check_arrays()
        self.requires = Requirements(self.task_id, self.requires, self.upstream_tasks)
        try:
            check_order(self.order)
        except PlanError as error:
            raise PlanError(f"task {self.task_id!r}: {error}") from None
        self._check_functions()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _COMPILED and "post_check" in self.__dict__:
            raise PlanError(
                f"{name} of task {self.task_id!r} cannot be changed any more; make a new task with dataclasses.replace"
            )
        super().__setattr__(name, value)

    @property
    def is_checked(self) -> bool:
        """Whether anything may find a block done before it runs."""
        return not (self.pre_check is None and self.check_blocks is None and self.blocks_to_do is None)

    @property
    def total_box(self) -> Box:
        """`total_roi` as integers."""
        return self._boxes["total_roi"]

    def levels(self) -> Levels:
        """The levels of the blocks: those of one level may run at once."""
        serialized = self.shared_chunks == "serialize"
        return levels_of(
            self.grid,
            read_write_conflict=self.read_write_conflict,
            apart=apart_for(self.grid, self.stored_outputs) if serialized else (),
        )

    def plan(self) -> TaskReport:
        """What running this task would mean: blocks, parallelism, bytes, memory, and whether it is safe.

        >>> from blockflow import Grid, Task
        >>> print(Task("smooth", grid=Grid.regular((100, 100), block=30, context=2)).plan())
        task smooth
          blocks           16 = 4 x 4
          levels           4: at most 4 blocks at once, num_workers=1
          dropped voxels   0
        """
        from blockflow.plan.report import report_on

        return report_on(self)

    def dropped_voxels(self) -> int:
        """How many voxels (world units if no voxel size is given) of the writable region no block writes."""
        covered = writable = 1
        for axis, (begin, end) in zip(self.grid.axes, self.grid.region, strict=True):
            writable *= end - begin
            covered *= max(0, min(end, axis.end) - begin)
        volume = 1
        for extent in self.voxel_size or ():
            volume *= extent
        return (writable - covered) // volume

    def _take_grid(self) -> None:
        """Derive the ROIs from the grid."""
        if self.fit != "valid":
            raise PlanError(f"task {self.task_id!r}: a grid has its own fit, drop fit={self.fit!r}")
        if self.voxel_size is not None:
            self.voxel_size = coordinate_of(self.voxel_size, f"voxel_size of task {self.task_id!r}")
            if tuple(self.voxel_size) != self.grid.voxel_size:
                raise GeometryError(
                    f"task {self.task_id!r}: voxel_size must be that of the grid, {self.grid.voxel_size}, "
                    f"got {tuple(self.voxel_size)}"
                )
        self.voxel_size = Coordinate(self.grid.voxel_size)
        spans = [axis.template for axis in self.grid.axes]
        self._boxes = {
            "total_roi": self.grid.total,
            "read_roi": tuple((span.read_begin, span.read_end) for span in spans),
            "write_roi": tuple((span.write_begin, span.write_end) for span in spans),
        }
        for name, box in self._boxes.items():
            setattr(self, name, RoiOfGrid(roi_of(box).offset, roi_of(box).shape))

    def _take_rois(self) -> None:
        """Make the grid from the ROIs."""
        self._boxes = {}
        for name in ("total_roi", "read_roi", "write_roi"):
            self._boxes[name] = box_of(getattr(self, name), f"{name} of task {self.task_id!r}")
            setattr(self, name, roi_of(self._boxes[name]))  # a copy, because ROIs can be changed in place
        if self.voxel_size is not None:
            self.voxel_size = coordinate_of(self.voxel_size, f"voxel_size of task {self.task_id!r}")
            self._check_voxel_grid()
        try:
            self.grid = tile(
                total=self.total_box,
                read=self._boxes["read_roi"],
                write=self._boxes["write_roi"],
                fit=self.fit,
                voxel_size=tuple(self.voxel_size or ()),
            )
        except GeometryError as error:
            raise GeometryError(f"task {self.task_id!r}: {error}") from None

    def _check_voxel_grid(self) -> None:
        for name, box in self._boxes.items():
            if len(self.voxel_size) != len(box):
                raise GeometryError(
                    f"task {self.task_id!r}: voxel_size has {len(self.voxel_size)} axes, {name} has {len(box)}"
                )
            # The template is shifted to where the total region begins, wherever that is.
            origins = self._boxes["read_roi" if name == "write_roi" else name]
            for axis, ((begin, end), (origin, _), voxel) in enumerate(zip(box, origins, self.voxel_size, strict=True)):
                if voxel <= 0:
                    raise GeometryError(f"task {self.task_id!r}: voxel_size must be positive: axis {axis} has {voxel}")
                if (begin - origin) % voxel or (end - origin) % voxel:
                    raise GeometryError(
                        f"task {self.task_id!r}: {name} must lie on the voxel grid: axis {axis} is [{begin}, {end}), "
                        f"voxels measure {voxel} from {origin} on; use multiples of the voxel size"
                    )

    def _check_numbers(self) -> None:
        if self.max_workers is not None:
            if self.num_workers not in (1, self.max_workers):
                raise PlanError(
                    f"task {self.task_id!r}: num_workers and max_workers are one thing, "
                    f"got {self.num_workers} and {self.max_workers}"
                )
            self.num_workers = self.max_workers
            self.max_workers = None  # or a copy with fewer num_workers would get the old number
        for name, least in (("num_workers", 1), ("max_retries", 0), ("blocks_per_process", 1)):
            value = getattr(self, name)
            if name == "blocks_per_process" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
                raise PlanError(f"task {self.task_id!r}: {name} must be a whole number >= {least}, got {value!r}")
            setattr(self, name, int(value))
        limit: Any = self.timeout
        if limit is not None and not (isinstance(limit, str) and limit == "auto"):
            if isinstance(limit, bool) or not isinstance(limit, Real) or not 0 < float(limit) < inf:
                raise PlanError(
                    f"task {self.task_id!r}: timeout must be a number of seconds > 0, 'auto', or None for no "
                    f"limit, got {limit!r}"
                )
            self.timeout = float(limit)
        for name in ("read_write_conflict", "stop_if_all_fail"):
            value = getattr(self, name)
            if value not in (True, False):
                raise PlanError(f"task {self.task_id!r}: {name} must be True or False, got {value!r}")
            setattr(self, name, bool(value))

    def _check_arrays(self) -> None:
        if self.shared_chunks not in SHARED_CHUNKS:
            raise PlanError(
                f"task {self.task_id!r}: shared_chunks must be one of {', '.join(map(repr, SHARED_CHUNKS))}, "
                f"got {self.shared_chunks!r}"
            )
        for name in ("inputs", "outputs"):
            given = getattr(self, name)
            if not isinstance(given, list | tuple):
                raise PlanError(
                    f"task {self.task_id!r}: {name} must be a list of arrays or paths, got {type(given).__name__}"
                )
            dims = len(self.grid.shape)
            found = [stored(value, f"{name}[{i}] of task {self.task_id!r}", dims) for i, value in enumerate(given)]
            setattr(self, f"stored_{name}", tuple(found))

    def _check_functions(self) -> None:
        if isinstance(self.check_function, tuple):
            if len(self.check_function) != 2:
                raise PlanError(
                    f"task {self.task_id!r}: check_function is one function or (pre, post), "
                    f"got a tuple of {len(self.check_function)}"
                )
            pre, post = self.check_function
        else:
            pre, post = self.check_function, None
        check_callable(self.task_id, "process_function", self.process_function)
        check_callable(self.task_id, "init_callback_fn", self.init_callback_fn)
        check_callable(self.task_id, "check_blocks", self.check_blocks)
        check_callable(self.task_id, "setup", self.setup)
        check_callable(self.task_id, "teardown", self.teardown)
        if self.teardown is not None and self.setup is None:
            raise PlanError(f"task {self.task_id!r}: teardown gets what setup returns, and there is no setup")
        check_callable(self.task_id, "check_function", pre)
        check_callable(self.task_id, "check_function", post)
        if self.process_function is None:
            self.takes_block = True
        elif self.setup is None:
            self.takes_block = takes_block(self.task_id, self.process_function)
        else:
            self.takes_block = True
            check_takes_state(self.task_id, self.process_function)
        try:
            self.blocks_to_do = None if self.mask is None else mask_for(self.mask, self.grid)
        except PlanError as error:
            raise type(error)(f"task {self.task_id!r}: {error}") from None
        self.pre_check = pre
        self.post_check = post


def _checked_upstream(task_id: str, upstream: Any) -> list[Task]:
    if upstream is None:
        return []
    tasks = list(upstream) if isinstance(upstream, Iterable) else [upstream]
    for task in tasks:
        if not isinstance(task, Task):
            raise TaskGraphError(f"upstream_tasks of task {task_id!r} must be tasks, got {task!r}")
    return tasks
