"""One block of a map: read, call the function, crop, write, keep what is left.

A :class:`Job` is what all blocks have in common; it is sent to each worker once. There it is opened once
(:func:`open_job`), and then does block after block (:func:`do_block`). A block is only reported as done by whoever
calls this when its results are written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from blockflow.errors import BlockError, GeometryError, PlanError, ValueLossError
from blockflow.ops.results import RESULT, ResultWriter
from blockflow.ops.voxels import Reader, Writer, chunks_come_again
from blockflow.plan.block import BlockStatus
from blockflow.plan.returns import check_has_begun, check_has_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from blockflow.arrays.array import Array
    from blockflow.geometry import Box
    from blockflow.ops.padding import Padding
    from blockflow.ops.voxels import Casting
    from blockflow.plan.block import Block
    from blockflow.plan.grid import Grid

__all__ = ["Call", "Job", "OpenJob", "close_job", "do_block", "do_block_at_once", "open_job"]

Given: TypeAlias = "tuple[Box, list[Any]]"
"""What a function gets, and the box that it covers."""

Call: TypeAlias = Literal["array", "block"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Job:
    """What all blocks have in common."""

    function: Callable[..., Any]
    call: Call
    sources: tuple[Array, ...]
    sinks: tuple[Array, ...]
    grid: Grid
    bounds: Box
    """What the sources cover, in world units."""
    pads: tuple[Padding | None, ...]
    """For each source."""
    casting: Casting
    collect: bool
    """Whether what the function returns, beyond what goes into sinks, is kept."""
    folder: Path | None
    """Where results and exceptions are kept; None to keep them in this process."""
    cache_bytes: int
    """Chunks that each process keeps of each source, if some are read again."""
    setup: Callable[[], Any] | None
    teardown: Callable[[Any], Any] | None

    def __blockflow_code__(self) -> tuple[Any, ...]:
        """What of it is code: what makes results others, apart from the arrays."""
        pads = [None if pad is None else (pad.mode, pad.options) for pad in self.pads]
        return self.function, self.call, self.casting, pads, self.setup, self.teardown


class OpenJob:
    """A job in the process that does it."""

    def __init__(self, job: Job, kept: dict[int, Any]) -> None:
        self.job = job
        self.readers = [
            Reader(source, pad, job.cache_bytes if chunks_come_again(source, job.grid) else 0)
            for source, pad in zip(job.sources, job.pads, strict=True)
        ]
        self.writers = [Writer(sink, job.casting) for sink in job.sinks]
        self.clip = not any(job.pads)
        self.kept = kept
        self.results = None if job.folder is None else ResultWriter(job.folder)
        self.state = () if job.setup is None else (job.setup(),)
        for state in self.state:
            check_has_begun(state, "setup")

    def do(self, block: Block) -> None:
        """Do one block."""
        if self.job.call == "block":
            returned = self.job.function(block, *self.job.sources, *self.job.sinks, *self.state)
            (check_has_begun if self.job.collect else check_has_run)(returned, "the function")
            self.keep(block, returned)
        else:
            self.write(block, self.compute(self.read(block)))

    def read(self, block: Block) -> Given:
        """What the function gets, and where that lies."""
        index = block.index
        assert index is not None
        given = self.job.grid.read_box(index)
        if self.clip:
            given = tuple(
                (max(b, low), min(e, high)) for (b, e), (low, high) in zip(given, self.job.bounds, strict=True)
            )
        return given, [reader.read(given) for reader in self.readers]

    def compute(self, given: Given) -> tuple[Box, Any]:
        """What the function makes of what it gets."""
        box, parts = given
        made = self.job.function(*parts, *self.state)
        (check_has_begun if self.job.collect else check_has_run)(made, "the function")
        return box, made

    def write(self, block: Block, made: tuple[Box, Any]) -> None:
        """Crop and write what the function made, and keep the rest."""
        index, grid = block.index, self.job.grid
        assert index is not None
        given, rest = made
        if self.writers:
            writes = grid.write_box(index)
            results, rest = self._shared_out(rest, index)
            for number, (writer, values) in enumerate(zip(self.writers, results, strict=True)):
                try:
                    writer.write(values, given, writes, f"result {number}")
                except (GeometryError, ValueLossError) as error:
                    raise type(error)(f"block {index} at {grid.position(index)}: {error}") from error
        self.keep(block, rest)

    def keep(self, block: Block, result: Any) -> None:
        """Keep what the function returned, if that is wanted."""
        if not self.job.collect:
            return
        assert block.index is not None
        if self.results is None:
            self.kept[block.index] = result
        else:
            self.results.keep(RESULT, block.index, block.attempt, result)

    def _shared_out(self, result: Any, index: int) -> tuple[Any, Any]:
        """One result for each sink, and what is left to be kept."""
        wanted = len(self.writers) + self.job.collect
        if wanted == 1:
            if result is None:
                raise PlanError(
                    f"the function must return an array for out, it returned None for block {index}; "
                    "call='block' is for functions that write by themselves, collect=True for any other result"
                )
            return (result,), None
        if not isinstance(result, tuple | list) or len(result) != wanted:
            came = f"{len(result)} values" if isinstance(result, tuple | list) else type(result).__name__
            more = " and one to collect" if self.job.collect else ""
            raise PlanError(
                f"the function must return a tuple of {wanted} values, one for each of {len(self.writers)} outputs"
                f"{more}: it returned {came} for block {index}"
            )
        return result[: len(self.writers)], result[-1] if self.job.collect else None


def open_job(job: Job, kept: dict[int, Any] | None = None) -> OpenJob:
    """Open a job, once in each process.

    Args:
        job: What to open.
        kept: Where results go that stay in this process, by index of the block.
    """
    try:
        return OpenJob(job, {} if kept is None else kept)
    except Exception as error:
        if job.folder is not None:
            ResultWriter(job.folder).keep_failure(job.grid.size, 0, error)  # of no block
        raise


def do_block(block: Block, opened: OpenJob) -> None:
    """Do one block of an open job; an exception is kept as well as raised."""
    try:
        opened.do(block)
    except Exception as error:
        if opened.results is not None:
            assert block.index is not None
            opened.results.keep_failure(block.index, block.attempt, error)
        raise


class DoBlock:
    """:func:`do_block` in parts, for workers that read and write while they compute.

    Args:
        last: The index of the last block during which the next one may be taken: not in the end, where other workers
            may be idle.
    """

    def __init__(self, last: int) -> None:
        self.last = last

    def __call__(self, block: Block, opened: OpenJob) -> None:
        """Do all of it."""
        do_block(block, opened)

    def read(self, block: Block, opened: OpenJob) -> Given:
        """What the function gets."""
        return opened.read(block)

    def compute(self, block: Block, given: Given, opened: OpenJob) -> tuple[Box, Any]:
        """What the function makes of it."""
        return opened.compute(given)

    def write(self, block: Block, made: tuple[Box, Any], opened: OpenJob) -> None:
        """Write that."""
        opened.write(block, made)

    def failed(self, block: Block, error: BaseException, opened: OpenJob) -> None:
        """Keep an exception."""
        if opened.results is not None and isinstance(error, Exception):
            assert block.index is not None
            opened.results.keep_failure(block.index, block.attempt, error)

    def ahead(self, block: Block) -> bool:
        """Whether the next block may be taken already."""
        assert block.index is not None
        return block.index <= self.last


def do_block_at_once(block: Block, opened: OpenJob) -> None:
    """Do one block of an open job, or raise, whichever way the function says that it failed."""
    do_block(block, opened)
    if block.status is BlockStatus.FAILED:
        raise BlockError("block.status was set to FAILED")


def close_job(opened: OpenJob) -> None:
    """What to do after the last block."""
    if opened.job.teardown is not None:
        opened.job.teardown(*opened.state)  # there is one if there is a teardown
    if opened.results is not None:
        opened.results.close()
