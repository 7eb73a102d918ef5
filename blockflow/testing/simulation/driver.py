"""What does the driver do? The product's own scheduler, switchboard, outbox and ledger, joined as the coordinator does.

Bytes that arrive become bodies, bodies become events, and actions are carried out at once, or when the records before
them are durable. Ticks come when the scheduler wants them, and a little late; checks are answered after a time; a
process of this machine that has lost its connection is looked for until it is certainly dead.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs

from blockflow.coordinator import DEATH_SECONDS, HELLO_SECONDS, TICK_SECONDS
from blockflow.errors import DamagedLedgerError, LedgerError, RemoteProtocolError
from blockflow.ledger.identity import identity_of
from blockflow.ledger.owner import Process
from blockflow.ledger.run_ledger import RunLedger
from blockflow.ledger.store import open_store
from blockflow.scheduler import events as ev
from blockflow.scheduler.checks import call_checks
from blockflow.switchboard import SILENT, Close, Send, Switchboard
from blockflow.testing.simulation.disk import Died
from blockflow.testing.simulation.judge import BrokenPromise
from blockflow.testing.simulation.recorder import Recorder
from blockflow.testing.simulation.watched import WatchedScheduler
from blockflow.wire.framing import FrameReader, frame
from blockflow.wire.messages import LARGEST_HELLO, Granted, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from blockflow.switchboard import Action
    from blockflow.testing.simulation.cluster import Cluster
    from blockflow.testing.simulation.network import Connection

HERE = "node0"
"""Host of the driver."""

_LONGEST_TICK = 2.0
"""Seconds between two ticks in which nothing happens. The product has fiftieths; that makes no difference but time."""

_LOOK_SECONDS = 0.5
"""How often absent workers are looked for; the product looks at every tick."""


class Driver:
    """One life of the driver.

    Args:
        cluster: Where it runs.
        rate: Seconds of its clock per second.
        life: How many were before it.
        place: Where it runs.
    """

    def __init__(self, cluster: Cluster, rate: float, life: int, place: str) -> None:
        self._cluster = cluster
        self._judge = cluster.judge
        self._rate = rate
        self.life = life
        self.place = place
        self.alive = True
        self._connections: dict[int, Connection] = {}
        self._frames: dict[int, FrameReader] = {}
        self._stalled = False
        self._works_since = float("inf")
        self._waiting: list[Callable[[], None]] = []
        """What came while the driver stood still."""
        self._tick_at = float("inf")
        self._dull = 0
        """Ticks in a row that changed nothing."""
        self._until_check = 10
        """Events until the scheduler recounts itself."""
        self._recorder: Recorder | None = None
        """What makes records durable, if they are kept."""
        self.scheduler: WatchedScheduler
        """The scheduler of this life, once it has begun."""
        self._switchboard: Switchboard

    def now(self) -> float:
        """The time on the driver's clock, which says something else in each life."""
        return 5000.0 * (1 + self.life % 3) + self._cluster.agenda.now * self._rate

    def later(self, seconds: float, thing: Callable[[], None]) -> None:
        """Let something happen in this life of the driver."""
        self._cluster.agenda.after(max(0.0, seconds) / self._rate, lambda: self._soon(thing))

    def _soon(self, thing: Callable[[], None]) -> None:
        if self.alive and self._stalled:
            self._waiting.append(thing)
        elif self.alive:
            try:
                thing()
            except Died:
                self._cluster.lives.died(self)

    # -------------------------------------------------------------------------------------------- what strikes it

    @property
    def works_since(self) -> float:
        """Since when it is at work without a break; infinity if it is not."""
        return self._works_since if self.alive and not self._stalled else float("inf")

    def stall(self) -> None:
        """Stand still."""
        self._stalled = True

    def resume(self) -> None:
        """Go on; what came meanwhile has waited."""
        self._stalled = False
        self._works_since = self._cluster.agenda.now
        waiting, self._waiting = self._waiting, []
        for thing in waiting:
            self._soon(thing)

    def die(self, *, lose: bool) -> None:
        """End at once; with `lose` what was said last may be lost."""
        self.alive = False
        for connection in self._connections.values():
            connection.down.end(lose=lose and self._cluster.chance(0.5))

    # ------------------------------------------------------------------------------------------------- the loop

    def start(self) -> None:
        """Begin the run, or go on with it."""
        self._soon(self._begin)

    def _begin(self) -> None:
        cluster = self._cluster
        try:
            ledger = self._open_ledger()
        except LedgerError as error:
            if isinstance(error, DamagedLedgerError):
                raise BrokenPromise("ledger", str(error)) from error
            cluster.lives.gave_up(self, str(error))
            return
        cluster.lives.takes_over(self)
        self.scheduler = WatchedScheduler(cluster.scenario.plan, self._judge, cluster.lease, ledger)
        self._switchboard = Switchboard(self.scheduler, run=cluster.run, lease_seconds=cluster.lease, place=self.place)
        if ledger is not None:
            ledger.restore(self.scheduler, self.now())
            self._recorder = Recorder(self, cluster, ledger)
        self._judge.restarted(self.scheduler)
        self._works_since = cluster.agenda.now
        cluster.lives.has_begun(self)
        self._handle(ev.Ticked())
        self._began = self.now()
        self._look_for_absent()
        if self._recorder is not None:
            self._recorder.beat()

    def _open_ledger(self) -> RunLedger | None:
        cluster = self._cluster
        if cluster.disk is None:
            return None
        store = open_store(
            cluster.disk,
            Path("simulated"),
            identity_of(cluster.scenario.plan),
            me=Process(host=self.place, pid=self.life, boot_id=self.place, started=1),
            alive=cluster.lives.is_alive,
            clock=lambda: 1e9 + cluster.agenda.now,
            new_run=f"{self.life:032x}",
        )
        return RunLedger(store)

    def stop(self) -> None:
        """People have stopped the run."""

        def stops() -> None:
            self._handle(ev.StopAsked())
            self._judge.stopping = True

        self._soon(stops)

    def resize(self, task: int, workers: int) -> None:
        """People want another number of workers for a task."""
        if self._works_since < float("inf"):
            self._soon(lambda: self._handle(ev.WorkersWanted(task=task, workers=workers)))

    def process_ended(self, process: int, task: int, code: int) -> None:
        """The launcher says that a process has ended."""
        ended = ev.ProcessEnded(process=process, task=task, clean=code == 0, how=f"ended with code {code}")
        self.later(self._cluster.spread(TICK_SECONDS), lambda: self._handle(ended))

    def accept(self, connection: Connection) -> None:
        """A worker has connected and proved that it knows the key."""

        def accepts() -> None:
            self._connections[connection.number] = connection
            self._frames[connection.number] = FrameReader(LARGEST_HELLO)
            self._switchboard.connected(connection.number)
            self.later(HELLO_SECONDS, lambda: self._expect_hello(connection))

        self._soon(accepts)

    def arrived(self, connection: Connection, data: bytes) -> None:
        """Bytes of a worker have come."""
        self._soon(lambda: self._take_in(connection, data))

    def ended(self, connection: Connection) -> None:
        """A connection is over."""
        self._soon(lambda: self._disconnected(connection))

    def _take_in(self, connection: Connection, data: bytes) -> None:
        frames = self._frames.get(connection.number)
        if frames is None:
            return
        try:
            for body in frames.feed(data):
                self._judge.hear("driver", connection.number, None, body)
                self._judge.speaker = connection.worker
                self._carry_out(self._switchboard.received(connection.number, body, self.now()))
                frames.limit = self._switchboard.limit(connection.number)
        except RemoteProtocolError as error:
            raise BrokenPromise("protocol", f"the driver does not understand an honest worker: {error}") from error
        self._check_sometimes()

    def _expect_hello(self, connection: Connection) -> None:
        line = self._switchboard.line(connection.number)
        if line is not None and line.worker is None:
            self._disconnected(connection)

    def _disconnected(self, connection: Connection) -> None:
        if self._connections.pop(connection.number, None) is None:
            return
        del self._frames[connection.number]
        connection.down.end(lose=False)
        line = self._switchboard.line(connection.number)
        self._judge.note("driver loses", connection.number)
        self._carry_out(self._switchboard.disconnected(connection.number, self.now(), broken=connection.broken))
        if line is None or line.worker is None or line.said_goodbye or line.host != self.place:
            return
        worker, until = line.worker, self.now() + DEATH_SECONDS
        pid, started = line.pid, line.started

        def look() -> None:
            if self._cluster.is_dead(self.place, pid, started):
                self._handle(ev.WorkerLeft(worker=worker, crashed=True))
            elif self.now() <= until:
                self.later(TICK_SECONDS, look)

        look()

    def _look_for_absent(self) -> None:
        """Workers of an earlier life that have died need not be waited for; those that do not come back are ended."""
        for known in self.scheduler.awaited_workers:
            if known.host != self.place:
                continue
            if self._cluster.is_dead(self.place, known.pid, known.started):
                self._handle(ev.WorkerLeft(worker=known.worker, crashed=True))
            elif self.now() > self._began + self._cluster.lease:
                self._cluster.kill(self.place, known.pid, known.started)
        if self.scheduler.awaited_workers:
            self.later(_LOOK_SECONDS, self._look_for_absent)

    # ------------------------------------------------------------------------------------------- actions

    def _handle(self, event: ev.Event) -> None:
        self._carry_out(self._switchboard.handle(event, self.now()))

    def _carry_out(self, actions: Iterable[Action]) -> None:
        """Do what is asked for, or keep it until what it may follow from is durable."""
        if self._recorder is not None:
            actions = self._recorder.put(actions, self.scheduler.take_records())
        self.perform(actions)

    def perform(self, actions: Iterable[Action]) -> None:
        """Do what is asked for."""
        for action in actions:
            match action:
                case Send():
                    self._cluster.maybe_die()
                    self._send(action)
                case Close():
                    if action.error is not None:
                        raise action.error  # a fault of the product
                    if action.reason not in ("", SILENT):
                        self._judge_turning_away(action)
                    self._close(action.connection)
                case ev.StartProcess():
                    self.later(action.delay, lambda start=action: self._start(start))  # type: ignore[misc]
                case ev.RunChecks():
                    self._check(action)
                case ev.TellFailure() | ev.TellPause() | ev.TellRemark():
                    pass
        self.look_whether_finished()
        self._plan_tick()

    def look_whether_finished(self) -> None:
        """Let everybody go home if nothing can happen any more, and everything is recorded."""
        if self.scheduler.finished and (self._recorder is None or self._recorder.idle):
            self._cluster.driver_finished(self)

    def _send(self, action: Send) -> None:
        connection = self._connections.get(action.connection)
        if connection is None:
            return
        ghost = None
        if isinstance(action.message, Granted):
            ghost = self.scheduler.ghosts.pop(action.message.lease, None)
        connection.labels.append(ghost)
        connection.down.send(frame(encode(action.message)))

    def _judge_turning_away(self, action: Close) -> None:
        """What a process has said before it died may come after the news of its death; it is not understood then."""
        connection = self._connections.get(action.connection)
        if connection is not None and connection.worker.alive:
            raise BrokenPromise("protocol", f"an honest worker is turned away: {action.reason}")

    def _close(self, number: int) -> None:
        connection = self._connections.get(number)
        if connection is not None:
            connection.down.end(lose=False)
            self.later(0.0, lambda: self._disconnected(connection))

    def close(self) -> None:
        """The run is over: every connection ends, and the run directory is let go with a last snapshot."""
        for connection in list(self._connections.values()):
            connection.down.end(lose=False)
        self.alive = False
        if self._recorder is not None:
            with contextlib.suppress(Died, LedgerError):  # everything is in the journal
                self._recorder.ledger.close()

    def _start(self, action: ev.StartProcess) -> None:
        if not (self.scheduler.finished or self._cluster.stopped):
            self._cluster.start_process(action.task, action.process, self)

    def _check(self, asked: ev.RunChecks) -> None:
        plan = self.scheduler.plan.tasks[asked.task]
        seconds = self._cluster.scenario.check_seconds * len(asked.indices)
        self.later(seconds, lambda: self._handle(structs.replace(call_checks(plan, asked), seconds=seconds)))

    # ---------------------------------------------------------------------------------------------------- time

    def _plan_tick(self) -> None:
        deadline = self.scheduler.next_deadline()
        if deadline is None or not self.alive:
            return
        if self._dull > 2:  # a worker waits, and nobody has anything to give back: look less often
            deadline = max(deadline, self.now() + min(_LONGEST_TICK, TICK_SECONDS * 2.0 ** min(10, self._dull)))
            lease = self.scheduler._state.leases.next_deadline
            deadline = deadline if lease is None else min(deadline, lease)
        if deadline < self._tick_at - 1e-9:
            self._tick_at = deadline
            self.later(deadline - self.now() + self._cluster.spread(TICK_SECONDS), lambda: self._tick(deadline))

    def _tick(self, planned: float) -> None:
        if planned != self._tick_at:
            return
        self._tick_at = float("inf")
        events = self._judge.events
        deadline = self.scheduler.next_deadline()
        if deadline is not None and deadline <= self.now():
            self._renew_watched()
            actions = self._switchboard.handle(ev.Ticked(), self.now())
            self._dull = 0 if self._judge.events > events else self._dull + 1
            self._carry_out(actions)
        else:
            self._plan_tick()

    def _renew_watched(self) -> None:
        """Workers on this machine keep their blocks as long as they live; one that was stopped is ended."""
        for worker in self.scheduler.overdue(self.now()):
            line = self._switchboard.line_of(worker)
            if line is not None and line.watched:
                if self._cluster.is_stopped(self.place, line.pid):
                    self._cluster.kill(self.place, line.pid, line.started)
                else:
                    self._handle(ev.HeartbeatReceived(worker=worker, seen=True))

    # ------------------------------------------------------------------------------------------------ recounts

    def _check_sometimes(self) -> None:
        self._until_check -= 1
        if self._until_check <= 0:
            self._until_check = 60
            self.check()

    def check(self) -> None:
        """Let the scheduler recount itself, and look at what is kept for every worker."""
        self.scheduler.validate()
        lines = len(self._switchboard._lines)
        if lines > len(self._connections):
            raise BrokenPromise("memory", f"{lines} lines are kept for {len(self._connections)} connections")
