"""Reading: what people see while the run goes on, and that it never stands in its way."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

import blockflow
from blockflow import Ledger
from blockflow.errors import DamagedLedgerError, RunDirectoryError, TaskGraphError
from blockflow.ledger import layout, reading
from blockflow.ledger.records import Began
from blockflow.ledger.rundir import open_run
from blockflow.scheduler.block_states import BlockState
from tests.ledger.fake_disk import FakeDisk
from tests.ledger.runs import RUN, done, failed, opened, plan_of, task

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_PAUSE_SECONDS", 0.0)


def test_what_people_see(tmp_path: Path) -> None:
    store = open_run(tmp_path, plan_of(task("a"), task("b", blocks=(3,))))
    store.append([done(1, 2, microseconds=4_000_000), failed(7, final=True), failed(8), done(0, task=1)])
    ledger = Ledger.open(tmp_path)
    assert ledger.counts("a")["done"] == 0, "what is not durable is not there"
    store.commit()
    assert ledger.task_ids == ["a", "b"]
    assert ledger.states("a").shape == (4, 5)
    assert ledger.counts("a") == {"pending": 17, "done": 2, "failed": 1, "orphaned": 0, "skipped": 0}
    assert ledger.seconds("a")[0].tolist() == [0, 2, 2, 0, 0]
    assert ledger.attempts("a").sum() == 4
    assert sorted(ledger.failures("a")) == [7, 8]
    records = list(ledger.records())
    assert isinstance(records[0][1], Began)
    assert [number for number, _ in records] == [1, 2, 3, 4, 5]
    store.fold([np.full(20, BlockState.ORPHANED, dtype=np.uint8), np.zeros(3, dtype=np.uint8)])
    assert list(ledger.records()) == []
    assert ledger.counts("a") == {"pending": 0, "done": 2, "failed": 1, "orphaned": 17, "skipped": 0}
    assert ledger.states("b").tolist() == [BlockState.DONE, 0, 0]
    store.close()


def test_reading_changes_nothing(tmp_path: Path) -> None:
    store = open_run(tmp_path, plan_of())
    store.append([done(1)])
    store.commit()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    ledger = Ledger.open(str(tmp_path))
    ledger.states("smooth"), ledger.counts("smooth"), list(ledger.records())
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    store.close()


def test_it_can_be_read_while_it_is_folded_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_PAUSE_SECONDS", 0.01)
    store = open_run(tmp_path, plan_of(task(blocks=(100,))))
    stop = threading.Event()

    def run() -> None:
        for block in range(100):
            store.append([done(block)])
            store.commit()
            if block % 10 == 0:
                store.fold()
            if stop.is_set():
                break

    thread = threading.Thread(target=run)
    thread.start()
    ledger = Ledger.open(tmp_path)
    counted = 0
    try:
        while thread.is_alive():
            states, attempts = ledger.states("smooth"), ledger.attempts("smooth")
            number = int((states == BlockState.DONE).sum())
            assert (states[:number] == BlockState.DONE).all(), "blocks were done in order"
            assert attempts.max() <= 1, "no record is counted twice"
            assert number >= counted
            counted = number
    finally:
        stop.set()
        thread.join(60)
    assert ledger.counts("smooth")["done"] == 100
    store.close()


def test_no_run_directory(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(RunDirectoryError, match="there is no run directory"):
            Ledger.open(folder)
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match="is not a run directory"):
        Ledger.open(tmp_path)


def test_a_task_that_is_not_there() -> None:
    disk = FakeDisk()
    layout.write_format(disk, RUN)
    ledger = Ledger(disk, "run")
    assert ledger.task_ids == []
    with pytest.raises(TaskGraphError, match="there are none yet"):
        ledger.states("smooth")
    opened(disk)
    with pytest.raises(TaskGraphError, match="no task is called 'rough'; there are 'smooth'"):
        ledger.states("rough")


def test_while_it_is_reset_there_is_nothing() -> None:
    disk = FakeDisk()
    opened(disk)
    disk.write("resetting", b"")
    assert Ledger(disk, "run").task_ids == []


def test_damage_is_told_after_some_tries() -> None:
    disk = FakeDisk()
    store = opened(disk)
    store.append([done(1)])
    store.fold()
    disk.remove("ledger.zarr/tasks/smooth/attempts/c.0.0")
    ledger = Ledger(disk, "run")
    assert ledger.counts("smooth")["done"] == 1
    with pytest.raises(DamagedLedgerError, match=r"attempts/c\.0\.0 is missing"):
        ledger.attempts("smooth")
    disk.remove("ledger.zarr/zarr.json")
    with pytest.raises(DamagedLedgerError):
        ledger.counts("smooth")


def test_a_snapshot_that_is_replaced_in_between_is_read_again() -> None:
    disk = FakeDisk()
    store = opened(disk)
    store.append([done(1)])
    store.commit()
    real, answers = disk.read, iter([True])

    def read(path: str) -> bytes:
        if path.endswith("c.0.0") and next(answers, False):
            store.append([done(2)])
            store.fold()
        return real(path)

    store.fold()
    disk.read = read  # type: ignore[method-assign]
    assert Ledger(disk, "run").attempts("smooth").sum() == 2


def test_it_is_public() -> None:
    assert blockflow.Ledger is reading.Ledger
    assert "Ledger" in blockflow.__all__
