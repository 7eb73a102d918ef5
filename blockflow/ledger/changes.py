"""What do many records together say about the blocks, workers and drivers of a run?

Replaying is done in bulk. Records about blocks become runs of blocks in arrays, and only when somebody asks about a
range of blocks (:meth:`TaskChanges.apply`), states, attempts and seconds of that range: memory follows the records and
the range, not the grid. What is said about blocks that went wrong, and about workers, is rare, and kept as it is.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from msgspec import structs

from blockflow.errors import DamagedLedgerError
from blockflow.ledger import records as rec
from blockflow.scheduler.block_states import BlockState
from blockflow.scheduler.events import BlockFailure
from blockflow.scheduler.state import MOST_TRACEBACKS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from blockflow.ledger.records import Record
    from blockflow.plan.slices import Indices
    from blockflow.scheduler.block_states import States

RunNumbers: TypeAlias = "npt.NDArray[np.int32]"
"""Runs of blocks, by their place among all runs of a task."""

EPOCH_BITS = 40
"""Bits behind the epoch of a driver in its attempts: see :class:`blockflow.scheduler.leases.Leases`."""

REQUEUED = 255
"""Stands for the state of blocks that were done and are to be done again; no attempt has ended."""

MOST_STORED = 2**32 - 1
"""A block that has stored as many chunks or more is shown with one less."""

MOST_ATTEMPTS = 65535
"""A block that was attempted more often is shown with this number."""


class Troubles:
    """What went wrong with blocks of one task that are not done."""

    def __init__(self) -> None:
        self.failures: dict[int, BlockFailure] = {}
        """By block: its last failure."""
        self.counts: dict[int, tuple[int, int]] = {}
        """By block: failures of the user's code, and lost workers. They begin anew when a failed block is retried."""
        self.attempts: dict[int, int] = {}
        """By block: the last attempt that failed."""
        self.final: set[int] = set()
        """Blocks that failed for good."""

    def failed(self, failure: BlockFailure, attempt: int, *, final: bool) -> None:
        """An attempt failed in the user's code."""
        self.attempts[failure.index] = attempt
        failures, losses = self._budget(failure.index)
        self.counts[failure.index] = (failures + 1, losses)
        self._remember(failure)
        self._end(failure.index, final=final)

    def spared(self, index: int, attempt: int) -> None:
        """An attempt failed, and does not count."""
        self.attempts[index] = attempt
        self.counts[index] = self._budget(index)
        self._end(index, final=False)

    def lost(self, index: int, error: str, *, final: bool) -> None:
        """A worker was lost with a block."""
        failures, losses = self._budget(index)
        self.counts[index] = (failures, losses + 1)
        if final:
            self._remember(BlockFailure(index=index, error=error))
        self._end(index, final=final)

    def forget(self, runs: Iterable[tuple[int, int]]) -> None:
        """Blocks are done or skipped."""
        for begin, count in runs:
            known = self.counts.keys() & range(begin, begin + count) if count > 1 else (begin,)
            for index in known:
                self.counts.pop(index, None)
                self.failures.pop(index, None)
                self.attempts.pop(index, None)
                self.final.discard(index)

    def _budget(self, index: int) -> tuple[int, int]:
        return self.counts.get(index, (0, 0)) if index not in self.final else (0, 0)

    def _end(self, index: int, *, final: bool) -> None:
        (self.final.add if final else self.final.discard)(index)

    def _remember(self, failure: BlockFailure) -> None:
        if failure.index not in self.failures and len(self.failures) >= MOST_TRACEBACKS:
            failure = structs.replace(failure, traceback="")
        self.failures[failure.index] = failure


class TaskChanges:
    """What records say about the blocks of one task, in the order in which they were written.

    Args:
        size: Number of blocks of the task.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.troubles = Troubles()
        self._begins = array("q")
        self._counts = array("q")
        self._states = array("B")
        self._seconds = array("f")
        self._versions = array("H")
        self._stored = array("I")
        self.codes: list[rec.CodeKnown] = []
        """Versions of the code, each with the epoch from which on it computed blocks; a version may be there twice."""
        self.saved_versions: list[rec.BlocksOfVersion] = []
        """What the snapshot says of versions, if it knows several."""
        self._epoch, self._version = -1, 0

    def code_known(self, code: rec.CodeKnown) -> None:
        """From an epoch on, another version of the code computes blocks."""
        self.codes.append(code)
        self._epoch = -1

    def version_of(self, attempt: int) -> int:
        """Version of the code that made an attempt: drivers have their blocks computed by their own; 0 if unknown."""
        epoch = attempt >> EPOCH_BITS
        if epoch != self._epoch:
            self._epoch = epoch
            self._version = next((code.version for code in reversed(self.codes) if code.epoch <= epoch), 0)
        return self._version

    def apply_versions(self, versions: npt.NDArray[np.uint16]) -> None:
        """Write which version has done each block into an array over the task; 0 for those that are not done."""
        begins, counts = self._runs()
        for begin, count, state, version in zip(
            begins.tolist(), counts.tolist(), self._states, self._versions, strict=True
        ):
            versions[begin : begin + count] = version if state == BlockState.DONE else 0

    def add(
        self, runs: tuple[int, ...], state: int, seconds: float = 0.0, version: int = 0, stored: int | None = None
    ) -> None:
        """Runs of blocks, as in a record, came into a state.

        Raises:
            DamagedLedgerError: The task has no such blocks.
        """
        chunks = 0 if stored is None else min(stored + 1, MOST_STORED)
        end = sum(runs)
        if end > self.size:
            raise DamagedLedgerError(
                f"a record speaks of block {end - 1} of a task of {self.size}: the journal belongs to another plan, or "
                "the plan in the run directory was changed"
            )
        if len(runs) == 2:  # nearly all are like this
            self._begins.append(runs[0])
            self._counts.append(runs[1])
            self._states.append(state)
            self._seconds.append(seconds)
            self._versions.append(version)
            self._stored.append(chunks)
        else:
            begins, counts = rec.blocks_of(runs)
            self._begins.frombytes(begins.tobytes())
            self._counts.frombytes(counts.tobytes())
            self._states.extend([state] * len(begins))
            self._seconds.extend([seconds] * len(begins))
            self._versions.extend([version] * len(begins))
            self._stored.extend([chunks] * len(begins))

    @property
    def run_count(self) -> int:
        """Number of runs of blocks."""
        return len(self._begins)

    def by_range(self, edges: Indices) -> list[tuple[int, RunNumbers]]:
        """For each range of blocks of which anything is said: its number, and the numbers of the runs that meet it.

        Args:
            edges: First block of every range, sorted; the first is 0.
        """
        begins, counts = self._runs()
        first = (np.searchsorted(edges, begins, side="right") - 1).astype(np.int32)
        pieces = (np.searchsorted(edges, begins + counts - 1, side="right") - first).astype(np.int32)
        runs = np.repeat(np.arange(len(begins), dtype=np.int32), pieces)
        ranges = _ranges(first, pieces).astype(np.int32)
        if (np.diff(ranges) < 0).any():
            order = np.argsort(ranges, kind="stable")
            ranges, runs = ranges[order], runs[order]
        bounds = np.flatnonzero(np.diff(ranges)) + 1
        return [
            (int(here[0]), chosen)
            for here, chosen in zip(np.split(ranges, bounds), np.split(runs, bounds), strict=True)
            if len(here)
        ]

    def apply(
        self,
        chosen: RunNumbers,
        begin: int,
        states: States,
        attempts: npt.NDArray[np.uint16] | None = None,
        seconds: npt.NDArray[np.float32] | None = None,
        stored: npt.NDArray[np.uint32] | None = None,
    ) -> None:
        """Write what is said about a range of blocks into arrays over it.

        Args:
            chosen: Runs that may meet the range, by number, sorted.
            begin: First block of the range.
            states: Of the range.
            attempts: Of the range, counted on; None if nobody wants to know.
            seconds: Of the range; None if nobody wants to know.
            stored: Of the range; None if nobody wants to know.
        """
        begins, counts = (part[chosen] for part in self._runs())
        first = np.maximum(begins, begin)
        length = np.maximum(np.minimum(begins + counts, begin + len(states)) - first, 0)
        blocks = _ranges(first - begin, length)
        what = np.repeat(np.frombuffer(self._states, dtype=np.uint8)[chosen], length)
        states[blocks] = what * (what != REQUEUED)  # of several values for one block numpy takes the last
        if attempts is not None:
            tried = np.bincount(blocks[(what != BlockState.SKIPPED) & (what != REQUEUED)], minlength=len(states))
            np.minimum(attempts + tried, MOST_ATTEMPTS, out=attempts, casting="unsafe")
        if seconds is not None:
            done = what == BlockState.DONE
            seconds[blocks[done]] = np.repeat(np.frombuffer(self._seconds, dtype=np.float32)[chosen], length)[done]
        if stored is not None:
            done = what == BlockState.DONE
            stored[blocks[done]] = np.repeat(np.frombuffer(self._stored, dtype=np.uint32)[chosen], length)[done]

    def _runs(self) -> tuple[Indices, Indices]:
        """First blocks and numbers of blocks of all runs, in order."""
        return np.frombuffer(self._begins, dtype=np.int64), np.frombuffer(self._counts, dtype=np.int64)


class Changes:
    """What records say about a run.

    Args:
        sizes: Number of blocks of each task, in the order of their numbers.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.tasks = [TaskChanges(size) for size in sizes]
        self.workers: dict[int, rec.WorkerKnown] = {}
        """By number: workers that were known and of which nobody said that they are gone."""

    def replay(self, records: Iterable[Record]) -> None:
        """Take in records, in order.

        Raises:
            DamagedLedgerError: One speaks of a task or block that is not there.
        """
        for record in records:
            if isinstance(record, rec.BlocksDone):
                self._ended(record, BlockState.DONE, record.microseconds, record.stored)
            else:
                self._take(record)

    def recall(self, notes: Iterable[Record]) -> None:
        """Take in what :meth:`notes` gave, before anything is replayed."""
        for note in notes:
            match note:
                case rec.BlockFailed():
                    self._task(note.task).troubles.failed(_failure_of(note), note.attempt, final=note.final)
                case rec.Mishaps():
                    troubles = self._task(note.task).troubles
                    troubles.counts[note.index] = (note.failures, note.losses)
                    troubles.attempts[note.index] = note.attempt
                case rec.BlocksOfVersion():
                    self._task(note.task).saved_versions.append(note)
                case _:
                    self._take(note)

    def notes(self) -> list[Record]:
        """All that is known, apart from states, attempts and seconds of blocks: as records, for a snapshot."""
        notes: list[Record] = list(self.workers.values())
        for number, task in enumerate(self.tasks):
            notes += task.codes
            troubles = task.troubles
            for index, failure in troubles.failures.items():
                final = index in troubles.final
                notes.append(rec.BlockFailed(number, index, 0, final, failure.error, failure.traceback, failure.where))
            notes += [
                rec.Mishaps(number, index, *counts, troubles.attempts.get(index, 0))
                for index, counts in troubles.counts.items()
            ]
        return notes

    def _take(self, record: Record) -> None:
        match record:
            case rec.BlocksSkipped():
                self._ended(record, BlockState.SKIPPED, 0)
            case rec.BlockFailed():
                self._failed(record).failed(_failure_of(record), record.attempt, final=record.final)
            case rec.BlockLost():
                self._failed(record).lost(record.index, record.error, final=record.final)
            case rec.BlockSpared():
                self._failed(record).spared(record.index, record.attempt)
            case rec.BlocksRequeued():
                self._task(record.task).add(record.runs, REQUEUED)
            case rec.CodeKnown():
                self._task(record.task).code_known(record)
            case rec.WorkerKnown():
                self.workers[record.worker] = record
            case rec.WorkerGone():
                self.workers.pop(record.worker, None)

    def _ended(
        self,
        record: rec.BlocksDone | rec.BlocksSkipped,
        state: BlockState,
        microseconds: int,
        stored: int | None = None,
    ) -> None:
        task = self._task(record.task)
        runs = record.runs
        version = task.version_of(record.attempt) if isinstance(record, rec.BlocksDone) else 0
        task.add(runs, state, microseconds / sum(runs[1::2]) / 1e6, version, stored)
        if task.troubles.counts:
            begins, counts = rec.blocks_of(runs)
            task.troubles.forget(zip(begins.tolist(), counts.tolist(), strict=True))

    def _failed(self, record: rec.BlockFailed | rec.BlockLost | rec.BlockSpared) -> Troubles:
        task = self._task(record.task)
        final = not isinstance(record, rec.BlockSpared) and record.final
        task.add((record.index, 1), BlockState.FAILED if final else BlockState.PENDING)
        return task.troubles

    def _task(self, number: int) -> TaskChanges:
        if number >= len(self.tasks):
            raise DamagedLedgerError(
                f"a record speaks of task number {number}, and there are {len(self.tasks)}: the journal belongs to "
                "another plan, or the plan in the run directory was changed"
            )
        return self.tasks[number]


def _failure_of(record: rec.BlockFailed) -> BlockFailure:
    return BlockFailure(index=record.index, error=record.error, traceback=record.traceback, where=record.where)


def _ranges(begins: npt.NDArray[Any], counts: npt.NDArray[Any]) -> Indices:
    """Consecutive numbers from each begin on, one range behind the other."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    found: Indices = np.arange(total, dtype=np.int64) + np.repeat(begins - ends + counts, counts)
    return found
