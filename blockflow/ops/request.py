"""The arguments of a map, checked as far as each can be alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict, get_args

from blockflow.binding import check_outputs
from blockflow.errors import PlanError, RunDirectoryError
from blockflow.launch.shared import processors
from blockflow.ops.block_job import Call
from blockflow.ops.map_plan import plan_map
from blockflow.ops.voxels import Casting
from blockflow.paths import local_path
from blockflow.plan.flags import check_flags
from blockflow.plan.launcher import is_local, launchers_of

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from numpy.typing import DTypeLike

    from blockflow.ops.map_plan import MapPlan
    from blockflow.plan.alignment import SharedChunks
    from blockflow.plan.grid import Grid

__all__ = ["CACHE_BYTES", "MapOptions", "MapRequest"]


CACHE_BYTES = 64 * 2**20
"""Enough for most rows of blocks, and little beside what a block takes."""


class MapOptions(TypedDict, total=False):
    """The keyword arguments of :func:`map_blocks` that :func:`iter_blocks` takes too."""

    out: Any
    grid: Grid | Sequence[int | None] | int | None
    context: int | Sequence[int | tuple[int, int]]
    pad: Any
    call: Call
    dtype: DTypeLike | Sequence[DTypeLike] | None
    casting: Casting
    cache_bytes: int
    overlap_io: bool
    setup: Callable[[], Any] | None
    teardown: Callable[[Any], Any] | None
    mask: Any
    num_workers: int | None
    launcher: Any
    host: str | None
    blocks_per_process: int | None
    max_retries: int
    timeout: float | None
    shared_chunks: SharedChunks
    name: str
    run_dir: str | os.PathLike[str] | None
    reset: bool
    accept_change: bool
    rerun_older: bool
    take_over: bool
    progress: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MapRequest:
    """The arguments of a map; see :func:`map_blocks`."""

    function: Callable[..., Any]
    sources: tuple[Any, ...]
    out: Any = None
    grid: Any = None
    context: Any = 0
    pad: Any = None
    call: Call = "array"
    dtype: Any = None
    casting: Casting = "checked"
    collect: bool = False
    cache_bytes: int = CACHE_BYTES
    overlap_io: bool = True
    setup: Callable[[], Any] | None = None
    teardown: Callable[[Any], Any] | None = None
    mask: Any = None
    num_workers: int | None = None
    launcher: Any = None
    host: str | None = None
    blocks_per_process: int | None = None
    max_retries: int = 2
    timeout: float | None = None
    shared_chunks: SharedChunks = "refuse"
    name: str = "map_blocks"
    run_dir: Any = None
    reset: bool = False
    accept_change: bool = False
    rerun_older: bool = False
    take_over: bool = False
    progress: bool = True
    also_read: tuple[Any, ...] = ()
    """Arrays of any axes that the function reads beside its sources; a run directory is bound to them."""

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise PlanError(f"function must be callable, got {self.function!r}")
        check_flags(
            collect=self.collect,
            overlap_io=self.overlap_io,
            reset=self.reset,
            accept_change=self.accept_change,
            rerun_older=self.rerun_older,
            take_over=self.take_over,
            progress=self.progress,
        )
        for option, value, allowed in (
            ("call", self.call, get_args(Call)),
            ("casting", self.casting, get_args(Casting)),
        ):
            if value not in allowed:
                raise PlanError(f"{option} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
        number = self.num_workers
        if number is not None and (isinstance(number, bool) or not hasattr(number, "__index__") or number < 0):
            raise PlanError(f"num_workers must be a whole number >= 0, or None for all processors, got {number!r}")
        kept = self.cache_bytes
        if isinstance(kept, bool) or not hasattr(kept, "__index__") or kept < 0:
            raise PlanError(f"cache_bytes must be a whole number >= 0, got {kept!r}")
        if self.run_dir is None and (self.reset or self.accept_change or self.take_over or self.rerun_older):
            raise PlanError(
                "reset, accept_change, take_over and rerun_older say what to do with a run_dir; there is none"
            )
        if self.reset and self.accept_change:
            raise PlanError("reset forgets everything that happened, so accept_change has no meaning")
        if self.remote and self.run_dir is None:
            raise PlanError(
                "workers on other machines keep results and exceptions in the run directory: pass run_dir, of a file "
                "system that they see"
            )
        if self.run_dir is not None:
            local_path(self.run_dir, "run_dir", RunDirectoryError)
        if self.launcher is not None and self.workers == 0:
            raise PlanError("num_workers=0 is this process, which needs no launcher")
        if self.teardown is not None and self.setup is None:
            raise PlanError("teardown gets what setup returns, and there is no setup")
        if self.call == "block" and self.pad is not None:
            raise PlanError("pad is for call='array'; with call='block' read with to_ndarray(roi, fill_value=...)")

    @property
    def outputs(self) -> list[Any]:
        """One entry for each output; None for one that is to be made in memory."""
        if self.out is None:
            return [None] if self.call == "array" and not self.collect else []
        return list(self.out) if isinstance(self.out, list | tuple) else [self.out]

    @property
    def dtypes(self) -> list[Any]:
        """One for each output."""
        count = len(self.outputs)
        if not isinstance(self.dtype, list | tuple):
            return [self.dtype] * count
        if len(self.dtype) != count:
            raise PlanError(f"dtype must be one, or one for each of {count} outputs, got {len(self.dtype)}")
        return list(self.dtype)

    @property
    def workers(self) -> int:
        """How many worker processes there may be; 0 for this process alone."""
        return processors() if self.num_workers is None else int(self.num_workers)

    @property
    def begins_here(self) -> bool:
        """Whether the first blocks may be done in this process, until it is known that workers pay.

        Not if anything is asked for that only processes of their own can do, or that is of use in long runs only.
        """
        most = self.blocks_per_process
        asked = (most, self.launcher, self.host, self.timeout, self.setup, self.mask, self.run_dir)
        return self.workers > 0 and all(each is None for each in asked) and self.shared_chunks == "refuse"

    @property
    def overlaps_io(self) -> bool:
        """Whether workers read and write while they compute.

        Functions that do this by themselves cannot be taken apart, and a timeout is of a block that does not wait.
        """
        return self.overlap_io and self.call == "array" and self.timeout is None

    @property
    def remote(self) -> bool:
        """Whether workers may be on other machines."""
        return not is_local(launchers_of(self.launcher, "launcher"))

    @property
    def ledger_options(self) -> dict[str, Any]:
        """How the run directory is opened, if there is one."""
        if self.run_dir is None:
            return {}
        return {
            "reset": self.reset,
            "retry_failed": not self.reset,
            "accept_change": self.accept_change,
            "rerun_older": self.rerun_older,
            "take_over": self.take_over,
        }

    def plan(self) -> MapPlan:
        """The arrays and blocks, checked."""
        if not self.reset:
            check_outputs(self.run_dir, self.outputs)
        return plan_map(
            self.sources,
            self.outputs,
            dtypes=self.dtypes,
            grid=self.grid,
            context=self.context,
            pad=self.pad,
            shared=self.workers > 0 and not self.begins_here,
        )
