"""The store: what was committed is there in the next life, whatever happens in between, and nothing else."""

from __future__ import annotations

import errno
import os
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from blockflow.errors import (
    DamagedLedgerError,
    DriverAliveError,
    LedgerError,
    LedgerFullError,
    OwnershipLostError,
    PlanChangedError,
    RunDirectoryError,
)
from blockflow.ledger import chunks
from blockflow.ledger import store as store_module
from blockflow.ledger.journal import journal_files
from blockflow.ledger.records import BlockLost, BlocksSkipped, WorkerGone, WorkerKnown
from blockflow.ledger.snapshot import PLACE
from blockflow.ledger.store import BEAT_SECONDS
from blockflow.scheduler.block_states import BlockState
from blockflow.scheduler.events import BlockFailure
from tests.ledger.fake_disk import Crash, FakeDisk
from tests.ledger.runs import OTHER, done, failed, identity, opened, task

if TYPE_CHECKING:
    from collections.abc import Callable

    from blockflow.ledger.store import RunStore

CRASHES = int(os.environ.get("BLOCKFLOW_CRASHES", "10"))
"""States of the disk that are tried for each operation at which a crash may come."""

DONE, FAILED, SKIPPED, ORPHANED = BlockState.DONE, BlockState.FAILED, BlockState.SKIPPED, BlockState.ORPHANED


def blocks_in(store: RunStore, state: BlockState, task: int = 0) -> list[int]:
    return np.flatnonzero(store.history[task].states == state).tolist()


def recorded(disk: FakeDisk, *records: object) -> None:
    """One life of a driver that records something and is killed."""
    store = opened(disk)
    store.append(records)  # type: ignore[arg-type]
    store.commit()


# ------------------------------------------------------------------------------------------------------- two lives


def test_an_empty_directory_becomes_a_run_directory() -> None:
    disk = FakeDisk()
    store = opened(disk)
    assert (store.epoch, store.absent_workers, store.torn_bytes) == (1, (), 0)
    assert blocks_in(store, BlockState.PENDING) == list(range(20))
    assert {"blockflow.json", "plan.json", "owner.json", "journal"} <= set(disk.names(""))


def test_what_was_committed_is_there_in_the_next_life() -> None:
    disk = FakeDisk()
    recorded(disk, done(0, 1, 2, 7), done(9), failed(3), failed(3), failed(4, final=True), BlockLost(0, 5, 3, False))
    store = opened(disk)
    history = store.history[0]
    assert store.epoch == 2
    assert blocks_in(store, DONE) == [0, 1, 2, 7, 9]
    assert history.done == 5
    assert blocks_in(store, FAILED) == [4]
    assert history.failure_counts == {3: 2, 4: 1}
    assert history.losses == {5: 1}
    failure = BlockFailure(index=3, error="ValueError: no", traceback="Traceback", where="script.py:3")
    assert history.failures[3] == failure
    assert sorted(history.failures) == [3, 4]


def test_what_was_not_committed_is_not() -> None:
    disk = FakeDisk()
    store = opened(disk)
    store.append([done(1)])
    assert blocks_in(opened(disk), DONE) == []


def test_a_block_that_is_done_has_no_history_of_failures() -> None:
    disk = FakeDisk()
    recorded(disk, failed(3), BlockLost(0, 4, 1, False), failed(9), done(3, 4))
    history = opened(disk).history[0]
    assert (history.failure_counts, history.losses, sorted(history.failures)) == ({9: 1}, {}, [9])


def test_a_failed_block_that_is_tried_again_begins_to_count_anew() -> None:
    disk = FakeDisk()
    recorded(disk, failed(3), failed(3, final=True), failed(3))
    store = opened(disk)
    assert store.history[0].failure_counts == {3: 1}
    assert blocks_in(store, FAILED) == []


def test_a_block_that_ended_too_many_workers_has_failed() -> None:
    disk = FakeDisk()
    recorded(disk, BlockLost(0, 6, 1, False), BlockLost(0, 6, 2, True, "killed two workers"))
    history = opened(disk).history[0]
    assert history.states[6] == FAILED
    assert history.losses == {6: 2}
    assert history.failures == {6: BlockFailure(index=6, error="killed two workers")}


def test_skipped_blocks_are_found_out_again() -> None:
    disk = FakeDisk()
    recorded(disk, BlocksSkipped(0, (0, 5)), failed(8), BlocksSkipped(0, (8, 1)))
    history = opened(disk).history[0]
    assert not history.states.any()
    assert not history.failure_counts


def test_workers_that_nobody_saw_go_are_absent() -> None:
    disk = FakeDisk()
    there, gone = WorkerKnown(1, 0, "host", 10), WorkerKnown(2, 0, "host", 11)
    recorded(disk, there, gone, WorkerGone(2), WorkerGone(99))
    assert opened(disk).absent_workers == (there,)
    store = opened(disk)
    store.append([WorkerGone(1)])
    store.fold()
    assert opened(disk).absent_workers == ()


# ---------------------------------------------------------------------------------------------------------- folding


def test_folding_changes_nothing_that_is_known() -> None:
    disk = FakeDisk()
    recorded(disk, done(0, 1, 2), failed(3), failed(4, final=True), BlockLost(0, 5, 3, False), WorkerKnown(1, 0, "", 3))
    before = opened(disk)
    before.fold()
    assert len(journal_files(disk)) == 1
    after = opened(disk)
    for old, new in zip(before.history, after.history, strict=True):
        assert (old.states == new.states).all()
        assert (old.failures, old.failure_counts, old.losses) == (new.failures, new.failure_counts, new.losses)
        assert old.done == new.done
    assert after.absent_workers == before.absent_workers
    after.append([done(3)])
    after.fold()
    after.append([done(8)])
    after.fold()
    last = opened(disk)
    assert blocks_in(last, DONE) == [0, 1, 2, 3, 8]
    assert blocks_in(last, FAILED) == [4]


def test_records_that_come_while_a_snapshot_is_made_are_not_in_it_but_in_the_journal() -> None:
    disk = FakeDisk()
    store = opened(disk)
    store.append([done(1)])
    disk.room = 3000
    with pytest.raises(LedgerFullError, match=r"^no snapshot can be made: no space is left; nothing was lost$"):
        store.fold()
    disk.room = None
    store.append([done(2)])
    store.commit()
    assert blocks_in(opened(disk), DONE) == [1, 2]
    store = opened(disk)
    store.fold()
    store.append([done(3)])
    store.commit()
    assert blocks_in(opened(disk), DONE) == [1, 2, 3]


def test_a_driver_that_lost_the_run_cannot_fold() -> None:
    disk = FakeDisk()
    old = opened(disk)
    old.append([done(1)])
    old.commit()
    new = opened(disk, me=OTHER)
    new.append([done(2)])
    new.commit()
    with pytest.raises(OwnershipLostError, match="process 2 on there"):
        old.fold()
    assert PLACE not in disk.names("")
    assert blocks_in(opened(disk), DONE) == [1, 2]


def test_a_snapshot_is_due_when_the_journal_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "FOLD_BYTES", 100)
    disk = FakeDisk()
    store = opened(disk)
    for block in range(5):
        assert not store.fold_is_due or block
        store.append([done(block)])
        store.commit()
    assert store.fold_is_due
    store.fold()
    assert not store.fold_is_due


# -------------------------------------------------------------------------------------------------------- ownership


def test_an_owner_that_was_replaced_finds_out_before_it_acknowledges() -> None:
    disk = FakeDisk()
    old = opened(disk)
    new = opened(disk, me=OTHER)
    assert new.epoch > old.epoch
    old.append([done(1)])
    with pytest.raises(OwnershipLostError, match="does not count"):
        old.commit()
    new.append([done(2)])
    new.commit()
    assert blocks_in(opened(disk), DONE) == [2], "what the old one wrote after it was replaced does not count"
    old.close()
    assert opened(disk).epoch == 4


def test_a_driver_that_is_alive_is_left_alone() -> None:
    disk = FakeDisk()
    opened(disk).close()
    opened(disk)
    with pytest.raises(DriverAliveError, match=r"process 1 on here since 1970-01-01 00:16:40 UTC, and it is alive"):
        opened(disk, me=OTHER, alive=lambda process, me: True)
    assert opened(disk, me=OTHER, alive=lambda process, me: True, take_over=True).epoch == 3


def test_a_sign_of_life_keeps_others_away() -> None:
    disk = FakeDisk()
    unknown: Callable[[object, object], None] = lambda process, me: None  # noqa: E731
    times = iter([0.0, 0.0, 0.0, 0.0, BEAT_SECONDS, BEAT_SECONDS, BEAT_SECONDS])
    store = opened(disk)
    store._clock = lambda: next(times)
    disk.now = 70.0
    store._beaten = 0.0
    for _ in range(5):
        store.commit()
    with pytest.raises(DriverAliveError, match="last sign of life is 0 s old"):
        opened(disk, me=OTHER, alive=unknown)
    disk.now = 131.0
    assert opened(disk, me=OTHER, alive=unknown).epoch == 2


# ------------------------------------------------------------------------------------------------------------ plans


def test_another_plan_is_refused_and_nothing_is_changed() -> None:
    disk = FakeDisk()
    recorded(disk, done(1))
    names, operations = disk.names(""), disk.operations
    with pytest.raises(PlanChangedError, match=r"total_roi was \[0:40, 0:50\], and is \[0:40, 0:40\]"):
        opened(disk, identity(task(blocks=(4, 4))))
    assert (disk.names(""), disk.operations) == (names, operations)
    assert blocks_in(opened(disk), DONE) == [1]


def test_what_is_covered_is_carried_over() -> None:
    disk = FakeDisk()
    recorded(disk, done(0, 1, 5, 6, 19), failed(2, final=True), WorkerKnown(3, 0, "host", 1))
    store = opened(disk, identity(task(blocks=(2, 2), step=20)), accept_change=True)
    assert blocks_in(store, DONE) == [0]
    assert not store.history[0].failures
    assert store.absent_workers == (WorkerKnown(3, 0, "host", 1),)
    assert opened(disk, identity(task(blocks=(2, 2), step=20))).history[0].done == 1
    with pytest.raises(PlanChangedError):
        opened(disk)


def test_chunks_in_which_nothing_is_covered_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BLOCKS", 3)
    disk = FakeDisk()
    coarse = identity(task(blocks=(4,), step=20))
    store = opened(disk, coarse)
    store.append([done(0, 3)])
    store.commit()
    store = opened(disk, identity(task(blocks=(9,))), accept_change=True)
    assert blocks_in(store, DONE) == [0, 1, 6, 7]
    assert disk.names(f"{PLACE}/tasks/smooth/state") == ["c.0", "c.2", "zarr.json"]


def test_tasks_are_known_by_their_ids() -> None:
    disk = FakeDisk()
    a, b, c = task("a"), task("b", blocks=(2, 5)), task("c", blocks=(3, 3))
    store = opened(disk, identity(a, b))
    store.append([done(1, task=0), done(2, task=1), failed(3, task=1, final=True)])
    store.commit()
    store = opened(disk, identity(b, a))  # the order alone is no change
    assert blocks_in(store, DONE, 0) == [2]
    assert blocks_in(store, FAILED, 0) == [3]
    assert blocks_in(store, DONE, 1) == [1]
    assert store.history[0].failure_counts == {3: 1}
    with pytest.raises(PlanChangedError, match="task 'a' is not there any more; task 'c' is new"):
        opened(disk, identity(c, b))
    store = opened(disk, identity(c, b), accept_change=True)
    assert [history.done for history in store.history] == [0, 1]


def test_reset_starts_over_with_a_greater_epoch() -> None:
    disk = FakeDisk()
    recorded(disk, done(1))
    opened(disk).fold()
    disk.write("journal/mine.txt", b"")
    store = opened(disk, identity(task("another")), reset=True)
    assert store.epoch == 3
    assert not store.history[0].states.any()
    store.append([done(4)])
    store.commit()
    assert blocks_in(opened(disk, identity(task("another"))), DONE) == [4]


# --------------------------------------------------------------------------------------------------------- bad disks


def test_a_full_disk_loses_nothing() -> None:
    disk = FakeDisk()
    store = opened(disk)
    store.append([done(1)])
    disk.room = 10
    for _ in range(3):
        with pytest.raises(LedgerFullError, match="make room"):
            store.commit()
    store.append([done(2)])
    disk.room = None
    assert store.commit() == 3
    assert blocks_in(opened(disk), DONE) == [1, 2]


@pytest.mark.parametrize("error", [errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("step", [0, 1])
def test_a_failing_disk_is_final(error: int, step: int) -> None:
    disk = FakeDisk()
    store = opened(disk)
    store.append([done(1)])
    disk.errors = {disk.operations + step: error}
    with pytest.raises(LedgerError, match="the disk or the file server failed") as failure:
        store.commit()
    assert not isinstance(failure.value, LedgerFullError)
    with pytest.raises(LedgerError, match="the disk or the file server failed"):
        store.commit()
    with pytest.raises(LedgerError, match="the disk or the file server failed"):
        store.append([done(2)])
    assert 2 not in blocks_in(opened(disk), DONE)


def test_a_driver_that_ends_on_a_full_disk_is_no_owner_any_more() -> None:
    """Its process may live on, as that of a notebook does, and begin again."""
    disk = FakeDisk()
    store = opened(disk)
    disk.room = 0
    store.close()
    disk.room = None
    again = opened(disk, alive=lambda process, me: True)
    assert again.epoch > store.epoch


def test_a_full_disk_may_be_told_by_the_sync() -> None:
    disk = FakeDisk()
    store = opened(disk)
    store.append([done(1)])
    disk.errors = {disk.operations + 1: errno.EDQUOT}
    with pytest.raises(LedgerFullError):
        store.commit()
    store.commit()
    assert blocks_in(opened(disk), DONE) == [1]


def test_a_full_disk_that_cannot_be_cut_is_final() -> None:
    disk = FakeDisk()
    store = opened(disk)
    store.append([done(1)])
    disk.errors = {disk.operations: errno.ENOSPC, disk.operations + 1: errno.EIO}
    with pytest.raises(LedgerError, match="the disk or the file server failed"):
        store.commit()


def test_values_out_of_bounds_are_refused_before_they_are_written() -> None:
    store = opened(FakeDisk())
    with pytest.raises(LedgerError, match="cannot be recorded"):
        store.append([failed(1, error="x" * 100_000)])
    assert store.commit() == 1


def test_a_directory_of_somebody_else_is_refused() -> None:
    disk = FakeDisk()
    disk.write("thesis.tex", b"")
    with pytest.raises(RunDirectoryError, match=r"holds thesis.tex. Use a directory that is empty"):
        opened(disk)
    assert disk.names("") == ["thesis.tex"]


def test_a_missing_file_of_the_journal_is_damage() -> None:
    disk = FakeDisk()
    recorded(disk, done(1))
    recorded(disk, done(2))
    disk.remove(journal_files(disk)[0].path)
    with pytest.raises(DamagedLedgerError, match="records 1 to 2 are missing"):
        opened(disk)
    assert opened(disk, reset=True).history[0].done == 0


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_snapshot_that_cannot_be_written_changes_nothing(error: int) -> None:
    failures = full = 0
    for step in range(40):
        disk = FakeDisk()
        recorded(disk, done(1))
        store = opened(disk)
        store.append([done(2)])
        store.commit()
        disk.errors = {disk.operations + step: error}
        try:
            store.fold()
        except LedgerError as failure:
            full += isinstance(failure, LedgerFullError)
            failures += 1
            disk.errors.clear()
            if step % 2 and "the ledger cannot be written" not in str(failure):
                store.fold()  # it can be tried again
        disk.errors.clear()
        assert blocks_in(opened(disk), DONE) == [1, 2]
    assert failures > 20
    assert full == (failures if error == errno.ENOSPC else 0)


@pytest.mark.parametrize(("error", "kind"), [(errno.ENOSPC, LedgerFullError), (errno.EROFS, RunDirectoryError)])
def test_a_directory_that_cannot_be_written_is_refused(error: int, kind: type[Exception]) -> None:
    disk = FakeDisk()
    opened(disk).close()
    journal = 0
    for step in range(disk.operations):
        disk = FakeDisk()
        disk.errors = {step: error}
        try:
            opened(disk).close()
        except kind:
            continue
        except LedgerError:  # of the journal itself
            journal += 1
    assert journal <= 5


def test_damage_that_is_found_later_is_told() -> None:
    disk = FakeDisk()
    store = opened(disk)
    store.append([done(1)])
    store.fold()
    store.append([done(2)])
    disk.write(f"{PLACE}/tasks/smooth/state/c.0.0", b"rubbish")
    with pytest.raises(DamagedLedgerError):
        store.fold()


# ----------------------------------------------------------------------------------------------------- every crash


def scenario(disk: FakeDisk, acknowledged: set[int], appended: set[int], epochs: list[int]) -> None:
    """Lives that record, fold, carry over and end; block n is acknowledged in order."""
    block = 0
    for life in range(3):
        store = opened(disk)
        epochs.append(store.epoch)
        assert set(blocks_in(store, DONE)) >= acknowledged
        for step in range(3):
            appended.add(block)
            store.append([done(block), WorkerKnown(block, 0, "host", 1)])
            store.commit()
            acknowledged.add(block)
            block += 1
            if step == life:
                store.fold([np.full(20, SKIPPED, dtype=np.uint8)] if life == 2 else None)
        store.close()


def test_a_crash_at_any_operation_loses_nothing_that_was_acknowledged() -> None:
    disk = FakeDisk()
    scenario(disk, set(), set(), [])
    total = disk.operations
    for at in range(total):
        disk = FakeDisk()
        disk.crash_at = at
        acknowledged: set[int] = set()
        appended: set[int] = set()
        epochs = [0]
        with pytest.raises(Crash):
            scenario(disk, acknowledged, appended, epochs)
        random = Random(at)
        for _ in range(CRASHES):
            found = disk.crashed(random)
            store = opened(found)
            assert acknowledged <= set(blocks_in(store, DONE)) <= appended
            assert {worker.worker for worker in store.absent_workers} == set(blocks_in(store, DONE))
            assert store.epoch > epochs[-1]
            store.append([done(19)])
            store.fold()
            again = opened(found)
            assert acknowledged | {19} <= set(blocks_in(again, DONE)) <= appended | {19}
            assert again.epoch > store.epoch


def test_a_killed_driver_and_then_a_loss_of_power_lose_nothing() -> None:
    """The next driver sees what the killed one had not synced, and must not rely on it before it is durable."""
    disk = FakeDisk()
    scenario(disk, set(), set(), [])
    for at in range(disk.operations):
        disk = FakeDisk()
        disk.crash_at = at
        acknowledged: set[int] = set()
        with pytest.raises(Crash):
            scenario(disk, acknowledged, set(), [0])
        disk.crash_at = None  # only the process is gone
        store = opened(disk)
        found = set(blocks_in(store, DONE))
        store.append([done(19)])
        store.commit()
        random = Random(at)
        for _ in range(CRASHES):
            again = opened(disk.crashed(random))
            assert set(blocks_in(again, DONE)) == found | {19} >= acknowledged


def changing(disk: FakeDisk, reached: list[str]) -> None:
    """A life with one plan, one that accepts another, and one that starts over."""
    store = opened(disk)
    store.append([done(0, 1, 5, 6, 19)])
    store.commit()
    reached.append("done")
    store = opened(disk, COARSE, accept_change=True)
    reached.append("accepted")
    store.append([done(3)])
    store.commit()
    reached.append("more")
    opened(disk, reset=True)
    reached.append("reset")


COARSE = identity(task(blocks=(2, 2), step=20))


def test_a_crash_while_the_plan_changes_leaves_one_of_the_plans() -> None:
    disk = FakeDisk()
    changing(disk, [])
    seen = set()
    for at in range(disk.operations):
        disk = FakeDisk()
        disk.crash_at = at
        reached = ["nothing"]
        with pytest.raises(Crash):
            changing(disk, reached)
        random = Random(at)
        for _ in range(CRASHES):
            found = disk.crashed(random)
            try:
                blocks, coarse = blocks_in(opened(found), DONE), False
            except PlanChangedError:
                blocks, coarse = blocks_in(opened(found, COARSE), DONE), True
            seen.add((reached[-1], coarse, tuple(blocks)))
    fine: tuple[int, ...] = (0, 1, 5, 6, 19)
    certain = {
        ("nothing", False, ()),
        ("done", False, fine),
        ("done", True, (0,)),
        ("accepted", True, (0,)),
        ("more", True, (0, 3)),
        ("more", False, ()),
    }
    never_acknowledged = {("nothing", False, fine), ("accepted", True, (0, 3))}
    assert certain <= seen <= certain | never_acknowledged
