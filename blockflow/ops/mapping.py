"""Mapping: arrays in, a function over their blocks, arrays out.

A map is one :class:`~blockflow.plan.task.Task`, run like any other: with retries, in this process or in workers. What
is added is the way of the voxels (:mod:`blockflow.ops.block_job`), and the way back of results and exceptions
(:mod:`blockflow.ops.work`).
"""

from __future__ import annotations

import os
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from blockflow.arrays.shared import SharedArray
from blockflow.driving import ended_by_signals
from blockflow.errors import RunDirectoryError
from blockflow.ops.beginning import Beginning
from blockflow.ops.inputs import closing_files
from blockflow.ops.request import CACHE_BYTES, MapOptions, MapRequest
from blockflow.ops.running import running_here, running_in_workers
from blockflow.ops.work import work_of
from blockflow.paths import local_path
from blockflow.plan.flags import checked_flag
from blockflow.run import run_blockwise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import DTypeLike

    from blockflow.arrays.array import Array
    from blockflow.ops.block_job import Call
    from blockflow.ops.map_plan import MapPlan
    from blockflow.ops.voxels import Casting
    from blockflow.ops.work import Work
    from blockflow.plan.alignment import SharedChunks
    from blockflow.plan.block import Block
    from blockflow.plan.grid import Grid
    from blockflow.result import RunResult

__all__ = ["below", "folder_for_all", "iter_blocks", "map_blocks", "returned", "run_map"]


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
    cache_bytes: int = CACHE_BYTES,
    overlap_io: bool = True,
    setup: Callable[[], Any] | None = None,
    teardown: Callable[[Any], Any] | None = None,
    mask: Any = None,
    num_workers: int | None = None,
    launcher: Any = None,
    host: str | None = None,
    blocks_per_process: int | None = None,
    max_retries: int = 2,
    timeout: float | None = None,
    shared_chunks: SharedChunks = "refuse",
    name: str = "map_blocks",
    run_dir: str | os.PathLike[str] | None = None,
    reset: bool = False,
    accept_change: bool = False,
    rerun_older: bool = False,
    take_over: bool = False,
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
        cache_bytes: How much each process keeps of each chunked source, decoded, because blocks read more than they
            write; 0 for nothing. Nobody may write to sources while a map runs.
        overlap_io: Let a worker read its next block and write its last one while it computes, where that takes time.
            It holds three blocks then. Without effect with ``call="block"``, a timeout, or in this process.
        setup: Called once in each worker process (or in this one, for ``num_workers=0``); the function gets what it
            returns as its last argument.
        teardown: Called with that in the end.
        mask: See :class:`~blockflow.Task`.
        num_workers: How many worker processes there may be, by default as many as there are processors. The map begins
            in this process, and goes on in workers if they save more time than it takes to start them. 0 for this
            process alone, to find mistakes.
        launcher: Where workers are: see :class:`~blockflow.Task`. They do all blocks then: ``Local(4)`` for processes
            of this machine. If they are on other machines, arrays have to be files, and `run_dir` has to be a directory
            that those machines see.
        host: See :func:`~blockflow.run_blockwise`.
        blocks_per_process: See :class:`~blockflow.Task`.
        max_retries: How often a block is tried again in worker processes.
        timeout: Seconds after which a block counts as failed, in worker processes.
        shared_chunks: See :class:`~blockflow.Task`; in this process blocks run one after the other anyway.
        name: Of the task, in the progress bar and of the folder of logs.
        run_dir: Keep there what is done, so that the same call goes on where it was stopped. Outputs must be files. The
            directory is bound to them and to the sources: it is refused with others, or with an output that was deleted
            and made again.
        reset: Forget what the run directory says, and start over.
        rerun_older: Do blocks again that were done by another version of the function; otherwise they are kept, and a
            warning says so.
        accept_change: Keep what is done although blocks or arrays are others: see :func:`~blockflow.run_blockwise`.
        take_over: See :func:`~blockflow.run_blockwise`.
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
    request = MapRequest(
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
        cache_bytes=cache_bytes,
        overlap_io=overlap_io,
        setup=setup,
        teardown=teardown,
        mask=mask,
        num_workers=num_workers,
        launcher=launcher,
        host=host,
        blocks_per_process=blocks_per_process,
        max_retries=max_retries,
        timeout=timeout,
        shared_chunks=shared_chunks,
        name=name,
        run_dir=run_dir,
        reset=reset,
        accept_change=accept_change,
        rerun_older=rerun_older,
        take_over=take_over,
        progress=progress,
    )
    return run_map(request)


def run_map(request: MapRequest) -> Any:
    """Do what :func:`map_blocks` was asked for; returns what that returns."""
    plan = request.plan()
    given, arrays = [*request.sources, *request.outputs], [*plan.sources, *plan.sinks]
    with closing_files(given, arrays), work_of(request, plan) as work:
        if request.begins_here:
            _run_from_here(request, work)
        else:
            result = run_blockwise(
                work.elsewhere() if request.workers else work.here(),
                request.workers > 0,
                progress=request.progress,
                summary=False,
                host=request.host,
                run_dir=request.run_dir,
                **request.ledger_options,
            )
            work.check(result)
        if request.collect:
            return work.collected()
    if not request.outputs:
        return None
    results = [returned(*each) for each in zip(request.outputs, plan.sinks, strict=True)]
    return results if isinstance(request.out, list | tuple) else results[0]


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

    Returns:
        An iterator over blocks and what the function returned for them. Blocks that `mask` left out are not among them.
        The run begins with the first step.

    Raises:
        PlanError: As :func:`map_blocks`, at once.
        Exception: What the function raised, from the iterator, in the end: other blocks are done first.
    """
    checked_flag("ordered", ordered)
    request = MapRequest(function=function, sources=sources, collect=True, **options)
    return _iterate(request, request.plan(), ordered=ordered)


def _run_from_here(request: MapRequest, work: Work) -> None:
    """Begin in this process, and go on in workers if they pay."""
    beginning = Beginning(work, request.workers, progress=request.progress)
    with ended_by_signals(), closing(beginning.steps()) as steps:
        for _ in steps:
            pass
    for result in beginning.results:
        work.check(result)


def _iterate(request: MapRequest, plan: MapPlan, *, ordered: bool) -> Iterator[tuple[Block, Any]]:
    with closing_files(request.sources, plan.sources), work_of(request, plan) as work:
        results: list[RunResult] = []
        if request.begins_here:
            beginning = Beginning(work, request.workers, progress=request.progress)
            run, results = beginning.steps(), beginning.results
        elif request.workers:
            run = running_in_workers(
                work.elsewhere(),
                request.run_dir,
                progress=request.progress,
                host=request.host,
                ended=results,
                **request.ledger_options,
            )
        else:
            run = running_here(work.here(), request.run_dir, progress=request.progress, **request.ledger_options)
        following = 0
        with closing(run):
            for _ in run:
                work.look()
                while (index := following if ordered else next(iter(work.kept), -1)) in work.kept:
                    following += 1
                    yield work.block(index), work.result(index)
        for result in results:
            work.check(result)
        for index in sorted(work.kept):  # behind blocks that the mask left out
            yield work.block(index), work.result(index)


def returned(given: Any, sink: Array) -> Any:
    """An output as its user knows it."""
    if given is not None and not isinstance(given, str | os.PathLike):
        return given
    if isinstance(sink.data, SharedArray):
        return sink.data.view()  # which keeps the memory when nobody else does
    return sink.data if isinstance(sink.data, np.ndarray) else sink


@contextmanager
def folder_for_all(path: Path | None) -> Iterator[Path]:
    """A folder for what all workers need: in a run directory, or a temporary one."""
    if path is None:
        with tempfile.TemporaryDirectory(prefix="blockflow-") as folder:
            yield Path(folder)
        return
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    yield path


def below(run_dir: str | os.PathLike[str] | None, name: str) -> Path | None:
    """A run directory for one of several runs of an operation."""
    return None if run_dir is None else local_path(run_dir, "run_dir", RunDirectoryError) / name
