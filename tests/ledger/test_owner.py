"""Owners: one at a time, with epochs that only grow; the dead are replaced, the living are not."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from blockflow.errors import DamagedLedgerError, DriverAliveError, OwnershipLostError
from blockflow.ledger import owner
from blockflow.ledger.owner import FILE, STALE_SECONDS, Ownership, Process, is_alive, this_process
from tests.ledger.fake_disk import FakeDisk
from tests.ledger.runs import ME, OTHER, nobody

if TYPE_CHECKING:
    from pathlib import Path


def alive(process: Process, me: Process) -> bool | None:
    return True


def unknown(process: Process, me: Process) -> bool | None:
    return None


def taken(disk: FakeDisk, me: Process = ME, says: object = nobody, *, above: int = 0, take_over: bool = False) -> int:
    return Ownership(disk, me, says).take(0.0, above=above, take_over=take_over)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------- taking over


def test_epochs_grow() -> None:
    disk = FakeDisk()
    assert [taken(disk), taken(disk, OTHER), taken(disk, above=7), taken(disk)] == [1, 2, 8, 9]
    assert disk.names("") == ["owner-9", FILE]


def test_one_that_has_ended_is_replaced_at_once() -> None:
    disk = FakeDisk()
    first = Ownership(disk, ME, nobody)
    first.take(0.0, above=0, take_over=False)
    with pytest.raises(DriverAliveError):
        taken(disk, OTHER, alive)
    first.release()
    assert taken(disk, OTHER, alive) == 2


def test_one_that_may_be_alive_is_replaced_after_a_while() -> None:
    disk = FakeDisk()
    taken(disk)
    disk.now = STALE_SECONDS - 1
    with pytest.raises(DriverAliveError, match=r"its last sign of life is 59 s old.* counts as dead after 60 s"):
        taken(disk, OTHER, unknown)
    disk.now = STALE_SECONDS
    assert taken(disk, OTHER, unknown) == 2


def test_an_owner_finds_out_that_it_was_replaced() -> None:
    disk = FakeDisk()
    first = Ownership(disk, ME, nobody)
    first.take(0.0, above=0, take_over=False)
    first.check()
    taken(disk, OTHER)
    with pytest.raises(OwnershipLostError, match=r"process 2 on there, at 1970-01-01 00:00:00 UTC"):
        first.check()
    with pytest.raises(OwnershipLostError):
        first.release()
    disk.remove(FILE)
    with pytest.raises(OwnershipLostError, match="is gone"):
        first.check()


def test_of_two_that_start_at_once_one_succeeds() -> None:
    class Racing(FakeDisk):
        """Somebody else claims the epoch just before."""

        def create(self, path: str, data: bytes) -> None:
            self.create = super().create  # type: ignore[method-assign]
            super().create(path, data.replace(b'"here"', b'"there"'))
            super().create(path, data)

    with pytest.raises(DriverAliveError, match="process 1 on there"):
        taken(Racing(), says=alive)
    assert taken(Racing(), says=nobody) == 2


def test_a_claim_that_is_being_written_counts_for_a_while() -> None:
    disk = FakeDisk()
    taken(disk)
    disk.create("owner-2", b"")
    with pytest.raises(DriverAliveError, match="just starting"):
        taken(disk, OTHER)
    disk.now = STALE_SECONDS
    assert taken(disk, OTHER) == 3


def test_one_that_slept_while_it_was_replaced_gives_up() -> None:
    class Slow(FakeDisk):
        """Somebody else takes over just after the claim."""

        def write(self, path: str, data: bytes) -> None:
            self.write = super().write  # type: ignore[method-assign]
            taken(self, OTHER, take_over=True)
            super().write(path, data)

    with pytest.raises(DriverAliveError, match="with epoch 2 meanwhile"):
        taken(Slow())


def test_a_claim_that_vanishes_is_no_obstacle() -> None:
    disk = FakeDisk()
    taken(disk)
    disk.create("owner-3", b"")
    removed = disk.read

    def read(path: str) -> bytes:
        if path == "owner-3":
            disk.remove(path)
        return removed(path)

    disk.read = read  # type: ignore[method-assign]
    assert taken(disk, OTHER) == 4


def test_a_damaged_owner_file_needs_a_word_of_the_user() -> None:
    disk = FakeDisk()
    taken(disk)
    disk.write(FILE, b"{")
    with pytest.raises(DamagedLedgerError, match="pass take_over=True"):
        taken(disk)
    assert taken(disk, take_over=True) == 2


# --------------------------------------------------------------------------------------------------------- processes


def test_this_process_is_alive() -> None:
    me = this_process()
    assert me.pid == os.getpid()
    assert is_alive(me, me)


def test_a_process_that_ended_is_dead_even_before_its_parent_asks() -> None:
    me = this_process()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = Process(host=me.host, pid=child.pid, boot_id=me.boot_id, started=owner._start_time(child.pid) or 0)
    assert is_alive(process, me)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_alive(process, me) is False
    child.communicate()
    assert is_alive(process, me) is False


@pytest.mark.parametrize(("change", "expected"), [
    ({"started": 1}, False),
    ({"started": 0}, None),
    ({"host": "elsewhere"}, None),
    ({"boot_id": "before"}, None),
])  # fmt: skip
def test_a_process_of_that_number_may_be_another(change: dict[str, object], expected: bool | None) -> None:
    me = this_process()
    fields = {"host": me.host, "pid": me.pid, "boot_id": me.boot_id, "started": me.started}
    assert is_alive(Process(**{**fields, **change}), me) is expected  # type: ignore[arg-type]


def test_systems_without_proc_are_asked_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    monkeypatch.setattr(owner, "_BOOT_ID", tmp_path / "boot_id")
    monkeypatch.setattr(owner, "_PROCESSES", tmp_path)
    me = this_process()
    assert (me.boot_id, me.started) == ("", 0)
    assert is_alive(me, me) is None, "it may be another process of that number"
    assert is_alive(Process(host=me.host, pid=ended.pid, boot_id="", started=0), me) is False

    def not_mine(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", not_mine)
    assert is_alive(Process(host=me.host, pid=1, boot_id="", started=0), me) is None
