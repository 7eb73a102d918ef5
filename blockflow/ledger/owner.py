"""Which driver owns a run directory, and is it still alive?

``owner.json`` says it: epoch, host, process. Locks are not used, because on Lustre and NFS they may hold on one machine
only, or not at all. What is needed is less than a lock:

1. Each life of a driver has an epoch, greater than all before. It is claimed by making a file of that name, which only
   one of several can do. Then ``owner.json`` is replaced.
2. Whoever finds another owner takes over only if that one is dead: its process is gone (same machine), or it has not
   touched the file for :data:`STALE_SECONDS` (anything else), or the user says so.
3. An owner reads ``owner.json`` after each commit, before it acknowledges anything. The new owner reads the journal
   after it replaced that file. So it sees every record that the old one acknowledged, whatever happens in between; and
   nobody appends to the other's file.
"""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from blockflow.errors import DamagedLedgerError, DriverAliveError, OwnershipLostError

if TYPE_CHECKING:
    from collections.abc import Callable

    from blockflow.ledger.disk import Disk

FILE = "owner.json"

STALE_SECONDS = 60.0
"""After so long without a sign of life a driver on another machine counts as dead."""

_CLAIM = "owner-"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")
_PROCESSES = Path("/proc")


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """One process, among all that ever ran on all machines."""

    host: str
    pid: int
    boot_id: str
    """Of the running kernel, and of the namespace that the pid belongs to; empty if the system has none."""
    started: int
    """When the process started, in whatever the kernel counts; 0 if the system does not say."""


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """What the owner file says."""

    epoch: int
    process: Process
    since: int
    """Microseconds since 1970, UTC."""
    released: bool = False
    """It has ended in an orderly way."""


def this_process() -> Process:
    """This process."""
    pid = os.getpid()
    return Process(host=socket.gethostname(), pid=pid, boot_id=_boot_id(), started=_start_time(pid) or 0)


def is_alive(process: Process, me: Process) -> bool | None:
    """Whether a process is alive; None if that cannot be known from here."""
    if (process.host, process.boot_id) != (me.host, me.boot_id):
        return None
    started = _start_time(process.pid)
    if started is None:
        return False
    return started == process.started if process.started else None


class Ownership:
    """Ownership of a run directory.

    Args:
        disk: The run directory.
        me: This process.
        alive: Whether a process is alive, as :func:`is_alive`.
    """

    def __init__(self, disk: Disk, me: Process, alive: Callable[[Process, Process], bool | None]) -> None:
        self._disk = disk
        self._me = me
        self._alive = alive
        self._mine: Owner | None = None

    def take(self, now: float, *, above: int, take_over: bool) -> int:
        """Become the owner; returns the epoch.

        Args:
            now: Seconds since 1970, UTC.
            above: The epoch is greater than this, and than all that were claimed.
            take_over: The user says that the present owner is dead.

        Raises:
            DriverAliveError: Another driver is alive, or may be.
            DamagedLedgerError: The owner file is damaged.
        """
        while True:
            claims = self._claims()
            epoch = max([above, *claims])
            owner = None
            try:
                owner = self._read()
                epoch = max(epoch, owner.epoch)
            except FileNotFoundError:
                pass
            except DamagedLedgerError:
                if not take_over:
                    raise
            if not take_over:
                if owner is not None:
                    self._refuse_if_alive(FILE, owner)
                if claims and (owner is None or claims[-1] > owner.epoch):
                    self._refuse_if_starting(f"{_CLAIM}{claims[-1]}")
            mine = Owner(epoch=epoch + 1, process=self._me, since=int(now * 1e6))
            try:
                self._disk.create(f"{_CLAIM}{mine.epoch}", _encoded(mine))
            except FileExistsError:
                continue  # somebody else was faster
            return self._take(mine)

    def check(self) -> None:
        """Make sure that this is still the owner.

        Raises:
            OwnershipLostError: It is not.
        """
        try:
            owner = self._read()
        except FileNotFoundError:
            raise OwnershipLostError(f"{FILE} is gone: somebody has removed or moved the run directory") from None
        if owner != self._mine:
            raise OwnershipLostError(
                f"another driver has taken over this run directory: process {owner.process.pid} on "
                f"{owner.process.host}, at {_date(owner.since)}; what this one did since then does not count"
            )

    def beat(self) -> None:
        """Show that this driver is alive."""
        self._disk.touch(FILE)

    def release(self) -> None:
        """Let the next driver begin at once.

        Raises:
            OwnershipLostError: Another driver has taken over.
        """
        self.check()
        assert self._mine is not None
        self._mine = msgspec.structs.replace(self._mine, released=True)
        try:
            self._disk.write(FILE, _encoded(self._mine))
        except OSError:  # the disk is full: then nobody is the owner, and the journal knows the epoch
            self._disk.remove(FILE)
            self._disk.remove(f"{_CLAIM}{self._mine.epoch}")
        self._disk.sync("")

    def _take(self, mine: Owner) -> int:
        self._disk.write(FILE, _encoded(mine))
        self._disk.sync("")
        self._mine = mine
        claims = self._claims()
        if claims[-1] > mine.epoch:  # this process was asleep, and taken for dead
            raise DriverAliveError(f"another driver has claimed this run directory with epoch {claims[-1]} meanwhile")
        for epoch in claims[:-1]:
            self._disk.remove(f"{_CLAIM}{epoch}")
        return mine.epoch

    def _claims(self) -> list[int]:
        tails = [name.removeprefix(_CLAIM) for name in self._disk.names("") if name.startswith(_CLAIM)]
        return sorted(int(tail) for tail in tails if tail.isdecimal())

    def _read(self) -> Owner:
        return _decoded(self._disk.read(FILE))

    def _refuse_if_starting(self, claim: str) -> None:
        try:
            self._refuse_if_alive(claim, _decoded(self._disk.read(claim)))
        except FileNotFoundError:
            return
        except DamagedLedgerError:  # it is being written, or its driver died just then
            if self._disk.age(claim) < STALE_SECONDS:
                raise DriverAliveError(
                    f"another driver is just starting in this run directory; try again in {STALE_SECONDS:.0f} s"
                ) from None

    def _refuse_if_alive(self, file: str, owner: Owner) -> None:
        if owner.released:
            return
        alive = self._alive(owner.process, self._me)
        if alive is False:
            return
        if owner.process == self._me:
            raise DriverAliveError(
                f"this very process is at work in this run directory already, since {_date(owner.since)}: in another "
                "thread, or it could not record its end. Wait for the other run, or if there is none, pass "
                "take_over=True"
            )
        age = self._disk.age(file)
        if alive is None and age >= STALE_SECONDS:
            return
        seen = "it is alive" if alive else f"its last sign of life is {max(0.0, age):.0f} s old"
        wait = "" if alive else f" Without a sign of life it counts as dead after {STALE_SECONDS:.0f} s."
        raise DriverAliveError(
            f"another driver is at work in this run directory: process {owner.process.pid} on {owner.process.host} "
            f"since {_date(owner.since)}, and {seen}. Wait for its end, or stop it there with: "
            f"kill {owner.process.pid}.{wait} If it is certainly dead, pass take_over=True"
        )


def _encoded(owner: Owner) -> bytes:
    return msgspec.json.format(msgspec.json.encode(owner), indent=1) + b"\n"


def _decoded(data: bytes) -> Owner:
    try:
        return msgspec.json.decode(data, type=Owner)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DamagedLedgerError(
            f"{FILE} is damaged ({error}): if no driver is at work here, pass take_over=True"
        ) from None


def _date(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _boot_id() -> str:
    try:
        return f"{_BOOT_ID.read_text().strip()} {os.readlink(_NAMESPACE)}"
    except OSError:
        return ""


def _start_time(pid: int) -> int | None:
    """When a process started, in ticks since the machine did; 0 if the system does not say, None if there is none."""
    try:
        fields = (_PROCESSES / f"{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        if _BOOT_ID.exists():
            return None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return 0
    return None if fields[0] in "ZX" else int(fields[19])  # a zombie does nothing more
