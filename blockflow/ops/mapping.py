"""Mapping: arrays in, a function over their blocks, arrays out.

A map is one :class:`~blockflow.plan.task.Task`, run like any other: with retries, in this process or in workers. What
is added is the way of the voxels (:mod:`blockflow.ops.block_job`), and the way back of results and exceptions.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, get_args

import numpy as np

from blockflow.arrays.shared import SharedArray
from blockflow.errors import PlanError, RunError
from blockflow.logging import get_log_basedir
from blockflow.ops.block_job import Call, Job, close_job, do_block, open_job
from blockflow.ops.failures import raise_failure
from blockflow.ops.map_plan import plan_map
from blockflow.ops.results import RESULT, ResultFolder
from blockflow.ops.running import running_here, running_in_workers
from blockflow.ops.sharing import in_memory, shared_sink, shared_source
from blockflow.ops.voxels import Casting
from blockflow.plan.block import Block
from blockflow.plan.task import Task
from blockflow.run import run_blockwise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import DTypeLike

    from blockflow.arrays.array import Array
    from blockflow.ops.map_plan import MapPlan
    from blockflow.plan.alignment import SharedChunks
    from blockflow.plan.grid import Grid
    from blockflow.result import RunResult

__all__ = ["iter_blocks", "map_blocks"]


def map_blocks(
    function: Callable[..., Any],
    *sources: Any,
    out: Any = None,
    grid: Grid | Sequence[int | None] | int | None = None,
    context: int | Sequence[int | tuple[int, int]] = 0,
    pad: Any = None,
    call: Call = "array",
    dtype: DTypeLike | Sequence[DTypeLike] | None = None,
    casting: Casting = "checked",
    collect: bool = False,
    setup: Callable[[], Any] | None = None,
    teardown: Callable[[Any], Any] | None = None,
    mask: Any = None,
    num_workers: int | None = None,
    max_retries: int = 2,
    timeout: float | None = None,
    shared_chunks: SharedChunks = "refuse",
    name: str = "map_blocks",
    run_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Any:
    """Call a function on every block of some arrays, and put what it returns together to others.

    Sources and outputs are ndarrays, memory maps, zarr arrays, :class:`~blockflow.arrays.Array`,
    :class:`~blockflow.arrays.shared.SharedArray`, HDF5 datasets, or paths: of a zarr array, a ``.npy`` file, a folder
    of TIFFs or a TIFF file (read only), or ``file.h5/dataset``.

    >>> import numpy as np
    >>> image = np.arange(36).reshape(6, 6)
    >>> map_blocks(lambda block: block * 2, image, grid=(3, 4), num_workers=0, progress=False).max()
    np.int64(70)
    >>> map_blocks(np.sum, image, grid=(3, 3), collect=True, num_workers=0, progress=False)
    [np.int64(63), np.int64(90), np.int64(225), np.int64(252)]

    Args:
        function: With ``call="array"``: ``function(*arrays)``, one ndarray for each source, channels first, of what
            the block reads. It returns an array for each output (a tuple if there are several), of the shape that
            it was given, which is cropped, or of what the block writes; or a scalar for all voxels. With
            ``call="block"``: ``function(block, *sources, *outputs)`` gets the :class:`~blockflow.Block` and whole
            arrays as :class:`~blockflow.arrays.Array`, reads and writes them by ROI, and returns what it wants.
        sources: What to read. All cover the same region.
        out: What to write, or several in a list. A path that does not exist becomes an array with the first source's
            place and channels, and chunks that no two blocks share. None makes a new array in memory, unless
            results are collected or ``call="block"``.
        grid: The shape of what a block writes, in voxels of the first source (None for the whole axis); or a
            :class:`~blockflow.Grid`. If not given, the shards or chunks of an output or source, else blocks of 8 MiB
            at most.
        context: Voxels that a block reads beyond what it writes: one number, one for each axis, or
            ``(before, after)`` for an axis.
        pad: What is beyond the borders of a source. None: context is clipped there. Else a mode of
            :func:`numpy.pad`, or a dict of its arguments.
        call: See `function`.
        dtype: Of outputs that are made; that of the first source if not given.
        casting: How results become the dtype of an output: ``"checked"`` takes what it can hold; else as in
            :func:`numpy.can_cast`; ``"unsafe"`` takes anything.
        collect: Return a list of what the function returned for each block, in the order of the grid, None for blocks
            that `mask` left out. With `out`, of what it returned after the results for the outputs.
        setup: Called once in each process; the function gets what it returns as its last argument.
        teardown: Called with that in the end.
        mask: See :class:`~blockflow.Task`.
        num_workers: Worker processes; as many as there are processors if not given. 0 for this process: for short
            work, and to find mistakes.
        max_retries: How often a block is tried again in worker processes.
        timeout: Seconds after which a block counts as failed, in worker processes.
        shared_chunks: See :class:`~blockflow.Task`; in this process blocks run one after the other anyway.
        name: Of the task, in the progress bar and of the folder of logs.
        run_dir: Keep there what is done, so that the same call goes on where it was stopped. Outputs must be files.
        progress: Show how far the run is.

    Returns:
        The list if results are collected, else the outputs as given (new arrays as ndarrays).

    Raises:
        GeometryError: Arrays, blocks and results do not fit one another.
        PlanError: Any other argument that cannot be right.
        ArrayError: An array cannot be opened, or results cannot be stored in its dtype.
        Exception: What the function raised, with its traceback in the worker as the cause.
        BlockError: The same, if that exception cannot be sent, or the process died.
    """
    request = _Request(
        function=function,
        sources=sources,
        out=out,
        grid=grid,
        context=context,
        pad=pad,
        call=call,
        dtype=dtype,
        casting=casting,
        collect=collect,
        setup=setup,
        teardown=teardown,
        mask=mask,
        num_workers=num_workers,
        max_retries=max_retries,
        timeout=timeout,
        shared_chunks=shared_chunks,
        name=name,
        run_dir=run_dir,
        progress=progress,
    )
    plan = request.plan()
    with _work(request, plan) as work:
        result = run_blockwise(
            work.task,
            request.workers > 0,
            progress=progress,
            summary=False,
            run_dir=run_dir,
            retry_failed=run_dir is not None,
        )
        work.check(result)
        if collect:
            return work.collected()
    if not request.outputs:
        return None
    results = [returned(*each) for each in zip(request.outputs, plan.sinks, strict=True)]
    return results if isinstance(out, list | tuple) else results[0]


class MapOptions(TypedDict, total=False):
    """The keyword arguments of :func:`map_blocks` that :func:`iter_blocks` takes too."""

    out: Any
    grid: Grid | Sequence[int | None] | int | None
    context: int | Sequence[int | tuple[int, int]]
    pad: Any
    call: Call
    dtype: DTypeLike | Sequence[DTypeLike] | None
    casting: Casting
    setup: Callable[[], Any] | None
    teardown: Callable[[Any], Any] | None
    mask: Any
    num_workers: int | None
    max_retries: int
    timeout: float | None
    shared_chunks: SharedChunks
    name: str
    run_dir: str | os.PathLike[str] | None
    progress: bool


def iter_blocks(
    function: Callable[..., Any], *sources: Any, ordered: bool = True, **options: Unpack[MapOptions]
) -> Iterator[tuple[Block, Any]]:
    """Call a function on every block of some arrays, and look at the results as they come.

    Workers go on while the caller looks; results wait in files. Leaving the loop early stops the run.

    >>> import numpy as np
    >>> for block, total in iter_blocks(np.sum, np.arange(9), grid=(3,), num_workers=0, progress=False):
    ...     print(block.write_roi, total)
    [0:3] (3) 3
    [3:6] (3) 12
    [6:9] (3) 21

    Args:
        function: As for :func:`map_blocks` with ``collect=True``.
        sources: As for :func:`map_blocks`.
        ordered: In the order of the grid; else as soon as they are there.
        options: As for :func:`map_blocks`.

    Yields:
        A block and what the function returned for it. Blocks that `mask` left out are not among them.

    Raises:
        Exception: As :func:`map_blocks`, in the end: other blocks are done first.
    """
    request = _Request(function=function, sources=sources, collect=True, **options)
    plan = request.plan()
    with _work(request, plan) as work:
        ended: list[RunResult] = []
        if request.workers:
            run = running_in_workers(work.task, request.run_dir, progress=request.progress, ended=ended)
        else:
            run = running_here(work.task, request.run_dir, progress=request.progress)
        following = 0
        with closing(run):
            for _ in run:
                work.look()
                while (index := following if ordered else next(iter(work.kept), -1)) in work.kept:
                    following += 1
                    yield work.block(index), work.result(index)
        for result in ended:
            work.check(result)
        for index in sorted(work.kept):  # behind blocks that the mask left out
            yield work.block(index), work.result(index)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
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
    setup: Callable[[], Any] | None = None
    teardown: Callable[[Any], Any] | None = None
    mask: Any = None
    num_workers: int | None = None
    max_retries: int = 2
    timeout: float | None = None
    shared_chunks: SharedChunks = "refuse"
    name: str = "map_blocks"
    run_dir: Any = None
    progress: bool = True

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise PlanError(f"function must be callable, got {self.function!r}")
        for option, value, allowed in (
            ("call", self.call, get_args(Call)),
            ("casting", self.casting, get_args(Casting)),
        ):
            if value not in allowed:
                raise PlanError(f"{option} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
        number = self.num_workers
        if number is not None and (isinstance(number, bool) or not hasattr(number, "__index__") or number < 0):
            raise PlanError(f"num_workers must be a whole number >= 0, or None for all processors, got {number!r}")
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
        """Number of worker processes; 0 for this process."""
        return _processors() if self.num_workers is None else int(self.num_workers)

    def plan(self) -> MapPlan:
        """The arrays and blocks, checked."""
        return plan_map(
            self.sources,
            self.outputs,
            dtypes=self.dtypes,
            grid=self.grid,
            context=self.context,
            pad=self.pad,
            shared=self.workers > 0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """A task, and where its results are."""

    task: Task
    kept: dict[int, Any]
    """By index of the block: a result of this process, or the record of one of a worker."""
    folder: ResultFolder | None
    logs: Path | None
    """Where the output of workers is kept."""
    seen: set[int] = field(default_factory=set)
    """Blocks whose results have come; one that ran twice has two."""

    def look(self) -> None:
        """Find out which results have come since the last call."""
        if self.folder is None:
            return
        for record in self.folder.new():
            if record.kind == RESULT and record.index not in self.seen:
                self.seen.add(record.index)
                self.kept[record.index] = record

    def result(self, index: int) -> Any:
        """What the function returned for a block; None if the mask left it out."""
        kept = self.kept.pop(index, None)
        return kept if self.folder is None or kept is None else kept.load()

    def collected(self) -> list[Any]:
        """The results of all blocks.

        Raises:
            RunError: A block was done without a result being kept.
        """
        size = self.task.grid.size
        lost = [index for index in range(size) if index not in self.kept] if self.task.mask is None else []
        if lost:
            raise RunError(f"no result of block {lost[0]} and {len(lost) - 1} more is kept: run_dir is of another call")
        return [self.result(index) for index in range(size)]

    def block(self, index: int) -> Block:
        """The block with an index."""
        return Block.of_grid(self.task.grid, index, total=self.task.total_box, task_id=self.task.task_id)

    def check(self, result: RunResult) -> None:
        """Raise what made blocks fail."""
        if self.folder is not None:
            self.look()
            raise_failure(result, self.task.task_id, self.folder.folder, self.logs)


@contextmanager
def _work(request: _Request, plan: MapPlan) -> Iterator[_Work]:
    """Everything that a run needs, for as long as the context."""
    kept: dict[int, Any] = {}
    sources, sinks = plan.sources, plan.sinks
    with ExitStack() as stack:
        folder = _result_folder(request, plan)
        if request.workers:
            sources = tuple(stack.enter_context(shared_source(source)) for source in sources)
            sinks = tuple(stack.enter_context(shared_sink(sink, "out")) for sink in sinks)
            if folder is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="blockflow-")))
        job = Job(
            function=request.function,
            call=request.call,
            sources=sources,
            sinks=sinks,
            grid=plan.grid,
            bounds=plan.bounds,
            pads=plan.pads,
            casting=request.casting,
            collect=request.collect,
            folder=folder,
            setup=request.setup,
            teardown=request.teardown,
        )
        task = Task(
            request.name,
            grid=plan.grid,
            process_function=do_block,
            setup=partial(open_job, job, None if folder else kept),
            teardown=close_job,
            read_write_conflict=False,
            num_workers=max(1, min(request.workers, plan.grid.size)),
            max_retries=request.max_retries,
            timeout=request.timeout,
            mask=request.mask,
            inputs=sources,
            outputs=sinks if request.workers else (),  # one after the other, blocks may share what they like
            shared_chunks=request.shared_chunks,
        )
        logs = get_log_basedir() if request.run_dir is None else Path(request.run_dir) / "logs"
        yield _Work(task=task, kept=kept, folder=None if folder is None else ResultFolder(folder), logs=logs)


def _result_folder(request: _Request, plan: MapPlan) -> Path | None:
    """Where a run directory keeps results.

    Raises:
        PlanError: An output is in memory.
    """
    if request.run_dir is None:
        return None
    for sink in plan.sinks:
        if in_memory(sink.data) or isinstance(sink.data, SharedArray):
            raise PlanError(
                "with run_dir, out must be a file: what is in memory ends with this process, and the run directory would "
                "say that it is done"
            )
    return Path(request.run_dir).absolute() / "results"  # made by who keeps one: the run wants its directory empty


def returned(given: Any, sink: Array) -> Any:
    """An output as its user knows it."""
    if given is not None and not isinstance(given, str | os.PathLike):
        return given
    if isinstance(sink.data, SharedArray):
        return sink.data.view()  # which keeps the memory when nobody else does
    return sink.data if isinstance(sink.data, np.ndarray) else sink


def below(run_dir: str | os.PathLike[str] | None, name: str) -> Path | None:
    """A run directory for one of several runs of an operation."""
    return None if run_dir is None else Path(run_dir) / name


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
