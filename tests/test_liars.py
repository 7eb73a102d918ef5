"""Clients that know the key and lie, in well-formed messages: they end no run, and break no number of the scheduler.

The real switchboard, the real scheduler and what the ledger makes of its records; an honest worker is at work
meanwhile, and in the end the run is over.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

from blockflow import Roi, Task
from blockflow.errors import SchedulerError
from blockflow.ledger.records import encode_records
from blockflow.ledger.run_ledger import _in_words_of_ledger
from blockflow.scheduler import events as ev
from blockflow.scheduler.checks import call_checks
from blockflow.scheduler.events import RecordWorker
from blockflow.scheduler.leases import LARGEST_LEASE
from blockflow.scheduler.propagation import RestoredTask
from blockflow.scheduler.scheduler import Scheduler
from blockflow.switchboard import Action, Close, Send, Switchboard
from blockflow.wire import messages as wire
from blockflow.wire.failures import LONGEST_ERROR, LONGEST_TRACEBACK
from blockflow.wire.session import WorkerSession
from blockflow.wire.storage_errors import FailureKind

RUN = "0123456789abcdef"
PLACE = "driver/1"
LEASE = 60.0
LIARS = 4
MESSAGES = 100_000
"""In all rounds together."""

EDGES = (0, 1, 2, 3, 7, 2**15, 2**31 - 1, 2**31, 2**32, 2**40, (1 << 40) + 1, (2 << 40) + 1, 10**15, 2**63 - 1)
"""Numbers at which some consumer ends."""


class Bench:
    """A driver in memory, with a clock that its owner moves."""

    def __init__(self, *, checked: bool = False, absent: bool = False) -> None:
        one = Roi((0,), (1,))
        whole = Roi((0,), (60,))
        more: dict[str, Any] = {"check_function": (lambda block: block.index % 3 == 0, lambda block: True)}
        first = Task(
            "t", whole, Roi((-1,), (3,)), one, print, read_write_conflict=False, fit="overhang",
            timeout="auto", num_workers=3, **(more if checked else {}),
        )  # fmt: skip
        second = Task("u", whole, one, one, print, read_write_conflict=False, upstream_tasks=[first])
        self.scheduler = Scheduler(
            [first, second], largest_lease=LARGEST_LEASE, lease_seconds=LEASE, epoch=2, recording=True
        )
        self.board = Switchboard(self.scheduler, run=RUN, lease_seconds=LEASE, place=PLACE)
        self.now = 0.0
        self.closed: set[int] = set()
        self.heard: dict[int, list[wire.FromDriver]] = {}
        self.outcomes: Counter[str] = Counter()
        if absent:
            workers = [RecordWorker(worker=number, task=0, process=number, host=PLACE, pid=77) for number in (3, 4)]
            histories = [RestoredTask(states=book.blocks.states.copy()) for book in map(self.scheduler.task, (0, 1))]
            self.scheduler.restore(histories, workers, self.now)
        self.carry_out(self.board.handle(ev.Ticked(), self.now))

    def carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send():
                    wire.encode(action.message)
                    self.heard.setdefault(action.connection, []).append(action.message)
                case Close():
                    assert action.error is None, action.reason
                    self.closed.add(action.connection)
                    self.outcomes[" ".join(action.reason.split()[:3])] += 1
                case ev.RunChecks():
                    checked = call_checks(self.scheduler.plan.tasks[action.task], action)
                    self.carry_out(self.board.handle(checked, self.now))
        self.record()

    def record(self) -> None:
        """What the ledger would write can be written."""
        for record in self.scheduler.take_records():
            encode_records(list(_in_words_of_ledger(record)))

    def connect(self, connection: int) -> None:
        self.closed.discard(connection)
        self.heard[connection] = []
        self.board.connected(connection)

    def say(self, connection: int, message: wire.FromWorker) -> None:
        self.carry_out(self.board.received(connection, wire.encode(message), self.now))

    def disconnect(self, connection: int, *, broken: bool) -> None:
        line = self.board.line(connection)
        self.carry_out(self.board.disconnected(connection, self.now, broken=broken))
        if line is not None and line.worker is not None and not broken:
            self.carry_out(self.board.handle(ev.WorkerLeft(worker=line.worker, crashed=True), self.now))

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.carry_out(self.board.handle(ev.Ticked(), self.now))

    def finish(self) -> None:
        """Honest workers do the rest."""
        for number, task in enumerate(("t", "u")):
            session, connection = WorkerSession(), 1000 + number
            self.connect(connection)
            session.hello(run=RUN, task=task, process=None, host="honest", pid=7, now=self.now)
            for _ in range(3000):
                for message in session.take_outgoing():
                    self.say(connection, message)
                heard, self.heard[connection] = self.heard[connection], []
                for answer in heard:
                    session.receive(answer)
                if session.welcomed:
                    given = session.next_block(self.now)
                    if given is not None:
                        session.block_done(given, None, 0.01, self.now, asks=True)
                        continue
                    session.ask(self.now)
                if session.finished or self.scheduler.finished:
                    break
                if not session.has_outgoing:
                    self.wait(LEASE / 7)
                    session.heartbeat(self.now)
        for worker in list(self.scheduler._state.workers):
            self.carry_out(self.board.handle(ev.WorkerLeft(worker=worker, crashed=True), self.now))


class Liar:
    """Says what may be said, with numbers and in an order that are made up; some of them it has heard."""

    def __init__(self, random_: random.Random, bench: Bench, connection: int) -> None:
        self._random = random_
        self._bench = bench
        self._connection = connection
        self._said: list[wire.FromWorker] = []

    def number(self) -> int:
        known = [
            value
            for message in self._bench.heard.get(self._connection, ())[-20:]
            if isinstance(message, wire.Granted)
            for value in (message.lease, message.attempt, *message.runs[:4])
        ]
        kind = self._random.random()
        if known and kind < 0.6:
            return self._random.choice(known) + self._random.choice((0, 0, 0, 0, 1))
        return self._random.choice(EDGES) if kind < 0.9 else self._random.randrange(70)

    def natural(self, most: int = 2**63 - 1) -> int:
        return min(self.number(), most)

    def text(self, most: int) -> str:
        return self._random.choice(("", "x", "\x1b[2J\n", "\0", "\U0001f600", "../../a", "%s{}", "\u202e")) * (
            self._random.choice((1, 1, most // 8))
        )

    def failure(self) -> wire.Failure | None:
        if self._random.random() < 0.6:
            return None
        return wire.Failure(
            self.natural(), self.text(LONGEST_ERROR), self.text(LONGEST_TRACEBACK), self.text(200),
            self._random.choice(list(FailureKind)), self.text(200),
        )  # fmt: skip

    def hello(self) -> wire.Hello:
        good = self._random.random() < 0.9
        return wire.Hello(
            wire.PROTOCOL if good else self.natural(),
            RUN if good else self.text(200),
            self._random.choice(("t", "t", "u", "none")),
            self._random.choice((None, 0, 1, 3, self.natural())),
            self._random.choice((PLACE, "elsewhere", self.text(200))),
            max(1, self.natural(2**31 - 1)) if self._random.random() < 0.5 else 77,
            self._random.choice((None, None, 3, 4, 2 << 40, (2 << 40) + 1, self.natural())),
        )

    def message(self) -> wire.FromWorker:
        kind = self._random.random()
        if self._said and kind < 0.1:
            return self._random.choice(self._said)
        asks = self._random.random() < 0.7
        lease = self._random.choice((0, self.natural()))
        if kind < 0.45:
            duration = self.natural(10**15)
            return wire.Report(lease, self.natural(), duration, self.failure(), asks, self.natural())
        if kind < 0.55:
            return wire.Report(0, 0, 0, None, True, self.natural())
        if kind < 0.7:
            return wire.Returned(self.natural(), self._random.choice((0, 1, self.natural())))
        if kind < 0.8:
            runs = tuple(self._random.choice((0, 1, 2, 5, self.natural())) for _ in range(self._random.randrange(7)))
            return wire.Held(self.natural(), self.natural(), runs, self.natural())
        if kind < 0.86:
            return wire.Heartbeat(self.natural())
        if kind < 0.9:
            return wire.Goodbye(self.text(LONGEST_ERROR), self._random.random() < 0.5, self.failure())
        if kind < 0.94:
            task = self._random.choice(("t", "u", self.text(200)))
            return wire.Scale(wire.PROTOCOL, RUN, task, self._random.choice((0, 1, 3, self.natural())))
        return self.hello()

    def turn(self) -> int:
        """Connect, if that has to be, and say a few things; how many."""
        bench, random_ = self._bench, self._random
        line = bench.board.line(self._connection)
        if line is None or self._connection in bench.closed or random_.random() < 0.02:
            if line is not None:
                bench.disconnect(self._connection, broken=random_.random() < 0.5)
            bench.connect(self._connection)
            bench.say(self._connection, self.hello())
            return 1
        count = random_.randrange(1, 5)
        for _ in range(count):
            message = self.message()
            self._said = [*self._said[-9:], message]
            bench.say(self._connection, message)
        return count


@pytest.mark.parametrize("seed", range(20))
def test_a_hundred_thousand_lies_end_no_run(seed: int) -> None:
    random_ = random.Random(seed)
    said = 0
    while said < MESSAGES // 20:
        bench = Bench(checked=random_.random() < 0.3, absent=random_.random() < 0.4)
        liars = [Liar(random_, bench, number) for number in range(LIARS)]
        for _ in range(200):
            said += random_.choice(liars).turn()
            if random_.random() < 0.05:
                bench.wait(random_.choice((0.01, 1.0, LEASE, 3 * LEASE)))
                bench.scheduler.validate()
        bench.scheduler.validate()
        for liar in range(LIARS):
            bench.disconnect(liar, broken=False)
        for task in range(2):
            bench.carry_out(bench.board.handle(ev.WorkersWanted(task=task, workers=1), bench.now))
        bench.finish()
        bench.scheduler.validate()
        assert bench.scheduler.finished


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Anything that a field of a message could hold, as msgpack has it: also what is out of its bounds."""
    match kind:
        case inspect.StructType():
            return st.tuples(*([] if kind.tag is None else [st.just(kind.tag)]), *(values(f.type) for f in kind.fields))
        case inspect.UnionType():
            return st.one_of(*map(values, kind.types))
        case inspect.IntType():
            return st.sampled_from((*EDGES, -1)) | st.integers(0, 60) | st.integers(-(2**63), 2**64 - 1) | st.floats()
        case inspect.StrType():
            full = "\U0001f600" * (kind.max_length or 1)
            return st.sampled_from((RUN, "t", "u", PLACE, full, full + "x")) | st.text(max_size=20)
        case inspect.VarTupleType():
            return st.lists(values(kind.item_type), max_size=8)
        case inspect.BoolType():
            return st.booleans()
        case inspect.EnumType():
            return st.integers(-1, 4)
        case _:
            return st.none()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), values(inspect.type_info(wire.FromWorker))), max_size=30))
def test_messages_of_any_values_in_any_order(lies: list[tuple[int, Any]]) -> None:
    bench = Bench()
    for connection in (0, 1):
        bench.connect(connection)
        bench.say(connection, wire.Hello(wire.PROTOCOL, RUN, "t", None, "liar", 77 + connection, None))
        bench.say(connection, wire.Report(0, 0, 0, None, True, 1))
    for connection, message in lies:
        if connection not in bench.closed:
            bench.carry_out(bench.board.received(connection, msgspec.msgpack.encode(message), bench.now))
    bench.scheduler.validate()


@pytest.mark.parametrize(
    "message",
    [
        wire.Hello(wire.PROTOCOL, RUN, "t", None, PLACE, 2**31, None),
        wire.Hello(wire.PROTOCOL, RUN, "t", None, PLACE, 0, None),
        wire.Report(1, 1, 10**15 + 1, None, False, 1),
        wire.Report(1, 1, 2**63 - 1, None, False, 1),
    ],
)
def test_numbers_that_no_consumer_can_take(message: wire.FromWorker) -> None:
    bench = Bench()
    bench.connect(0)
    bench.say(0, message)
    assert 0 in bench.closed


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300, -1, 2**63, -(2**63), True, "1", None, [], {}])
def test_times_that_are_none(value: object) -> None:
    bench = Bench()
    bench.connect(0)
    bench.say(0, wire.Hello(wire.PROTOCOL, RUN, "t", None, PLACE, 77, None))
    bench.carry_out(bench.board.received(0, msgspec.msgpack.encode([2, 0, 0, value, None, True, 1]), 0.0))
    assert 0 in bench.closed


def test_another_task_under_the_number_of_a_worker_does_not_cut_it_off() -> None:
    bench = Bench()
    for connection in (0, 1):
        bench.connect(connection)
    honest = wire.Hello(wire.PROTOCOL, RUN, "t", None, "here", 77, None)
    bench.say(0, honest)
    (welcome,) = [message for message in bench.heard[0] if isinstance(message, wire.Welcome)]
    bench.say(0, wire.Report(0, 0, 0, None, True, 1))
    bench.say(1, wire.Hello(wire.PROTOCOL, RUN, "u", None, "here", 77, welcome.worker))
    assert bench.closed == {1}
    bench.disconnect(1, broken=True)
    bench.wait(10 * LEASE)  # the worker is silent: its connection is closed, and nothing else


def test_a_huge_number_of_a_process_does_not_reach_the_next_life_of_the_driver() -> None:
    bench = Bench()
    bench.connect(0)
    said: list[Any] = []
    take = bench.scheduler.take_records

    def taken() -> list[Any]:
        said.extend(records := take())
        return records

    bench.scheduler.take_records = taken  # type: ignore[method-assign]
    bench.say(0, wire.Hello(wire.PROTOCOL, RUN, "t", 2**62, "here", 77, None))
    assert [record.process for record in said if isinstance(record, RecordWorker)] == [None]


def test_too_many_workers_are_refused_in_words() -> None:
    bench = Bench()
    bench.connect(0)
    bench.say(0, wire.Scale(wire.PROTOCOL, RUN, "t", 2**63 - 1))
    (refused,) = bench.heard[0]
    assert isinstance(refused, wire.Refused)
    assert "at most 10000 workers" in refused.reason
    assert bench.scheduler.task(0).pool.size == 3


def test_a_fault_of_ours_costs_the_connection_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    bench.connect(0)
    bench.say(0, wire.Hello(wire.PROTOCOL, RUN, "t", None, "here", 77, None))

    def broken(*_: object, **__: object) -> None:
        raise OverflowError("too large")

    monkeypatch.setattr(Switchboard, "_report", broken)
    (close,) = bench.board.received(0, wire.encode(wire.Report(0, 0, 0, None, True, 1)), 0.0)
    assert isinstance(close, Close)
    assert isinstance(close.error, OverflowError)
    assert "could not be handled: OverflowError: too large" in close.reason


def test_a_scheduler_that_a_fault_has_left_inconsistent_is_not_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    bench.connect(0)
    bench.say(0, wire.Hello(wire.PROTOCOL, RUN, "t", None, "here", 77, None))

    def broken(*_: object, **__: object) -> None:
        bench.scheduler.task(0).active_workers.add(4711)
        raise OverflowError("too large")

    monkeypatch.setattr(Switchboard, "_report", broken)
    with pytest.raises(SchedulerError, match="left the scheduler inconsistent"):
        bench.board.received(0, wire.encode(wire.Report(0, 0, 0, None, True, 1)), 0.0)
