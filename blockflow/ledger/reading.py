"""What do people see of a run, while it goes on and afterwards?"""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from blockflow.errors import DamagedLedgerError, RunDirectoryError, TaskGraphError
from blockflow.ledger import layout, snapshot
from blockflow.ledger.disk import LocalDisk
from blockflow.ledger.history import History
from blockflow.ledger.journal import JournalReader
from blockflow.ledger.snapshot import find_snapshot
from blockflow.paths import local_path
from blockflow.scheduler.block_states import BlockState

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from blockflow.ledger.disk import Disk
    from blockflow.ledger.identity import TaskIdentity
    from blockflow.ledger.records import CodeKnown, Record
    from blockflow.scheduler.events import BlockFailure

_TRIES = 5
_PAUSE_SECONDS = 0.2
"""A driver replaces a snapshot in less; then everything is where it belongs again."""

_Answer = TypeVar("_Answer")


class Ledger:
    """The record of a run, to be read; the run may go on meanwhile, and nothing is changed or locked.

    Every method says what is recorded at the time of the call. Blocks that wait or run have state 0: the ledger knows
    what happened, not what goes on.

    Args:
        disk: The run directory.
        where: Its name, for messages.

    >>> import tempfile
    >>> from blockflow import Ledger, Roi, Task
    >>> from blockflow.ledger.records import BlocksDone
    >>> from blockflow.ledger.rundir import open_run
    >>> from blockflow.plan.plan import compile_plan
    >>> plan = compile_plan([Task("smooth", Roi((0, 0), (40, 20)), Roi((0, 0), (10, 10)), Roi((0, 0), (10, 10)))])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = open_run(f"{folder}/run", plan)
    ...     _ = store.append([BlocksDone(task=0, runs=(1, 2), attempt=7, microseconds=1000)])
    ...     _ = store.commit()
    ...     ledger = Ledger.open(f"{folder}/run")
    ...     print(ledger.states("smooth"))
    ...     store.close()
    [[0 3]
     [3 0]
     [0 0]
     [0 0]]
    """

    def __init__(self, disk: Disk, where: str) -> None:
        self._disk = disk
        self._where = where

    @classmethod
    def open(cls, run_dir: str | os.PathLike[str]) -> Ledger:
        """The ledger of a run directory.

        Raises:
            RunDirectoryError: It is none, or no path of this machine's file systems.
            LedgerVersionError: Another version of blockflow made it.
        """
        ledger = cls(LocalDisk(local_path(run_dir, "run_dir", RunDirectoryError).absolute()), str(run_dir))
        if not layout.check_format(ledger._disk, ledger._where):
            raise RunDirectoryError(f"there is no run directory {run_dir}, or it is empty")
        return ledger

    @property
    def task_ids(self) -> list[str]:
        """The tasks of the run, each behind those that it waits for."""
        return [task.task_id for task in self._settled(self._tasks)]

    def states(self, task_id: str) -> npt.NDArray[np.uint8]:
        """The :class:`~blockflow.scheduler.block_states.BlockState` of every block: an array over the grid of the task.

        Raises:
            TaskGraphError: No task has that id.
            DamagedLedgerError: The ledger is damaged.
        """
        return self._array(task_id, "state")

    def attempts(self, task_id: str) -> npt.NDArray[np.uint16]:
        """How often every block was tried: an array over the grid of the task."""
        return self._array(task_id, "attempts")

    def seconds(self, task_id: str) -> npt.NDArray[np.float32]:
        """How long every block took that is done; 0 for the others: an array over the grid of the task."""
        return self._array(task_id, "seconds")

    def versions(self, task_id: str) -> npt.NDArray[np.uint16]:
        """Which version of the task's code has done every block: an array over the grid of the task.

        0 for blocks that are not done, and those of which nobody knows. :meth:`code_versions` says what they are.
        """
        return self._settled(
            lambda: self._asked(task_id, lambda history, n: history.versions(n).reshape(history.grids[n].shape))
        )

    def code_versions(self, task_id: str) -> dict[int, CodeKnown]:
        """The versions of a task's code, by number: digest and name of the function, and versions of libraries."""
        return self._settled(
            lambda: self._asked(task_id, lambda history, n: {code.version: code for code in reversed(history.codes(n))})
        )

    def stored(self, task_id: str) -> npt.NDArray[np.int64]:
        """How many chunks every block that is done has stored, -1 if that is unknown: an array over the grid.

        Chunks of all outputs of the task together, and shards where there are any. Only what was written with
        :mod:`blockflow.arrays` or by operations is counted.
        """
        return self._array(task_id, "stored").astype(np.int64) - 1

    def counts(self, task_id: str) -> dict[str, int]:
        """Number of blocks in each state; blocks that wait or run are ``"pending"``."""
        found = np.bincount(self.states(task_id).ravel(), minlength=len(BlockState)).tolist()
        return {
            state.name.lower(): found[state]
            for state in BlockState
            if state not in (BlockState.READY, BlockState.RUNNING)
        }

    def failures(self, task_id: str) -> dict[int, BlockFailure]:
        """By index of each block that failed and is not done: its last failure."""
        return self._settled(lambda: self._asked(task_id, lambda history, n: history.task(n).failures))

    def records(self) -> Iterator[tuple[int, Record]]:
        """Every record since the last snapshot, with its number. Those before are part of the snapshot."""
        return iter(self._settled(self._records))

    def _array(self, task_id: str, name: str) -> npt.NDArray[Any]:
        return self._settled(lambda: self._asked(task_id, lambda history, number: history.array(number, name)))

    def _asked(self, task_id: str, question: Callable[[History, int], _Answer]) -> _Answer:
        layout.check_run(self._disk)
        plan = layout.read_plan(self._disk)
        names = [task.task_id for task in self._tasks()]
        if plan is None or task_id not in names:
            raise TaskGraphError(
                f"no task is called {task_id!r}; there are {', '.join(map(repr, names)) or 'none yet'}"
            )
        history = History(self._disk, plan)
        answer = question(history, names.index(task_id))
        if _sequence(find_snapshot(self._disk)) != _sequence(history.snapshot):
            raise FileNotFoundError(errno.ENOENT, "the snapshot was replaced by a newer one", snapshot.PLACE)
        return answer

    def _tasks(self) -> tuple[TaskIdentity, ...]:
        plan = layout.read_plan(self._disk)
        return () if plan is None else plan.tasks

    def _records(self) -> list[tuple[int, Record]]:
        layout.check_run(self._disk)
        reader = JournalReader(self._disk, _sequence(find_snapshot(self._disk)))
        return [entry for first, records in reader.batches() for entry in enumerate(records, first)]

    def _settled(self, question: Callable[[], _Answer]) -> _Answer:
        """Ask again while the driver is just replacing what is read: files are gone, or seem to be damaged."""
        for _ in range(_TRIES - 1):
            try:
                return question()
            except (FileNotFoundError, DamagedLedgerError):
                time.sleep(_PAUSE_SECONDS)
        try:
            return question()
        except FileNotFoundError as error:
            raise DamagedLedgerError(f"{self._where} is damaged: {error.filename} is missing") from error


def _sequence(found: snapshot.Snapshot | None) -> int:
    """Number of the last record in a snapshot."""
    return 0 if found is None else found.sequence
