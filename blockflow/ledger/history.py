"""What has happened to the blocks of a run so far, from snapshot and journal together?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from blockflow.ledger import records as rec
from blockflow.ledger.changes import Changes
from blockflow.ledger.chunks import DTYPES, Chunks
from blockflow.ledger.journal import JournalReader
from blockflow.ledger.snapshot import find_snapshot
from blockflow.scheduler.block_states import BlockState

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from blockflow.ledger.changes import RunNumbers
    from blockflow.ledger.disk import Disk
    from blockflow.ledger.identity import PlanIdentity
    from blockflow.ledger.records import Record
    from blockflow.ledger.snapshot import Snapshot
    from blockflow.scheduler.block_states import States
    from blockflow.scheduler.events import BlockFailure


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskHistory:
    """What the next driver has to know about one task."""

    states: States
    """One per block: ``DONE``, ``FAILED``, or 0 for all that is to be found out or done."""
    done: int
    """Number of blocks that are done."""
    failures: dict[int, BlockFailure]
    """By block that is not done, and failed: its last failure."""
    failure_counts: dict[int, int]
    """By block that is not done: failures of the user's code."""
    losses: dict[int, int]
    """By block that is not done: workers that were lost with it."""
    last_attempts: dict[int, int]
    """By block that is not done, and failed: its last attempt that did."""


class History:
    """Everything in a run directory, up to now.

    Args:
        disk: The run directory.
        plan: That its journal is for, if there is no snapshot.
        until: Number of the last record that is wanted; None for all.
    """

    def __init__(self, disk: Disk, plan: PlanIdentity, until: int | None = None) -> None:
        self.snapshot: Snapshot | None = find_snapshot(disk)
        self.plan = plan if self.snapshot is None else self.snapshot.plan
        self.grids = [task.grid for task in self.plan.tasks]
        self._layouts = [Chunks(grid.shape) for grid in self.grids]
        self.changes = Changes([grid.size for grid in self.grids])
        if self.snapshot is not None:
            self.changes.recall(self.snapshot.notes())
        reader = JournalReader(disk, 0 if self.snapshot is None else self.snapshot.sequence)
        for first, records in reader.batches():
            if until is not None and first > until:
                break
            self.changes.replay(records)
        self.next_number = reader.next_number
        """Number of the next record."""
        self.torn = reader.torn
        """Bytes at the end of the journal that were never acknowledged, and do not count."""

    def task(self, number: int) -> TaskHistory:
        """What the next driver has to know about a task."""
        states = np.zeros(self.grids[number].size, dtype=np.uint8)
        done = 0
        for begin, arrays in self._known(number, ("state",)):
            here = arrays["state"]
            states[begin : begin + len(here)] = here * ((here == BlockState.DONE) | (here == BlockState.FAILED))
            done += int(np.count_nonzero(here == BlockState.DONE))
        troubles = self.changes.tasks[number].troubles
        return TaskHistory(
            states=states,
            done=done,
            failures=dict(troubles.failures),
            failure_counts={index: failures for index, (failures, _) in troubles.counts.items() if failures},
            losses={index: losses for index, (_, losses) in troubles.counts.items() if losses},
            last_attempts=dict(troubles.attempts),
        )

    def array(self, number: int, name: str) -> npt.NDArray[Any]:
        """One of the arrays of a task, over its grid."""
        grid = self.grids[number]
        values = _zeros(name, grid.size)
        for begin, arrays in self._known(number, ("state", name)):
            values[begin : begin + len(arrays[name])] = arrays[name]
        return values.reshape(grid.shape)

    def codes(self, number: int) -> list[rec.CodeKnown]:
        """The versions of the code of a task, in the order in which they were known."""
        return list(self.changes.tasks[number].codes)

    def versions(self, number: int) -> npt.NDArray[np.uint16]:
        """Which version of the code has done each block of a task, C order; 0 if it is not done, or nobody knows."""
        task, size = self.changes.tasks[number], self.grids[number].size
        known = {code.version for code in task.codes}
        versions = np.zeros(size, dtype=np.uint16)
        if len(known) == 1:
            for begin, arrays in self._known(number, ("state",)):
                here = arrays["state"]
                versions[begin : begin + len(here)] = (here == BlockState.DONE) * np.uint16(task.codes[0].version)
        elif known:
            if task.saved_versions:
                for note in task.saved_versions:
                    for begin, count in zip(*(part.tolist() for part in rec.blocks_of(note.runs)), strict=True):
                        versions[begin : begin + count] = note.version
            else:  # the snapshot knew one version only
                for chunk in sorted(self._saved(number)):
                    assert self.snapshot is not None
                    layout = self._layouts[number]
                    here = self.snapshot.values(self.plan.tasks[number], layout, "state", chunk)
                    begin = int(layout.edges[chunk])
                    first = (here == BlockState.DONE) * np.uint16(task.codes[0].version)
                    versions[begin : begin + len(here)] = first
            task.apply_versions(versions)
        return versions

    def version_notes(self) -> list[Record]:
        """Which version has done which blocks, for a snapshot: of tasks with several versions."""
        notes: list[Record] = []
        for number, task in enumerate(self.changes.tasks):
            if len({code.version for code in task.codes}) < 2:
                continue
            versions = self.versions(number)
            for version in sorted({code.version for code in task.codes}):
                notes += [rec.BlocksOfVersion(number, runs, version) for runs in _runs_of(versions == version)]
        return notes

    def encoded(self, number: int, final: States | None) -> Iterator[tuple[int, dict[str, bytes]]]:
        """The chunks of a task that anything is known of, for a snapshot.

        Args:
            number: Of the task.
            final: State of every block at the end of the run: what was skipped or orphaned is shown, for people.
        """
        task, layout = self.plan.tasks[number], self._layouts[number]
        saved, changed = self._saved(number), self._changed(number)
        for chunk, begin in enumerate(layout.edges.tolist()):
            shown = _to_show(final, begin, begin + layout.length(chunk))
            if chunk in changed or shown is not None:
                arrays = self._values(number, chunk, tuple(DTYPES), saved=chunk in saved, chosen=changed.get(chunk))
                if shown is not None:  # what was recorded is never overwritten
                    np.copyto(arrays["state"], shown, where=arrays["state"] == BlockState.PENDING)
                yield chunk, {name: layout.encode(values) for name, values in arrays.items()}
            elif chunk in saved:
                assert self.snapshot is not None
                yield chunk, {name: self.snapshot.encoded(task, name, layout.key(chunk)) for name in DTYPES}

    def _known(self, number: int, names: tuple[str, ...]) -> Iterator[tuple[int, dict[str, npt.NDArray[Any]]]]:
        """The chunks that anything is known of: their first block, and arrays."""
        saved, changed = self._saved(number), self._changed(number)
        for chunk in sorted(saved | changed.keys()):
            arrays = self._values(number, chunk, names, saved=chunk in saved, chosen=changed.get(chunk))
            yield int(self._layouts[number].edges[chunk]), arrays

    def _values(
        self, number: int, chunk: int, names: tuple[str, ...], *, saved: bool, chosen: RunNumbers | None
    ) -> dict[str, npt.NDArray[Any]]:
        layout = self._layouts[number]
        if saved:
            assert self.snapshot is not None
            task = self.plan.tasks[number]
            arrays = {name: self.snapshot.values(task, layout, name, chunk) for name in names}
        else:
            arrays = {name: _zeros(name, layout.length(chunk)) for name in names}
        if chosen is not None:
            self.changes.tasks[number].apply(
                chosen,
                int(layout.edges[chunk]),
                arrays["state"],
                arrays.get("attempts"),
                arrays.get("seconds"),
                arrays.get("stored"),
            )
        return arrays

    def _saved(self, number: int) -> set[int]:
        if self.snapshot is None:
            return set()
        return set(self.snapshot.chunks(self.plan.tasks[number], self._layouts[number]))

    def _changed(self, number: int) -> dict[int, RunNumbers]:
        return dict(self.changes.tasks[number].by_range(self._layouts[number].edges))


def _runs_of(flags: npt.NDArray[np.bool_]) -> Iterator[tuple[int, ...]]:
    """Runs of blocks that have a flag, as in records."""
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False))
    begins, ends = edges[::2], edges[1::2]
    for first in range(0, len(begins), rec.MOST_RUNS):
        begin, end = begins[first : first + rec.MOST_RUNS], ends[first : first + rec.MOST_RUNS]
        gaps = begin - np.concatenate(([0], end[:-1]))
        yield tuple(np.stack((gaps, end - begin), axis=1).ravel().tolist())


def _zeros(name: str, size: int) -> npt.NDArray[Any]:
    return np.zeros(size, dtype=np.dtype(DTYPES[name]).newbyteorder("="))


def _to_show(final: States | None, begin: int, end: int) -> States | None:
    """States of a range that only the end of a run shows; 0 for others, None if there is nothing to show."""
    if final is None:
        return None
    here = final[begin:end]
    shown: States = here * ((here == BlockState.SKIPPED) | (here == BlockState.ORPHANED))
    return shown if shown.any() else None
