"""A task: what is to be done, where, in which blocks, and after what?

A task is data. Everything that can be wrong with it alone is refused when it is made; what can be wrong between
tasks is refused when they are compiled into a plan (:mod:`blockflow.plan.plan`).
"""

from __future__ import annotations

import inspect
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from blockflow.errors import GeometryError, PlanError, TaskGraphError
from blockflow.geometry import Roi, box_of, coordinate_of
from blockflow.plan.grid import Fit, Grid, tile

if TYPE_CHECKING:
    from collections.abc import Callable

    from blockflow.geometry import Box
    from blockflow.plan.block import Block

CheckFunction: TypeAlias = "Callable[[Block], bool]"

_LONGEST_NAME = 200
"""Bytes in a task id: it names a log folder, file systems allow 255, and suffixes need some."""


@dataclass(eq=False)
class Task:
    """A function over all blocks of a region.

    >>> from blockflow import Roi, Task
    >>> def smooth(block): ...
    >>> task = Task("smooth", Roi((0, 0), (100, 100)), Roi((0, 0), (24, 24)), Roi((2, 2), (20, 20)), smooth)
    >>> task.grid.shape
    (4, 4)

    All ROIs are in world units, half-open. Arguments after `upstream_tasks` are keyword-only.

    Raises:
        GeometryError: ROIs that contradict one another or do not lie on the voxel grid, or an unknown `fit`.
        TaskGraphError: An id that cannot name a folder, or an upstream task that is none.
        PlanError: Any other argument that cannot be right.
    """

    task_id: str
    """Name of the task, and of the folder of its logs."""
    total_roi: Roi
    """The region that the read ROIs tile, context included."""
    read_roi: Roi
    """Where a block reads; the template that is shifted over `total_roi`."""
    write_roi: Roi
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
    """How often a block is tried again after a failure of user code."""
    fit: Fit = "valid"
    """What happens to blocks that do not fit: ``"valid"`` drops, ``"overhang"`` keeps whole, ``"shrink"`` cuts."""
    timeout: float | None = None
    """Seconds after which a block's worker is killed and the block counts as failed; None for no limit."""
    upstream_tasks: list[Task] = field(default_factory=list)
    """Tasks whose results this one reads."""
    _: KW_ONLY
    max_workers: int | None = None
    """Another name of `num_workers`."""
    voxel_size: Any = None
    """World units per voxel, per axis; if given, every ROI must lie on the voxel grid."""

    grid: Grid = field(init=False, repr=False)
    """The blocks of this task."""
    takes_block: bool = field(init=False, repr=False)
    """Whether the process function takes a block; if not it is a worker of its own."""
    pre_check: CheckFunction | None = field(init=False, repr=False)
    """The function that finds a block done before it runs."""
    post_check: CheckFunction | None = field(init=False, repr=False)
    """The function that decides whether a finished block is good."""

    def __post_init__(self) -> None:
        self.task_id = _checked_name(self.task_id)
        self.upstream_tasks = _checked_upstream(self.task_id, self.upstream_tasks)
        self._boxes = {
            name: box_of(getattr(self, name), f"{name} of task {self.task_id!r}")
            for name in ("total_roi", "read_roi", "write_roi")
        }
        if self.voxel_size is not None:
            self.voxel_size = coordinate_of(self.voxel_size, f"voxel_size of task {self.task_id!r}")
            self._check_voxel_grid()
        try:
            self.grid = tile(
                total=self.total_box, read=self._boxes["read_roi"], write=self._boxes["write_roi"], fit=self.fit
            )
        except GeometryError as error:
            raise GeometryError(f"task {self.task_id!r}: {error}") from None
        self._check_numbers()
        self.takes_block = self.process_function is None or _takes_block(self.task_id, self.process_function)
        self.pre_check, self.post_check = self._checks()

    @property
    def total_box(self) -> Box:
        """`total_roi` as integers."""
        return self._boxes["total_roi"]

    def requires(self) -> list[Task]:
        """The tasks whose results this one reads."""
        return list(self.upstream_tasks)

    def dropped_voxels(self) -> int:
        """How many voxels (world units if no voxel size is given) of the writable region no block writes."""
        covered = writable = 1
        for axis, (_, end) in zip(self.grid.axes, self.total_box, strict=True):
            room = max(0, end - axis.after - axis.first)
            writable *= room
            covered *= min(room, axis.count * axis.step)
        volume = 1
        for extent in self.voxel_size or ():
            volume *= extent
        return (writable - covered) // volume

    def _check_voxel_grid(self) -> None:
        for name, box in self._boxes.items():
            if len(self.voxel_size) != len(box):
                raise GeometryError(
                    f"task {self.task_id!r}: voxel_size has {len(self.voxel_size)} axes, {name} has {len(box)}"
                )
            for axis, ((begin, end), voxel) in enumerate(zip(box, self.voxel_size, strict=True)):
                if voxel <= 0:
                    raise GeometryError(f"task {self.task_id!r}: voxel_size must be positive: axis {axis} has {voxel}")
                if (end - begin) % voxel or (begin - self._boxes["total_roi"][axis][0]) % voxel:
                    raise GeometryError(
                        f"task {self.task_id!r}: {name} must lie on the voxel grid: axis {axis} is [{begin}, {end}), "
                        f"a voxel is {voxel}; use multiples of the voxel size"
                    )

    def _check_numbers(self) -> None:
        if self.max_workers is not None:
            if self.num_workers not in (1, self.max_workers):
                raise PlanError(
                    f"task {self.task_id!r}: num_workers and max_workers are one thing, "
                    f"got {self.num_workers} and {self.max_workers}"
                )
            self.num_workers = self.max_workers
        for name, least in (("num_workers", 1), ("max_retries", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise PlanError(f"task {self.task_id!r}: {name} must be a whole number >= {least}, got {value!r}")
        if self.timeout is not None and not self.timeout > 0:
            raise PlanError(f"task {self.task_id!r}: timeout must be a number of seconds > 0, got {self.timeout!r}")

    def _checks(self) -> tuple[CheckFunction | None, CheckFunction | None]:
        if isinstance(self.check_function, tuple):
            if len(self.check_function) != 2:
                raise PlanError(
                    f"task {self.task_id!r}: check_function is one function or (pre, post), "
                    f"got a tuple of {len(self.check_function)}"
                )
            pre, post = self.check_function
        else:
            pre, post = self.check_function, None
        for check in (pre, post):
            if check is not None and not callable(check):
                raise PlanError(f"task {self.task_id!r}: check_function must be callable, got {check!r}")
        return pre, post


def _checked_name(name: Any) -> str:
    if not isinstance(name, str):
        raise TaskGraphError(f"a task id must be a string, got {name!r}")
    wrong: Literal[False] | str = (
        (not name and "it is empty")
        or (name != name.strip() and "it begins or ends with a space")
        or (name.startswith(".") and "it begins with a dot")
        or (any(sign in name for sign in "/\\") and "it holds a path separator")
        or (not name.isprintable() and "it holds a control character")
        or (len(name.encode(errors="replace")) > _LONGEST_NAME and f"it is longer than {_LONGEST_NAME} bytes")
    )
    if wrong:
        raise TaskGraphError(f"a task id names a folder for logs, and {name!r} cannot: {wrong}")
    return name


def _checked_upstream(task_id: str, upstream: Any) -> list[Task]:
    tasks = [] if upstream is None else [upstream] if isinstance(upstream, Task) else list(upstream)
    for task in tasks:
        if not isinstance(task, Task):
            raise TaskGraphError(f"upstream_tasks of task {task_id!r} must be tasks, got {task!r}")
    return tasks


def _takes_block(task_id: str, function: Any) -> bool:
    if not callable(function):
        raise PlanError(f"task {task_id!r}: process_function must be callable, got {function!r}")
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return True  # builtins without a signature
    needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    keyword_only = [p.name for p in needed if p.kind is p.KEYWORD_ONLY]
    if len(needed) > 1 or keyword_only:
        names = ", ".join(p.name for p in needed)
        raise PlanError(
            f"task {task_id!r}: process_function must take one block, or nothing; it requires ({names}). "
            "Bind the others with functools.partial, the block last"
        )
    return bool(needed) or any(p.kind is p.VAR_POSITIONAL for p in parameters)
