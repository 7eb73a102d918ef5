"""What is in a run directory, and is this one?

The file ``blockflow.json`` is made first and says that a directory is ours, and which run it belongs to; nothing is
changed in one that holds anything and not this file. ``plan.json`` says which plan the journal is for; where there is a
snapshot, that says it. All of them, and each file of the journal, name the run: what comes from another run directory,
or from before a reset, is refused (:func:`check_run`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from blockflow.errors import DamagedLedgerError, LedgerVersionError, RunDirectoryError
from blockflow.ledger import journal
from blockflow.ledger.bound_arrays import decode_arrays, encode_arrays
from blockflow.ledger.identity import decode_identity, encode_identity
from blockflow.ledger.snapshot import find_snapshot, remove_snapshots
from blockflow.trusted_files import DRAFT

if TYPE_CHECKING:
    from blockflow.ledger.bound_arrays import RunArrays
    from blockflow.ledger.disk import Disk
    from blockflow.ledger.identity import PlanIdentity

VERSION = 2
"""Of the layout of run directories. The first one is that of 0.1.0."""

FORMAT_FILE = "blockflow.json"
PLAN_FILE = "plan.json"
ARRAYS_FILE = "arrays.json"
RESULTS = "results"
CONNECTION = "connection"
LOGS = "logs"

_RESETTING = "resetting"
"""Is there while everything is being removed to start over."""

_SHOWN = 5


class _Format(msgspec.Struct, frozen=True):
    format: str
    version: int
    run: str = ""
    """Id of the run, 32 hexadecimal digits."""


_OURS = "blockflow run directory"


def check_format(disk: Disk, where: str) -> bool:
    """Whether this is a run directory; false if it is empty, and can become one.

    Args:
        disk: The directory.
        where: Its name, for messages.

    Raises:
        RunDirectoryError: It is something else.
        LedgerVersionError: Another version of blockflow made it.
    """
    try:
        found = msgspec.json.decode(disk.read(FORMAT_FILE), type=_Format)
    except FileNotFoundError:
        names = [name for name in disk.names("") if not name.endswith(DRAFT)]
        if names:
            shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
            raise RunDirectoryError(
                f"{where} is not a run directory of blockflow: it has no file {FORMAT_FILE}, and holds {shown}. Use a "
                "directory that is empty or not there; nothing was changed"
            ) from None
        return False
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RunDirectoryError(f"{where} is not a run directory: {FORMAT_FILE} is damaged ({error})") from None
    if found.format != _OURS:
        raise RunDirectoryError(f"{where} is not a run directory: {FORMAT_FILE} says {found.format!r}")
    if found.version != VERSION:
        raise LedgerVersionError(
            f"{where} has layout {found.version}, this blockflow reads {VERSION}: go on with the version that began "
            "it, or use another directory; nothing was changed"
        )
    return True


def write_format(disk: Disk, run: str) -> None:
    """Make an empty directory a run directory.

    Args:
        disk: The directory.
        run: Id of the run, 32 hexadecimal digits.
    """
    disk.write(FORMAT_FILE, msgspec.json.encode(_Format(_OURS, VERSION, run)) + b"\n")
    disk.sync("")


def run_of(disk: Disk) -> str:
    """Id of the run that a run directory belongs to.

    Raises:
        FileNotFoundError: It is none.
    """
    return msgspec.json.decode(disk.read(FORMAT_FILE), type=_Format).run


def check_run(disk: Disk) -> None:
    """Refuse what belongs to another run, and the loss of the journal's last file.

    Raises:
        DamagedLedgerError: Something was put here that belongs elsewhere, or is missing.
    """
    if being_reset(disk):
        return
    run = run_of(disk)
    found = find_snapshot(disk)
    if found is not None:
        journal.refuse_foreign("the snapshot (ledger.zarr)", found.run, run)
    journal.check_journal(disk, run)
    for name, decode in ((PLAN_FILE, decode_identity), (ARRAYS_FILE, decode_arrays)):
        try:
            data = disk.read(name)
        except FileNotFoundError:
            continue
        journal.refuse_foreign(name, decode(data, name).run, run)


def read_plan(disk: Disk) -> PlanIdentity | None:
    """The plan that a run directory belongs to; None if it belongs to none yet.

    Raises:
        DamagedLedgerError: It cannot be told.
    """
    if being_reset(disk):
        return None
    snapshot = find_snapshot(disk)
    if snapshot is not None:
        return snapshot.plan
    try:
        return decode_identity(disk.read(PLAN_FILE), PLAN_FILE).plan
    except FileNotFoundError:
        if journal.journal_files(disk):
            raise DamagedLedgerError(
                f"{PLAN_FILE} is missing, and there is a journal: put it back from a copy, or use reset=True to start "
                "over; nothing was changed"
            ) from None
        return None


def write_plan(disk: Disk, plan: PlanIdentity) -> None:
    """Say which plan a run directory belongs to."""
    data = encode_identity(plan, run_of(disk))
    try:
        if disk.read(PLAN_FILE) == data:
            return
    except FileNotFoundError:
        pass
    disk.write(PLAN_FILE, data)
    disk.sync("")


def read_arrays(disk: Disk) -> RunArrays | None:
    """The arrays that a run directory is bound to; None if it is bound to none yet.

    Raises:
        DamagedLedgerError: It cannot be told.
    """
    if being_reset(disk):
        return None
    try:
        return decode_arrays(disk.read(ARRAYS_FILE), ARRAYS_FILE)
    except FileNotFoundError:
        return None


def write_arrays(disk: Disk, arrays: RunArrays) -> None:
    """Bind a run directory to arrays."""
    data = encode_arrays(arrays)
    try:
        if disk.read(ARRAYS_FILE) == data:
            return
    except FileNotFoundError:
        pass
    disk.write(ARRAYS_FILE, data)
    disk.sync("")


def being_reset(disk: Disk) -> bool:
    """Whether somebody is removing, or began to remove, what is there."""
    return _RESETTING in disk.names("")


def remove_history(disk: Disk, run: str) -> None:
    """Forget the plan and everything that happened; owner file and logs stay. Can be interrupted and repeated.

    Args:
        disk: The run directory.
        run: Id of the run that begins: what was recorded before, and is put back, is not its own.
    """
    disk.write(_RESETTING, b"")
    disk.sync("")
    remove_snapshots(disk)
    for name in (journal.FOLDER, journal.LAST_FILE, PLAN_FILE, ARRAYS_FILE, RESULTS):
        disk.remove(name)
    disk.sync("")
    write_format(disk, run)
    disk.remove(_RESETTING)
    disk.sync("")
