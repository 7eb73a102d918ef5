"""Work of a map: its task, and the way back of results and exceptions.

Arrays in memory are put into shared memory for worker processes, and what they keep goes into a private folder; both
last as long as the context of :func:`work_of`. Work may begin in this process, and go on in workers: the arrays are
shared only then.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, contextmanager
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockflow.arrays.overlap import overlap
from blockflow.arrays.shared import SharedArray
from blockflow.errors import PlanError, RunError
from blockflow.launch.payload import pack_functions
from blockflow.logging import get_log_basedir
from blockflow.ops.block_job import DoBlock, Job, close_job, do_block, do_block_at_once, open_job
from blockflow.ops.failures import raise_failure
from blockflow.ops.results import FAILURE, Record, ResultFolder
from blockflow.ops.sharing import (
    Movable,
    check_shareable,
    in_memory,
    shared_sink,
    shared_source,
    with_data,
)
from blockflow.plan.block import Block
from blockflow.plan.task import Task
from blockflow.visibility import try_stores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blockflow.arrays.array import Array
    from blockflow.ops.block_job import OpenJob
    from blockflow.ops.map_plan import MapPlan
    from blockflow.ops.request import MapRequest
    from blockflow.result import RunResult

__all__ = ["Work", "work_of"]


class Work:
    """The tasks of a map, and where their results are; made by :func:`work_of`.

    Args:
        request: What was asked for.
        plan: Its arrays and blocks.
        stack: Gives back, in the end, what workers need.
    """

    def __init__(self, request: MapRequest, plan: MapPlan, stack: ExitStack) -> None:
        self._request = request
        self._plan = plan
        self._stack = stack
        self._sources = tuple(_apart(source, plan.sinks) for source in plan.sources)
        self._sinks = plan.sinks
        path = _result_folder(request, plan)
        self.size = plan.grid.size
        """Number of blocks."""
        self.kept: dict[int, Any] = {}
        """By index of the block: a result of this process, or the record of one of a worker."""
        self.folder = None if path is None else ResultFolder(path)
        """Where workers keep results."""
        self.seen: set[int] = set()
        """Blocks whose results have come from workers; one that ran twice has two."""
        self.failures: dict[int, Record] = {}
        """The last exception of each block that raised one in a worker in this run."""

    def here(self, *, may_move: bool = False) -> Task:
        """The task for this process.

        Args:
            may_move: Workers may go on with it, see :meth:`elsewhere`.
        """
        if may_move:
            self._sinks = tuple(
                with_data(sink, Movable(sink.data)) if in_memory(sink.data) else sink for sink in self._sinks
            )
        folder = None if self.folder is None else self.folder.folder
        setup = partial(open_job, self._job(self._sources, self._sinks, folder), None if folder else self.kept)
        outputs = self._plan.sinks if self._request.workers or self._request.run_dir is not None else ()
        return self._task(do_block_at_once if may_move else do_block, setup, outputs)

    def check_sendable(self) -> None:
        """Refuse what workers could not be sent, before it is known whether they will be needed.

        Raises:
            NotShippableError: The function refers to something that exists in this process only.
            ArrayError: An array can be opened in this process only.
            PlanError: The same, of an output.
        """
        request = self._request
        for source in self._sources:
            check_shareable(source)
        for sink in self._sinks:
            check_shareable(sink, "out")
        try_stores(("out", sink) for sink in self._sinks)
        pack_functions(Task(request.name, grid=self._plan.grid, process_function=do_block, setup=request.function))

    @property
    def bytes_to_copy(self) -> int:
        """What sharing the arrays in memory would copy: outputs there and back."""
        sources, sinks = (
            [array for array in arrays if in_memory(array.data)] for arrays in (self._sources, self._sinks)
        )
        return sum(prod(array.shape) * array.dtype.itemsize for array in (*sources, *sinks, *sinks))

    def elsewhere(self) -> Task:
        """The task for workers; from now on, this process writes where they do."""
        if self._request.remote:
            _check_files([*self._sources, *self._sinks])
        enter = self._stack.enter_context
        sources = tuple(enter(shared_source(source)) for source in self._sources)
        sinks = tuple(enter(shared_sink(sink, "out")) for sink in self._sinks)
        if self.folder is None:
            self.folder = ResultFolder(Path(enter(tempfile.TemporaryDirectory(prefix="blockflow-"))))
        function: Callable[..., None] = do_block
        if self._request.overlaps_io:
            function = DoBlock(self.size - 1 - 2 * self._request.workers)
        return self._task(function, partial(open_job, self._job(sources, sinks, self.folder.folder)), sinks)

    def _job(self, sources: tuple[Array, ...], sinks: tuple[Array, ...], folder: Path | None) -> Job:
        request, plan = self._request, self._plan
        return Job(
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
            cache_bytes=int(request.cache_bytes),
            setup=request.setup,
            teardown=request.teardown,
        )

    def _task(self, function: Callable[..., None], setup: Callable[[], OpenJob], outputs: tuple[Array, ...]) -> Task:
        request, plan = self._request, self._plan
        if not request.reset:  # else the results that are there will be removed
            self.look()
        self.failures.clear()  # they are of an earlier run in the same directory
        task = Task(
            request.name,
            grid=plan.grid,
            process_function=function,
            setup=setup,
            teardown=close_job,
            read_write_conflict=False,
            num_workers=max(1, min(request.workers, self.size)),
            launcher=request.launcher,
            blocks_per_process=request.blocks_per_process,
            max_retries=request.max_retries,
            timeout=request.timeout,
            mask=request.mask,
            inputs=plan.sources,
            outputs=outputs,
            shared_chunks=request.shared_chunks if request.workers else "serialize",  # one after the other anyway
        )
        task.also_read = request.also_read
        return task

    def look(self) -> None:
        """Find out which results have come since the last call."""
        if self.folder is None:
            return
        for record in self.folder.new():
            if record.kind == FAILURE:
                self.failures[record.index] = record
            elif record.index not in self.seen:
                self.seen.add(record.index)
                self.kept[record.index] = record

    def result(self, index: int) -> Any:
        """What the function returned for a block; None if the mask left it out."""
        kept = self.kept.pop(index, None)
        return kept.load() if isinstance(kept, Record) else kept

    def collected(self) -> list[Any]:
        """The results of all blocks.

        Raises:
            RunError: A block was done without a result being kept.
        """
        lost = [index for index in range(self.size) if index not in self.kept] if self._request.mask is None else []
        if lost:
            where = "the run directory" if self.folder is None else self.folder.folder
            raise RunError(
                f"the results of {len(lost)} blocks, {lost[0]} the first, are missing in {where}, although these "
                "blocks are done: put them back, or use reset=True to start over"
            )
        return [self.result(index) for index in range(self.size)]

    def block(self, index: int) -> Block:
        """The block with an index."""
        grid = self._plan.grid
        return Block.of_grid(grid, index, total=grid.total, task_id=self._request.name)

    def check(self, result: RunResult) -> None:
        """Raise what made blocks fail."""
        if self.folder is not None:
            self.look()
            directory = self._request.run_dir
            logs = get_log_basedir() if directory is None else Path(directory) / "logs"
            raise_failure(result, self._request.name, self.failures, logs)


@contextmanager
def work_of(request: MapRequest, plan: MapPlan) -> Iterator[Work]:
    """The work of a map, with everything that its runs need, for as long as the context."""
    with ExitStack() as stack:
        yield Work(request, plan, stack)


def _apart(source: Array, sinks: tuple[Array, ...]) -> Array:
    """A source that stays as it is while blocks write; workers get copies of what is in memory anyway."""
    if any(in_memory(sink.data) and overlap(source, sink) for sink in sinks):
        return with_data(source, source.to_ndarray())
    return source


def _check_files(arrays: list[Array]) -> None:
    """Refuse what other machines do not see."""
    for array in arrays:
        if in_memory(array.data) or isinstance(array.data, SharedArray):
            raise PlanError(
                f"workers on other machines see files only, and {array} is in this one's memory: store it with "
                "prepare_ds, or numpy.save"
            )


def _result_folder(request: MapRequest, plan: MapPlan) -> Path | None:
    """Where a run directory keeps results.

    Raises:
        PlanError: An output is in memory.
    """
    if request.run_dir is None:
        return None
    for sink in plan.sinks:
        if in_memory(sink.data) or isinstance(sink.data, SharedArray):
            raise PlanError(
                "with run_dir, out must be a file: what is in memory ends with this process, and the run directory "
                "would say that it is done"
            )
    return Path(request.run_dir).absolute() / "results"  # made by who keeps one: the run wants its directory empty
