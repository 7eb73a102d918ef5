"""Work of a map: its task, and the way back of results and exceptions.

Arrays in memory are put into shared memory for worker processes, and what they keep goes into a private folder; both
last as long as the context of :func:`work_of`.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockflow.arrays.shared import SharedArray
from blockflow.errors import PlanError, RunError
from blockflow.logging import get_log_basedir
from blockflow.ops.block_job import Job, close_job, do_block, open_job
from blockflow.ops.failures import raise_failure
from blockflow.ops.results import FAILURE, ResultFolder
from blockflow.ops.sharing import in_memory, same_voxels, shared_sink, shared_source, with_data
from blockflow.plan.block import Block
from blockflow.plan.task import Task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blockflow.arrays.array import Array
    from blockflow.ops.map_plan import MapPlan
    from blockflow.ops.request import MapRequest
    from blockflow.ops.results import Record
    from blockflow.result import RunResult

__all__ = ["Work", "work_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A task, and where its results are."""

    task: Task
    kept: dict[int, Any]
    """By index of the block: a result of this process, or the record of one of a worker."""
    folder: ResultFolder | None
    logs: Path | None
    """Where the output of workers is kept."""
    seen: set[int] = field(default_factory=set)
    """Blocks whose results have come; one that ran twice has two."""
    failures: dict[int, Record] = field(default_factory=dict)
    """The last exception of each block that raised one in this run."""

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
            raise_failure(result, self.task.task_id, self.failures, self.logs)


@contextmanager
def work_of(request: MapRequest, plan: MapPlan) -> Iterator[Work]:
    """Everything that a run needs, for as long as the context."""
    kept: dict[int, Any] = {}
    sources, sinks = tuple(_apart(source, plan.sinks) for source in plan.sources), plan.sinks
    with ExitStack() as stack:
        folder = _result_folder(request, plan)
        if request.remote:
            _check_files([*sources, *sinks])
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
            launcher=request.launcher,
            max_retries=request.max_retries,
            timeout=request.timeout,
            mask=request.mask,
            inputs=sources,
            outputs=sinks if request.workers else (),  # one after the other, blocks may share what they like
            shared_chunks=request.shared_chunks,
        )
        logs = get_log_basedir() if request.run_dir is None else Path(request.run_dir) / "logs"
        work = Work(task=task, kept=kept, folder=None if folder is None else ResultFolder(folder), logs=logs)
        work.look()
        work.failures.clear()  # they are of an earlier run in the same directory
        yield work


def _apart(source: Array, sinks: tuple[Array, ...]) -> Array:
    """A source that stays as it is while blocks write; workers get copies of what is in memory anyway."""
    if any(in_memory(sink.data) and same_voxels(source, sink) for sink in sinks):
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
