"""The switchboard: one conversation at a time, and then whole runs in memory with a virtual clock.

The simulation joins real sessions, real frames, the real switchboard and the real scheduler. Only time, the network
and the processes are played: bytes arrive late and in pieces, workers crash, freeze and lose their connection.
"""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockflow.errors import InvalidTransition
from blockflow.geometry import Roi
from blockflow.plan.task import Task
from blockflow.scheduler import events as ev
from blockflow.scheduler.block_states import SATISFIED, BlockState
from blockflow.scheduler.checks import call_checks
from blockflow.scheduler.events import RecordWorker
from blockflow.scheduler.leases import LARGEST_LEASE
from blockflow.scheduler.propagation import RestoredTask
from blockflow.scheduler.scheduler import Scheduler
from blockflow.switchboard import SILENT, Action, Close, Send, Switchboard
from blockflow.wire import messages as wire
from blockflow.wire.failures import FailureText
from blockflow.wire.framing import FrameReader, frame
from blockflow.wire.session import WorkerSession

if TYPE_CHECKING:
    from collections.abc import Callable

    from blockflow.plan.block import Block
    from blockflow.wire.held import Given

LEASE_SECONDS = 60.0
RUN = "0123456789abcdef"


def line_of_blocks(count: int, name: str = "t", **more: Any) -> Task:
    return Task(name, Roi((0,), (10 * count,)), Roi((0,), (10,)), Roi((0,), (10,)), print, **more)


def board_of(*tasks: Task, largest_lease: int = 1) -> tuple[Scheduler, Switchboard]:
    scheduler = Scheduler(list(tasks), largest_lease=largest_lease, lease_seconds=LEASE_SECONDS)
    return scheduler, Switchboard(scheduler, run=RUN, lease_seconds=LEASE_SECONDS)


def hello(task: str = "t", *, run: str = RUN, protocol: int = wire.PROTOCOL, process: int | None = None) -> wire.Hello:
    return wire.Hello(protocol, run, task, process, "host", 77, None)


def say(board: Switchboard, connection: int, message: wire.FromWorker, now: float = 0.0) -> list[Action]:
    return board.received(connection, wire.encode(message), now)


def told(actions: list[Action], connection: int = 0) -> list[wire.FromDriver]:
    return [action.message for action in actions if isinstance(action, Send) and action.connection == connection]


def joined(board: Switchboard, connection: int = 0, task: str = "t") -> None:
    board.connected(connection)
    actions = say(board, connection, hello(task))
    assert isinstance(told(actions, connection)[0], wire.Welcome)


ASK = wire.Report(0, 0, 0, None, True, 1)


# ------------------------------------------------------------------------------------------------------- handshake


def test_a_worker_is_welcomed_with_its_tiling() -> None:
    scheduler, board = board_of(line_of_blocks(3, timeout=2.5))
    board.connected(5)
    assert board.limit(5) == wire.LARGEST_HELLO
    (welcome,) = told(say(board, 5, hello()), 5)
    axes = wire.layout_of(scheduler.plan.tasks[0].grid)
    assert welcome == wire.Welcome(0, axes, ((0, 30),), 60_000_000, 2_500_000, False)
    assert board.limit(5) == wire.LARGEST_MESSAGE
    line = board.line(5)
    assert line is not None
    assert (line.host, line.pid, line.worker, line.said_goodbye) == ("host", 77, 0, False)


def test_every_client_gets_a_number_of_its_own() -> None:
    _, board = board_of(line_of_blocks(3), line_of_blocks(3, "u"))
    numbers = []
    for connection, task in enumerate("tut"):
        board.connected(connection)
        (welcome,) = told(say(board, connection, hello(task)), connection)
        assert isinstance(welcome, wire.Welcome)
        assert welcome.timeout_microseconds is None
        numbers.append(welcome.worker)
    assert numbers == [0, 1, 2]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            hello(protocol=wire.PROTOCOL + 1),
            f"speaks protocol {wire.PROTOCOL + 1}, the driver {wire.PROTOCOL}: use one version of blockflow",
        ),
        (hello(run="other"), f"this is run {RUN}, not 'other'"),
        (hello("nothing"), "no task is called 'nothing'; there are 't'"),
        (hello("n" * 255), "no task is called"),
    ],
)
def test_who_does_not_belong_here_is_told_so_and_closed(message: wire.Hello, reason: str) -> None:
    _, board = board_of(line_of_blocks(3))
    board.connected(0)
    refused, close = say(board, 0, message)
    assert isinstance(refused, Send)
    assert isinstance(refused.message, wire.Refused)
    assert isinstance(close, Close)
    assert reason in refused.message.reason
    assert reason in close.reason
    wire.decode_from_driver(wire.encode(refused.message))
    assert board.limit(0) == wire.LARGEST_HELLO
    # Whatever comes before the connection is closed does not count, even if it is right.
    assert say(board, 0, hello()) == []
    assert board.disconnected(0, 1.0) == []


def test_the_refusal_of_a_run_with_many_tasks_can_be_sent() -> None:
    _, board = board_of(*(line_of_blocks(1, f"task with a long name, number {number}") for number in range(100)))
    board.connected(0)
    (refused,) = told(say(board, 0, hello()))
    assert wire.decode_from_driver(wire.encode(refused)) == refused


@pytest.mark.parametrize("body", [b"", b"\x00", b"GET / HTTP/1.1\r\n", wire.encode(wire.Finished())])
def test_what_is_no_message_costs_the_connection(body: bytes) -> None:
    _, board = board_of(line_of_blocks(3))
    for connection in (0, 1):
        joined(board, connection)
    (close,) = board.received(0, body, 0.0)
    assert isinstance(close, Close)
    assert close.connection == 0
    assert "not a message of a worker" in close.reason
    assert say(board, 0, wire.Heartbeat(1)) == []
    assert told(say(board, 1, wire.Heartbeat(1)), 1) == [wire.Alive(1)]


@pytest.mark.parametrize("message", [ASK, wire.Returned(1, 0), wire.Heartbeat(1), wire.Goodbye("")])
def test_nothing_may_be_said_before_hello(message: wire.FromWorker) -> None:
    _, board = board_of(line_of_blocks(3))
    board.connected(0)
    reason = f"{type(message).__name__} before Hello"
    refused = Send(connection=0, message=wire.Refused(reason))
    assert say(board, 0, message) == [refused, Close(connection=0, reason=reason)]


def test_a_second_hello_costs_the_connection() -> None:
    _, board = board_of(line_of_blocks(3))
    joined(board)
    assert say(board, 0, hello()) == [Close(connection=0, reason="a second Hello")]


def test_an_unknown_connection_is_not_heard() -> None:
    _, board = board_of(line_of_blocks(3))
    assert say(board, 9, hello()) == []
    assert board.disconnected(9, 0.0) == []
    assert board.line(9) is None
    assert board.limit(9) == wire.LARGEST_HELLO


# ---------------------------------------------------------------------------------------------------- conversation


def test_asking_reporting_and_leaving() -> None:
    scheduler, board = board_of(line_of_blocks(2))
    joined(board)
    assert told(say(board, 0, ASK)) == [wire.Acknowledged(1, 0, False), wire.Granted(1, 1, (0, 1))]
    answers = told(say(board, 0, wire.Report(1, 1, 5, None, True, 2)))
    assert answers == [wire.Acknowledged(2, 1, False), wire.Granted(2, 2, (1, 1))]
    answers = told(say(board, 0, wire.Report(2, 1, 5, None, True, 3)))
    assert answers == [wire.Acknowledged(3, 2, False), wire.Finished()]
    assert say(board, 0, wire.Goodbye("")) == [Close(connection=0, reason="")]
    line = board.line(0)
    assert line is not None
    assert line.said_goodbye
    assert scheduler.finished
    assert scheduler.task_states["t"].completed_count == 2


def test_nothing_counts_after_goodbye() -> None:
    scheduler, board = board_of(line_of_blocks(2))
    joined(board)
    say(board, 0, ASK)
    say(board, 0, wire.Goodbye(""))
    for message in (wire.Goodbye(""), wire.Report(1, 1, 5, None, True, 2), wire.Heartbeat(3), hello()):
        assert say(board, 0, message) == []
    assert board.disconnected(0, 0.0) == []
    assert scheduler.task_states["t"].completed_count == 0
    assert scheduler.task_states["t"].ready_count == 2


def test_a_failure_is_told_and_counted() -> None:
    scheduler, board = board_of(line_of_blocks(1, max_retries=0))
    joined(board)
    say(board, 0, ASK)
    failure = wire.Failure(0, "ValueError: x", "Traceback", "a.py:3")
    actions = say(board, 0, wire.Report(1, 1, 5, failure, False, 2))
    heard = ev.BlockFailure(index=0, error="ValueError: x", traceback="Traceback", where="a.py:3")
    assert actions[1:] == [ev.TellFailure(task=0, failure=heard, final=True)]
    assert scheduler.task_states["t"].failed_count == 1


@pytest.mark.parametrize(
    "report",
    [
        wire.Report(1, 0, 5, None, False, 2),
        wire.Report(1, 2, 5, None, False, 2),
        wire.Report(1, 2**63 - 1, 5, None, False, 2),
        wire.Report(1, 1, 5, wire.Failure(2, "E", "", ""), False, 2),
        wire.Report(1, 1, 5, wire.Failure(2**63 - 1, "E", "", ""), False, 2),
    ],
)
def test_a_report_that_cannot_be_costs_the_connection_and_counts_nothing(report: wire.Report) -> None:
    scheduler, board = board_of(line_of_blocks(3))
    joined(board)
    say(board, 0, ASK)
    before = scheduler.task_states
    (close,) = say(board, 0, report)
    assert isinstance(close, Close)
    assert "worker 0 reports" in close.reason
    assert scheduler.task_states == before
    scheduler.validate()


def test_a_stale_report_is_answered_so() -> None:
    scheduler, board = board_of(line_of_blocks(3))
    joined(board)
    say(board, 0, ASK)
    board.disconnected(0, 0.0)
    board.handle(ev.Ticked(), 1000.0)
    joined(board, 1)
    assert told(say(board, 1, wire.Report(1, 1, 5, None, False, 2), 1000.0), 1) == [wire.Acknowledged(2, 1, True)]
    assert scheduler.task_states["t"].completed_count == 0


def test_a_worker_whose_lease_has_run_out_is_told_nothing_that_could_renew_it() -> None:
    scheduler, board = board_of(line_of_blocks(2))
    joined(board)
    say(board, 0, ASK)
    silent, close = board.handle(ev.Ticked(), 1000.0)
    assert silent == ev.TellRemark(
        task=0, text="a worker said nothing for 60 s while it had blocks; they are run again"
    )
    assert close == Close(connection=0, reason=SILENT)
    assert scheduler.task_states["t"].processing_count == 0
    assert say(board, 0, wire.Heartbeat(2), 1000.0) == [], "it was sent before, and would make the lease longer"
    assert board.disconnected(0, 1000.0) == []
    scheduler.validate()


def test_blocks_can_be_returned() -> None:
    scheduler, board = board_of(line_of_blocks(3))
    joined(board)
    say(board, 0, ASK)
    for kept in (1, 0):
        assert say(board, 0, wire.Returned(1, kept)) == []
    assert say(board, 0, wire.Returned(99, 0)) == []
    assert scheduler.task_states["t"].ready_count == 3


def test_a_dismissal_is_passed_on() -> None:
    _, board = board_of(line_of_blocks(3))
    joined(board)
    say(board, 0, ASK)
    assert told(board.handle(ev.StopAsked(), 0.0)) == [wire.Finished()]


def test_a_recall_is_passed_on() -> None:
    _, board = board_of(line_of_blocks(9), largest_lease=9)
    joined(board)
    joined(board, 1)
    say(board, 0, ASK)
    granted = told(say(board, 0, wire.Report(1, 1, 1, None, True, 2)))[-1]
    assert granted == wire.Granted(2, 2, (1, 2))
    held, now = 0, 0.0
    while answers := [answer for answer in told(say(board, 1, ASK, now), 1) if isinstance(answer, wire.Granted)]:
        (mine,) = answers
        held = sum(mine.runs[1::2])
        say(board, 1, wire.Report(mine.lease, held, 10**6 * held, None, False, 3), now)
    assert held
    assert told(board.handle(ev.Ticked(), now + 1.0)) == [wire.Recalled(2)]


def test_a_worker_that_is_gone_is_told_nothing() -> None:
    _, board = board_of(line_of_blocks(3))
    joined(board)
    say(board, 0, ASK)
    assert board.disconnected(0, 0.0) == []
    assert board.handle(ev.StopAsked(), 0.0) == []


def test_starts_checks_and_failures_are_for_the_coordinator() -> None:
    _, board = board_of(line_of_blocks(3, check_function=(lambda _: False, None)))
    actions = board.handle(ev.Ticked(), 0.0)
    assert [type(action) for action in actions] == [ev.RunChecks]
    assert isinstance(actions[0], ev.RunChecks)
    nothing = actions[0].indices[:0]
    checked = ev.BlocksChecked(
        task=0,
        phase=ev.CheckPhase.BEFORE,
        passed=nothing,
        refused=nothing,
        failures=tuple(ev.BlockFailure(index=index, error="E") for index in actions[0].indices.tolist()),
        seconds=0.1,
    )
    actions = board.handle(checked, 0.0)
    assert {type(action) for action in actions} == {ev.TellFailure, ev.RunChecks}


@pytest.mark.parametrize(
    "message",
    [
        wire.Heartbeat(2),
        wire.Report(0, 0, 0, None, True, 2),
        wire.Report(0, 0, 0, None, False, 2),
        wire.Report(99, 1, 1, None, False, 2),
    ],
)
def test_every_answer_renews_what_the_worker_holds(message: wire.FromWorker) -> None:
    # The worker counts its deadline from any message that was answered, so the driver must not count less.
    scheduler, board = board_of(line_of_blocks(3))
    joined(board)
    say(board, 0, ASK)
    first = scheduler.next_deadline()
    assert told(say(board, 0, message, 50.0))
    renewed = scheduler.next_deadline()
    assert first is not None
    assert renewed == first + 50.0


def test_random_conversations_change_nothing_but_their_own_connection() -> None:
    dice = random.Random(3)
    for _ in range(300):
        scheduler, board = board_of(line_of_blocks(20), largest_lease=8)
        for connection in (0, 1):
            joined(board, connection)
        for _ in range(30):
            numbers = [dice.choice([0, 1, 2, 3, 7, 2**63 - 1]) for _ in range(5)]
            failure = wire.Failure(numbers[3], "E", "", "") if dice.random() < 0.2 else None
            messages: list[wire.FromWorker] = [
                wire.Report(numbers[0], numbers[1], numbers[2], failure, dice.random() < 0.5, numbers[4]),
                wire.Returned(numbers[0], numbers[1]),
                wire.Heartbeat(numbers[0]),
                ASK,
            ]
            say(board, 0, dice.choice(messages))
            scheduler.validate()
        assert told(say(board, 1, wire.Heartbeat(1)), 1) == [wire.Alive(1)]


# ---------------------------------------------------------------------------------------------- workers that are back


# --------------------------------------------------------------------------------------------------------- scaling


def scale(task: str = "t", workers: int = 5, *, run: str = RUN, protocol: int = wire.PROTOCOL) -> wire.Scale:
    return wire.Scale(protocol, run, task, workers)


def test_somebody_wants_another_number_of_workers() -> None:
    scheduler, board = board_of(line_of_blocks(9, num_workers=2))
    board.handle(ev.Ticked(), 0.0)
    board.connected(0)
    actions = say(board, 0, scale(workers=4))
    assert told(actions) == [wire.Scaled(2)]
    assert [action.process for action in actions if isinstance(action, ev.StartProcess)] == [2, 3]
    assert actions[-1] == Close(connection=0, reason="")
    assert scheduler.task(0).pool.size == 4
    assert say(board, 0, scale()) == [], "one at a time"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (scale("u"), "no task is called 'u'"),
        (scale(run="other"), f"this is run {RUN}, not 'other'"),
        (scale(protocol=99), "protocol 99"),
    ],
)
def test_who_wants_what_cannot_be_is_told_so(message: wire.Scale, reason: str) -> None:
    scheduler, board = board_of(line_of_blocks(9))
    board.connected(0)
    refused, closed = say(board, 0, message)
    assert isinstance(refused, Send)
    assert isinstance(refused.message, wire.Refused)
    assert reason in refused.message.reason
    assert isinstance(closed, Close)
    assert scheduler.task(0).pool.size == 1


def test_workers_do_not_scale() -> None:
    _, board = board_of(line_of_blocks(9))
    joined(board)
    assert say(board, 0, scale()) == [Close(connection=0, reason="Scale from a worker")]


def back(worker: int, host: str = "host", pid: int = 77) -> wire.Hello:
    return wire.Hello(wire.PROTOCOL, RUN, "t", None, host, pid, worker)


def test_a_worker_that_is_back_claims_what_it_holds() -> None:
    scheduler, board = board_of(line_of_blocks(3))
    joined(board)
    (_, granted) = told(say(board, 0, ASK))
    assert isinstance(granted, wire.Granted)
    board.disconnected(0, 1.0)
    board.connected(1)
    (welcome,) = told(say(board, 1, back(0), 2.0), 1)
    assert isinstance(welcome, wire.Welcome)
    assert welcome.worker == 0
    claim = wire.Held(granted.lease, granted.attempt, granted.runs, 7)
    assert told(say(board, 1, claim, 2.0), 1) == [wire.Acknowledged(7, granted.lease, False)]
    unknown = wire.Held(99, 99, (2, 1), 8)
    assert told(say(board, 1, unknown, 2.0), 1) == [wire.Acknowledged(8, 99, True)]
    assert scheduler.task_states["t"].processing_count == 1


def test_a_worker_may_be_back_before_the_end_of_its_connection_is_noticed() -> None:
    scheduler, board = board_of(line_of_blocks(3))
    joined(board)
    say(board, 0, ASK)
    board.connected(1)
    actions = say(board, 1, back(0))
    assert actions[0] == Close(connection=0, reason="")
    assert isinstance(told(actions, 1)[0], wire.Welcome)
    assert say(board, 0, wire.Heartbeat(3)) == [], "the old one is not heard any more"
    assert board.disconnected(0, 1.0) == []
    assert scheduler.task_states["t"].processing_count == 1


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (back(0, pid=78), "worker 0 is process 77 on 'host', and is connected"),
        (back(0, host="other"), "worker 0 is process 77 on 'host', and is connected"),
        (back(5), "worker 5 says that it is back, and was never here"),
    ],
)
def test_nobody_can_be_a_worker_that_he_is_not(hello: wire.Hello, reason: str) -> None:
    _, board = board_of(line_of_blocks(3))
    joined(board)
    board.connected(1)
    refused = Send(connection=1, message=wire.Refused(reason))
    assert say(board, 1, hello) == [refused, Close(connection=1, reason=reason)]
    assert told(say(board, 0, wire.Heartbeat(1))) == [wire.Alive(1)]


@pytest.mark.parametrize("runs", [(), (0, 4), (1, 0)])
def test_a_claim_must_be_one_of_blocks(runs: tuple[int, ...]) -> None:
    _, board = board_of(line_of_blocks(3))
    joined(board)
    (close,) = say(board, 0, wire.Held(1, 1, runs, 7))
    assert isinstance(close, Close)


def test_nothing_can_be_claimed_later() -> None:
    _, board = board_of(line_of_blocks(3))
    joined(board)
    say(board, 0, ASK)
    assert say(board, 0, wire.Held(1, 1, (0, 1), 7)) == [Close(connection=0, reason="worker 0 claims lease 1 too late")]


# ----------------------------------------------------------------------------------------------- timeouts and ends


def test_a_task_without_a_timeout_of_its_own_finds_one() -> None:
    _, board = board_of(line_of_blocks(20, timeout="auto"))
    board.connected(0)
    (welcome,) = told(say(board, 0, hello()))
    assert isinstance(welcome, wire.Welcome)
    assert welcome.timeout_microseconds is None
    say(board, 0, ASK)
    for lease in range(1, 6):
        assert told(say(board, 0, wire.Heartbeat(1))) == [wire.Alive(1)]
        answer = told(say(board, 0, wire.Report(lease, 1, 30_000_000, None, True, 1)))
        granted = answer[-1]
        assert isinstance(granted, wire.Granted)
        assert granted.timeout_microseconds == (300_000_000 if lease == 5 else None)
    assert told(say(board, 0, wire.Heartbeat(1))) == [wire.Alive(1, 300_000_000)]


def test_a_worker_that_ends_in_the_middle_keeps_its_blocks_until_its_connection_ends() -> None:
    scheduler, board = board_of(line_of_blocks(1, max_retries=0))
    joined(board)
    joined(board, 1)
    say(board, 0, ASK)
    say(board, 1, ASK)
    assert say(board, 0, wire.Goodbye("told to end", True)) == []
    assert scheduler.task_states["t"].processing_count == 1, "it may still write"
    assert told(board.disconnected(0, 1.0), 1) == [wire.Granted(2, 2, (0, 1))]
    assert not scheduler.task(0).histories, "and nobody is to blame"


LATE = wire.Failure(0, "TimeoutError: it took too long", "", "")


@pytest.mark.parametrize("connection_breaks", [False, True])
def test_a_block_that_took_too_long_has_failed_when_its_process_has_ended(connection_breaks: bool) -> None:
    scheduler, board = board_of(line_of_blocks(2, max_retries=1))
    for connection in (0, 1):
        joined(board, connection)
        say(board, connection, ASK)
    say(board, 1, wire.Report(2, 1, 5, None, True, 2))
    assert say(board, 0, wire.Goodbye("a block took too long", True, LATE)) == []
    assert scheduler.task_states["t"].processing_count == 1, "it may still write"
    assert not scheduler.task(0).histories
    actions = board.disconnected(0, 1.0, broken=connection_breaks)
    if connection_breaks:  # somebody has cut the line: that tells nothing about the process
        assert actions == []
        actions = board.handle(ev.WorkerLeft(worker=0, crashed=True), 2.0)
    (told_of,) = [action for action in actions if isinstance(action, ev.TellFailure)]
    assert told_of.failure.error == LATE.error
    assert not told_of.final
    assert told(actions, 1) == [wire.Granted(3, 3, (0, 1))]
    assert scheduler.task(0).histories[0].failures == 1
    assert scheduler.task(0).histories[0].losses == 0


def test_who_ends_cannot_blame_blocks_of_others() -> None:
    scheduler, board = board_of(line_of_blocks(1, max_retries=0))
    joined(board)
    say(board, 0, ASK)
    joined(board, 1)
    say(board, 1, wire.Goodbye("a block took too long", True, LATE))
    assert board.disconnected(1, 1.0) == []
    assert scheduler.task_states["t"].processing_count == 1
    scheduler.validate()


# ------------------------------------------------------------------------------------------------------ simulation

BAD_LUCK = FailureText(error="ValueError: bad luck", traceback="", where="")


@dataclass
class Segment:
    """A time in which a worker may have written a block."""

    task: int
    index: int
    begin: float
    end: float


@dataclass(eq=False)
class Player:
    """A worker process, its session, and its connection."""

    task: int
    process: int
    connection: int
    session: WorkerSession = field(default_factory=WorkerSession)
    at_driver: FrameReader = field(default_factory=lambda: FrameReader(wire.LARGEST_HELLO))
    at_worker: FrameReader = field(default_factory=lambda: FrameReader(wire.LARGEST_MESSAGE))
    connected: bool = True
    alive: bool = True
    code: int | None = None
    """How it ended."""
    frozen_until: float = 0.0
    next_heartbeat: float = 0.0
    current: Given | None = None
    writing_since: float | None = None
    arrival: dict[str, float] = field(default_factory=dict)
    """By direction: nothing arrives before what was sent earlier."""


class World:
    """A run in memory."""

    def __init__(self, dice: random.Random, tasks: list[Task], *, faults: int, largest_lease: int) -> None:
        self.dice = dice
        self.scheduler, self.board = board_of(*tasks, largest_lease=largest_lease)
        self.now = 0.0
        self.faults = faults
        self.players: list[Player] = []
        self.segments: list[Segment] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def run(self) -> None:
        self.carry_out(self.board.handle(ev.Ticked(), self.now))
        for _ in range(self.faults):
            self.later(self.dice.uniform(0.0, 30.0), self.strike)
        last_tick = 0.0
        while not self.scheduler.finished or any(player.alive for player in self.players):
            assert self.now < 5000, "the run does not end"
            deadline = self.scheduler.next_deadline()
            # What is due may have to wait for a worker; then the coordinator looks again, but not at once.
            tick = None if deadline is None else max(deadline, last_tick + 0.5)
            if tick is not None and (not self._events or tick < self._events[0][0]):
                self.now = last_tick = max(self.now, tick)
                self.carry_out(self.board.handle(ev.Ticked(), self.now))
            else:
                assert self._events, "nothing can happen any more"
                self.now, _, what = heapq.heappop(self._events)
                what()
            self.scheduler.validate()

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        self.at(self.now + seconds, what)

    def at(self, time: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._numbers), what))

    # -------------------------------------------------------------------------------------------- the driver

    def carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send():
                    player = self.players[action.connection]
                    self.transmit(player, "down", frame(wire.encode(action.message)))
                case Close():
                    assert action.reason in ("", SILENT), action.reason
                    self.later(0.0, lambda connection=action.connection: self.lose(self.players[connection]))  # type: ignore[misc]
                case ev.StartProcess():
                    self.later(action.delay + 0.1, lambda action=action: self.start(action))  # type: ignore[misc]
                case ev.RunChecks():
                    self.later(self.dice.choice([0.0, 0.01, 2.0]), lambda action=action: self.check(action))  # type: ignore[misc]
                case ev.TellFailure():
                    assert not action.final, action

    def check(self, asked: ev.RunChecks) -> None:
        said = call_checks(self.scheduler.plan.tasks[asked.task], asked)
        checked = ev.BlocksChecked(
            task=said.task,
            phase=said.phase,
            passed=said.passed,
            refused=said.refused,
            failures=said.failures,
            seconds=0.01,
        )
        self.carry_out(self.board.handle(checked, self.now))

    # ------------------------------------------------------------------------------------------ the network

    def transmit(self, player: Player, direction: str, data: bytes) -> None:
        cuts = sorted(self.dice.randrange(len(data) + 1) for _ in range(self.dice.choice([0, 0, 1, 3])))
        for begin, end in itertools.pairwise([0, *cuts, len(data)]):
            arrival = max(player.arrival.get(direction, 0.0), self.now + self.dice.choice([0.0, 0.001, 0.01, 0.5]))
            player.arrival[direction] = arrival
            self.at(arrival, lambda piece=data[begin:end]: self.arrive(player, direction, piece))  # type: ignore[misc]

    def arrive(self, player: Player, direction: str, piece: bytes) -> None:
        if not player.connected:
            return
        if direction == "up":
            for body in player.at_driver.feed(piece):
                self.carry_out(self.board.received(player.connection, body, self.now))
                player.at_driver.limit = self.board.limit(player.connection)
        elif self.now < player.frozen_until:
            self.at(player.frozen_until, lambda: self.arrive(player, direction, piece))
        else:
            for body in player.at_worker.feed(piece):
                player.session.receive(wire.decode_from_driver(body))
            self.step(player)

    def lose(self, player: Player) -> None:
        """The connection of a worker breaks, and the driver notices."""
        if not player.connected:
            return
        player.connected = False
        line = self.board.line(player.connection)
        assert line is not None
        self.carry_out(self.board.disconnected(player.connection, self.now))
        if line.worker is not None and not line.said_goodbye:
            self.later(self.dice.uniform(0.0, 2.0), lambda: self.confirm_death(player, line.worker))
        self.step(player)

    def confirm_death(self, player: Player, worker: int | None) -> None:
        if not player.alive and worker is not None:
            self.carry_out(self.board.handle(ev.WorkerLeft(worker=worker, crashed=True), self.now))

    # ------------------------------------------------------------------------------------------ the workers

    def start(self, action: ev.StartProcess) -> None:
        player = Player(action.task, action.process, len(self.players))
        self.players.append(player)
        self.board.connected(player.connection)
        name = self.scheduler.plan.tasks[action.task].task_id
        player.session.hello(run=RUN, task=name, process=action.process, host="h", pid=1, now=self.now)
        self.send(player)
        self.beat(player)

    def send(self, player: Player) -> None:
        data = b"".join(frame(wire.encode(message)) for message in player.session.take_outgoing())
        if data and player.connected:
            self.transmit(player, "up", data)

    def beat(self, player: Player) -> None:
        """What the second thread of a client does: heartbeats, and watching the deadline."""
        if not player.alive:
            return
        if self.now >= player.frozen_until:
            if player.session.welcome is not None and self.now >= player.next_heartbeat:
                player.session.heartbeat(self.now)
                player.next_heartbeat = self.now + player.session.heartbeat_seconds
                self.send(player)
            self.step(player)
        self.later(self.dice.uniform(0.5, 1.0), lambda: self.beat(player))

    def step(self, player: Player) -> None:
        """Go on with a worker, whatever it waited for."""
        if not player.alive or self.now < player.frozen_until or self.fenced(player):
            return
        if player.current is not None:
            return
        if not player.connected:
            self.die(player, code=1)
            return
        if player.session.welcome is None:
            return
        given = player.session.next_block(self.now)
        if given is not None:
            player.current = given
            player.writing_since = self.now
            self.check_upstream(player.task, given.index)
            self.later(self.dice.choice([0.0, 0.004, 0.03, 0.2, 3.0]), lambda: self.finish(player, given))
        elif player.session.finished:
            player.session.goodbye("", self.now)
            self.send(player)
            self.die(player, code=0)
        else:
            player.session.ask(self.now)
        self.send(player)

    def fenced(self, player: Player) -> bool:
        """End a worker whose blocks may be somebody else's by now."""
        deadline = player.session.deadline
        late = deadline is not None and self.now > deadline and player.session.holds
        if late:
            self.die(player, code=75)
        return late

    def finish(self, player: Player, given: Given) -> None:
        if not player.alive or player.current is not given:
            return
        if self.now < player.frozen_until:
            self.at(player.frozen_until, lambda: self.finish(player, given))
            return
        if self.fenced(player):
            return
        self.stop_writing(player)
        player.current = None
        failure = BAD_LUCK if self.dice.random() < 0.03 else None
        player.session.block_done(given, failure, 0.004, self.now, asks=True)
        self.send(player)
        self.step(player)

    def stop_writing(self, player: Player) -> None:
        if player.writing_since is not None and player.current is not None:
            self.segments.append(Segment(player.task, player.current.index, player.writing_since, self.now))
        player.writing_since = None

    def die(self, player: Player, *, code: int) -> None:
        self.stop_writing(player)
        player.alive = False
        player.code = code
        ended = ev.ProcessEnded(process=player.process, task=player.task, clean=code == 0, how=f"code {code}")
        self.later(0.02, lambda: self.carry_out(self.board.handle(ended, self.now)))
        if code:
            self.later(self.dice.uniform(0.0, 0.3), lambda: self.lose(player))

    def strike(self) -> None:
        """Something bad happens to somebody."""
        player = self.dice.choice(self.players) if self.players else None
        if player is None or not player.alive:
            return
        match self.dice.randrange(3):
            case 0:
                self.die(player, code=-9)
            case 1:
                self.lose(player)
            case _:
                self.freeze(player, self.dice.choice([1.0, 20.0, 61.5, 64.0, 100.0]))

    def freeze(self, player: Player, seconds: float) -> None:
        if self.now < player.frozen_until:
            return
        self.stop_writing(player)
        player.frozen_until = self.now + seconds
        self.at(player.frozen_until, lambda: self.thaw(player))

    def thaw(self, player: Player) -> None:
        if not player.alive or self.fenced(player):
            return
        if player.current is not None:
            player.writing_since = self.now
        self.step(player)

    # ------------------------------------------------------------------------------------------ the oracle

    def check_upstream(self, task: int, index: int) -> None:
        """Everything that a block reads from tasks above is done when it starts."""
        plan = self.scheduler.plan
        reads = plan.tasks[task].grid.read_box(index)
        for above in plan.tasks[task].task.upstream_tasks:
            number = plan.number_of(above.task_id)
            states = self.scheduler.task(number).blocks.states
            for other in range(plan.tasks[number].grid.size):
                if meet(reads, plan.tasks[number].grid.write_box(other)):
                    assert BlockState(int(states[other])) in SATISFIED

    def check_overlaps(self) -> None:
        """Nobody wrote where somebody else read or wrote at the same time."""
        grids = [planned.grid for planned in self.scheduler.plan.tasks]
        ordered = sorted(self.segments, key=lambda segment: segment.begin)
        for place, one in enumerate(ordered):
            for other in ordered[place + 1 :]:
                if other.begin >= one.end:
                    break
                if one.task == other.task:
                    if one.index != other.index and not self.scheduler.plan.tasks[one.task].task.read_write_conflict:
                        continue
                    grid = grids[one.task]
                    clash = meet(grid.read_box(one.index), grid.write_box(other.index)) or meet(
                        grid.write_box(one.index), grid.read_box(other.index)
                    )
                else:
                    above, below = sorted((one, other), key=lambda segment: segment.task)
                    clash = meet(grids[above.task].write_box(above.index), grids[below.task].read_box(below.index))
                    clash = clash and self.is_above(above.task, below.task)
                assert not clash, (one, other)

    def is_above(self, above: int, below: int) -> bool:
        return any(number == above for number, _ in self.scheduler.plan.tasks[below].upstream)


def meet(one: tuple[tuple[int, int], ...], other: tuple[tuple[int, int], ...]) -> bool:
    return all(a < d and c < b for (a, b), (c, d) in zip(one, other, strict=True))


def any_tasks(dice: random.Random) -> list[Task]:
    """One task, or a chain of two with blocks of different sizes."""
    dims = dice.choice([1, 1, 2])
    extent = dice.randint(4, 30) if dims == 1 else dice.randint(3, 9)
    size, context = dice.randint(1, 3), dice.choice([0, 0, 1, 2])
    tasks: list[Task] = []
    for number in range(dice.choice([1, 1, 2])):
        done_before = frozenset(dice.sample(range(100), 30))
        refused: set[int] = set()

        def pre(block: Block, done_before: frozenset[int] = done_before) -> bool:
            return block.index in done_before

        def post(block: Block, refused: set[int] = refused) -> bool:
            """Good, but not the first time for every seventh block."""
            assert block.index is not None
            known = block.index % 7 != 0 or block.index in refused
            refused.add(block.index)
            return known

        tasks.append(
            Task(
                f"task {number}",
                Roi((0,) * dims, (extent + 2 * context,) * dims),
                Roi((0,) * dims, (size + 2 * context,) * dims),
                Roi((context,) * dims, (size,) * dims),
                print,
                check_function=dice.choice([None, None, pre, (pre, post), (None, post)]),
                read_write_conflict=dice.random() < 0.6,
                num_workers=dice.randint(1, 4),
                max_retries=100,
                fit="shrink",
                upstream_tasks=tasks[-1:],
            )
        )
        size += dice.randint(0, 2)
    return tasks[-1:]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**40))
def test_every_block_is_done_exactly_once_whatever_happens(seed: int) -> None:
    dice = random.Random(seed)
    # At most four: a block that five workers died with is given up.
    world = World(
        dice, any_tasks(dice), faults=dice.choice([0, 2, 4]), largest_lease=dice.choice([1, 4, LARGEST_LEASE])
    )
    world.run()
    world.check_overlaps()
    for number, planned in enumerate(world.scheduler.plan.tasks):
        states = world.scheduler.task(number).blocks.states
        worked = {segment.index for segment in world.segments if segment.task == number}
        for index in range(planned.grid.size):
            state = BlockState(int(states[index]))
            assert state in SATISFIED
            assert (index in worked) == (state is BlockState.DONE)


def test_the_simulation_sees_faults() -> None:
    """Guards the tester: workers die, are cut off and fence themselves, and blocks run again."""
    again = 0
    ends: set[int | None] = set()
    for seed in range(40):
        dice = random.Random(seed)
        world = World(dice, any_tasks(dice), faults=4, largest_lease=4)
        world.run()
        blocks = [(segment.task, segment.index) for segment in world.segments]
        again += len(blocks) - len(set(blocks))
        ends.update(player.code for player in world.players)
    assert again > 20
    assert ends == {0, 1, 75, -9}


def test_the_line_of_a_worker_is_known_while_it_is_connected() -> None:
    _, board = board_of(line_of_blocks(3))
    assert board.line_of(0) is None
    joined(board)
    line = board.line_of(0)
    assert line is not None
    assert (line.host, line.pid, line.worker) == ("host", 77, 0)
    board.disconnected(0, 0.0)
    assert board.line_of(0) is None


def test_a_worker_that_cannot_begin_is_told_of_and_given_nothing() -> None:
    scheduler, board = board_of(line_of_blocks(2))
    start = next(each for each in board.handle(ev.Ticked(), 0.0) if isinstance(each, ev.StartProcess))
    board.connected(0)
    say(board, 0, hello(process=start.process))
    (remark,) = say(board, 0, wire.Unable("OSError: no", "Traceback of it", "a.py:3"))
    assert remark == ev.TellRemark(task=0, text="a worker could not begin: OSError: no (a.py:3)")
    assert told(say(board, 0, ASK)) == [wire.Acknowledged(1, 0, False)]
    said = board.handle(ev.ProcessEnded(process=start.process, task=0, clean=False, how="ended with code 1"), 1.0)
    assert not [each for each in said if isinstance(each, ev.TellRemark)], "it has said so itself"
    scheduler.validate()


def test_arrays_that_are_returned_are_told_of_once_for_a_task() -> None:
    _, board = board_of(line_of_blocks(2), line_of_blocks(2, "u"))
    for connection, task in enumerate(("t", "t", "u")):
        joined(board, connection, task)
    said = [say(board, connection, wire.ArraysReturned()) for connection in range(3)]
    assert [[type(each) for each in actions] for actions in said] == [[ev.TellRemark], [], [ev.TellRemark]]


def test_a_worker_with_the_code_of_an_earlier_driver_finishes_what_it_holds() -> None:
    scheduler = Scheduler([line_of_blocks(4)], epoch=2)
    known = RecordWorker(worker=7, task=0, process=None, host="", pid=1, started="")
    scheduler.restore([RestoredTask(states=np.zeros(4, dtype=np.uint8))], [known], 0.0)
    board = Switchboard(scheduler, run=RUN, lease_seconds=60.0, codes=["new"])
    board.connected(0)
    back = wire.Hello(wire.PROTOCOL, RUN, "t", None, "", 1, 7, "", "old")
    assert isinstance(told(say(board, 0, back))[0], wire.Welcome)
    assert told(say(board, 0, wire.Held(3, 5, (1, 1), 1))) == [wire.Acknowledged(1, 3, False)]
    assert told(say(board, 0, wire.Heartbeat(2))) == [wire.Alive(2), wire.Finished()]
    assert told(say(board, 0, wire.Report(3, 1, 5, None, True, 3))) == [wire.Acknowledged(3, 3, False)], "nothing new"
    assert scheduler.task_states["t"].completed_count == 1
    board.connected(1)
    (refused,) = told(say(board, 1, wire.Hello(wire.PROTOCOL, RUN, "t", None, "", 2, None, "", "old")), 1)
    assert isinstance(refused, wire.Refused)
    assert "the code of task 't' has changed" in refused.reason
    for connection, code in ((2, "new"), (3, "")):
        board.connected(connection)
        said = told(
            say(board, connection, wire.Hello(wire.PROTOCOL, RUN, "t", None, "", 3, None, "", code)), connection
        )
        assert isinstance(said[0], wire.Welcome)
    scheduler.validate()


def test_more_workers_than_a_message_may_ask_for_are_refused() -> None:
    scheduler, board = board_of(line_of_blocks(9))
    board.connected(0)
    refused, closed = say(board, 0, scale(workers=wire.MOST_WORKERS + 1))
    assert isinstance(refused, Send)
    assert isinstance(refused.message, wire.Refused)
    assert f"a task has at most {wire.MOST_WORKERS} workers" in refused.message.reason
    assert isinstance(closed, Close)
    assert scheduler.task(0).pool.size == 1


def test_a_silent_worker_without_a_connection_here_is_not_cut_off() -> None:
    scheduler, board = board_of(line_of_blocks(2))
    scheduler.handle(ev.WorkerJoined(worker=9, task=0), 0.0)
    scheduler.handle(ev.BlocksAsked(worker=9), 0.0)
    assert not [action for action in board.handle(ev.Ticked(), 1000.0) if isinstance(action, Close)]


def test_a_bug_of_ours_is_not_taken_for_a_lie() -> None:
    scheduler, board = board_of(line_of_blocks(2))
    joined(board)
    say(board, 0, ASK)
    scheduler.task(0).blocks.states[0] = BlockState.DONE
    with pytest.raises(InvalidTransition):
        say(board, 0, wire.Report(1, 1, 5, None, False, 2))
