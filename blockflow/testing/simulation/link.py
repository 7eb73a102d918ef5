"""How does a worker talk with the driver? The product's own session, driven as :class:`blockflow.net.link.Link` does.

The second thread of a worker is played here, which receives, sends heartbeats, and ends the process when a block takes
too long or is not its own any more; and the third, which looks for the driver when the connection is lost.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from blockflow.errors import RemoteProtocolError
from blockflow.net.link import FIRST_WAIT, LONGEST_WAIT, PART_SECONDS
from blockflow.testing.simulation.judge import BrokenPromise
from blockflow.wire.failures import FailureText
from blockflow.wire.framing import FrameReader, frame
from blockflow.wire.messages import LARGEST_MESSAGE, Acknowledged, Granted, Report, decode_from_driver, encode
from blockflow.wire.session import WorkerSession

if TYPE_CHECKING:
    from blockflow.testing.simulation.facts import Grant
    from blockflow.testing.simulation.network import Connection
    from blockflow.testing.simulation.plans import Key
    from blockflow.testing.simulation.worker import Worker
    from blockflow.wire.held import Given, HeldLease

ANSWER_SECONDS = 10.0
"""How long the answer to Hello may take."""

_LOOK_SECONDS = 1.0
"""How often the second thread looks at the clock at least."""

_LATE_SECONDS = 0.2
"""How late it may be that the second thread looks at the clock when what is held is no more its own."""

_LATE = FailureText(error="TimeoutError: simulated", traceback="", where="")


class Line:
    """One connection, as the worker sees it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.frames = FrameReader(LARGEST_MESSAGE)
        self.unread: list[bytes | None] = []
        """What has arrived and was not received yet; None for the end."""

    def send(self, data: bytes) -> None:
        """Send bytes."""
        if data:
            self.connection.up.send(data)


class Link:
    """The connection of one worker process.

    Args:
        worker: The process.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._cluster = worker.cluster
        self.session = WorkerSession()
        self.line: Line | None = None
        """None while the connection is lost."""
        self.joining: Line | None = None
        """A connection on which the answer to Hello is waited for."""
        self.hopeless = False
        """There will be no connection any more."""
        self.over = False
        """The run has ended."""
        self.closed = False
        self.current: tuple[Given, float] | None = None
        """What the caller works on, and since when."""
        self.ghosts: dict[Key, Grant] = {}
        """By block: the ghost under which it was granted here last."""
        self.ghost_of: dict[HeldLease, Grant] = {}
        self._said: dict[int, tuple[Grant, list[int]]] = {}
        """By number of a report that was not answered: the blocks that it covers."""
        self._next_heartbeat = 0.0
        self._looked = 0.0
        """When the second thread looked at the clock last."""
        self._timer = 0
        """Number of the timer of the second thread that counts."""
        self._wait = FIRST_WAIT

    # --------------------------------------------------------------------------------------------------- joining

    def join(self) -> bool:
        """Connect and introduce the worker; whether somebody is there."""
        connection = self._cluster.connect(self._worker)
        if connection is None:
            return False
        worker = self._worker
        line = self.joining = Line(connection)
        self.session.hello(
            run=self._cluster.run,
            task=self._cluster.task_id(worker.task),
            process=worker.process,
            host=worker.host,
            pid=worker.pid,
            started=f"{worker.number}",
            now=worker.now(),
        )
        line.send(self._outgoing())
        worker.later(ANSWER_SECONDS, lambda: self._not_joined() if self.joining is line else None)
        return True

    def _hear_answer(self, line: Line) -> None:
        """Take in what comes while the answer to Hello is waited for."""
        while line.unread and self.joining is line:
            data = line.unread.pop(0)
            if data is None:
                self._not_joined()
                return
            for body in line.frames.feed(data):
                self._take_in(line, body)
                if self.session.refused is not None:
                    self._not_joined()
                    return
                if self.session.welcomed:
                    self.joining = None
                    break
        if self.joining is None and not (self.closed or self.line):
            self._joined(line)

    def _joined(self, line: Line) -> None:
        first, self.line = self._next_heartbeat == 0.0, line
        if first:
            self._next_heartbeat = self._worker.now() + self.session.heartbeat_seconds
        else:
            self._wait = FIRST_WAIT
            self.session.claim(self._worker.now())
            self._flush()
        self.look()
        if first and self._worker.alive:
            self._worker.next_block()

    def _not_joined(self) -> None:
        assert self.joining is not None
        self.joining.connection.up.end(lose=False)
        self.joining = None
        if self.session.welcome is None:
            self._worker.exit(0 if self._cluster.run_is_over else 1)
        else:
            self._search_later()

    def _search_later(self) -> None:
        seconds = self._wait * (1.0 + self._cluster.spread(1.0))
        self._wait = min(2 * self._wait, LONGEST_WAIT)
        self._worker.later(seconds, self._search)

    def _search(self) -> None:
        """One turn of the third thread: look for the driver."""
        if self.closed or self.line is not None:
            return
        deadline = self.session.deadline
        self.over = self._cluster.run_is_over
        self.hopeless = deadline is None or self._worker.now() > deadline
        if self.over or self.hopeless:
            self.look()
        elif not self.join():
            self._search_later()

    # -------------------------------------------------------------------------------------------- what arrives

    def arrived(self, connection: Connection, data: bytes | None) -> None:
        """Bytes have come; None for the end."""
        for line in (self.line, self.joining):
            if line is not None and line.connection is connection:
                line.unread.append(data)
                if not self._worker.paused:
                    self.read(line)

    def read(self, line: Line) -> None:
        """Take in what a connection has brought."""
        if self.closed:
            if None in line.unread and not self._worker.ending:
                self._worker.exit(0)
        elif line is self.joining:
            self._hear_answer(line)
        else:
            self.look()

    def wake(self) -> None:
        """The process goes on after it stood still: look at the clock, then at what has come."""
        for line in (self.joining, self.line):
            if line is not None and self._worker.alive:
                self.read(line)
        if self._worker.alive and self.session.welcome is not None and not self.closed:
            self.look()

    def _bodies(self, line: Line, data: bytes) -> list[bytes]:
        try:
            return list(line.frames.feed(data))
        except RemoteProtocolError as error:
            raise self._strange(error) from error

    def _take_in(self, line: Line, body: bytes) -> None:
        ghost = line.connection.labels.popleft()
        message = decode_from_driver(body)
        self._cluster.judge.hear("process", self._worker.number, message, body)
        try:
            self.session.receive(message)
        except RemoteProtocolError as error:
            raise self._strange(error) from error
        if isinstance(message, Granted) and ghost is not None:
            for lease in self.session._leases:
                if lease.number == message.lease:
                    self.ghost_of[lease] = ghost
            self.ghosts.update(((ghost.task, index), ghost) for index in ghost.indices)
        elif isinstance(message, Acknowledged):
            said = self._said.pop(message.number, None)
            if said is not None and not message.stale:
                self._cluster.judge.acknowledged(*said)

    def _strange(self, error: RemoteProtocolError) -> BrokenPromise:
        return BrokenPromise("protocol", f"process {self._worker.number} does not understand the driver: {error}")

    def _receive(self) -> None:
        line = self.line
        while line is not None and line.unread:
            data = line.unread.pop(0)
            if data is None:
                self._lose()
                return
            for body in self._bodies(line, data):
                self._take_in(line, body)

    def _lose(self) -> None:
        """The connection is gone; work goes on, and the driver is looked for."""
        assert self.line is not None
        self.line.connection.up.end(lose=False)
        self.line = None
        if not self.closed:
            self._wait = FIRST_WAIT
            self._worker.later(0.0, self._search)

    def _outgoing(self) -> bytes:
        messages = self.session.take_outgoing()
        for message in messages:
            if isinstance(message, Report) and message.lease:
                ghost = next(ghost for lease, ghost in self.ghost_of.items() if lease.number == message.lease)
                self._said[message.number] = ghost, ghost.indices[: message.upto]
        return b"".join(frame(encode(message)) for message in messages)

    def _flush(self) -> None:
        data = self._outgoing()
        if self.line is not None:
            self.line.send(data)

    def flush(self) -> None:
        """Send what the session wants sent."""
        self._flush()

    # ------------------------------------------------------------------------------------------ the second thread

    def look(self) -> None:
        """One turn of the second thread."""
        now = self._looked = self._worker.now()
        if not self.watch(now):  # first: an answer that comes too late must not revive what is not ours any more
            return
        self._receive()
        self._notice_silence(now)
        if self.line is not None and now >= self._next_heartbeat:
            self.session.heartbeat(now)
            self._next_heartbeat = now + self.session.heartbeat_seconds
        self._flush()
        if self.watch(now):
            self.set_timer()
            self._worker.changed()

    def _notice_silence(self, now: float) -> None:
        """Try a new connection when nothing is answered."""
        welcome = self.session.welcome
        watched = welcome is None or welcome.watched
        if self.line is not None and not watched and self.session.unanswered_for(now) > self.session.lease_seconds / 2:
            self._cluster.unanswered(self._worker)
            self._lose()

    def set_timer(self) -> None:
        """Wake the second thread when it has something to do; turns in which nothing can happen are left out."""
        due = self._next_heartbeat if self.line is not None else self._looked + self.session.heartbeat_seconds
        deadline = self.session.deadline
        if self.session.holds and deadline is not None:
            if deadline > self._looked:
                due = min(due, deadline + self._cluster.spread(_LATE_SECONDS))
            else:
                due = min(due, self._turn_after(self._looked, _LOOK_SECONDS))
        timeout = self._timeout
        if timeout is not None and self.current is not None:
            due = min(due, self._turn_after(self.current[1] + timeout, max(0.01, min(timeout / 10, _LOOK_SECONDS))))
        self._timer += 1
        timer = self._timer
        seconds = due - self._worker.now() + 1e-6
        self._worker.later(seconds, lambda: self.look() if timer == self._timer and not self.closed else None)

    def _turn_after(self, time: float, seconds: float) -> float:
        """The first turn of the second thread after a time."""
        return self._looked + max(1, ceil((time - self._looked) / seconds)) * seconds

    def watch(self, now: float) -> bool:
        """End the process when a block is not its own any more, or takes too long; whether it goes on."""
        deadline = self.session.deadline
        late = deadline is not None and now > deadline and self.session.holds and self._on_its_own()
        if late or self.session.overtaken or (self.over and self.current is not None):
            self._worker.fenced(late=late)
            return False
        timeout = self._timeout
        if timeout is not None and self.current is not None and now - self.current[1] > timeout:
            self._worker.timed_out()
            return False
        return True

    def _on_its_own(self) -> bool:
        """Whether nobody would notice the end of this process, so that its deadline counts."""
        self._receive()
        deadline = self.session.deadline
        unseen = self.line is None or not self.session.watched
        return unseen and deadline is not None and self._worker.now() > deadline

    @property
    def _timeout(self) -> float | None:
        welcome = self.session.welcome
        return None if welcome is None or welcome.timeout_microseconds is None else welcome.timeout_microseconds / 1e6

    # --------------------------------------------------------------------------------------------------- leaving

    def end_under_way(self, reason: str, *, blames: bool) -> None:
        """Say that the process ends in the middle of a block; with `blames` because that has taken too long."""
        assert self.current is not None
        self.closed = True
        failed = (self.current[0], _LATE) if blames else None
        self.session.goodbye(reason, self._worker.now(), under_way=True, failed=failed)
        self._flush()

    def close(self, reason: str) -> None:
        """Say goodbye, and wait until the driver has closed the connection."""
        self.closed = True
        self.session.goodbye(reason, self._worker.now())
        self._flush()
        if self.line is None:
            self._worker.exit(0)
        else:
            self._worker.later(PART_SECONDS, lambda: self._worker.exit(0))
