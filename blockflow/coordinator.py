"""THE loop: message in, event to the scheduler, instruction carried out.

1. Bytes from a worker go through the switchboard, which answers with actions; they are carried out at once.
2. The launcher is asked which processes ended, checks run on a thread of their own, and time passes: all three
   become events. Init callbacks run on threads as well: user code may take its time, the loop may not.
3. With a ledger, what follows from a record leaves when the record is durable; the disk has a thread of its own.
4. When nothing can happen any more, workers are sent home, processes end, and the connection file says that the run
   is over.

The loop runs in a thread of its own, so that ``run_blockwise`` works in scripts, in pytest and in a notebook. Other
threads read `snapshot` and `notices`, and may call :meth:`Coordinator.stop`; they change nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, assert_never

from msgspec import structs

from blockflow.aside import Aside
from blockflow.background import run_all
from blockflow.errors import LedgerFullError, RemoteProtocolError, RunError
from blockflow.escaping import get_logger
from blockflow.monitor.pauses import pause_line
from blockflow.net.complaints import Complaints
from blockflow.net.connection_file import close_connection
from blockflow.net.listen import listen
from blockflow.net.server import Peer, WorkerServer
from blockflow.outbox import Outbox
from blockflow.place import COORDINATOR_THREAD, is_dead, is_stopped, kill, this_place
from blockflow.scheduler import events as ev
from blockflow.scheduler.checks import call_checks
from blockflow.switchboard import SILENT, Close, Send
from blockflow.wire.framing import FrameReader
from blockflow.wire.messages import LARGEST_HELLO

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable
    from pathlib import Path

    from blockflow.launch.crew import Crew
    from blockflow.ledger.run_ledger import RunLedger
    from blockflow.monitor.jobs import Workforce
    from blockflow.net.addresses import Endpoint
    from blockflow.net.connection_file import Connection
    from blockflow.scheduler.events import Record
    from blockflow.scheduler.scheduler import Scheduler
    from blockflow.scheduler.state import TaskState
    from blockflow.switchboard import Action, Switchboard
    from blockflow.wire.messages import FromDriver

_LOGGER = get_logger()

TICK_SECONDS = 0.1
"""How often processes are looked at. Messages of workers are handled when they come, deadlines when they are due."""

LEAST_REST = 0.005
"""How long the loop rests at least, whatever is due."""

DEATH_LOOK = 0.02
"""How often a process is looked at whose connection is lost."""

SNAPSHOT_SECONDS = 0.1

DEATH_SECONDS = 2.0
"""How long after its connection the death of a worker's process is waited for; then its lease has to run out."""

WORDS_SECONDS = 0.5
"""How long it is waited until whoever has started a dead process says how it ended."""

HELLO_SECONDS = 10.0
"""How long a connection may take to introduce itself."""

FULL_SECONDS = 1.0
"""How often a full disk is tried again."""

BEAT_SECONDS = 5.0
"""How often the ledger hears of this driver, and is asked whether it has become long."""

STOP_SECONDS = 0.4
"""How long workers may take to end by themselves when the run is stopped."""

SILENT_SECONDS = 3.0
"""After this time of it, people are told."""

HOME_SECONDS = 30.0
"""How long they may take when their work is done: a process function may have something to finish."""

KILL_SECONDS = 0.9
"""Time between asking a process to end and killing it: longer than `STOP_SECONDS`, as it may have a run of its own."""

CLOSE_SECONDS = 1.0
"""How long the disk may take to note that the run is over; after that this goes on in the background."""

STUCK_SECONDS = 2.0
"""After so long without an answer a run that is to stop does not wait for its disk any more."""

MOST_NOTICES = 1000
"""Failures remembered for people to read; older ones give way."""


class Coordinator:
    """Runs a scheduler with real workers.

    Args:
        scheduler: Owner of all state.
        switchboard: Joins connections to it.
        crew: The worker processes.
        directory: Private directory of the connection file.
        run: Id of the run.
        endpoint: What to tell the workers; None if all are on this machine.
        listening: A socket that listens there; None as well.
        ledger: Where everything is recorded; the scheduler has to be recording then.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        switchboard: Switchboard,
        crew: Crew,
        *,
        directory: Path,
        run: str,
        endpoint: Endpoint | None,
        listening: socket.socket | None,
        ledger: RunLedger | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._switchboard = switchboard
        self._crew = crew
        self._directory = directory
        self._run = run
        self._ledger = ledger
        self._outbox = Outbox()
        self._recording: asyncio.Task[None] | None = None
        """The writing of records; None while there are none."""
        self._disk = Aside("blockflow-ledger")
        self._files = Aside("blockflow-files")
        """For the connection file and other small ones: the loop itself waits for no disk."""
        self._fold = Aside("blockflow-fold")
        self._place = this_place()
        self._endpoint, self._listening = endpoint, listening
        self.snapshot: dict[str, TaskState] = scheduler.task_states
        """How far the tasks have got; replaced, never changed."""
        self.workforces: dict[str, Workforce] = {}
        """By task that has jobs on clusters: how far these have come; replaced, never changed."""
        self.notices: deque[ev.TellFailure | ev.TellRemark] = deque(maxlen=MOST_NOTICES)
        """Failures and remarks for people to read; whoever reads them takes them out."""
        self.error: BaseException | None = None
        """What ended the loop before its time."""
        self.connection: Connection | None = None
        """Where the run listens; None before it does."""
        self._peers: dict[int, Peer] = {}
        self._complaints = Complaints()
        self._connections = count()
        self._wake = asyncio.Event()
        self._began = time.monotonic()
        self._next_turn = 0.0
        """When the loop looks around next, unless it is woken before."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self.where = "run directory" if ledger is not None else "directory of the connection file", str(directory)
        """What the run's own files are in, in words and as a path."""
        self._turned = time.monotonic()
        """When the loop last looked around."""
        self._stop_asked = False
        self._stopping = asyncio.Event()
        """Set in the loop when it is to stop."""
        self._drain_until: float | None = None
        """While the run is being stopped: how long blocks under way may take to end."""
        self._ended = threading.Event()
        self._first_actions: list[Action] = []
        self._thread = threading.Thread(target=self._run_loop, name=COORDINATOR_THREAD, daemon=True)
        self._checks = Aside("blockflow-checks")
        self._beginnings: dict[int, asyncio.Task[None]] = {}
        """By task: the call of its init callback."""

    # ----------------------------------------------------------------------------------- for other threads

    def start(self, actions: Iterable[Action] = ()) -> None:
        """Start the loop in its thread.

        Args:
            actions: What the first events asked for.
        """
        self._first_actions = list(actions)
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait for the end of the loop; whether it has come."""
        # Not Thread.join: when Ctrl-C interrupts it, Python 3.11 takes the thread for ended.
        return self._ended.wait(seconds)

    def stop(self, *, drain: float = 0.0) -> None:
        """Grant nothing more, end all workers within a second or two, and end the loop.

        Args:
            drain: Seconds that blocks under way may take to end before that.
        """
        if drain:
            self._drain_until = time.monotonic() + drain
        else:
            self._stop_asked = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop ended in this very moment
                self._loop.call_soon_threadsafe(self._note_stop)

    def abandon(self) -> None:
        """End all workers by force, from another thread: the loop hangs, in a call that does not come back."""
        self._stop_asked = True
        self._crew.kill()

    @property
    def disk_silence(self) -> float:
        """For how many seconds the disk of the run's files has not answered; 0 if nothing is asked of it."""
        began = [each.busy_since for each in (self._disk, self._files)]
        return max((time.monotonic() - each for each in began if each is not None), default=0.0)

    @property
    def hangs(self) -> bool:
        """Whether the loop or the disk of the run's files has not answered for :data:`STUCK_SECONDS`."""
        return max(time.monotonic() - self._turned, self.disk_silence) > STUCK_SECONDS

    # ---------------------------------------------------------------------------------------------- the loop

    def _run_loop(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # carried to the thread that waits
            self.error = error
        finally:
            try:
                trouble = run_all(
                    lambda: self._crew.stop(grace=0.0),
                    self._checks.close,
                    self._disk.close,
                    self._files.close,
                    self._fold.close,
                )
                self.error = self.error or trouble
            finally:
                self._ended.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self._stop_asked:
            self._note_stop()
        opening = self._files.call(self._open)
        if not await self._answered(opening):
            return
        listening, server = opening.result()
        server.add_socket(listening)
        try:
            self._carry_out(self._first_actions)
            await self._until_finished()
            await self._until_recorded()
            await self._send_home()
            await self._until_recorded()  # that workers have gone: the next driver need not wait for them
        finally:
            assert self.connection is not None
            # First, so that workers who lose their connection learn why.
            closing = self._files.call(close_connection, self.connection)
            await asyncio.wait([closing], timeout=CLOSE_SECONDS)
            server.close_all()
            self.snapshot = self._scheduler.task_states
            self._complain(time.monotonic(), last=True)

    def _open(self) -> tuple[socket.socket, WorkerServer]:
        """Listen, and write down where; in another thread."""
        try:
            listening, self.connection = listen(
                self._directory, self._run, self._endpoint, self._listening, resumable=self._ledger is not None
            )
            self._crew.open(self.connection)
        except OSError as error:
            raise RunError(f"the connection file cannot be written in {self._directory}: {error}") from error
        key = None if self.connection.socket else self.connection.path
        return listening, WorkerServer(key, self._serve, self._complaints)

    async def _answered(self, call: asyncio.Future[Any]) -> bool:
        """Wait until a call comes back, or the run is to stop; whether it has come back."""
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait([call, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        return call.done()

    def _note_stop(self) -> None:
        if self._stop_asked:
            self._stopping.set()
        self._wake.set()

    async def _until_finished(self) -> None:
        next_snapshot = next_beat = 0.0
        draining = False
        while not self._scheduler.finished:
            await self._rest()
            now = self._turned = time.monotonic()
            self._collect_ended(now)
            self._complain(now)
            self._look_for_absent(now)
            deadline = self._scheduler.next_deadline()
            if deadline is not None and deadline <= now:
                self._renew_watched(now)
                self._handle(ev.Ticked(), now)
            if self._drain_until is not None and not draining:
                draining = True
                self._handle(ev.StopAsked(), now)
            if self._stop_asked or now > (self._drain_until or now):
                self._stop_asked = True
                self._handle(ev.StopAsked(), now)
                return
            if self._ledger is not None and now >= next_beat:
                next_beat = now + BEAT_SECONDS
                self._start_recording(self._ledger)  # also if there is nothing to record: it shows that we live
                self._fold.call(self._ledger.fold_if_due).add_done_callback(self._note_error)
            if now >= next_snapshot:
                self.snapshot = self._scheduler.task_states
                next_snapshot = now + SNAPSHOT_SECONDS
                for number, state in enumerate(self.snapshot.values()):
                    self._crew.trim(number, min(state.unended_count, self._scheduler.task(number).pool.size))
                self.workforces = {
                    task: self._crew.workforce(task, connected=len(self._scheduler.task(number).active_workers))
                    for number, task in enumerate(self.snapshot)
                    if self._crew.has_jobs(number)
                }

    async def _rest(self) -> None:
        """Wait until the next turn of the loop."""
        assert self._loop is not None
        now, deadline = time.monotonic(), self._scheduler.next_deadline()
        rest = TICK_SECONDS if deadline is None else min(TICK_SECONDS, max(LEAST_REST, deadline - now))
        self._next_turn = now + rest
        timer = self._loop.call_later(rest, self._wake.set)
        await self._wake.wait()
        timer.cancel()
        self._wake.clear()

    async def _until_recorded(self) -> None:
        """Wait until everything that has happened is durable."""
        while self._recording is not None and not self._stop_asked:
            await self._answered(self._recording)

    async def _send_home(self) -> None:
        """Give processes time to end by themselves, then end them."""
        self._crew.dismiss()
        deadline = time.monotonic() + (STOP_SECONDS if self._stop_asked else HOME_SECONDS)
        told = time.monotonic() + SILENT_SECONDS
        while len(self._crew) and time.monotonic() < deadline:
            self._crew.ended()
            if time.monotonic() > told:
                told = float("inf")
                _LOGGER.warning(
                    "all blocks have ended; waiting at most %.0f s for %d worker processes in which user code goes on: "
                    "a teardown, or threads that it has left behind",
                    deadline - time.monotonic(),
                    len(self._crew),
                )
            await asyncio.sleep(0.002)
            self._turned = time.monotonic()
            if self._stop_asked:
                deadline = min(deadline, time.monotonic() + STOP_SECONDS)
        # Not asyncio.to_thread, whose threads Python waits for when it ends.
        stopping = Aside("blockflow-stop")
        ended = stopping.call(partial(self._crew.stop, grace=KILL_SECONDS))
        while not ended.done():
            await asyncio.wait([ended], timeout=TICK_SECONDS)
            self._turned = time.monotonic()
        stopping.close()
        ended.result()

    # ----------------------------------------------------------------------------------------- connections

    async def _serve(self, peer: Peer) -> None:
        try:
            await self._converse(peer)
        except Exception as error:  # a bug; nobody else would hear of it
            self._fail(error)

    async def _converse(self, peer: Peer) -> None:
        connection = next(self._connections)
        self._peers[connection] = peer
        self._switchboard.connected(connection)
        frames = FrameReader(LARGEST_HELLO)
        try:
            while data := await asyncio.wait_for(
                peer.receive(), HELLO_SECONDS if frames.limit == LARGEST_HELLO else None
            ):
                now = time.monotonic()
                for body in frames.feed(data):
                    self._carry_out(self._switchboard.received(connection, body, now))
                    frames.limit = self._switchboard.limit(connection)
        except RemoteProtocolError as error:
            self._complaints.add("protocol", f"a connection is closed: {error}")
        except TimeoutError:
            self._complaints.add(
                "silence", f"a connection is closed: it did not introduce itself in {HELLO_SECONDS:g} s"
            )
        finally:
            del self._peers[connection]
            await self._after_disconnect(connection, broken=peer.broken)

    async def _after_disconnect(self, connection: int, *, broken: bool) -> None:
        """Free the blocks of a lost worker as soon as it is certain that it cannot write any more."""
        line = self._switchboard.line(connection)
        self._carry_out(self._switchboard.disconnected(connection, time.monotonic(), broken=broken))
        if line is None or line.worker is None or line.said_goodbye:
            return
        if line.host == self._place:
            patience = DEATH_SECONDS
        elif line.process is not None:
            self._crew.look()
            patience = 2.0 * self._scheduler.lease_seconds  # by then the lease has run out
        else:
            return
        deadline = time.monotonic() + patience
        while not (is_dead(line.pid, line.started) if line.host == self._place else self._crew.is_gone(line.process)):
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(DEATH_LOOK)
        how, output = await self._last_words(line.process)
        self._handle(ev.WorkerLeft(worker=line.worker, crashed=True, how=how, output=output), time.monotonic())
        self._wake.set()  # its process can be replaced

    async def _last_words(self, process: int | None) -> tuple[str, str]:
        """How a process has ended that is dead, and the last lines that it printed; empty if nobody tells."""
        deadline = time.monotonic() + WORDS_SECONDS
        while process is not None and self._crew.is_own(process) and time.monotonic() < deadline:
            self._collect_ended(time.monotonic())
            await asyncio.sleep(LEAST_REST)
        return self._crew.last_words(process)

    # ------------------------------------------------------------------------------------------- actions

    def _handle(self, event: ev.Event, now: float) -> None:
        self._carry_out(self._switchboard.handle(event, now))

    def _carry_out(self, actions: Iterable[Action]) -> None:
        """Do what is asked for, or keep it until what it may follow from is durable."""
        if self._ledger is not None:
            actions = self._outbox.put(actions, self._scheduler.take_records())
            if not self._outbox.idle:
                self._start_recording(self._ledger)
        self._perform(actions)

    def _start_recording(self, ledger: RunLedger) -> None:
        if self._recording is None and self.error is None:
            self._recording = asyncio.ensure_future(self._record(ledger))
            self._recording.add_done_callback(self._note_error)

    async def _record(self, ledger: RunLedger) -> None:
        """Make records durable, batch after batch, and let go what has waited for them."""
        try:
            batch = self._outbox.take_batch()
            while True:
                await self._write(ledger, batch)
                self._perform(self._outbox.written())
                batch = self._outbox.take_batch()
                if not batch:
                    return
        finally:
            self._recording = None
            self._wake.set()

    async def _write(self, ledger: RunLedger, batch: list[Record]) -> None:
        """Write a batch; while there is no space for it, nothing is granted or acknowledged, and nothing is lost."""
        paused = False
        while True:
            try:
                await self._disk.call(ledger.write, batch)
            except LedgerFullError as error:
                if not paused:
                    _LOGGER.warning("%s; the run is paused, and goes on when there is", error)
                paused = True
                batch = []  # the ledger has them
                await asyncio.sleep(FULL_SECONDS)
            else:
                return

    def _perform(self, actions: Iterable[Action]) -> None:
        outgoing: dict[int, list[FromDriver]] = {}
        for action in actions:
            match action:
                case Send():
                    outgoing.setdefault(action.connection, []).append(action.message)
                case Close():
                    self._close(action, outgoing.pop(action.connection, []))
                case ev.StartProcess():
                    self._start_later(action)
                case ev.RunChecks():
                    asyncio.ensure_future(self._check(action)).add_done_callback(self._note_error)
                case ev.TellFailure() | ev.TellRemark():
                    self.notices.append(action)
                case ev.TellPause():
                    _LOGGER.warning("%s", pause_line(self._scheduler.plan, action))
                case _:
                    assert_never(action)
        for connection, messages in outgoing.items():
            if connection in self._peers:
                self._peers[connection].send(messages)
        deadline = self._scheduler.next_deadline()
        if self._scheduler.finished or (deadline is not None and deadline < self._next_turn):
            self._wake.set()

    def _close(self, action: Close, messages: list[FromDriver]) -> None:
        if action.error is not None:
            _LOGGER.error("a fault of blockflow, please report it: %s", action.reason, exc_info=action.error)
        elif action.reason:
            kind = "lease" if action.reason == SILENT else "message"
            self._complaints.add(kind, f"a connection is closed: {action.reason}")
        peer = self._peers.get(action.connection)
        if peer is not None:
            if messages:
                peer.send(messages)
            peer.close()

    def _start_later(self, action: ev.StartProcess) -> None:
        assert self._loop is not None
        self._loop.call_later(action.delay, self._start_now, action)

    def _start_now(self, action: ev.StartProcess) -> None:
        asyncio.ensure_future(self._start(action)).add_done_callback(self._note_error)

    async def _start(self, action: ev.StartProcess) -> None:
        """Start a process; the first of a task waits for the task's init callback."""
        beginning = self._beginnings.get(action.task)
        if beginning is None:
            beginning = self._beginnings[action.task] = asyncio.ensure_future(self._begin(action.task))
        await asyncio.shield(beginning)
        if not (self._scheduler.finished or self._stop_asked):
            self._crew.start(action.process, action.task)

    async def _begin(self, task: int) -> None:
        if self._scheduler.plan.tasks[task].task.init_callback_fn is not None:
            aside = Aside("blockflow-init")
            try:
                await aside.call(self._crew.begin, task)
            finally:
                aside.close()

    def _look_for_absent(self, now: float) -> None:
        """Workers of an earlier life that have died need not be waited for.

        One that lives and has not come back within a lease has no time for it: C code holds Python's lock there, and
        would go on while others have its blocks.
        """
        for known in self._scheduler.awaited_workers:
            if known.host != self._place:
                continue
            if is_dead(known.pid, known.started):
                self._handle(ev.WorkerLeft(worker=known.worker, crashed=True), now)
            elif now > self._began + self._scheduler.lease_seconds:
                kill(known.pid, known.started)

    def _renew_watched(self, now: float) -> None:
        """Workers on this machine keep their blocks as long as they live, even if they have no time to say so.

        C code may hold Python's lock for longer than a lease. A process that was stopped will not go on by itself: it
        is ended, so that others can have its blocks.
        """
        for worker in self._scheduler.overdue(now):
            line = self._switchboard.line_of(worker)
            if line is None or not line.watched:
                continue
            if is_stopped(line.pid):
                kill(line.pid, line.started)
            else:
                self._handle(ev.HeartbeatReceived(worker=worker, seen=True), now)

    def _complain(self, now: float, *, last: bool = False) -> None:
        for line in self._complaints.lines(now, last=last):
            _LOGGER.warning("%s", line)

    def _collect_ended(self, now: float) -> None:
        for ended in self._crew.ended():
            self._handle(ended, now)

    async def _check(self, asked: ev.RunChecks) -> None:
        plan = self._scheduler.plan.tasks[asked.task]
        began = time.monotonic()
        checked = await self._checks.call(call_checks, plan, asked)
        now = time.monotonic()
        self._handle(structs.replace(checked, seconds=now - began), now)

    def _note_error(self, done: asyncio.Future[None]) -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """End the run because something outside the blocks went wrong."""
        self.error = self.error or error
        self._stop_asked = True
        self._note_stop()
