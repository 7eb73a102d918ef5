"""The worker's side of the conversation: which block comes next, what has to be said, and until when may it work?

The session holds no socket and reads no clock. Its owner feeds it with messages and times, takes blocks from it, and
sends what it wants sent:

1. a lease is worked off in order; what is done is reported when the lease ends, when a block failed, and otherwise
   every 50 ms, so that blocks downstream start early;
2. where a lease has several (short) blocks, the next one is asked for when half of them are done, so that the round
   trip is hidden; a lease of a single block is followed by a request when it is done, so that no block waits here
   while another worker is idle;
3. everything a worker holds is its own until `lease_seconds` after it *sent* the last message that was answered.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, assert_never

from msgspec import structs

from blockflow.errors import GeometryError, LocalProtocolError, RemoteProtocolError
from blockflow.wire.failures import LONGEST_ERROR, LONGEST_WHERE
from blockflow.wire.held import Given, HeldLease
from blockflow.wire.messages import (
    PROTOCOL,
    Acknowledged,
    Alive,
    ArraysReturned,
    Failure,
    Finished,
    FromDriver,
    FromWorker,
    Goodbye,
    Granted,
    Heartbeat,
    Held,
    Hello,
    Recalled,
    Refused,
    Report,
    Returned,
    Scaled,
    Unable,
    Welcome,
    grid_of,
    pack_runs,
    pack_stored,
    unpack_runs,
)

if TYPE_CHECKING:
    from blockflow.geometry import Box
    from blockflow.plan.grid import Grid
    from blockflow.wire.failures import FailureText

REPORT_SECONDS = 0.05
"""A worker that has something to report does so at least this often."""

HEARTBEATS_PER_LEASE = 6
"""A lease survives the loss of five heartbeats in a row."""

NO_LEASE = 0


class WorkerSession:
    """One worker's conversation with the driver, from Hello to Goodbye."""

    def __init__(self) -> None:
        self.welcome: Welcome | None = None
        self.grid: Grid | None = None
        self.total: Box = ()
        self.refused: str | None = None
        """Why the driver does not want this worker."""
        self.finished = False
        """Nothing more is taken, because the driver has nothing for this worker, or because it ends."""
        self.dismissed = False
        """The driver has said so."""
        self.deadline: float | None = None
        """After this time the worker holds nothing any more; None before it has been welcomed."""
        self.overtaken = False
        """A block that it is still at work on is not its own any more."""
        self._shortened = False
        """A lease has lost blocks, so that its last one may be done already."""
        self._leases: deque[HeldLease] = deque()
        """Those that have blocks which are not reported."""
        self._unanswered: dict[int, tuple[HeldLease, Report]] = {}
        """By number: reports of blocks that were not answered, oldest first."""
        self._outgoing: list[FromWorker] = []
        self._asked = False
        self._remarked = False
        self._sent_at: dict[int, float] = {}
        self._number = 0
        self._last_report = float("-inf")

    # ------------------------------------------------------------------------------------------------ outgoing

    def hello(
        self,
        *,
        run: str,
        task: str,
        process: int | None,
        host: str,
        pid: int,
        started: str = "",
        code: str = "",
        now: float,
    ) -> None:
        """Introduce the worker on a new connection; again, if the one before was lost."""
        worker = None if self.welcome is None else self.welcome.worker
        self._sent_at = {0: now}
        self._outgoing = [Hello(PROTOCOL, run, task, process, host[:255], pid, worker, started, code)]

    def claim(self, now: float) -> None:
        """Say what is held, when the worker is welcome again, and repeat what may not have been heard.

        The deadline moves with the answers.
        """
        held = [lease for lease, _ in self._unanswered.values()]
        for lease in sorted({id(lease): lease for lease in (*held, *self._leases)}.values(), key=_lease_number):
            claim = Held(lease.number, lease.attempt, pack_runs(lease.indices), self._numbered(now))
            self._outgoing.append(claim)
        unanswered, self._unanswered = self._unanswered, {}
        for lease, report in unanswered.values():
            self._send_report(lease, structs.replace(report, asks=False, number=self._numbered(now)))
        if self._asked and not self.finished:
            self._outgoing.append(Report(NO_LEASE, 0, 0, None, True, self._numbered(now)))
        self._outgoing.append(Heartbeat(self._numbered(now)))

    def ask(self, now: float) -> None:
        """Ask for a lease, unless that was done already or is of no use."""
        if not (self._asked or self.finished):
            self._report(None, now, asks=True)

    def heartbeat(self, now: float) -> None:
        """Say that the worker is alive."""
        self._report_shortened(now)
        self._outgoing.append(Heartbeat(self._numbered(now)))

    def drain(self) -> None:
        """Take nothing more, and give back what is not started."""
        self.finished = True
        for lease in list(self._leases):
            self._give_back(lease)

    def goodbye(
        self, reason: str, now: float, *, under_way: bool = False, failed: tuple[Given, FailureText] | None = None
    ) -> None:
        """Report what is done, give back what is not started, and leave.

        Args:
            reason: In words.
            now: The time.
            under_way: The process ends in the middle of blocks; others can have them when its connection has ended.
            failed: Which of them is to blame for that, and why; it has failed when the connection has ended.
        """
        for lease in list(self._leases):
            self._give_back(lease)
            self._report_progress(lease, now, asks=False)
        self._leases.clear()
        self.finished = True
        failure = None if failed is None else _failure(failed[0].index, failed[1])
        self._outgoing.append(Goodbye(reason[:LONGEST_ERROR], under_way, failure))

    def unable(self, why: FailureText) -> None:
        """Say that the worker cannot begin."""
        self._outgoing.append(Unable(why.error, why.traceback, why.where[-LONGEST_WHERE:]))

    def remark_on_arrays(self) -> None:
        """Say once that the task's function returns arrays, and nothing is done with them."""
        if not self._remarked:
            self._remarked = True
            self._outgoing.append(ArraysReturned())

    def take_outgoing(self) -> list[FromWorker]:
        """What has to be sent now, in this order."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    @property
    def has_outgoing(self) -> bool:
        """Whether anything has to be sent now."""
        return bool(self._outgoing)

    # ------------------------------------------------------------------------------------------------ incoming

    def receive(self, message: FromDriver) -> None:
        """Take in a message of the driver.

        Raises:
            RemoteProtocolError: It cannot be meant for this worker now.
        """
        if self.welcome is None and not isinstance(message, Welcome | Refused):
            raise RemoteProtocolError(f"{type(message).__name__} before the handshake was over")
        match message:
            case Welcome():
                self._welcomed(message)
            case Refused():
                self.refused = message.reason
            case Granted():
                self._granted(message)
            case Acknowledged():
                self._acknowledged(message)
            case Alive():
                self._answered(message.number)
                self._allow(message.timeout_microseconds)
            case Recalled():
                for lease in list(self._leases):
                    if lease.number == message.lease:
                        self._give_back(lease)
            case Finished():
                self.dismissed = True
                self.drain()
            case Scaled():
                raise RemoteProtocolError("Scaled is no answer to a worker")
            case _:
                assert_never(message)

    @property
    def welcomed(self) -> bool:
        """Whether the driver has answered the last Hello."""
        return self.welcome is not None and 0 not in self._sent_at

    @property
    def watched(self) -> bool:
        """Whether the driver notices by itself when this process dies."""
        return self.welcome is not None and self.welcome.watched

    def unanswered_for(self, now: float) -> float:
        """For how many seconds the driver has left something unanswered that asks for an answer."""
        return now - min(self._sent_at.values(), default=now)

    @property
    def heartbeat_seconds(self) -> float:
        """How often a heartbeat is due."""
        return self.lease_seconds / HEARTBEATS_PER_LEASE

    @property
    def lease_seconds(self) -> float:
        """How long blocks are the worker's own after an answered message."""
        if self.welcome is None:
            raise LocalProtocolError("the driver has not welcomed this worker yet")
        return self.welcome.lease_microseconds / 1e6

    def timeout_of(self, given: Given | None) -> float | None:
        """How many seconds a block may take, or, without one, any block; None for no limit."""
        if given is not None and given.lease.timeout is not None:
            return given.lease.timeout
        return None if self.welcome is None else _seconds(self.welcome.timeout_microseconds)

    # --------------------------------------------------------------------------------------------------- blocks

    def next_block(self, now: float) -> Given | None:
        """The next block to work on; None if none is here.

        A further lease is asked for in time.
        """
        if self._shortened:
            self._report_shortened(now)
        for lease in self._leases:
            if lease.started < len(lease.indices):
                position = lease.started
                lease.started += 1
                several = len(lease.indices) > 1
                if several and 2 * lease.started > len(lease.indices) and lease is self._leases[-1] and not self._asked:
                    self._report_progress(lease, now, asks=True)
                return Given(lease, position, lease.indices[position], lease.attempt + position)
        return None

    def block_done(
        self,
        given: Given,
        failure: FailureText | None,
        seconds: float,
        now: float,
        *,
        asks: bool,
        stored: int | None = None,
    ) -> None:
        """Note that the user's code is done with a block.

        Args:
            given: The block.
            failure: What went wrong; None for success.
            seconds: How long it took.
            now: The time.
            asks: Ask for more if this was the last block here.
            stored: How many chunks it has stored, -1 if unknown; None if they are not counted.
        """
        lease = given.lease
        if not lease.done <= given.position < lease.started or given.position in lease.ended:
            raise LocalProtocolError(f"block {given.position} of lease {lease.number} is done, but not under way")
        if given.position > lease.done:
            lease.ended[given.position] = failure, seconds, stored
            return
        self._count(lease, failure, seconds, stored, now, asks=asks)
        while lease.done in lease.ended:
            self._count(lease, *lease.ended.pop(lease.done), now, asks=asks)

    def _count(
        self,
        lease: HeldLease,
        failure: FailureText | None,
        seconds: float,
        stored: int | None,
        now: float,
        *,
        asks: bool,
    ) -> None:
        """Count the first block of a lease that was not counted, and report it if it is time to."""
        if failure is not None:
            lease.failure = _failure(lease.indices[lease.done], failure)
        lease.done += 1
        lease.seconds += seconds
        if stored is not None:
            lease.stored.append(stored)
        last = lease.done == len(lease.indices)
        if last or failure is not None or now - self._last_report >= REPORT_SECONDS:
            more = any(held.started < len(held.indices) for held in self._leases)
            useful = last and not (more or self._asked or self.finished)
            self._report_progress(lease, now, asks=asks and useful)

    @property
    def holds(self) -> bool:
        """Whether the worker holds any lease."""
        return bool(self._leases)

    # ------------------------------------------------------------------------------------------------- internals

    def _welcomed(self, message: Welcome) -> None:
        if 0 not in self._sent_at:
            raise RemoteProtocolError("a Welcome that nobody asked for")
        if self.welcome is not None:
            if _layout(message) != _layout(self.welcome):
                raise RemoteProtocolError("a Welcome to another task")
            del self._sent_at[0]
            self.welcome = message
            return
        try:
            grid = grid_of(message.axes)
        except GeometryError as error:
            raise RemoteProtocolError(f"a Welcome that describes no grid: {error}") from None
        if len(message.axes) != len(message.total):
            raise RemoteProtocolError("a Welcome that describes no grid: it has other axes than the total ROI")
        self.welcome = message
        self.grid = grid
        self.total = message.total
        self.deadline = self._sent_at.pop(0) + self.lease_seconds

    def _acknowledged(self, message: Acknowledged) -> None:
        self._answered(message.number, renews=not message.stale or not message.lease)
        self._unanswered.pop(message.number, None)
        if message.stale:
            lost = [lease for lease in self._leases if lease.number == message.lease]
            self.overtaken = self.overtaken or any(lease.started > lease.done for lease in lost)
            self._leases = deque(lease for lease in self._leases if lease.number != message.lease)

    def _granted(self, message: Granted) -> None:
        assert self.grid is not None
        if not self._asked:
            raise RemoteProtocolError("a lease that nobody asked for")
        indices = unpack_runs(message.runs, self.grid.size)
        if not indices:
            raise RemoteProtocolError("a lease without blocks")
        self._asked = False
        lease = HeldLease(message.lease, message.attempt, indices, _seconds(message.timeout_microseconds))
        self._leases.append(lease)
        if self.finished:
            self._give_back(lease)

    def _allow(self, microseconds: int | None) -> None:
        """Let blocks take longer than was said when they were granted, because others do."""
        if microseconds is not None:
            for lease in self._leases:
                lease.timeout = max(microseconds / 1e6, lease.timeout or 0.0)

    def _answered(self, number: int, *, renews: bool = True) -> None:
        sent = self._sent_at.pop(number, None)
        if sent is None:
            raise RemoteProtocolError(f"an answer to message {number}, which was answered before or never sent")
        assert self.deadline is not None
        if renews:
            self.deadline = max(self.deadline, sent + self.lease_seconds)

    def _give_back(self, lease: HeldLease) -> None:
        """Return the blocks that are not started; what is left of the lease ends with its last report."""
        if lease.started < len(lease.indices):
            self._outgoing.append(Returned(lease.number, lease.started))
            del lease.indices[lease.started :]
            self._shortened = True
        if lease.reported == len(lease.indices):
            self._leases.remove(lease)

    def _report_shortened(self, now: float) -> None:
        """Report leases whose last block was done before a recall made it the last one."""
        self._shortened = False
        for lease in list(self._leases):
            if lease.done == len(lease.indices):
                self._report(lease, now, asks=False)

    def _report_progress(self, lease: HeldLease, now: float, *, asks: bool) -> None:
        news = lease.done > lease.reported and lease in self._leases
        if news or asks:
            self._report(lease if news else None, now, asks=asks)

    def _report(self, lease: HeldLease | None, now: float, *, asks: bool) -> None:
        self._asked = self._asked or asks
        number = self._numbered(now)
        if lease is None:
            self._outgoing.append(Report(NO_LEASE, 0, 0, None, asks, number))
            return
        self._last_report = now
        microseconds = round(lease.seconds * 1e6)
        stored = pack_stored(lease.stored)
        self._send_report(lease, Report(lease.number, lease.done, microseconds, lease.failure, asks, number, stored))
        lease.reported = lease.done
        lease.seconds = 0.0
        lease.stored = []
        lease.failure = None
        if lease.done == len(lease.indices):
            self._leases.remove(lease)

    def _send_report(self, lease: HeldLease, report: Report) -> None:
        self._unanswered[report.number] = lease, report
        self._outgoing.append(report)

    def _numbered(self, now: float) -> int:
        self._number += 1
        self._sent_at[self._number] = now
        return self._number


def _failure(index: int, text: FailureText) -> Failure:
    return Failure(
        index, text.error, text.traceback, text.where[-LONGEST_WHERE:], text.kind, text.disk[-LONGEST_WHERE:]
    )


def _seconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1e6


def _lease_number(lease: HeldLease) -> int:
    return lease.number


def _layout(welcome: Welcome) -> tuple[object, ...]:
    return welcome.worker, welcome.axes, welcome.total
