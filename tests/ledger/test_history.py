"""History: many records, commits, folds and crashes, against a model that does one block after the other."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from blockflow.errors import DamagedLedgerError, LedgerFullError
from blockflow.ledger import changes as changes_module
from blockflow.ledger import chunks as chunks_module
from blockflow.ledger import records as rec
from blockflow.ledger.changes import Changes, Troubles
from blockflow.ledger.history import History
from blockflow.ledger.reading import Ledger
from blockflow.scheduler.block_states import BlockState
from blockflow.scheduler.events import BlockFailure
from tests.ledger.fake_disk import FakeDisk
from tests.ledger.runs import failed, identity, opened, task

SIZES = (30, 7)
PLAN = identity(task("a", blocks=(5, 6)), task("b", blocks=(7,)))
DONE, FAILED, SKIPPED, PENDING = BlockState.DONE, BlockState.FAILED, BlockState.SKIPPED, BlockState.PENDING


class Model:
    """What is known, one block after the other."""

    def __init__(self) -> None:
        self.states = [[int(PENDING)] * size for size in SIZES]
        self.attempts = [[0] * size for size in SIZES]
        self.seconds = [[0.0] * size for size in SIZES]
        self.failures: list[dict[int, BlockFailure]] = [{} for _ in SIZES]
        self.counts: list[dict[int, list[int]]] = [{} for _ in SIZES]
        self.workers: set[int] = set()

    def take(self, record: rec.Record) -> None:
        match record:
            case rec.BlocksDone() | rec.BlocksSkipped():
                blocks: list[int] = []
                end = 0
                for gap, length in zip(record.runs[::2], record.runs[1::2], strict=True):
                    blocks += range(end + gap, end + gap + length)
                    end += gap + length
                for block in blocks:
                    self.failures[record.task].pop(block, None)
                    self.counts[record.task].pop(block, None)
                    self.states[record.task][block] = DONE if isinstance(record, rec.BlocksDone) else SKIPPED
                    if isinstance(record, rec.BlocksDone):
                        self.attempts[record.task][block] += 1
                        self.seconds[record.task][block] = record.microseconds / len(blocks) / 1e6
            case rec.BlockFailed() | rec.BlockLost():
                if self.states[record.task][record.index] == FAILED:
                    self.counts[record.task][record.index] = [0, 0]
                counts = self.counts[record.task].setdefault(record.index, [0, 0])
                counts[isinstance(record, rec.BlockLost)] += 1
                if isinstance(record, rec.BlockFailed):
                    self.failures[record.task][record.index] = BlockFailure(
                        index=record.index, error=record.error, traceback=record.traceback, where=record.where
                    )
                elif record.final:
                    self.failures[record.task][record.index] = BlockFailure(index=record.index, error=record.error)
                self.attempts[record.task][record.index] += 1
                self.states[record.task][record.index] = FAILED if record.final else PENDING
            case rec.WorkerKnown():
                self.workers.add(record.worker)
            case rec.WorkerGone():
                self.workers.discard(record.worker)


@st.composite
def any_record(draw: st.DrawFn) -> rec.Record:
    number = draw(st.integers(0, 1))
    block = draw(st.integers(0, SIZES[number] - 1))
    match draw(st.integers(0, 6)):
        case 0:
            return rec.BlockFailed(number, block, 1, draw(st.booleans()), draw(st.text(max_size=3)), "trace", "x.py:1")
        case 1:
            return rec.BlockLost(number, block, 1, draw(st.booleans()))
        case 2:
            return rec.WorkerKnown(draw(st.integers(0, 3)), number, "host", 1)
        case 3:
            return rec.WorkerGone(draw(st.integers(0, 3)))
        case 4:
            return rec.Stopped(1, "Ctrl-C")
        case kind:
            blocks = draw(st.sets(st.integers(0, SIZES[number] - 1), min_size=1))
            runs = rec.runs_of(np.array(sorted(blocks)))[0]
            return rec.BlocksDone(number, runs, 1, 1000) if kind == 5 else rec.BlocksSkipped(number, runs)


class Lives(RuleBasedStateMachine):
    """A driver appends, commits, folds, and dies."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(chunks_module, "CHUNK_BLOCKS", 8)
        self.disk = FakeDisk()
        self.store = opened(self.disk, PLAN)
        self.model = Model()
        self.uncommitted: list[rec.Record] = []
        self.number = 1

    def teardown(self) -> None:
        self.patch.undo()

    @rule(records=st.lists(any_record(), max_size=5))
    def append(self, records: list[rec.Record]) -> None:
        self.number += len(records)
        assert self.store.append(records) == self.number
        self.uncommitted += records

    @rule()
    def commit(self) -> None:
        assert self.store.commit() == self.number
        self.take()

    @rule()
    def fold(self) -> None:
        self.store.fold()
        self.take()

    @precondition(lambda self: self.uncommitted)
    @rule(room=st.integers(0, 60))
    def commit_on_a_full_disk(self, room: int) -> None:
        self.disk.room = room
        try:
            self.store.commit()
        except LedgerFullError:
            self.disk.room = None
        else:
            self.disk.room = None
            self.take()

    @rule(seed=st.integers(0, 1000))
    def lose_power(self, seed: int) -> None:
        self.disk = self.disk.crashed(Random(seed))
        self.begin()

    @rule()
    def kill(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.uncommitted.clear()
        self.store = opened(self.disk, PLAN)
        self.number = self.store.append([])
        assert {worker.worker for worker in self.store.absent_workers} == self.model.workers
        for number, history in enumerate(self.store.history):
            states = np.array(self.model.states[number])
            assert (history.states == np.where((states == DONE) | (states == FAILED), states, 0)).all()
            counts = self.model.counts[number]
            assert history.failure_counts == {block: n for block, (n, _) in counts.items() if n}
            assert history.losses == {block: n for block, (_, n) in counts.items() if n}
            assert history.failures == self.model.failures[number]
            assert history.done == (states == DONE).sum()

    @invariant()
    def everybody_can_see_it(self) -> None:
        ledger = Ledger(self.disk, "run")
        for number, name in enumerate(("a", "b")):
            assert ledger.states(name).ravel().tolist() == self.model.states[number]
            assert ledger.attempts(name).ravel().tolist() == self.model.attempts[number]
            assert np.allclose(ledger.seconds(name).ravel(), self.model.seconds[number])
            assert ledger.failures(name) == self.model.failures[number]

    def take(self) -> None:
        for record in self.uncommitted:
            self.model.take(record)
        self.uncommitted.clear()


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)


# ------------------------------------------------------------------------------------------------------------ bounds


@pytest.mark.parametrize(
    "record",
    [
        rec.BlocksDone(0, (20, 1), 1, 1),
        rec.BlocksDone(0, (2, 1, 16, 2), 1, 1),
        rec.BlocksDone(1, (0, 1), 1, 1),
        rec.BlocksDone(0, (2**62, 2**62, 2**62, 2**62), 1, 1),
        failed(20),
        rec.BlockLost(1, 0, 1, False),
    ],
)
def test_blocks_that_are_not_there_are_damage(record: rec.Record) -> None:
    disk = FakeDisk()
    store = opened(disk)
    store.append([record])
    store.commit()
    with pytest.raises(DamagedLedgerError, match="belongs to another plan"):
        opened(disk)


def test_tracebacks_of_many_blocks_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes_module, "MOST_TRACEBACKS", 2)
    troubles = Troubles()
    for block in (1, 2, 3, 1):
        troubles.failed(BlockFailure(index=block, error="E", traceback="long"), 1, final=True)
    assert [failure.traceback for failure in troubles.failures.values()] == ["long", "long", ""]


def test_attempts_do_not_wrap() -> None:
    changes = Changes([3])
    changes.replay([rec.BlockLost(0, 1, 1, False)] * 4)
    attempts = np.array([0, 65533, 65535], dtype=np.uint16)
    ((_, chosen),) = changes.tasks[0].by_range(np.array([0]))
    changes.tasks[0].apply(chosen, 0, np.zeros(3, dtype=np.uint8), attempts)
    assert attempts.tolist() == [0, 65535, 65535]


def test_records_behind_a_number_are_left_out() -> None:
    disk = FakeDisk()
    for block in range(3):
        store = opened(disk)
        store.append([rec.BlocksDone(0, (block, 1), 1, 1)])
        store.commit()
    assert [History(disk, identity(), until=number).task(0).done for number in (0, 2, 4, 6, None)] == [0, 1, 2, 3, 3]
