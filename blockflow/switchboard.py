"""The switchboard: which event is this message, and which message carries out this instruction?

It knows which connection is which worker, and what each worker may say; block and worker state belong to the
scheduler. Like the scheduler it does no IO and reads no clock: bytes come in, and what has to be done comes out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias, assert_never

import numpy as np

from blockflow.errors import InvalidTransition, PlanError, RemoteProtocolError, SchedulerError
from blockflow.plan.returns import ARRAY_REMARK
from blockflow.scheduler import events as ev
from blockflow.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from blockflow.scheduler.scheduler import Scheduler


SILENT = "its worker has said nothing for so long that its blocks are given to others"
"""Why a connection is closed if nothing is wrong with what came over it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Send a message on a connection."""

    connection: int
    message: wire.FromDriver


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """Close a connection after what was sent has left."""

    connection: int
    reason: str
    error: Exception | None = None
    """A fault of ours that a message of it has brought to light."""


Action: TypeAlias = Send | Close | ev.StartProcess | ev.RunChecks | ev.TellFailure | ev.TellPause | ev.TellRemark


@dataclass(slots=True, kw_only=True)
class Line:
    """One connection."""

    host: str = ""
    pid: int = 0
    started: str = ""
    """When that process started, as it says."""
    worker: int | None = None
    process: int | None = None
    """The slot in which the worker runs, if a launcher started it."""
    task: int = 0
    watched: bool = False
    """It is a process on the driver's machine, whose death the driver notices."""
    said_goodbye: bool = False
    closing: bool = False
    """It is about to be closed; what still comes from it does not count."""


class Switchboard:
    """Joins connections to a scheduler.

    Args:
        scheduler: Owner of all state.
        run: Id of the run; workers of other runs are refused.
        lease_seconds: How long a worker keeps its blocks without a sign of life.
        place: Where the driver runs: it notices the death of processes there by itself.
        codes: Digest of the code of each task; empty if nobody knows.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        run: str,
        lease_seconds: float,
        place: str = "",
        codes: Sequence[str] = (),
    ) -> None:
        self._scheduler = scheduler
        self._run = run
        self._lease_seconds = lease_seconds
        self._place = place
        self._codes = codes
        self._lines: dict[int, Line] = {}
        self._connection_of: dict[int, int] = {}
        self._next_worker = scheduler.epoch << 40
        self._remarked: frozenset[int] = frozenset()
        """Tasks of which people were told that their functions return arrays."""

    def connected(self, connection: int) -> None:
        """A connection was made and has proved that it knows the run's key."""
        self._lines[connection] = Line()

    def received(self, connection: int, body: bytes, now: float) -> list[Action]:
        """Take in the body of a frame; a wrong one costs its sender the connection and nobody else anything.

        So does one that a fault of ours keeps from being handled, if the scheduler's numbers still agree.

        Raises:
            SchedulerError: They do not: the scheduler must not be used any more.
        """
        line = self._lines.get(connection)
        if line is None or line.closing:
            return []
        try:
            return self._understand(connection, line, wire.decode_from_worker(body), now)
        except RemoteProtocolError as error:
            if line.worker is None:  # it waits for an answer
                return _refuse(connection, line, str(error))
            return [_close(connection, line, str(error))]
        except InvalidTransition:
            raise
        except Exception as error:
            self._check_scheduler(error)
            reason = f"a message of worker {line.worker} could not be handled: {type(error).__name__}: {error}"
            return [replace(_close(connection, line, reason), error=error)]

    def disconnected(self, connection: int, now: float, *, broken: bool = False) -> list[Action]:
        """A connection is gone; its worker may still be at work.

        Args:
            connection: Its number.
            now: The time.
            broken: It was not closed at its other end.
        """
        line = self._lines.pop(connection, None)
        if line is None or line.worker is None or line.said_goodbye:
            return []
        del self._connection_of[line.worker]
        return self.handle(ev.ConnectionLost(worker=line.worker, broken=broken), now)

    def line(self, connection: int) -> Line | None:
        """What is known about a connection."""
        return self._lines.get(connection)

    def line_of(self, worker: int) -> Line | None:
        """What is known about the connection of a worker; None if it has none."""
        connection = self._connection_of.get(worker)
        return None if connection is None else self._lines[connection]

    def limit(self, connection: int) -> int:
        """Bytes that the next message of a connection may have."""
        line = self._lines.get(connection)
        return wire.LARGEST_HELLO if line is None or line.worker is None else wire.LARGEST_MESSAGE

    def handle(self, event: ev.Event, now: float) -> list[Action]:
        """Hand an event to the scheduler, and turn its instructions into actions."""
        return self._carry_out(self._scheduler.handle(event, now))

    # ------------------------------------------------------------------------------------------------- internals

    def _check_scheduler(self, error: Exception) -> None:
        """Whether the scheduler can be used after something has gone wrong in it."""
        try:
            self._scheduler.validate()
        except AssertionError as inconsistency:
            raise SchedulerError(
                f"a message left the scheduler inconsistent ({inconsistency}): {type(error).__name__}: {error}"
            ) from error

    def _understand(self, connection: int, line: Line, message: wire.FromWorker, now: float) -> list[Action]:
        if isinstance(message, wire.Hello):
            return self._hello(connection, line, message, now)
        if isinstance(message, wire.Scale):
            return self._scale(connection, line, message, now)
        if line.worker is None:
            raise RemoteProtocolError(f"{type(message).__name__} before Hello")
        match message:
            case wire.Held():
                return self._held(connection, line.worker, line.task, message, now)
            case wire.Report():
                return self._report(connection, line.worker, line.task, message, now)
            case wire.Returned():
                return self.handle(ev.BlocksReturned(worker=line.worker, lease=message.lease, kept=message.kept), now)
            case wire.Heartbeat():
                limit = _microseconds(self._scheduler.task(line.task).timeout_of())
                alive = Send(connection=connection, message=wire.Alive(message.number, limit))
                return [alive, *self.handle(ev.HeartbeatReceived(worker=line.worker), now)]
            case wire.Unable():
                unable = ev.WorkerUnable(
                    worker=line.worker, error=message.error, traceback=message.traceback, where=message.where
                )
                return self.handle(unable, now)
            case wire.ArraysReturned():
                known, self._remarked = line.task in self._remarked, self._remarked | {line.task}
                return [] if known else [ev.TellRemark(task=line.task, text=ARRAY_REMARK)]
            case wire.Goodbye() if message.under_way:
                ending = ev.WorkerEnding(worker=line.worker, failure=_failure(message.failure))
                return self.handle(ending, now)
            case wire.Goodbye():
                line.said_goodbye = True
                del self._connection_of[line.worker]
                gone = self.handle(ev.WorkerLeft(worker=line.worker, crashed=False), now)
                return [*gone, _close(connection, line, "")]
            case _:
                assert_never(message)

    def _hello(self, connection: int, line: Line, message: wire.Hello, now: float) -> list[Action]:
        if line.worker is not None:
            raise RemoteProtocolError("a second Hello")
        task = self._task_of(message)
        if isinstance(task, str):
            return _refuse(connection, line, task)
        worker = self._next_worker if message.worker is None else message.worker
        if message.worker is not None and worker >= self._next_worker:
            raise RemoteProtocolError(f"worker {message.worker} says that it is back, and was never here")
        outdated = bool(self._codes and message.code and message.code != self._codes[task])
        if outdated and message.worker is None:
            text = f"the code of task {message.task!r} has changed since this worker was told it; start it again"
            return _refuse(connection, line, text)
        self._check_superseded(worker, message)
        joined = ev.WorkerJoined(
            worker=worker,
            task=task,
            process=message.process,
            host=message.host,
            pid=message.pid,
            started=message.started,
            outdated=outdated,
        )
        done = self._scheduler.handle(joined, now)
        actions = self._supersede(worker)
        self._next_worker = max(self._next_worker, worker + 1)
        line.worker, line.task, line.process = worker, task, message.process
        line.host, line.pid, line.started = message.host, message.pid, message.started
        line.watched = message.host == self._place
        self._connection_of[worker] = connection
        welcome = Send(connection=connection, message=self._welcome(worker, task, watched=line.watched))
        return [*actions, welcome, *self._carry_out(done)]

    def _task_of(self, message: wire.Hello | wire.Scale) -> int | str:
        """The task that somebody means; or in words, why nothing can be done for him."""
        if message.protocol != wire.PROTOCOL:
            versions = f"the worker speaks protocol {message.protocol}, the driver {wire.PROTOCOL}"
            return f"{versions}: use one version of blockflow"
        if message.run != self._run:
            return f"this is run {self._run}, not {message.run!r}"
        try:
            return self._scheduler.plan.number_of(message.task)
        except PlanError as error:
            return str(error)

    def _scale(self, connection: int, line: Line, message: wire.Scale, now: float) -> list[Action]:
        if line.worker is not None:
            raise RemoteProtocolError("Scale from a worker")
        if message.workers > wire.MOST_WORKERS:
            return _refuse(connection, line, f"a task has at most {wire.MOST_WORKERS} workers, not {message.workers}")
        task = self._task_of(message)
        if isinstance(task, str):
            return _refuse(connection, line, task)
        scaled = Send(connection=connection, message=wire.Scaled(self._scheduler.task(task).pool.size))
        done = self.handle(ev.WorkersWanted(task=task, workers=message.workers), now)
        return [scaled, *done, _close(connection, line, "")]

    def _check_superseded(self, worker: int, message: wire.Hello) -> None:
        """Refuse who takes the number of another process."""
        line = self.line_of(worker)
        if line is not None and (line.host, line.pid) != (message.host, message.pid):
            raise RemoteProtocolError(f"worker {worker} is process {line.pid} on {line.host!r}, and is connected")

    def _supersede(self, worker: int) -> list[Action]:
        """A worker is back before the end of its old connection was noticed: that is closed now."""
        old = self._connection_of.get(worker)
        if old is None:
            return []
        line = self._lines[old]
        line.worker = None
        return [_close(old, line, "")]

    def _held(self, connection: int, worker: int, task: int, message: wire.Held, now: float) -> list[Action]:
        indices = wire.unpack_runs(message.runs, self._scheduler.plan.tasks[task].grid.size)
        if not indices:
            raise RemoteProtocolError(f"worker {worker} claims lease {message.lease} without blocks")
        claim = ev.LeaseClaimed(
            worker=worker, lease=message.lease, attempt=message.attempt, indices=np.array(indices, dtype=np.int64)
        )
        instructions = self._scheduler.handle(claim, now)
        stale = any(isinstance(done, ev.AcknowledgeReport) and done.stale for done in instructions)
        answer = wire.Acknowledged(message.number, message.lease, stale)
        return [Send(connection=connection, message=answer), *self._carry_out(instructions)]

    def _welcome(self, worker: int, task: int, *, watched: bool) -> wire.Welcome:
        plan = self._scheduler.plan.tasks[task]
        timeout = None if plan.task.timeout == "auto" else plan.task.timeout
        return wire.Welcome(
            worker,
            wire.layout_of(plan.grid),
            plan.total,
            round(self._lease_seconds * 1e6),
            _microseconds(timeout),
            watched,
        )

    def _report(self, connection: int, worker: int, task: int, message: wire.Report, now: float) -> list[Action]:
        actions: list[Action] = []
        stale = False
        if message.lease:
            instructions = self._scheduler.handle(self._reported(worker, message), now)
            stale = any(isinstance(done, ev.AcknowledgeReport) and done.stale for done in instructions)
            actions += self._carry_out(instructions)
        if stale or not message.lease:
            # The worker counts its deadline from every message that is answered, so each of them renews its leases.
            actions += self.handle(ev.HeartbeatReceived(worker=worker), now)
        answer = wire.Acknowledged(message.number, message.lease, stale)
        actions.insert(0, Send(connection=connection, message=answer))
        if message.asks:
            actions += self.handle(ev.BlocksAsked(worker=worker), now)
        return actions

    def _reported(self, worker: int, message: wire.Report) -> ev.BlocksReported:
        failure = _failure(message.failure)
        return ev.BlocksReported(
            worker=worker,
            lease=message.lease,
            upto=message.upto,
            seconds=message.microseconds / 1e6,
            failures=() if failure is None else (failure,),
            stored=tuple(wire.unpack_stored(message.stored)) if message.stored else (),
        )

    def _carry_out(self, instructions: Iterable[ev.Instruction]) -> list[Action]:
        actions: list[Action] = []
        for instruction in instructions:
            match instruction:
                case ev.GrantLease():
                    runs = wire.pack_runs(instruction.indices.tolist())
                    limit = _microseconds(instruction.timeout)
                    granted = wire.Granted(instruction.lease, instruction.attempt, runs, limit)
                    self._tell(actions, instruction.worker, granted)
                case ev.RecallLease():
                    self._tell(actions, instruction.worker, wire.Recalled(instruction.lease))
                case ev.DismissWorker():
                    self._tell(actions, instruction.worker, wire.Finished())
                case ev.CutOff():
                    connection = self._connection_of.get(instruction.worker)
                    if connection is not None:
                        actions.append(_close(connection, self._lines[connection], SILENT))
                case ev.AcknowledgeReport():
                    pass  # part of the answer to the message that carried the report
                case ev.StartProcess() | ev.RunChecks() | ev.TellFailure() | ev.TellPause() | ev.TellRemark():
                    actions.append(instruction)
                case _:
                    assert_never(instruction)
        return actions

    def _tell(self, actions: list[Action], worker: int, message: wire.FromDriver) -> None:
        connection = self._connection_of.get(worker)
        if connection is not None:
            actions.append(Send(connection=connection, message=message))


def _failure(said: wire.Failure | None) -> ev.BlockFailure | None:
    if said is None:
        return None
    return ev.BlockFailure(
        index=said.index,
        error=said.error,
        traceback=said.traceback,
        where=said.where,
        kind=said.kind,
        disk=said.disk,
    )


def _microseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e6)


def _refuse(connection: int, line: Line, reason: str) -> list[Action]:
    refused = Send(connection=connection, message=wire.Refused(reason[:1000]))
    return [refused, _close(connection, line, reason)]


def _close(connection: int, line: Line, reason: str) -> Close:
    line.closing = True
    return Close(connection=connection, reason=reason)
