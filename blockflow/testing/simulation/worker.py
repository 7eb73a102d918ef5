"""What does a worker process do? It takes blocks, and runs them for some virtual time.

A process that stands still (SIGSTOP, a frozen node) does nothing at all; what arrives meanwhile waits, and when it goes
on its second thread looks at the clock first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockflow.net.link import EXIT_FENCED, EXIT_TIMEOUT, RUN_SECONDS
from blockflow.scheduler.leases import server_seconds
from blockflow.testing.simulation.facts import Execution
from blockflow.testing.simulation.link import Link
from blockflow.wire.failures import FailureText

if TYPE_CHECKING:
    from collections.abc import Callable

    from blockflow.testing.simulation.cluster import Cluster
    from blockflow.testing.simulation.network import Connection
    from blockflow.wire.held import Given

_PROMPT_SECONDS = 5.0
"""How much longer than a lease it may take until the block of a process that stands still is taken back."""

_EXIT_SECONDS = 0.1
"""How long a process may take to end."""

_FAILED = FailureText(error="ValueError: simulated", traceback="", where="simulated.py:1")


class Worker:
    """One worker process.

    Args:
        cluster: Where it runs.
        number: Its process id.
        task: The task it works for.
        process: Number of the slot that the driver started; None for one that was started by hand.
        host: Where it runs.
        rate: Seconds of its clock per second.
        life: Which life of the driver started it.
    """

    def __init__(
        self,
        cluster: Cluster,
        number: int,
        *,
        task: int,
        process: int | None,
        host: str,
        pid: int,
        rate: float,
        life: int,
    ) -> None:
        self.cluster = cluster
        self.number = number
        self.pid = pid
        """Number of its process, which only one has at a time on a machine."""
        self.task = task
        self.process = process
        self.host = host
        self.life = life
        self._rate = rate
        self.alive = True
        self.paused = False
        self.bad = False
        """Every block fails here."""
        self.disturbed = False
        """Something has happened to it that may keep it from talking with the driver."""
        self.execution: Execution | None = None
        """What it works on."""
        self.link = Link(self)
        self._deferred: list[Callable[[], None]] = []
        """What would have happened while it stood still."""
        self.ending = False
        """It has said that it ends in the middle of a block."""
        self._last = 0, ""
        """With which code, and what becomes of the block."""
        self._leaving = False
        """It takes no more blocks."""
        self._waiting = False
        """The caller waits for something to change."""
        self._block_timer = 0
        self._block_ends = 0.0
        """When the block under way ends, in right time; while the process stands still, how long it still takes."""

    def now(self) -> float:
        """The time on the clock of this process."""
        return 1000.0 * self.number + self.cluster.agenda.now * self._rate

    def later(self, seconds: float, thing: Callable[[], None]) -> None:
        """Let something happen in this process, after seconds of its own clock."""

        def happens() -> None:
            if self.alive and self.paused:
                self._deferred.append(thing)
            elif self.alive:
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
            self._expect_its_block_to_be_taken_back(self.execution)

    def _expect_its_block_to_be_taken_back(self, execution: Execution) -> None:
        """A process that stands still for long keeps no block, if its driver is at work all the time."""
        cluster, timer, begun = self.cluster, self._block_timer, self.cluster.agenda.now

        def look() -> None:
            if self.alive and self.paused and timer == self._block_timer and cluster.driver.works_since <= begun:
                cluster.judge.kept_for_too_long(execution, cluster.agenda.now - begun)

        cluster.agenda.after(server_seconds(cluster.lease) + _PROMPT_SECONDS, look)

    def resume(self) -> None:
        """Go on as if nothing had happened."""
        if not (self.alive and self.paused):
            return
        self.paused = False
        if self.ending:
            self.exit(*self._last)
            return
        interrupted = self.execution
        deferred, self._deferred = self._deferred, []
        self.link.wake()
        if interrupted is not None and self.execution is interrupted:
            self.cluster.judge.goes_on(interrupted)
            self._block_ends += self.cluster.agenda.now
            if not self.ending:  # the first thing that it noticed may be that the block has taken too long
                self._set_block_timer()
        for thing in deferred:
            if self.alive:
                thing()

    def asked_to_end(self, grace: float) -> None:
        """SIGTERM: finish the block if there is time, else give it back unharmed; then leave. SIGKILL follows."""
        self.cluster.agenda.after(grace + 1.0, self.crash)
        if not self.alive or self.paused or self.link.closed:
            return
        if self.link.session.welcome is None:
            self.exit(-15, "killed")
        elif self.execution is None:
            self.link.close("preempted")
        elif self._block_ends - self.cluster.agenda.now <= grace:
            self._leaving = True
        else:
            self.link.end_under_way("preempted", blames=False)
            assert self.link.session.deadline is not None
            self._end_soon(0, "aborted", min(RUN_SECONDS, self.link.session.deadline - self.now()))

    def abandon(self, outcome: str) -> None:
        """The block under way is not worked on any more."""
        self._block_timer += 1
        self.link.current = None
        if self.execution is not None:
            self.cluster.judge.ends(self.execution, outcome)
            self.execution = None

    def timed_out(self) -> None:
        """A block has taken too long: the driver is told, and the process ends while C code may still be at work."""
        self.link.end_under_way("a block took too long", blames=True)
        self._end_soon(EXIT_TIMEOUT, "failed", _EXIT_SECONDS)

    def _end_soon(self, code: int, outcome: str, seconds: float) -> None:
        """The process ends before the block under way does."""
        self.ending = True
        self._block_timer += 1
        self._last = code, outcome
        self.later(self.cluster.spread(seconds), lambda: self.exit(code, outcome))

    def fenced(self, *, late: bool) -> None:
        """What it holds is not its own any more; with `late` because the driver has not answered."""
        self.cluster.fenced(self, late=late)
        self.exit(EXIT_FENCED)

    def exit(self, code: int, outcome: str = "aborted") -> None:
        """The process ends."""
        if not self.alive:
            return
        self.alive = False
        self.abandon(outcome)
        for line in (self.link.line, self.link.joining):
            if line is not None:
                line.connection.up.end(lose=code < 0 and self.cluster.chance(0.5))
        self.cluster.process_ended(self, code)

    # ------------------------------------------------------------------------------------------------- the caller

    def start(self) -> None:
        """Connect to the driver."""
        self.later(self.cluster.spread(0.05), self._begin_to_work)

    def _begin_to_work(self) -> None:
        if not self.link.join():
            self.exit(0 if self.cluster.run_is_over else 1)

    def arrived(self, connection: Connection, data: bytes | None) -> None:
        """Bytes have come; None for the end."""
        if self.alive and not self._step():
            self.link.arrived(connection, data)

    def ended(self, connection: Connection) -> None:
        """No more bytes will come."""
        self.arrived(connection, None)

    def changed(self) -> None:
        """The second thread has looked at everything: the caller may go on."""
        if self._waiting and self.alive:
            self._waiting = False
            self.next_block()

    def next_block(self) -> None:
        """One turn of the caller while it has no block."""
        link, now = self.link, self.now()
        if not link.watch(now):
            return
        given = None if link.closed else link.session.next_block(now)
        if given is not None:
            link.current = given, now
            link.flush()
            self._begin(given)
        elif link.session.finished or link.closed or link.over:
            link.close("")
        elif link.line is None and link.hopeless:
            self.exit(1)
        else:
            link.session.ask(now)
            link.flush()
            self._waiting = True
        self._step()

    def _begin(self, given: Given) -> None:
        key = (self.task, given.index)
        self.execution = Execution(key, self.link.ghost_of[given.lease], self.number)
        self.cluster.judge.begins(self.execution)
        self.link.set_timer()
        nature = self.cluster.scenario.natures[key]
        nature.begun += 1
        seconds = nature.seconds * (0.5 + self.cluster.spread(0.5))
        self._block_ends = self.cluster.agenda.now + seconds
        if nature.kills:
            nature.kills -= 1
            self.later(seconds * self._rate / 2, lambda: self._poisoned(given))
        elif nature.hangs:
            nature.hangs -= 1
            self._block_ends = float("inf")
        else:
            self._set_block_timer()

    def _poisoned(self, given: Given) -> None:
        if self.link.current is not None and self.link.current[0] is given:
            self.cluster.count("poison")
            self.crash()

    def _set_block_timer(self) -> None:
        self._block_timer += 1
        timer = self._block_timer
        if self._block_ends < float("inf"):
            self.later(
                (self._block_ends - self.cluster.agenda.now) * self._rate,
                lambda: self._end() if timer == self._block_timer else None,
            )

    def _end(self) -> None:
        assert self.execution is not None
        assert self.link.current is not None
        given, began = self.link.current
        nature = self.cluster.scenario.natures[self.execution.key]
        fails = self.bad or nature.fails > 0
        nature.fails -= nature.fails > 0
        self.abandon("failed" if fails else "done")
        if self._step():
            return
        now = self.now()
        session = self.link.session
        session.block_done(given, _FAILED if fails else None, now - began, now, asks=not self._leaving)
        self.link.flush()
        if self._step():
            return
        if self._leaving:
            self.link.close("preempted")
        else:
            self.next_block()

    def _step(self) -> bool:
        """One of the moments in which a process may die; whether it did."""
        if self.alive and self.cluster.dies_now():
            self.crash()
        return not self.alive
