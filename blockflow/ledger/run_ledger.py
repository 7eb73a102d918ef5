"""The ledger as a driver uses it: what the scheduler wants recorded is written, and what was written restores it."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING, assert_never

import numpy as np

from blockflow.background import BackgroundCall
from blockflow.errors import LedgerError, LedgerFullError
from blockflow.ledger import records as rec
from blockflow.ledger.store import explained
from blockflow.mounts import describe_place
from blockflow.scheduler import events as said
from blockflow.scheduler.block_states import BlockState
from blockflow.scheduler.propagation import RestoredTask
from blockflow.scheduler.retry_policy import FailureHistory
from blockflow.tally import UNKNOWN
from blockflow.trusted_files import open_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from blockflow.ledger import history
    from blockflow.ledger.store import RunStore, TaskCode
    from blockflow.plan.plan import Plan
    from blockflow.plan.slices import Indices
    from blockflow.scheduler.scheduler import Scheduler
    from blockflow.trusted_files import Folder

_LOGGER = logging.getLogger("blockflow")

_LONGEST_NAME = 255

_MOST_BLOCKS = 2**14
"""Blocks whose downstream is looked at together."""

HANGING_SECONDS = 0.3
HASTE_SECONDS = 2.0
LONG_SECONDS = 30.0
"""How long the closing of a ledger is waited for: if its disk hangs, if the run was stopped, and until it is named."""


class RunLedger:
    """Writes what happens, in the words of the ledger.

    Args:
        store: The run directory.
        retry_failed: Forget which blocks have failed before.
    """

    def __init__(self, store: RunStore, *, retry_failed: bool = False) -> None:
        self._store = store
        self._retry_failed = retry_failed
        self._scheduler: Scheduler | None = None
        """Whose events are recorded."""
        self._codes: Sequence[TaskCode] = ()
        self.code_changes: list[str] = []
        """What people have to be told of code that has changed since blocks were done."""
        self.hangs = False
        """The disk of the run directory did not answer when the run was stopped."""

    @property
    def codes(self) -> list[str]:
        """Digest of the code of each task; empty if nobody has told it."""
        return [code.digest for code in self._codes]

    def set_codes(self, plan: Plan, codes: Sequence[TaskCode], *, rerun_older: bool) -> None:
        """Record the code of each task, and find out which blocks were done by another version of it.

        Args:
            plan: Of the run.
            codes: By task.
            rerun_older: Do these blocks again, and those downstream of them.

        Raises:
            LedgerError: That cannot be recorded.
        """
        self._codes = codes
        self._store.set_codes(codes)
        again: dict[int, Indices] = {}
        for task in plan.tasks:
            older, version = self._store.older(task.number)
            if not len(older):
                continue
            size, name = task.grid.size, codes[task.number].name
            if rerun_older:
                again[task.number] = older
                fate = "they are done again"
            else:
                fate = "they are kept. rerun_older=True does them again"
            self.code_changes.append(
                f"the function {name} of task {task.task_id!r} has changed since {len(older):,} of {size:,} blocks "
                f"were done by its version {version}; {fate}"
            )
        for number, indices in _with_downstream(plan, again).items():
            done = indices[self._store.history[number].states[indices] == BlockState.DONE]
            if len(done):
                self._store.requeue(number, done)
        self._store.forget_versions()

    @property
    def epoch(self) -> int:
        """Number of this life of the driver."""
        return self._store.epoch

    @property
    def connection_directory(self) -> Path:
        """Where the connection file belongs; only this user can read it."""
        return self._store.connection_directory

    @property
    def logs(self) -> Path:
        """Where workers write what they print."""
        return self._store.logs

    @property
    def run_id(self) -> str:
        """Name of the run, the same in every life of the driver, so that workers find the connection file again."""
        with explained(f"{self.connection_directory} cannot be read"), self._connections() as folder:
            known = [name.removesuffix(".connection") for name in folder.names() if name.endswith(".connection")]
        return known[0] if known else os.urandom(8).hex()

    def _connections(self) -> Folder:
        return open_folder(self.connection_directory, private=True)

    def restore(self, scheduler: Scheduler, now: float) -> None:
        """Let a new scheduler go on where the driver before has ended.

        Args:
            scheduler: Nothing has happened to it.
            now: The time, for the scheduler.
        """
        histories = [_for_scheduler(known, retry_failed=self._retry_failed) for known in self._store.history]
        absent = [
            said.RecordWorker(
                worker=known.worker,
                task=known.task,
                process=known.process,
                host=known.host,
                pid=known.pid,
                started=known.started,
            )
            for known in self._store.absent_workers
            if known.task < len(histories)
        ]
        scheduler.restore(histories, absent, now)
        self._scheduler = scheduler

    def account(self, plan: Plan) -> list[str]:
        """What was done before, in words; nothing if nothing was."""
        lines = []
        for task, known in zip(plan.tasks, self._store.history, strict=True):
            failed = int(np.count_nonzero(known.states == BlockState.FAILED))
            if not (known.done or failed):
                continue
            line = (
                f"{self._store.path}: {known.done} of {task.grid.size} blocks of task {task.task_id!r} are done already"
            )
            if failed:
                again = "are tried again" if self._retry_failed else "have failed; retry_failed=True tries them again"
                line += f", {failed} {again}"
            lines.append(line)
        return lines

    def write(self, records: Sequence[said.Record]) -> None:
        """Make records durable, with all that were given before; also if there are none, as a sign of life.

        Raises:
            LedgerFullError: No space is left. The records are kept: write others, or none, when there is.
            LedgerError: The ledger cannot be written any more, or another driver has taken over.
        """
        self._store.append([told for record in records for told in _in_words_of_ledger(record)])
        self._store.commit()

    def fold_if_due(self) -> None:
        """Make a snapshot where the journal has become long; may take seconds, beside what is written meanwhile."""
        if self._store.fold_is_due:
            with contextlib.suppress(LedgerFullError):  # everything is in the journal; it is tried again
                self._store.fold()

    def close(self) -> str | None:
        """Make a snapshot that shows how every block ended, and let go; returns what kept it from being made.

        None if nothing did. Without a snapshot everything is in the journal all the same.
        """
        trouble = None
        if self._scheduler is not None:
            books = [self._scheduler.task(task.number) for task in self._scheduler.plan.tasks]
            try:
                self._store.fold([book.blocks.states for book in books])
            except LedgerFullError as error:
                trouble = f"no snapshot of the run was made, its journal has everything: {error.strerror}"
            except LedgerError as error:
                trouble = f"no snapshot of the run was made: {error}"
        self._store.close()
        return trouble

    def close_in_background(self, *, haste: bool) -> str | None:
        """Close the ledger in another thread, so that a disk that does not answer keeps nobody from leaving.

        Args:
            haste: The run has been stopped, or has failed: do not wait for long.

        Returns:
            See :meth:`close`; also that it has not come back.
        """
        call = BackgroundCall(self.close, name="blockflow-close")
        patience = HANGING_SECONDS if self.hangs else HASTE_SECONDS if haste else LONG_SECONDS
        if not call.wait(patience):
            where = f"{self._store.path} ({describe_place(str(self._store.path))})"
            if haste or self.hangs:
                return f"no snapshot of the run was made, its journal has everything: {where} does not answer in time"
            _LOGGER.warning("%s takes long to close: its snapshot is under way. Ctrl-C leaves, nothing is lost", where)
            while not call.wait(LONG_SECONDS):
                pass
        return call.result()


def _with_downstream(plan: Plan, blocks: dict[int, Indices]) -> dict[int, Indices]:
    """Blocks by task, and all that read what they write, directly or not; tasks stand behind those they wait for."""
    found = dict(blocks)
    for task in plan.tasks:
        if task.number not in found:
            continue
        for below, link in task.downstream:
            size = plan.tasks[below].grid.size
            flags = np.zeros(size, dtype=bool)
            flags[found.get(below, np.zeros(0, dtype=np.int64))] = True
            for first in range(0, len(found[task.number]), _MOST_BLOCKS):
                positions = task.positions(found[task.number][first : first + _MOST_BLOCKS])
                flags[link.downstream(positions).flat(plan.tasks[below].grid.shape)] = True
            found[below] = np.flatnonzero(flags)
    return found


def _for_scheduler(known: history.TaskHistory, *, retry_failed: bool) -> RestoredTask:
    states = known.states
    failed = states == BlockState.FAILED
    if retry_failed:
        states[failed] = 0
        return RestoredTask(states=states)
    mishaps = {
        index: FailureHistory(
            failures=known.failure_counts.get(index, 0),
            losses=known.losses.get(index, 0),
            attempt=known.last_attempts.get(index, 0),
        )
        for index in known.failure_counts.keys() | known.losses.keys()
        if not states[index]
    }
    failures = {index: failure for index, failure in known.failures.items() if failed[index]}
    return RestoredTask(states=states, failures=failures, histories=mishaps)


def _in_words_of_ledger(record: said.Record) -> Iterator[rec.Record]:
    match record:
        case said.RecordDone():
            yield from _done(record)
        case said.RecordSkipped():
            for runs in rec.runs_of(np.sort(record.indices)):
                yield rec.BlocksSkipped(record.task, runs)
        case said.RecordFailure() if record.spared:
            if record.attempt:  # else its pre-check failed, which is asked again
                yield rec.BlockSpared(record.task, record.failure.index, record.attempt, record.failure.error)
        case said.RecordFailure():
            failure = record.failure
            yield rec.BlockFailed(
                record.task,
                failure.index,
                record.attempt,
                record.final,
                failure.error,
                failure.traceback,
                failure.where[-_LONGEST_NAME:],
            )
        case said.RecordLoss():
            yield rec.BlockLost(record.task, record.index, record.attempt, False)
        case said.RecordWorker():
            if record.worker >= 0:  # not one that drives the scheduler by hand
                yield rec.WorkerKnown(
                    record.worker, record.task, record.host, record.pid, record.process, record.started
                )
        case said.RecordGone():
            if record.worker >= 0:
                yield rec.WorkerGone(record.worker)
        case _:
            assert_never(record)


def _done(record: said.RecordDone) -> Iterator[rec.Record]:
    """A record for each sequence of consecutive attempts."""
    order = np.argsort(record.indices, kind="stable")
    indices, attempts = record.indices[order], record.attempts[order]
    apart = (np.diff(attempts) != 1) | (np.diff(indices) < 0)
    stored = np.full(len(indices), UNKNOWN) if record.stored is None else record.stored[order]
    if record.stored is not None:
        apart |= np.diff(stored) != 0
    cuts = np.flatnonzero(apart) + 1
    each = max(0.0, record.seconds) / len(indices)
    for part, tried, chunks in zip(*(np.split(those, cuts) for those in (indices, attempts, stored)), strict=True):
        at = int(tried[0])
        count = None if chunks[0] < 0 else int(chunks[0])
        for runs in rec.runs_of(part):
            blocks = sum(runs[1::2])
            yield rec.BlocksDone(record.task, runs, at, round(each * blocks * 1e6), count)
            at += blocks
