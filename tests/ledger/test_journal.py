"""The journal: many threads append, one commits, and the files follow one another without a gap."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING

import pytest

from blockflow.errors import DamagedLedgerError, LedgerError, LedgerFullError
from blockflow.ledger import journal as journal_module
from blockflow.ledger.disk import LocalDisk
from blockflow.ledger.frames import Head, encode_frame, encode_head
from blockflow.ledger.journal import FOLDER, Journal, JournalFile, JournalReader, journal_files
from blockflow.ledger.records import Record, WorkerGone, encode_records, join_records
from tests.ledger.fake_disk import FakeDisk
from tests.ledger.runs import RUN

if TYPE_CHECKING:
    from pathlib import Path

    from blockflow.ledger.disk import Disk


def begun(disk: Disk, epoch: int = 1, next_number: int = 1) -> Journal:
    journal = Journal(disk, epoch, next_number, run=RUN)
    journal.begin()
    return journal


def written(disk: Disk, after: int = 0) -> list[tuple[int, Record]]:
    reader = JournalReader(disk, after)
    return [entry for first, records in reader.batches() for entry in enumerate(records, first)]


def test_many_threads_append_while_others_commit(tmp_path: Path) -> None:
    disk = LocalDisk(tmp_path)
    journal = begun(disk)
    numbers: dict[int, int] = {}
    appending, total = threading.Event(), 2000

    def append(start: int) -> None:
        for worker in range(start, total, 4):
            numbers[journal.append([WorkerGone(worker)])] = worker
        appending.set()

    def commit() -> None:
        while journal.commit() < total:
            assert {number for number, _ in written(disk)} == set(range(1, len(written(disk)) + 1))

    def rotate() -> None:
        while journal.rotate() < total:
            appending.wait(0.001)

    threads = [threading.Thread(target=append, args=(start,), daemon=True) for start in range(4)]
    threads += [threading.Thread(target=work, daemon=True) for work in (commit, commit, rotate)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    found = written(disk)
    assert [number for number, _ in found] == list(range(1, total + 1))
    assert {number: record.worker for number, record in found if isinstance(record, WorkerGone)} == numbers
    journal.close()


def test_numbers_are_of_the_last_record() -> None:
    journal = begun(FakeDisk(), next_number=5)
    assert journal.commit() == 4
    assert journal.append([WorkerGone(1), WorkerGone(2)]) == 6
    assert journal.append([]) == 6
    assert journal.commit() == 6
    assert journal.rotate() == 6


def test_large_commits_are_cut_into_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "_FRAME_BYTES", 10)
    disk = FakeDisk()
    journal = begun(disk)
    journal.append([WorkerGone(number) for number in range(50)])
    before = disk.operations
    assert journal.commit() == 50
    assert disk.operations - before == 2 * 13, "every frame is synced before the next is written"
    assert len(written(disk)) == 50
    assert [number for number, _ in written(disk, after=30)] == list(range(31, 51))


def test_a_full_disk_keeps_the_frames_that_found_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "_FRAME_BYTES", 10)
    disk = FakeDisk()
    journal = begun(disk)
    journal.append([WorkerGone(number) for number in range(50)])
    disk.room = 200
    with pytest.raises(LedgerFullError):
        journal.commit()
    assert 0 < len(written(disk)) < 50
    disk.room = None
    assert journal.commit() == 50
    assert len(written(disk)) == 50


def test_a_new_file_on_a_full_disk_changes_nothing() -> None:
    disk = FakeDisk()
    journal = begun(disk)
    journal.append([WorkerGone(1)])
    journal.commit()
    disk.room = 10
    with pytest.raises(LedgerFullError):
        journal.rotate()
    disk.room = None
    journal.append([WorkerGone(2)])
    assert journal.commit() == 2
    disk.errors = {disk.operations: errno.EIO}
    with pytest.raises(LedgerError, match="the disk or the file server failed"):
        journal.rotate()
    assert len(written(disk)) == 2


def test_a_closed_journal_takes_nothing() -> None:
    disk = FakeDisk()
    journal = begun(disk)
    journal.close()
    journal.close()
    for use in (journal.commit, journal.rotate, lambda: journal.append([WorkerGone(1)])):
        with pytest.raises(LedgerError, match="closed"):
            use()


def test_what_a_former_driver_wrote_too_late_does_not_count() -> None:
    disk = FakeDisk()
    old = begun(disk)
    old.append([WorkerGone(1)])
    old.commit()
    new = begun(disk, epoch=2, next_number=2)
    old.append([WorkerGone(2), WorkerGone(3)])
    old.commit()
    new.append([WorkerGone(4)])
    new.commit()
    assert written(disk) == [(1, WorkerGone(1)), (2, WorkerGone(4))]


def test_a_torn_tail_in_front_of_another_file_does_not_count() -> None:
    disk = FakeDisk()
    journal = begun(disk)
    journal.append([WorkerGone(1)])
    journal.commit()
    disk.open(journal_files(disk)[0].path).append(b"torn")
    reader = JournalReader(disk, 0)
    assert [len(records) for _, records in reader.batches()] == [1]
    assert (reader.torn, reader.next_number) == (4, 2)
    begun(disk, epoch=2, next_number=2)
    reader = JournalReader(disk, 0)
    assert [len(records) for _, records in reader.batches()] == [1]
    assert (reader.torn, reader.next_number) == (0, 2)


def test_files_that_a_snapshot_holds_are_not_read() -> None:
    disk = FakeDisk()
    disk.write(JournalFile(1, 1).path, b"rubbish")
    disk.write(JournalFile(1, 10).path, encode_head(Head(10, RUN)))
    disk.write(f"{FOLDER}/mine.txt", b"")
    disk.write(f"{FOLDER}/1-x", b"")
    assert written(disk, after=9) == []
    with pytest.raises(DamagedLedgerError, match="byte 0"):
        written(disk, after=8)


def test_a_cut_file_in_front_of_another_is_damage() -> None:
    disk = FakeDisk()
    journal = begun(disk)
    journal.append([WorkerGone(1)])
    journal.commit()
    begun(disk, epoch=2, next_number=3)
    with pytest.raises(DamagedLedgerError, match="records 2 to 2 are missing"):
        written(disk)


@pytest.mark.parametrize(
    ("count", "body", "says"),
    [(2, join_records(encode_records([WorkerGone(1)])), "first of 2, it is of 1"), (1, b"rubbish", "cannot be read")],
)
def test_frames_that_hold_something_else_are_damage(count: int, body: bytes, says: str) -> None:
    disk = FakeDisk()
    disk.write(JournalFile(1, 1).path, encode_head(Head(1, RUN)) + encode_frame(1, count, body))
    with pytest.raises(DamagedLedgerError, match=says):
        written(disk)


def test_a_frame_is_read_from_its_middle() -> None:
    disk = FakeDisk()
    journal = begun(disk)
    journal.append([WorkerGone(number) for number in range(1, 6)])
    journal.commit()
    assert written(disk, after=3) == [(4, WorkerGone(4)), (5, WorkerGone(5))]


def test_short_writes_are_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: real(file, data[:7], offset))
    disk = LocalDisk(tmp_path)
    journal = begun(disk)
    journal.append([WorkerGone(number) for number in range(20)])
    journal.commit()
    assert len(written(disk)) == 20
    journal.close()
