"""The run directory: everything of one run that outlives its driver.

What a driver does with it::

    store = open_run("runs/x", plan, reset=False, accept_change=False, take_over=False)
    store.epoch                     # greater than in every life before; attempt numbers begin with it
    store.history[number].states    # per task of the plan: uint8 per block, DONE or FAILED, else 0; and .done,
                                    # .failures, .failure_counts, .losses
    store.absent_workers            # WorkerKnown records of workers that may still be at work
    number = store.append(records)  # the loop's thread: numbers them, waits for nothing
    durable = store.commit()        # another thread: returns when all records up to this number are durable,
                                    # and nobody else has taken over. Then acknowledge, and release what waits
    store.fold_is_due               # the journal has grown long:
    store.fold()                    # any other thread, also while others append and commit
    store.fold(final_states)        # at the end: also shows what was skipped and orphaned, one array per task
    store.close()                   # commits nothing; the next driver may begin at once

``commit`` must be called at least every :data:`BEAT_SECONDS`, also when there is nothing to commit: it is the sign of
life, and finds out whether somebody has taken over. What it raises: :class:`~blockflow.errors.LedgerFullError` (call it
again later, and grant nothing until it succeeds), :class:`~blockflow.errors.OwnershipLostError` and any other
:class:`~blockflow.errors.LedgerError` (stop at once, acknowledge nothing).

What is in it: ``blockflow.json`` (the format, and the id of the run), ``plan.json``, ``arrays.json``, ``owner.json``,
``journal/``, ``journal.json`` (its last file), ``ledger.zarr`` (a plain zarr group, see
:mod:`blockflow.ledger.snapshot`), ``connection/`` (private) and ``logs/``.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

from blockflow.errors import RunDirectoryError, UntrustedFileError
from blockflow.ledger import layout
from blockflow.ledger.disk import LocalDisk
from blockflow.ledger.identity import identity_of
from blockflow.ledger.owner import is_alive, this_process
from blockflow.ledger.store import BEAT_SECONDS, RunStore, open_store
from blockflow.paths import local_path
from blockflow.trusted_files import PRIVATE, open_folder

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from pathlib import Path

    from blockflow.plan.bindings import TaskArrays
    from blockflow.plan.plan import Plan

__all__ = ["BEAT_SECONDS", "RunStore", "open_run"]


def open_run(
    path: str | os.PathLike[str],
    plan: Plan,
    *,
    reset: bool = False,
    accept_change: bool = False,
    take_over: bool = False,
    arrays: Sequence[TaskArrays] | None = None,
) -> RunStore:
    """Open a run directory to begin a run or to go on with it; it is made if it is not there.

    Args:
        path: Of the directory.
        plan: Of the run.
        reset: Forget what happened, and start over. Logs, and files that are not ours, stay.
        accept_change: If the plan is another, go on with what is done: a block is done if its write ROI is covered by
            those of done blocks of the same task.
        take_over: The driver that seems to be at work here is certainly dead.
        arrays: What the tasks read and write; None if nobody knows, and nothing is compared.

    Raises:
        RunDirectoryError: The directory holds something else, is not private, or cannot be written.
        DriverAliveError: Another driver is at work in it.
        PlanChangedError: It belongs to another plan, or to other arrays; the message says what differs.
        DamagedLedgerError: Something that was written is not there any more.
        LedgerVersionError: Another version of blockflow made it.
        LedgerFullError: No space is left.

    >>> import tempfile
    >>> from blockflow import Roi, Task
    >>> from blockflow.ledger.records import BlocksDone
    >>> from blockflow.plan.plan import compile_plan
    >>> plan = compile_plan([Task("smooth", Roi((0,), (40,)), Roi((0,), (10,)), Roi((0,), (10,)))])
    >>> folder = tempfile.TemporaryDirectory()
    >>> store = open_run(f"{folder.name}/run", plan)
    >>> store.append([BlocksDone(task=0, runs=(1, 2), attempt=7, microseconds=1000)]) == store.commit()
    True
    >>> store.close()
    >>> store = open_run(f"{folder.name}/run", plan)
    >>> store.epoch, store.history[0].states
    (2, array([0, 3, 3, 0], dtype=uint8))
    >>> store.close()
    >>> folder.cleanup()
    """
    directory = local_path(path, "run_dir", RunDirectoryError).absolute()
    identity = identity_of(plan)
    try:
        open_folder(directory, make=PRIVATE).close()
    except UntrustedFileError as error:
        raise RunDirectoryError(f"run directory not used: {error}") from error
    except OSError as error:
        raise RunDirectoryError(f"run directory {directory} cannot be made: {error}") from error
    disk = LocalDisk(directory)
    _check(disk, directory)
    store = open_store(
        disk,
        directory,
        identity,
        me=this_process(),
        alive=is_alive,
        clock=time.time,
        new_run=secrets.token_hex(16),
        reset=reset,
        accept_change=accept_change,
        take_over=take_over,
        arrays=arrays,
    )
    with open_folder(directory) as folder:
        for name in (layout.CONNECTION, layout.LOGS):
            folder.folder(name, make=PRIVATE).close()
    return store


def reopen_run(path: str | os.PathLike[str], *, take_over: bool = False) -> RunStore:
    """Open the run directory of a run that was begun, whatever its plan is, to add to its record.

    Args:
        path: Of the directory.
        take_over: The driver that seems to be at work here is certainly dead.

    Raises:
        RunDirectoryError: It is none, or nothing was begun in it, or it is not private.
        DriverAliveError: A driver is at work in it.
        LedgerError: Its ledger cannot be used.
    """
    directory = local_path(path, "run_dir", RunDirectoryError).absolute()
    disk = LocalDisk(directory)
    _check(disk, directory)
    plan = layout.read_plan(disk)
    if plan is None:
        raise RunDirectoryError(f"no run was begun in {directory}")
    return open_store(
        disk,
        directory,
        plan,
        me=this_process(),
        alive=is_alive,
        clock=time.time,
        new_run=secrets.token_hex(16),
        take_over=take_over,
    )


def _check(disk: LocalDisk, directory: Path) -> None:
    """Refuse a directory that is not a private run directory, or cannot become one."""
    try:
        layout.check_format(disk, str(directory))
        with open_folder(directory) as folder:
            if not folder.keeps_modes:
                raise RunDirectoryError(
                    f"run directory {directory} is on a file system that keeps no owners or modes, where others could "
                    "read the key of the run: use another one"
                )
            for name in (layout.CONNECTION, layout.LOGS):
                if folder.status(name) is not None:
                    folder.folder(name, private=name == layout.CONNECTION).close()
    except UntrustedFileError as error:
        raise RunDirectoryError(f"run directory not used: {error}") from error
    except OSError as error:
        raise RunDirectoryError(f"run directory {directory} cannot be used: {error}") from error
