"""What does a worker process do? The product's own session, driven as :mod:`blockflow.net.link` drives it.

Two threads are played: the caller, which takes blocks and runs them, and the second thread, which receives, sends
heartbeats, and ends the process when a block takes too long or is not its own any more. Only time, the socket and the
block itself are simulated. A process that stands still (SIGSTOP, a frozen node) does nothing at all; what arrives
meanwhile waits, and when it goes on its second thread looks at the clock first.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from blockflow.errors import RemoteProtocolError
from blockflow.net.link import CONNECT_SECONDS, EXIT_FENCED, EXIT_TIMEOUT, PART_SECONDS
from blockflow.testing.simulation.facts import Execution, Grant
from blockflow.testing.simulation.judge import BrokenPromise
from blockflow.wire.failures import FailureText
from blockflow.wire.framing import FrameReader, frame
from blockflow.wire.messages import LARGEST_MESSAGE, Granted, decode_from_driver, encode
from blockflow.wire.session import Given, HeldLease, WorkerSession

if TYPE_CHECKING:
    from collections.abc import Callable

    from blockflow.testing.simulation.cluster import Cluster
    from blockflow.testing.simulation.network import Connection

_FAILED = FailureText(error="ValueError: simulated", traceback="", where="simulated.py:1")
_LATE = FailureText(error="TimeoutError: simulated", traceback="", where="")

_LOOK_SECONDS = 1.0
"""How often the second thread looks at the clock at least."""


class Worker:
    """One worker process.

    Args:
        cluster: Where it runs.
        number: Its process id.
        task: The task it works for.
        process: Number of the slot that the driver started; None for one that was started by hand.
        host: Where it runs.
        rate: Seconds of its clock per second.
    """

    def __init__(
        self, cluster: Cluster, number: int, *, task: int, process: int | None, host: str, rate: float
    ) -> None:
        self.cluster = cluster
        self.number = number
        self.task = task
        self.process = process
        self.host = host
        self._rate = rate
        self.alive = True
        self.paused = False
        self.bad = False
        """Every block fails here."""
        self.disturbed = False
        """Something has happened to it that may keep it from talking with the driver."""
        self.connection: Connection | None = None
        self.execution: Execution | None = None
        """What it works on."""
        self.session = WorkerSession()
        self._frames = FrameReader(LARGEST_MESSAGE)
        self._ghosts: dict[HeldLease, Grant] = {}
        self._unread: list[bytes | None] = []
        """What has arrived and was not received yet; None for the end."""
        self._deferred: list[Callable[[], None]] = []
        """What would have happened while it stood still."""
        self._current: tuple[Given, float] | None = None
        self._lost = False
        self._closed = False
        self._leaving = False
        """It takes no more blocks."""
        self._waiting = False
        """The caller waits for something to change."""
        self._next_heartbeat = 0.0
        self._looked = 0.0
        """When the second thread looked at the clock last."""
        self._timer = 0
        """Number of the timer of the second thread that counts."""
        self._block_timer = 0
        self._block_ends = 0.0
        """When the block under way ends, in right time, if the process does not stand still."""

    def now(self) -> float:
        """The time on the clock of this process."""
        return 1000.0 * self.number + self.cluster.agenda.now * self._rate

    def _later(self, seconds: float, thing: Callable[[], None]) -> None:
        """Let something happen in this process, after seconds of its own clock."""

        def happens() -> None:
            if not self.alive:
                return
            if self.paused:
                self._deferred.append(thing)
            else:
                thing()

        self.cluster.agenda.after(max(0.0, seconds) / self._rate, happens)

    # -------------------------------------------------------------------------------------------- what strikes it

    def crash(self) -> None:
        """Die at once."""
        self.exit(-9, "killed")

    def pause(self) -> None:
        """Stand still."""
        self.paused = True
        if self.execution is not None:
            self._block_ends -= self.cluster.agenda.now
            self._block_timer += 1
            self.cluster.judge.stands_still(self.execution)

    def resume(self) -> None:
        """Go on as if nothing had happened."""
        if not (self.alive and self.paused):
            return
        self.paused = False
        interrupted = self.execution
        deferred, self._deferred = self._deferred, []
        if self.connection is not None and self.session.welcome is not None and not self._closed:
            self._look()
        if interrupted is not None and self.execution is interrupted:
            self.cluster.judge.goes_on(interrupted)
            self._block_ends += self.cluster.agenda.now
            self._set_block_timer()
        for thing in deferred:
            if self.alive and not self.paused:
                thing()
            elif self.alive:
                self._deferred.append(thing)

    def asked_to_end(self, grace: float) -> None:
        """SIGTERM: finish the block if there is time, else give it back unharmed; then leave. SIGKILL follows."""
        self.cluster.agenda.after(grace + 1.0, self.crash)
        if not self.alive or self.paused or self._closed:
            return
        if self.session.welcome is None:
            self.exit(-15, "killed")
        elif self.execution is None:
            self._close("preempted")
        elif self._block_ends - self.cluster.agenda.now <= grace:
            self._leaving = True
        else:
            self.cluster.judge.ends(self.execution, "aborted")
            self.execution, self._current = None, None
            self._block_timer += 1
            self._close("preempted")

    def exit(self, code: int, outcome: str = "aborted") -> None:
        """The process ends."""
        if not self.alive:
            return
        self.alive = False
        if self.execution is not None:
            self.cluster.judge.ends(self.execution, outcome)
            self.execution = None
        if self.connection is not None:
            self.connection.up.end(lose=code < 0 and self.cluster.chance(0.5))
        self.cluster.process_ended(self, code)

    # ------------------------------------------------------------------------------------------------- joining

    def start(self) -> None:
        """Connect to the driver."""
        self._later(self.cluster.spread(0.05), self._connect)

    def _connect(self) -> None:
        self.connection = self.cluster.connect(self)
        if self.connection is None:
            self.exit(0 if self.cluster.run_is_over else 1)
            return
        self.session.hello(
            run=self.cluster.run,
            task=self.cluster.task_id(self.task),
            process=self.process,
            host=self.host,
            pid=self.number,
            now=self.now(),
        )
        self._flush()
        self._later(CONNECT_SECONDS, lambda: self.exit(1) if self.session.welcome is None else None)

    def arrived(self, connection: Connection, data: bytes | None) -> None:
        """Bytes have come; None for the end."""
        if not self.alive or self._step():
            return
        self._unread.append(data)
        if self.paused:
            return
        if self._closed:
            self._part(data)
        elif self.session.welcome is not None:
            self._look()
        else:
            self._join()

    def ended(self, connection: Connection) -> None:
        """No more bytes will come."""
        self.arrived(connection, None)

    def _join(self) -> None:
        """Take in the answer to Hello."""
        self._receive()
        if self._lost or self.session.refused is not None:
            self.exit(0 if self.cluster.run_is_over else 1)
        elif self.session.welcome is not None:
            self._next_heartbeat = self.now() + self.session.heartbeat_seconds
            self._look()
            self._next_block()

    # ------------------------------------------------------------------------------------------ the second thread

    def _look(self) -> None:
        """One turn of the second thread."""
        now = self._looked = self.now()
        self._receive()
        if now >= self._next_heartbeat:
            self.session.heartbeat(now)
            self._next_heartbeat = now + self.session.heartbeat_seconds
        self._flush()
        if not self._watch(now):
            return
        self._set_timer()
        if self._waiting:
            self._waiting = False
            self._next_block()

    def _set_timer(self) -> None:
        """Wake the second thread when it has something to do; turns in which nothing can happen are left out."""
        due = self._next_heartbeat
        if self.session.holds and self.session.deadline is not None:
            due = min(due, self._turn_after(self.session.deadline, _LOOK_SECONDS))
        timeout = self._timeout
        if timeout is not None and self._current is not None:
            often = max(0.01, min(timeout / 10, 1.0))
            due = min(due, self._turn_after(self._current[1] + timeout, often))
        self._timer += 1
        timer = self._timer
        self._later(due - self.now() + 1e-6, lambda: self._look() if timer == self._timer and not self._closed else None)

    def _turn_after(self, time: float, seconds: float) -> float:
        """The first turn of the second thread after a time."""
        return self._looked + max(1, ceil((time - self._looked) / seconds)) * seconds

    def _watch(self, now: float) -> bool:
        """End the process when a block takes too long, or is not its own any more; whether it goes on."""
        timeout = self._timeout
        if timeout is not None and self._current is not None and now - self._current[1] > timeout:
            given, began = self._current
            assert self.execution is not None
            self.cluster.judge.ends(self.execution, "failed")
            self.execution, self._current = None, None
            self.session.block_done(given, _LATE, now - began, now, asks=False)
            self.session.goodbye("a block took too long", now)
            self._flush()
            self.exit(EXIT_TIMEOUT)
            return False
        deadline = self.session.deadline
        if deadline is not None and now > deadline and self.session.holds:
            self.cluster.fenced(self)
            self.exit(EXIT_FENCED)
            return False
        return True

    @property
    def _timeout(self) -> float | None:
        welcome = self.session.welcome
        return None if welcome is None or welcome.timeout_microseconds is None else welcome.timeout_microseconds / 1e6

    def _receive(self) -> None:
        assert self.connection is not None
        while self._unread and not self._lost:
            data = self._unread.pop(0)
            if data is None:
                self._lost = True
                return
            try:
                for body in self._frames.feed(data):
                    self._take_in(body, self.connection.labels.popleft())
            except RemoteProtocolError as error:
                raise BrokenPromise("protocol", f"process {self.number} does not understand the driver: {error}") from error

    def _take_in(self, body: bytes, ghost: Grant | None) -> None:
        message = decode_from_driver(body)
        self.cluster.judge.hear("process", self.number, message, body)
        self.session.receive(message)
        if isinstance(message, Granted) and ghost is not None and self.session.holds:
            self._ghosts[self.session._leases[-1]] = ghost

    def _flush(self) -> None:
        assert self.connection is not None
        messages = self.session.take_outgoing()
        if messages and not self._lost:
            self.connection.up.send(b"".join(frame(encode(message)) for message in messages))

    # ------------------------------------------------------------------------------------------------ the caller

    def _next_block(self) -> None:
        """One turn of the caller while it has no block."""
        now = self.now()
        if not self._watch(now):
            return
        given = self.session.next_block(now) if not self._lost else None
        if given is not None:
            self._current = given, now
            self._flush()
            self._begin(given)
        elif self.session.finished or self._closed:
            self._close("")
        elif self._lost:
            self.exit(0 if self.cluster.run_is_over else 1)
        else:
            self.session.ask(now)
            self._flush()
            self._waiting = True
        self._step()

    def _begin(self, given: Given) -> None:
        key = (self.task, given.index)
        self.execution = Execution(key, self._ghosts[given.lease], self.number)
        self.cluster.judge.begins(self.execution)
        self._set_timer()
        nature = self.cluster.scenario.natures[key]
        nature.begun += 1
        seconds = nature.seconds * (0.5 + self.cluster.spread(0.5))
        self._block_ends = self.cluster.agenda.now + seconds
        if nature.kills:
            nature.kills -= 1
            self._later(seconds * self._rate / 2, lambda: self._poisoned(given))
        elif nature.hangs:
            nature.hangs -= 1
            self._block_ends = float("inf")
        else:
            self._set_block_timer()

    def _poisoned(self, given: Given) -> None:
        if self._current is not None and self._current[0] is given:
            self.cluster.count("poison")
            self.crash()

    def _set_block_timer(self) -> None:
        self._block_timer += 1
        timer = self._block_timer
        if self._block_ends < float("inf"):
            self._later(
                (self._block_ends - self.cluster.agenda.now) * self._rate,
                lambda: self._end() if timer == self._block_timer else None,
            )

    def _end(self) -> None:
        assert self.execution is not None
        assert self._current is not None
        given, began = self._current
        nature = self.cluster.scenario.natures[self.execution.key]
        fails = self.bad or nature.fails > 0
        nature.fails -= nature.fails > 0
        self.cluster.judge.ends(self.execution, "failed" if fails else "done")
        self.execution, self._current = None, None
        if self._step():
            return
        now = self.now()
        self.session.block_done(given, _FAILED if fails else None, now - began, now, asks=not self._leaving)
        self._flush()
        if self._step():
            return
        if self._leaving:
            self._close("preempted")
        else:
            self._next_block()

    def _close(self, reason: str) -> None:
        """Say goodbye and wait until the driver has closed the connection."""
        self._closed = True
        self.session.goodbye(reason, self.now())
        self._flush()
        if self._lost:
            self.exit(0)
        else:
            self._later(PART_SECONDS, lambda: self.exit(0))

    def _part(self, data: bytes | None) -> None:
        if data is None:
            self.exit(0)

    def _step(self) -> bool:
        """One of the moments in which a process may die; whether it did."""
        if self.alive and self.cluster.dies_now():
            self.crash()
        return not self.alive
