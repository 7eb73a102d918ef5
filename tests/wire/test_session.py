"""The worker's side of the conversation, with the driver played by the test."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockflow.errors import LocalProtocolError, RemoteProtocolError
from blockflow.wire import messages as wire
from blockflow.wire.failures import FailureText
from blockflow.wire.held import Given
from blockflow.wire.session import HEARTBEATS_PER_LEASE, REPORT_SECONDS, WorkerSession

LEASE_SECONDS = 60.0
BLOCKS = 1000
WELCOME = wire.Welcome(
    4,
    (wire.RegularLayout(0, 10, BLOCKS, 1, 1, 0, 0),),
    ((-1, 10 * BLOCKS + 1),),
    round(LEASE_SECONDS * 1e6),
    None,
    False,
)
FAILURE = FailureText(error="ValueError: x", traceback="Traceback", where="a.py:3")


def joined(now: float = 0.0) -> WorkerSession:
    """A session that the driver has welcomed."""
    session = WorkerSession()
    session.hello(run="run", task="task", process=3, host="host", pid=11, now=now)
    session.take_outgoing()
    session.receive(WELCOME)
    return session


def asked(now: float = 0.0) -> WorkerSession:
    """A session that has asked for blocks."""
    session = joined(now)
    session.ask(now)
    session.take_outgoing()
    return session


def holding(*indices: int, now: float = 0.0, lease: int = 1, attempt: int = 100) -> WorkerSession:
    """A session that holds a lease."""
    session = asked(now)
    session.receive(wire.Granted(lease, attempt, wire.pack_runs(list(indices))))
    return session


def take(session: WorkerSession, now: float) -> Given:
    given = session.next_block(now)
    assert given is not None
    return given


def reports(session: WorkerSession) -> list[wire.Report]:
    return [message for message in session.take_outgoing() if isinstance(message, wire.Report)]


# ------------------------------------------------------------------------------------------------------- handshake


def test_hello_says_who_it_is() -> None:
    session = WorkerSession()
    session.hello(run="run", task="task", process=None, host="h" * 300, pid=11, now=0.0)
    assert session.take_outgoing() == [wire.Hello(wire.PROTOCOL, "run", "task", None, "h" * 255, 11, None)]
    assert session.take_outgoing() == []


def test_a_welcome_tells_the_tiling_and_the_lease() -> None:
    session = WorkerSession()
    session.hello(run="run", task="task", process=None, host="host", pid=11, now=5.0)
    assert session.deadline is None
    assert not session.holds
    session.receive(WELCOME)
    assert session.welcome == WELCOME
    assert session.grid is not None
    assert session.grid.read_box(1) == ((9, 21),)
    assert session.total == ((-1, 10 * BLOCKS + 1),)
    assert session.lease_seconds == LEASE_SECONDS
    assert session.heartbeat_seconds == LEASE_SECONDS / HEARTBEATS_PER_LEASE
    assert session.deadline == 65.0  # from when Hello was sent


def test_a_refusal_is_remembered() -> None:
    session = WorkerSession()
    session.receive(wire.Refused("another run"))
    assert session.refused == "another run"


@pytest.mark.parametrize(
    "message",
    [
        wire.Granted(1, 1, (0, 1)),
        wire.Acknowledged(0, 0, False),
        wire.Alive(0),
        wire.Recalled(1),
        wire.Finished(),
    ],
)
def test_nothing_is_understood_before_the_welcome(message: wire.FromDriver) -> None:
    session = WorkerSession()
    session.hello(run="run", task="task", process=None, host="host", pid=11, now=0.0)
    with pytest.raises(RemoteProtocolError, match=f"{type(message).__name__} before the handshake was over"):
        session.receive(message)
    assert session.deadline is None


def test_a_welcome_before_hello_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="a Welcome that nobody asked for"):
        WorkerSession().receive(WELCOME)


def test_a_second_welcome_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="a Welcome that nobody asked for"):
        joined().receive(WELCOME)


@pytest.mark.parametrize(
    "welcome",
    [
        wire.Welcome(4, (wire.RegularLayout(0, 1, 2**62, 0, 0, 0, 0),) * 2, ((0, 5), (0, 5)), 60_000_000, None, False),
        wire.Welcome(4, (wire.RegularLayout(0, 1, 5, 0, 0, 0, 0),), ((0, 5), (0, 5)), 60_000_000, None, False),
    ],
)
def test_a_welcome_must_describe_a_grid(welcome: wire.Welcome) -> None:
    session = WorkerSession()
    session.hello(run="run", task="task", process=None, host="host", pid=11, now=0.0)
    with pytest.raises(RemoteProtocolError, match="a Welcome that describes no grid"):
        session.receive(welcome)


def test_questions_before_the_welcome_are_a_bug() -> None:
    with pytest.raises(LocalProtocolError, match="has not welcomed this worker yet"):
        assert WorkerSession().heartbeat_seconds


# ---------------------------------------------------------------------------------------------------- asking, blocks


def test_it_asks_once_and_again_after_an_answer() -> None:
    session = joined()
    session.ask(1.0)
    session.ask(2.0)
    assert session.take_outgoing() == [wire.Report(0, 0, 0, None, True, 1)]
    session.receive(wire.Granted(1, 5, (7, 1)))
    session.ask(3.0)
    assert session.take_outgoing() == [wire.Report(0, 0, 0, None, True, 2)]


def test_blocks_come_in_order_with_their_attempts() -> None:
    session = holding(7, 8, 20, attempt=100)
    given = [take(session, 0.0) for _ in range(3)]
    assert [(one.index, one.attempt, one.position) for one in given] == [(7, 100, 0), (8, 101, 1), (20, 102, 2)]
    assert session.next_block(0.0) is None
    assert session.holds


def test_nothing_here_gives_nothing() -> None:
    assert joined().next_block(0.0) is None


def test_a_lease_that_nobody_asked_for_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="a lease that nobody asked for"):
        joined().receive(wire.Granted(1, 1, (0, 1)))
    session = holding(1, 2)
    with pytest.raises(RemoteProtocolError, match="a lease that nobody asked for"):
        session.receive(wire.Granted(2, 3, (5, 1)))


@pytest.mark.parametrize("runs", [(), (BLOCKS, 1), (0, BLOCKS + 1), (0, 0), (3,)])
def test_a_lease_without_blocks_of_the_grid_is_refused(runs: tuple[int, ...]) -> None:
    with pytest.raises(RemoteProtocolError):
        asked().receive(wire.Granted(1, 1, runs))


def test_a_single_block_is_reported_with_the_next_request() -> None:
    session = holding(7)
    given = take(session, 0.0)
    assert session.take_outgoing() == []
    session.block_done(given, None, 2.5, 3.0, asks=True)
    assert session.take_outgoing() == [wire.Report(1, 1, 2_500_000, None, True, 2)]
    assert not session.holds


def test_a_worker_that_wants_no_more_does_not_ask() -> None:
    session = holding(7)
    session.block_done(take(session, 0.0), None, 2.5, 3.0, asks=False)
    assert session.take_outgoing() == [wire.Report(1, 1, 2_500_000, None, False, 2)]
    session.ask(3.0)
    assert session.take_outgoing() == [wire.Report(0, 0, 0, None, True, 3)]


def test_the_next_lease_is_asked_for_half_way() -> None:
    session = holding(*range(6))
    asks = []
    for number in range(6):
        given = take(session, 0.0)
        asks.append(any(report.asks for report in reports(session)))
        # The clock stands still, so nothing but the end of the lease makes it report.
        session.block_done(given, None, 0.0, 0.0, asks=True)
        sent = reports(session)
        assert [report.upto for report in sent] == {0: [1], 5: [6]}.get(number, [])
        assert not any(report.asks for report in sent)
    assert asks == [False, False, False, True, False, False]


def test_what_was_asked_for_half_way_is_worked_off_next() -> None:
    session = holding(1, 2)
    first = take(session, 0.0)
    session.block_done(first, None, 0.0, 0.0, asks=True)
    second = take(session, 0.0)
    session.receive(wire.Granted(2, 50, (8, 1)))
    third = take(session, 0.0)  # users of Client may hold two blocks at once
    session.block_done(second, None, 0.0, 0.0, asks=True)
    session.block_done(third, None, 0.0, 0.0, asks=True)
    assert [given.index for given in (first, second, third)] == [1, 2, 8]
    sent = reports(session)
    assert [(report.lease, report.upto, report.asks) for report in sent] == [
        (1, 1, False),
        (0, 0, True),
        (1, 2, True),
        (2, 1, False),
    ]
    assert not session.holds


def test_done_blocks_are_reported_every_50_ms() -> None:
    session = holding(*range(100))
    now, uptos = 10.0, []
    for _ in range(40):
        given = take(session, now)
        now += 0.02
        session.block_done(given, None, 0.02, now, asks=True)
        uptos += [(report.upto, report.microseconds) for report in reports(session)]
    assert REPORT_SECONDS == 0.05
    assert uptos == [(1, 20_000)] + [(upto, 60_000) for upto in range(4, 41, 3)]


def test_what_is_said_to_others_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="Scaled is no answer to a worker"):
        holding(1).receive(wire.Scaled(3))


def test_a_failure_is_reported_at_once() -> None:
    session = holding(3, 4, 5)
    session.block_done(take(session, 0.0), None, 0.0, 0.0, asks=True)
    session.take_outgoing()
    given = take(session, 0.0)
    session.take_outgoing()
    session.block_done(given, FAILURE, 1.0, 0.001, asks=True)
    failure = wire.Failure(4, "ValueError: x", "Traceback", "a.py:3")
    assert session.take_outgoing() == [wire.Report(1, 2, 1_000_000, failure, False, 4)]
    session.block_done(take(session, 0.0), None, 1.0, 0.002, asks=True)
    assert session.take_outgoing() == [wire.Report(1, 3, 1_000_000, None, False, 5)]


def test_a_place_of_any_length_can_be_sent() -> None:
    session = holding(3)
    long = FailureText(error="E", traceback="", where="x" * 400)
    session.block_done(take(session, 0.0), long, 0.0, 0.0, asks=True)
    (report,) = reports(session)
    assert wire.decode_from_worker(wire.encode(report)) == report


def test_blocks_may_be_done_in_any_order_and_are_reported_in_theirs() -> None:
    session = holding(3, 4)
    first, second = take(session, 0.0), take(session, 0.0)
    session.take_outgoing()
    session.block_done(second, None, 2.0, 0.0, asks=True)
    assert session.take_outgoing() == []
    session.block_done(first, None, 1.0, 0.0, asks=True)
    reports = [message for message in session.take_outgoing() if isinstance(message, wire.Report)]
    assert [(report.upto, report.microseconds) for report in reports][-1][0] == 2
    assert sum(report.microseconds for report in reports) == 3_000_000
    assert not session.holds


def test_a_block_is_done_once_and_only_while_it_is_under_way() -> None:
    session = holding(3, 4)
    first, second = take(session, 0.0), take(session, 0.0)
    session.block_done(second, None, 0.0, 0.0, asks=True)
    for wrong in (second, Given(first.lease, 2, 5, 3)):
        with pytest.raises(LocalProtocolError, match=r"is done, but not under way"):
            session.block_done(wrong, None, 0.0, 0.0, asks=True)
    session.block_done(first, None, 0.0, 0.0, asks=True)
    with pytest.raises(LocalProtocolError, match="block 0 of lease 1 is done, but not under way"):
        session.block_done(first, None, 0.0, 0.0, asks=True)


# ------------------------------------------------------------------------------------------------------- deadlines


def test_the_deadline_counts_from_when_the_answered_message_was_sent() -> None:
    session = joined(now=0.0)
    session.heartbeat(10.0)
    assert session.deadline == 60.0
    session.ask(14.0)
    assert session.take_outgoing() == [wire.Heartbeat(1), wire.Report(0, 0, 0, None, True, 2)]
    session.receive(wire.Alive(1))
    assert session.deadline == 70.0
    session.receive(wire.Acknowledged(2, 0, False))
    assert session.deadline == 74.0


def test_an_old_answer_never_shortens_the_deadline() -> None:
    session = joined()
    session.heartbeat(10.0)
    session.heartbeat(20.0)
    session.receive(wire.Alive(2))
    session.receive(wire.Alive(1))
    assert session.deadline == 80.0


def test_a_block_that_begins_does_not_move_the_deadline() -> None:
    session = holding(3, 4, now=1.0)
    before = session.deadline
    for now in (20.0, 40.0):
        take(session, now)
        assert session.deadline == before


def test_a_grant_alone_does_not_move_the_deadline() -> None:
    session = asked(now=3.0)
    session.receive(wire.Granted(1, 1, (0, 1)))
    assert session.deadline == 63.0


@pytest.mark.parametrize("number", [0, 2, 99])
def test_an_answer_to_nothing_is_refused(number: int) -> None:
    session = joined()
    session.heartbeat(1.0)
    with pytest.raises(RemoteProtocolError, match=f"an answer to message {number}, which was answered before or never"):
        session.receive(wire.Alive(number))
    session.receive(wire.Alive(1))
    with pytest.raises(RemoteProtocolError, match="an answer to message 1"):
        session.receive(wire.Acknowledged(1, 0, False))


# --------------------------------------------------------------------------------------- stale, recalled, finished


def test_a_stale_lease_is_dropped() -> None:
    session = holding(3, 4, 5)
    given = take(session, 0.0)
    session.block_done(given, None, 0.0, 0.0, asks=True)
    (report,) = reports(session)
    started = take(session, 0.0)
    session.take_outgoing()
    session.receive(wire.Acknowledged(report.number, 1, True))
    assert not session.holds
    session.block_done(started, FAILURE, 0.0, 1.0, asks=True)
    assert session.take_outgoing() == []  # not ours any more, and the next lease was asked for half way
    assert session.next_block(1.0) is None


def test_after_a_stale_single_block_it_asks_again() -> None:
    session = holding(3)
    given = take(session, 0.0)
    session.heartbeat(0.0)
    session.take_outgoing()
    session.receive(wire.Acknowledged(2, 1, True))
    session.block_done(given, None, 0.0, 1.0, asks=True)
    assert session.take_outgoing() == [wire.Report(0, 0, 0, None, True, 3)]


def test_recalled_blocks_that_are_not_started_go_back() -> None:
    session = holding(3, 4, 5, 6)
    started = take(session, 0.0)
    session.receive(wire.Recalled(99))
    assert session.take_outgoing() == []
    session.receive(wire.Recalled(1))
    assert session.take_outgoing() == [wire.Returned(1, 1)]
    session.receive(wire.Recalled(1))
    assert session.take_outgoing() == []
    assert session.next_block(0.0) is None
    assert session.holds
    session.block_done(started, None, 1.0, 1.0, asks=True)
    assert session.take_outgoing() == [wire.Report(1, 1, 1_000_000, None, True, 2)]
    assert not session.holds


@pytest.mark.parametrize("chance", ["next block", "heartbeat", "goodbye"])
@pytest.mark.parametrize("message", [wire.Recalled(1), wire.Finished()])
def test_what_was_done_before_a_recall_is_still_reported(message: wire.FromDriver, chance: str) -> None:
    session = holding(*range(10))
    for _ in range(4):  # the first is reported at once, the other three are not due yet
        session.block_done(take(session, 0.0), None, 0.01, 0.0, asks=True)
    assert [report.upto for report in reports(session)] == [1]
    session.receive(message)
    assert session.take_outgoing() == [wire.Returned(1, 4)]
    match chance:
        case "next block":
            assert session.next_block(0.001) is None
        case "heartbeat":
            session.heartbeat(0.001)
        case _:
            session.goodbye("", 0.001)
    assert [(report.lease, report.upto, report.microseconds) for report in reports(session)] == [(1, 4, 30_000)]
    assert not session.holds


def test_finished_gives_everything_back_and_ends_asking() -> None:
    session = holding(3, 4)
    session.receive(wire.Finished())
    assert session.finished
    assert session.take_outgoing() == [wire.Returned(1, 0)]
    assert not session.holds
    session.ask(1.0)
    assert session.next_block(1.0) is None
    assert session.take_outgoing() == []


def test_a_lease_that_crosses_the_end_goes_back() -> None:
    session = asked()
    session.receive(wire.Finished())
    session.receive(wire.Granted(1, 1, (3, 2)))
    assert session.take_outgoing() == [wire.Returned(1, 0)]
    assert not session.holds


def test_goodbye_reports_what_is_done_and_returns_what_is_not_started() -> None:
    session = holding(*range(10))
    for _ in range(3):
        session.block_done(take(session, 0.0), None, 0.01, 0.0, asks=True)
    take(session, 0.0)  # given up with the goodbye
    session.take_outgoing()
    session.goodbye("tired", 1.0)
    assert session.take_outgoing() == [
        wire.Returned(1, 4),
        wire.Report(1, 3, 20_000, None, False, 3),
        wire.Goodbye("tired"),
    ]
    assert session.finished
    assert not session.holds


def test_goodbye_with_nothing_here() -> None:
    session = joined()
    session.goodbye("", 1.0)
    assert session.take_outgoing() == [wire.Goodbye("")]


# ------------------------------------------------------------------------------------------------- any conversation


class Driver:
    """Answers a session as the driver would, and notes what becomes of every block that it grants."""

    def __init__(self, session: WorkerSession) -> None:
        self.session = session
        self.leases: list[list[int]] = []
        """The blocks of each lease, without those that were returned."""
        self.done: list[int] = []
        """Blocks of each lease that were reported."""
        self.returned: list[int] = []
        self.asked = False
        self.gone = False
        self._answers: list[wire.FromDriver] = []

    @property
    def reported(self) -> list[int]:
        return [block for blocks, done in zip(self.leases, self.done, strict=True) for block in blocks[:done]]

    def grant(self, blocks: list[int]) -> None:
        self.asked = False
        self.leases.append(blocks)
        self.done.append(0)
        self.session.receive(wire.Granted(len(self.leases), 1 + blocks[0], wire.pack_runs(blocks)))

    def answer(self) -> None:
        answers, self._answers = self._answers, []
        for message in answers:
            self.session.receive(message)

    def listen(self) -> None:
        for message in self.session.take_outgoing():
            assert not self.gone, "nothing is said after goodbye"
            assert wire.decode_from_worker(wire.encode(message)) == message
            match message:
                case wire.Report():
                    assert not (message.asks and self.asked), "it asks twice"
                    self.asked = self.asked or message.asks
                    if message.lease:
                        lease = message.lease - 1
                        assert self.done[lease] < message.upto <= len(self.leases[lease])
                        self.done[lease] = message.upto
                    self._answers.append(wire.Acknowledged(message.number, message.lease, False))
                case wire.Returned():
                    blocks = self.leases[message.lease - 1]
                    assert self.done[message.lease - 1] <= message.kept < len(blocks)
                    self.returned += blocks[message.kept :]
                    del blocks[message.kept :]
                case wire.Heartbeat():
                    self._answers.append(wire.Alive(message.number))
                case wire.Goodbye():
                    self.gone = True
                case _:
                    raise AssertionError(f"{message} now")


@settings(max_examples=300)
@given(st.integers(0, 2**32))
def test_every_granted_block_is_reported_or_returned_exactly_once(seed: int) -> None:
    dice = random.Random(seed)
    now, upcoming = 0.0, 0
    session = joined()
    driver = Driver(session)
    granted: list[int] = []
    worked: list[int] = []
    current: Given | None = None
    for _ in range(dice.randint(5, 80)):
        now += dice.choice([0.0, 0.001, 0.03, 0.2])
        match dice.randrange(12):
            case 0 | 1 | 2 | 3:
                if current is None:
                    current = session.next_block(now)
                    if current is None:
                        session.ask(now)
                    else:
                        worked.append(current.index)
            case 4 | 5 | 6 | 7:
                if current is not None:
                    failure = FAILURE if dice.random() < 0.1 else None
                    session.block_done(current, failure, 0.01, now, asks=dice.random() < 0.8)
                    current = None
            case 8:
                driver.answer()
            case 9:
                if driver.asked:
                    upcoming += dice.randint(0, 3)
                    blocks = list(range(upcoming, upcoming + dice.choice([1, 1, 2, 5, 9])))
                    upcoming = blocks[-1] + 1
                    granted += blocks
                    driver.grant(blocks.copy())
            case 10:
                session.heartbeat(now)
            case _:
                if dice.random() < 0.5:
                    session.receive(wire.Recalled(dice.randint(1, 4)))
                elif dice.random() < 0.1:
                    session.receive(wire.Finished())
        driver.listen()
    if current is not None:
        session.block_done(current, None, 0.01, now, asks=False)
    session.goodbye("", now)
    driver.listen()
    assert driver.gone
    assert sorted(driver.reported + driver.returned) == granted
    assert driver.reported == worked
    assert not session.holds


# ------------------------------------------------------------------------------------------------------------ ends


def test_a_worker_that_ends_gives_back_what_it_has_not_started() -> None:
    session = holding(*range(5))
    given = take(session, 0.0)
    session.take_outgoing()
    session.drain()
    assert session.finished
    assert not session.dismissed, "the driver has not said so"
    assert session.take_outgoing() == [wire.Returned(1, 1)]
    assert session.next_block(1.0) is None
    session.block_done(given, None, 1.0, 1.0, asks=True)
    assert session.take_outgoing() == [wire.Report(1, 1, 1_000_000, None, False, 2)]


def test_the_driver_s_dismissal_is_known() -> None:
    session = asked()
    session.receive(wire.Finished())
    assert session.dismissed


@pytest.mark.parametrize("watched", [False, True])
def test_whether_the_driver_sees_this_process_is_known_when_it_is_welcome(watched: bool) -> None:
    session = WorkerSession()
    session.hello(run="run", task="task", process=3, host="host", pid=11, now=0.0)
    before = session.watched
    session.receive(wire.Welcome(4, WELCOME.axes, WELCOME.total, WELCOME.lease_microseconds, None, watched))
    assert (before, session.watched) == (False, watched)


def test_a_worker_that_ends_in_the_middle_says_so() -> None:
    session = holding(3, 4)
    take(session, 0.0)
    session.take_outgoing()
    before = session.has_outgoing
    session.goodbye("told to end", 1.0, under_way=True)
    assert (before, session.has_outgoing) == (False, True)
    assert session.take_outgoing() == [wire.Returned(1, 1), wire.Goodbye("told to end", True)]


def test_a_worker_that_ends_because_of_a_block_says_which() -> None:
    session = holding(3, 4)
    late = take(session, 0.0)
    session.take_outgoing()
    failure = FailureText(error="TimeoutError: late", traceback="", where="")
    session.goodbye("late", 1.0, under_way=True, failed=(late, failure))
    ends = wire.Goodbye("late", True, wire.Failure(3, "TimeoutError: late", "", ""))
    assert session.take_outgoing() == [wire.Returned(1, 1), ends]


# -------------------------------------------------------------------------------------------------------- timeouts


def limited(seconds: float | None, *, by_grant: float | None = None) -> tuple[WorkerSession, Given]:
    session = WorkerSession()
    session.hello(run="run", task="task", process=3, host="host", pid=11, now=0.0)
    microseconds = None if seconds is None else round(seconds * 1e6)
    session.receive(wire.Welcome(4, WELCOME.axes, WELCOME.total, WELCOME.lease_microseconds, microseconds, False))
    session.ask(0.0)
    granted = None if by_grant is None else round(by_grant * 1e6)
    session.receive(wire.Granted(1, 1, (3, 1), granted))
    session.heartbeat(0.0)
    return session, take(session, 0.0)


@pytest.mark.parametrize(
    ("welcome", "grant", "answer", "limit"),
    [
        (None, None, None, None),
        (2.5, None, None, 2.5),
        (None, 60.0, None, 60.0),
        (None, 60.0, 90.0, 90.0),
        (None, 240.0, 90.0, 240.0),
        (None, None, 90.0, 90.0),
    ],
)
def test_how_long_a_block_may_take(
    welcome: float | None, grant: float | None, answer: float | None, limit: float | None
) -> None:
    """What an answer to a heartbeat allows makes it only longer; for a block that had no limit it sets one."""
    session, given = limited(welcome, by_grant=grant)
    session.receive(wire.Alive(2, None if answer is None else round(answer * 1e6)))
    assert session.timeout_of(given) == limit
    assert session.timeout_of(None) == welcome


def test_before_the_welcome_nothing_is_limited() -> None:
    assert WorkerSession().timeout_of(None) is None


# -------------------------------------------------------------------------------------------------- back after all


def back(session: WorkerSession, now: float) -> list[wire.FromWorker]:
    """The connection was lost, and there is a new one; what is said before anything else."""
    session.hello(run="run", task="task", process=3, host="host", pid=11, now=now)
    (hello,) = session.take_outgoing()
    assert isinstance(hello, wire.Hello)
    assert hello.worker == 4, "it is the same worker"
    session.receive(WELCOME)
    session.claim(now)
    return session.take_outgoing()


def test_a_worker_that_is_back_claims_what_it_holds() -> None:
    session = holding(3, 4, 5)
    take(session, 0.0)
    session.take_outgoing()
    assert back(session, 9.0) == [wire.Held(1, 100, (3, 3), 2), wire.Heartbeat(3)]
    assert session.deadline == 60.0, "until it is answered"
    session.receive(wire.Acknowledged(2, 1, False))
    assert session.deadline == 69.0
    session.receive(wire.Alive(3))
    assert session.holds


def test_what_may_not_have_been_heard_is_said_again() -> None:
    session = holding(3, 4)
    for failure in (None, FAILURE):
        session.block_done(take(session, 0.0), failure, 1.0, 1.0, asks=True)
    said = reports(session)
    assert [report.upto for report in said][-1] == 2
    again = back(session, 9.0)
    (held,) = [message for message in again if isinstance(message, wire.Held)]
    assert held == wire.Held(1, 100, (3, 2), held.number)
    repeated = [message for message in again if isinstance(message, wire.Report) and message.lease]
    assert [(report.upto, report.microseconds, report.failure) for report in repeated] == [
        (report.upto, report.microseconds, report.failure) for report in said if report.lease
    ]
    assert not any(report.asks for report in repeated)
    asks = [message for message in again if isinstance(message, wire.Report) and message.asks]
    assert [(report.lease, report.upto) for report in asks] == [(0, 0)], "it had asked, and asks again"


def test_what_was_answered_is_not_said_again() -> None:
    session = holding(3)
    session.block_done(take(session, 0.0), None, 1.0, 1.0, asks=False)
    (report,) = reports(session)
    session.receive(wire.Acknowledged(report.number, 1, False))
    assert [type(message) for message in back(session, 9.0)] == [wire.Heartbeat]


def test_a_worker_that_ends_does_not_ask_when_it_is_back() -> None:
    session = asked()
    session.drain()
    assert [type(message) for message in back(session, 9.0)] == [wire.Heartbeat]


def test_a_lease_that_is_refused_is_dropped_and_its_block_overtaken() -> None:
    session = holding(3, 4)
    take(session, 0.0)
    held = back(session, 9.0)[0]
    assert isinstance(held, wire.Held)
    session.receive(wire.Acknowledged(held.number, 1, True))
    assert session.overtaken
    assert not session.holds
    assert session.deadline == 60.0, "a refusal renews nothing"


def test_a_worker_that_is_back_belongs_to_the_same_task() -> None:
    session = joined()
    session.hello(run="run", task="task", process=3, host="host", pid=11, now=9.0)
    with pytest.raises(RemoteProtocolError, match="a Welcome to another task"):
        session.receive(wire.Welcome(5, WELCOME.axes, WELCOME.total, WELCOME.lease_microseconds, None, False))


def test_what_the_driver_leaves_unanswered_is_counted_from_when_it_was_sent() -> None:
    session = WorkerSession()
    assert not session.welcomed
    session.hello(run="run", task="task", process=None, host="host", pid=1, now=1.0)
    assert (session.unanswered_for(3.0), session.welcomed) == (2.0, False)
    session.receive(WELCOME)
    assert (session.unanswered_for(9.0), session.welcomed) == (0.0, True)
    session.heartbeat(10.0)
    session.heartbeat(20.0)
    assert session.unanswered_for(25.0) == 15.0
    session.receive(wire.Alive(1))
    assert session.unanswered_for(25.0) == 5.0


def test_a_worker_that_cannot_begin_says_why() -> None:
    session = joined()
    session.unable(FailureText(error="OSError: no", traceback="Traceback", where="x" * 300))
    assert session.take_outgoing() == [wire.Unable("OSError: no", "Traceback", "x" * 255)]


def test_arrays_that_are_returned_are_told_of_once() -> None:
    session = joined()
    session.remark_on_arrays()
    session.remark_on_arrays()
    assert session.take_outgoing() == [wire.ArraysReturned()]


def test_counts_of_stored_chunks_go_with_the_report() -> None:
    session = holding(1, 2)
    for now, stored in ((1.0, 4), (2.0, 0)):
        session.block_done(take(session, now), None, 0.5, now, asks=False, stored=stored)
    counts = [count for report in reports(session) for count in wire.unpack_stored(report.stored)]
    assert counts == [4, 0]
