"""A task: what is to be done, where, in which blocks, and after what?

A task is data. Everything that can be wrong with it alone is refused when it is made; what can be wrong between
tasks is refused when they are compiled into a plan (:mod:`blockflow.plan.plan`).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, field
from math import inf
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from blockflow.errors import GeometryError, PlanError, TaskGraphError
from blockflow.geometry import Roi, box_of, coordinate_of, roi_of
from blockflow.plan.grid import Fit, Grid, tile
from blockflow.plan.launcher import Launcher, launchers_of
from blockflow.plan.mask import Mask, mask_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from blockflow.geometry import Box
    from blockflow.plan.block import Block

CheckFunction: TypeAlias = "Callable[[Block], bool]"

_LONGEST_NAME = 200
"""Bytes in a task id: it names a log folder, file systems allow 255, and suffixes need some."""

_COMPILED = frozenset(
    {
        "check_blocks",
        "check_function",
        "fit",
        "mask",
        "process_function",
        "read_roi",
        "setup",
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

    All ROIs are in world units, half-open. Arguments after `upstream_tasks` are keyword-only. A task's region, blocks
    and functions cannot be changed any more: make another one with :func:`dataclasses.replace`.

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
    upstream_tasks: list[Task] = field(default_factory=list, repr=False)
    """Tasks whose results this one reads."""
    _: KW_ONLY
    max_workers: int | None = None
    """Another name of `num_workers`."""
    voxel_size: Any = None
    """World units per voxel, per axis; if given, every ROI must measure whole voxels, and so must the context."""
    setup: Callable[[], Any] | None = None
    """Called once in each worker process before its first block, to load a model or open a file. What it returns is
    passed on: the process function is then called as ``process_function(block, state)``."""
    teardown: Callable[[Any], Any] | None = None
    """Called with what `setup` returned when a worker process has no more blocks; not if it is killed."""
    launcher: Any = None
    """How its workers come to life: ``Local(8)``, ``Slurm(...)``, ``LSF(...)``, ``Command(...)``, ``Dask(...)``, or a
    list of these, each of which says how many it may start. None for what :func:`blockflow.run_blockwise` is told."""
    mask: Any = None
    """Which blocks have anything to do; the others are skipped. Either a boolean array with one flag per block, or a
    :class:`blockflow.arrays.Array` over the volume, of any voxel size: a block has something to do if any voxel that
    its write ROI touches is not zero. Outside the array there is nothing to do."""
    check_blocks: Callable[[Any], Any] | None = None
    """A pre-check of many blocks at once: called with an int64 array of block indices (C order in the grid), returns
    as many booleans, true where a block is done already."""

    launchers: tuple[Launcher, ...] = field(init=False, repr=False)
    """`launcher` as a tuple; empty if it says nothing."""
    grid: Grid = field(init=False, repr=False)
    """The blocks of this task."""
    takes_block: bool = field(init=False, repr=False)
    """Whether the process function takes a block; if not it is a worker of its own."""
    pre_check: CheckFunction | None = field(init=False, repr=False)
    """The function that finds a block done before it runs."""
    blocks_to_do: Mask | None = field(init=False, repr=False)
    """The mask, as a question about blocks."""
    post_check: CheckFunction | None = field(init=False, repr=False)
    """The function that decides whether a finished block is good."""

    def __post_init__(self) -> None:
        self.task_id = _checked_name(self.task_id)
        self.upstream_tasks = _checked_upstream(self.task_id, self.upstream_tasks)
        self._boxes = {}
        for name in ("total_roi", "read_roi", "write_roi"):
            self._boxes[name] = box_of(getattr(self, name), f"{name} of task {self.task_id!r}")
            setattr(self, name, roi_of(self._boxes[name]))  # a copy, because ROIs can be changed in place
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
        self.launchers = launchers_of(self.launcher, f"task {self.task_id!r}")
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
        for name, least in (("num_workers", 1), ("max_retries", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
                raise PlanError(f"task {self.task_id!r}: {name} must be a whole number >= {least}, got {value!r}")
            setattr(self, name, int(value))
        limit: Any = self.timeout
        if limit is not None:
            if isinstance(limit, bool) or not isinstance(limit, Real) or not 0 < float(limit) < inf:
                raise PlanError(
                    f"task {self.task_id!r}: timeout must be a number of seconds > 0, or None for no limit, "
                    f"got {limit!r}"
                )
            self.timeout = float(limit)
        if self.read_write_conflict not in (True, False):
            raise PlanError(
                f"task {self.task_id!r}: read_write_conflict must be True or False, got {self.read_write_conflict!r}"
            )
        self.read_write_conflict = bool(self.read_write_conflict)

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
        _check_callable(self.task_id, "process_function", self.process_function)
        _check_callable(self.task_id, "init_callback_fn", self.init_callback_fn)
        _check_callable(self.task_id, "check_blocks", self.check_blocks)
        _check_callable(self.task_id, "setup", self.setup)
        _check_callable(self.task_id, "teardown", self.teardown)
        if self.teardown is not None and self.setup is None:
            raise PlanError(f"task {self.task_id!r}: teardown gets what setup returns, and there is no setup")
        _check_callable(self.task_id, "check_function", pre)
        _check_callable(self.task_id, "check_function", post)
        if self.process_function is None:
            self.takes_block = True
        elif self.setup is None:
            self.takes_block = _takes_block(self.task_id, self.process_function)
        else:
            self.takes_block = True
            _check_takes_state(self.task_id, self.process_function)
        try:
            self.blocks_to_do = None if self.mask is None else mask_for(self.mask, self.grid)
        except PlanError as error:
            raise type(error)(f"task {self.task_id!r}: {error}") from None
        self.pre_check = pre
        self.post_check = post


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
    return str.__str__(name)  # numpy's strings do not go over the wire


def _checked_upstream(task_id: str, upstream: Any) -> list[Task]:
    if upstream is None:
        return []
    tasks = list(upstream) if isinstance(upstream, Iterable) else [upstream]
    for task in tasks:
        if not isinstance(task, Task):
            raise TaskGraphError(f"upstream_tasks of task {task_id!r} must be tasks, got {task!r}")
    return tasks


def _check_callable(task_id: str, name: str, function: Any) -> None:
    if function is None:
        return
    if not callable(function):
        raise PlanError(f"task {task_id!r}: {name} must be callable, got {function!r}")
    lazy = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)
    if any(is_lazy(code) for is_lazy in lazy for code in (function, type(function).__call__)):
        raise PlanError(
            f"task {task_id!r}: {name} must be a plain function; calling an async or generator function runs nothing"
        )


def _takes_block(task_id: str, function: Callable[..., Any]) -> bool:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return True  # builtins without a signature
    parameters = signature.parameters.values()
    needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(needed) > 1 or any(p.kind is p.KEYWORD_ONLY for p in needed):
        bare = inspect.Signature([p.replace(annotation=p.empty) for p in needed])
        raise PlanError(
            f"task {task_id!r}: process_function must take one block, or nothing; it requires {bare}. "
            "Bind the others with functools.partial, the block last"
        )
    return bool(needed) or any(p.kind is p.VAR_POSITIONAL for p in parameters)


def _check_takes_state(task_id: str, function: Callable[..., Any]) -> None:
    try:
        inspect.signature(function).bind("block", "state")
    except TypeError:
        raise PlanError(
            f"task {task_id!r}: with setup, process_function must take a block and what setup returned"
        ) from None
    except ValueError:
        pass  # builtins without a signature
