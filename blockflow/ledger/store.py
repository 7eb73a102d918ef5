"""The ledger of one run while its driver lives: what happened before, and how is what happens now recorded?

:func:`open_store` does in order:

1. refuse what is not ours, a foreign version, another plan, and a driver that is alive: nothing is changed until then;
2. become the owner, with an epoch of its own;
3. finish what a driver that died has begun;
4. read what happened, and make sure that it is durable;
5. begin a file of the journal, with the record that this driver began.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from blockflow import __version__
from blockflow.errors import DamagedLedgerError, LedgerError, LedgerFullError, PlanChangedError, RunDirectoryError
from blockflow.ledger import layout, snapshot
from blockflow.ledger.accepting import blocks_for, contents_for
from blockflow.ledger.bound_arrays import RunArrays, changed_arrays
from blockflow.ledger.history import History
from blockflow.ledger.identity import differences
from blockflow.ledger.journal import FULL, Journal, journal_files, sync_last
from blockflow.ledger.owner import Ownership
from blockflow.ledger.records import Began, BlocksDone, BlocksRequeued, BlocksSkipped, CodeKnown, runs_of
from blockflow.plan.bindings import TaskArrays
from blockflow.scheduler.block_states import BlockState
from blockflow.trusted_files import DRAFT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from blockflow.ledger.disk import Disk
    from blockflow.ledger.history import TaskHistory
    from blockflow.ledger.identity import PlanIdentity
    from blockflow.ledger.owner import Process
    from blockflow.ledger.records import Record, WorkerKnown
    from blockflow.plan.slices import Indices
    from blockflow.scheduler.block_states import States

BEAT_SECONDS = 10.0
"""How often the owner shows that it is alive."""

FOLD_BYTES = 64 * 1024 * 1024
FOLD_RUNS = 2 * 1024 * 1024
"""A journal of that size, and with so many runs of blocks, is read in 3 s and folded with 200 MB of memory."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TaskCode:
    """The code of a task, as it is now."""

    digest: str
    name: str
    """Of its function."""
    environment: str
    """Versions of Python and libraries."""


class RunStore:
    """The run directory of a driver that owns it; see :mod:`blockflow.ledger.rundir`.

    Args:
        disk: The run directory.
        path: The same, for people.
        plan: Of this run.
        ownership: Taken by this driver.
        epoch: Of this driver.
        clock: Seconds since 1970, UTC.
        history: What happened before.
        tasks: What happened to the blocks of each task before.
    """

    def __init__(
        self,
        disk: Disk,
        path: Path,
        plan: PlanIdentity,
        ownership: Ownership,
        epoch: int,
        clock: Callable[[], float],
        history: History,
        *,
        tasks: list[TaskHistory],
    ) -> None:
        self._disk = disk
        self._plan = plan
        self.run = layout.run_of(disk)
        """Id of the run: another one after each reset."""
        self._ownership = ownership
        self._clock = clock
        self.path = path
        self.epoch = epoch
        """Greater than that of every driver before."""
        self.history = tasks
        """What happened to the blocks of each task before, in the order of the plan."""
        self.absent_workers: tuple[WorkerKnown, ...] = tuple(history.changes.workers.values())
        """Workers of earlier drivers of which nobody said that they are gone: they may still be at work."""
        self.torn_bytes = history.torn
        """Bytes at the end of the journal that were cut off, because their commit had never been acknowledged."""
        self._history: History | None = history
        """Until nobody asks about versions any more: it is as large as the journal."""
        self._journal = Journal(disk, epoch, history.next_number, run=self.run)
        self._folding = threading.Lock()
        self._beaten = clock()
        self._folded_bytes = 0
        self._runs = sum(task.run_count for task in history.changes.tasks)

    @property
    def connection_directory(self) -> Path:
        """Where the connection file belongs; only this user can read it."""
        return self.path / layout.CONNECTION

    @property
    def logs(self) -> Path:
        """Where workers write what they print."""
        return self.path / layout.LOGS

    @property
    def fold_is_due(self) -> bool:
        """The journal has grown so long that reading it would take time: call :meth:`fold` when it suits."""
        return self._journal.bytes_written - self._folded_bytes > FOLD_BYTES or self._runs > FOLD_RUNS

    def bind(self, arrays: Sequence[TaskArrays]) -> None:
        """Bind the run directory to arrays, before any block is handed out.

        Raises:
            LedgerError: That cannot be recorded.
        """
        with explained(f"the arrays of the run cannot be recorded in {self.path}"):
            bound = RunArrays(run=self.run, directory=os.path.realpath(self.path), tasks=tuple(arrays))
            layout.write_arrays(self._disk, bound)

    def set_codes(self, codes: Sequence[TaskCode]) -> None:
        """Record which version of each task's code computes the blocks that this driver hands out.

        Raises:
            LedgerError: That cannot be recorded.
        """
        assert self._history is not None
        news = []
        for number, code in enumerate(codes):
            known = self._history.codes(number)
            if known and known[-1].digest == code.digest:
                continue
            same = next((each.version for each in known if each.digest == code.digest), None)
            version = same or max((each.version for each in known), default=0) + 1
            news.append(CodeKnown(number, version, self.epoch, code.digest, code.name[:255], code.environment[:255]))
        if news:
            self.append(news)
            self.commit()
            self._history.changes.replay(news)

    def older(self, number: int) -> tuple[Indices, int]:
        """Blocks of a task that were done by another version of the code than the present one, and the last such.

        Returns:
            Their indices, and the newest of the versions that did them; 0 if there are none.
        """
        assert self._history is not None
        codes = self._history.codes(number)
        if len({code.version for code in codes}) < 2:
            return np.zeros(0, dtype=np.int64), 0
        versions = self._history.versions(number)
        others = np.flatnonzero((versions != 0) & (versions != codes[-1].version))
        return others, int(versions[others].max(initial=0))

    def forget_versions(self) -> None:
        """Free what only the questions about code need; they cannot be asked any more."""
        self._history = None

    def requeue(self, number: int, indices: Indices) -> None:
        """Record that blocks that are done are to be done again, before any block is handed out.

        Raises:
            LedgerError: That cannot be recorded.
        """
        self.append([BlocksRequeued(number, runs) for runs in runs_of(np.sort(indices))])
        self.commit()
        known = self.history[number]
        known.states[indices] = 0
        self.history[number] = dataclasses.replace(known, done=int(np.count_nonzero(known.states == BlockState.DONE)))

    def begin(self, me: Process) -> None:
        """Begin a file of the journal, and record that this driver began."""
        self._journal.begin()
        self.append(
            [
                Began(
                    epoch=self.epoch,
                    host=me.host,
                    pid=me.pid,
                    boot_id=me.boot_id,
                    microseconds=int(self._clock() * 1e6),
                    version=__version__,
                )
            ]
        )
        self.commit()

    def append(self, records: Sequence[Record]) -> int:
        """Take records, to be committed later; returns the number of the last one.

        Raises:
            LedgerError: A value is out of bounds, or the ledger can no more be written.
        """
        self._runs += sum(len(record.runs) // 2 for record in records if isinstance(record, BlocksDone | BlocksSkipped))
        return self._journal.append(records)

    def commit(self) -> int:
        """Make what was appended durable, and show that this driver lives; returns the number of the last record.

        Raises:
            LedgerFullError: No space is left. Nothing is lost; call it again when there is.
            OwnershipLostError: Another driver has taken over; nothing may be acknowledged any more.
            LedgerError: The ledger can no more be written.
        """
        number = self._journal.commit()
        with explained(f"nobody knows who owns {self.path}"):
            self._ownership.check()
            if abs(self._clock() - self._beaten) >= BEAT_SECONDS:
                self._ownership.beat()
                self._beaten = self._clock()
        return number

    def fold(self, final_states: Sequence[States] | None = None) -> None:
        """Make a snapshot of everything recorded so far, and remove the journal in front of it.

        Args:
            final_states: For each task the state of every block, when the run has ended: what was skipped or orphaned
                is shown in the snapshot, for people; the next driver finds it out again.

        Raises:
            LedgerFullError: No space is left; nothing has changed.
            OwnershipLostError: Another driver has taken over; nothing has changed.
            LedgerError: The snapshot cannot be written, or what is there cannot be read.
        """
        with self._folding, explained("no snapshot can be made"):
            self._ownership.check()
            snapshot.settle_snapshot(self._disk, self.epoch)
            sequence = self._journal.rotate()
            self._folded_bytes, self._runs = self._journal.bytes_written, 0
            history = History(self._disk, self._plan, until=sequence)
            contents = snapshot.SnapshotContents(
                sequence=sequence,
                run=self.run,
                plan=self._plan,
                notes=history.changes.notes() + history.version_notes(),
            )
            finals: Sequence[States | None] = final_states or [None] * len(self._plan.tasks)
            blocks = [history.encoded(number, final) for number, final in enumerate(finals)]
            snapshot.draft_snapshot(self._disk, self.epoch, contents, blocks)
            self._ownership.check()
            snapshot.place_snapshot(self._disk, self.epoch)
            self.remove_folded(sequence)

    def remove_folded(self, sequence: int) -> None:
        """Remove the files of the journal that hold nothing but records up to a number."""
        files = journal_files(self._disk)
        for file, following in pairwise(files):
            if following.first <= sequence + 1:
                self._disk.remove(file.path)

    def close(self) -> None:
        """Let go of the run directory. What was not committed is lost."""
        self._journal.close()
        with contextlib.suppress(LedgerError, OSError):
            self._ownership.release()


def open_store(
    disk: Disk,
    path: Path,
    plan: PlanIdentity,
    *,
    me: Process,
    alive: Callable[[Process, Process], bool | None],
    clock: Callable[[], float],
    new_run: str,
    reset: bool = False,
    accept_change: bool = False,
    take_over: bool = False,
    arrays: Sequence[TaskArrays] | None = None,
) -> RunStore:
    """Open the ledger of a run to go on with it; :func:`blockflow.ledger.rundir.open_run` says the rest.

    Args:
        disk: The run directory, or what a simulator takes for it.
        path: The same, for people.
        plan: Of this run.
        me: This process.
        alive: Whether another process is alive, seen from this one; None if that cannot be known.
        clock: Seconds since 1970, UTC.
        new_run: Id for the run if it begins now, 32 hexadecimal digits that no other run has.
        reset: Forget what happened.
        accept_change: Carry over what can be if the plan is another.
        take_over: The driver that is at work here is certainly dead.
        arrays: What the tasks read and write; None if nobody knows, and nothing is compared.
    """
    with explained(f"run directory {path} cannot be used", RunDirectoryError):
        if not layout.check_format(disk, str(path)):
            layout.write_format(disk, new_run)
        if not reset:
            layout.check_run(disk)
        if not (reset or accept_change):
            _refuse_changes(layout.read_plan(disk), plan, path)
        ownership = Ownership(disk, me, alive)
        files = journal_files(disk)
        epoch = ownership.take(clock(), above=files[-1].epoch if files else 0, take_over=take_over)
        try:
            history = _settled(
                disk, epoch, plan, ownership, path, new_run=new_run, reset=reset, accept_change=accept_change
            )
            tasks = [history.task(number) for number in range(len(plan.tasks))]
            if arrays is not None and not accept_change:
                _refuse_other_arrays(layout.read_arrays(disk), arrays, plan, tasks, path)
            sync_last(disk)
            store = RunStore(disk, path, plan, ownership, epoch, clock, history, tasks=tasks)
            store.begin(me)
            store.remove_folded(0 if history.snapshot is None else history.snapshot.sequence)
        except BaseException:
            with contextlib.suppress(LedgerError, OSError):
                ownership.release()
            raise
    return store


@contextlib.contextmanager
def explained(what: str, kind: type[LedgerError] = LedgerError) -> Iterator[None]:
    """Say what errors of the file system mean for the run.

    Args:
        what: What did not work.
        kind: Class of the error that says so, if there is none that fits better.
    """
    try:
        yield
    except LedgerError:
        raise
    except FileNotFoundError as error:
        raise DamagedLedgerError(f"{what}: {error.filename or error} is missing") from error
    except OSError as error:
        if error.errno in FULL:
            raise LedgerFullError(f"{what}: no space is left; nothing was lost") from error
        raise kind(f"{what}: {error}") from error


def _settled(
    disk: Disk,
    epoch: int,
    plan: PlanIdentity,
    ownership: Ownership,
    path: Path,
    *,
    new_run: str,
    reset: bool,
    accept_change: bool,
) -> History:
    """Everything that happened before, as far as it concerns this plan."""
    ownership.check()
    if reset or layout.being_reset(disk):
        layout.remove_history(disk, new_run)
    snapshot.settle_snapshot(disk, epoch)
    for name in disk.names(""):
        if name.endswith(DRAFT):
            disk.remove(name)
    before = layout.read_plan(disk)
    if before is None:
        layout.write_plan(disk, plan)
        return History(disk, plan)
    if not accept_change:
        _refuse_changes(before, plan, path)
    history = History(disk, before)
    if before != plan:  # other blocks, or the same under other numbers
        blocks = [blocks_for(history, task) for task in plan.tasks]
        snapshot.draft_snapshot(disk, epoch, contents_for(history, plan, layout.run_of(disk)), blocks)
        ownership.check()
        snapshot.place_snapshot(disk, epoch)
        history = History(disk, plan)
    layout.write_plan(disk, plan)
    return history


def _refuse_other_arrays(
    before: RunArrays | None,
    after: Sequence[TaskArrays],
    plan: PlanIdentity,
    tasks: Sequence[TaskHistory],
    path: Path,
) -> None:
    """Refuse arrays that are not those of which the record of blocks that are done speaks."""
    done = {task.task_id: history.done for task, history in zip(plan.tasks, tasks, strict=True) if history.done}
    if before is None:
        if done:
            raise DamagedLedgerError(
                f"{layout.ARRAYS_FILE} is missing in {path}, and blocks are done: put it back from a copy, or use "
                "accept_change=True if the arrays are those of before, or reset=True to start over; nothing was changed"
            )
        return
    known = {task.task_id: task for task in before.tasks}
    directories = before.directory, os.path.realpath(path)
    for task in after:
        changes = changed_arrays(known.get(task.task_id, TaskArrays(task_id=task.task_id)), task, directories)
        if changes and task.task_id in done:
            raise PlanChangedError(
                f"{path} says that {done[task.task_id]} blocks of task {task.task_id!r} are done, but with other "
                f"arrays: {'; '.join(changes)}. Put back what was there, or use another run directory, or reset=True "
                "to start over, or accept_change=True to keep what is done, if you know that it is right"
            )


def _refuse_changes(before: PlanIdentity | None, plan: PlanIdentity, path: Path) -> None:
    changes = differences(before, plan) if before is not None else []
    if changes:
        raise PlanChangedError(
            f"{path} belongs to a run with another plan: {'; '.join(changes)}. Use another directory, or "
            "accept_change=True to keep what is done where the blocks cover it, or reset=True to start over"
        )
