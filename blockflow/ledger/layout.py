"""What is in a run directory, and is this one?

The file ``blockflow.json`` is made first and says that a directory is ours; nothing is changed in one that holds
anything and not this file. ``plan.json`` says which plan the journal is for; where there is a snapshot, that says it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from blockflow.errors import DamagedLedgerError, LedgerVersionError, RunDirectoryError
from blockflow.ledger import journal
from blockflow.ledger.identity import decode_identity, encode_identity
from blockflow.ledger.snapshot import find_snapshot, remove_snapshots
from blockflow.trusted_files import DRAFT

if TYPE_CHECKING:
    from blockflow.ledger.disk import Disk
    from blockflow.ledger.identity import PlanIdentity

VERSION = 1
"""Of the layout of run directories."""

FORMAT_FILE = "blockflow.json"
PLAN_FILE = "plan.json"
CONNECTION = "connection"
LOGS = "logs"

_RESETTING = "resetting"
"""Is there while everything is being removed to start over."""

_SHOWN = 5


class _Format(msgspec.Struct, frozen=True):
    format: str
    version: int


_OURS = _Format("blockflow run directory", VERSION)


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
    if found.format != _OURS.format:
        raise RunDirectoryError(f"{where} is not a run directory: {FORMAT_FILE} says {found.format!r}")
    if found.version != VERSION:
        raise LedgerVersionError(
            f"{where} has layout {found.version}, this blockflow reads {VERSION}: go on with the version that began it"
        )
    return True


def write_format(disk: Disk) -> None:
    """Make an empty directory a run directory."""
    disk.write(FORMAT_FILE, msgspec.json.encode(_OURS) + b"\n")
    disk.sync("")


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
        return decode_identity(disk.read(PLAN_FILE), PLAN_FILE)
    except FileNotFoundError:
        if journal.journal_files(disk):
            raise DamagedLedgerError(
                f"{PLAN_FILE} is missing, and there is a journal: put it back from a copy, or use reset=True to start "
                "over; nothing was changed"
            ) from None
        return None


def write_plan(disk: Disk, plan: PlanIdentity) -> None:
    """Say which plan a run directory belongs to."""
    data = encode_identity(plan)
    try:
        if disk.read(PLAN_FILE) == data:
            return
    except FileNotFoundError:
        pass
    disk.write(PLAN_FILE, data)
    disk.sync("")


def being_reset(disk: Disk) -> bool:
    """Whether somebody is removing, or began to remove, what is there."""
    return _RESETTING in disk.names("")


def remove_history(disk: Disk) -> None:
    """Forget the plan and everything that happened; owner file and logs stay. Can be interrupted and repeated."""
    disk.write(_RESETTING, b"")
    disk.sync("")
    remove_snapshots(disk)
    disk.remove(journal.FOLDER)
    disk.remove(PLAN_FILE)
    disk.sync("")
    disk.remove(_RESETTING)
    disk.sync("")
