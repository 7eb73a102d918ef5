"""The worker's end of the wire: a plain socket for a synchronous caller, and a thread that keeps it alive.

Worker scripts are synchronous, so the caller blocks while it waits for a block. A second thread reads what the driver
sends, sends heartbeats, and watches the clock: it ends the process when a block takes longer than its timeout, and
when the driver has not answered for so long that the blocks held here may have been given to somebody else. It also
listens to signals, and looks when the job ends (:mod:`blockflow.wire.ending`).

When the connection is lost, work goes on, and a third thread looks for the driver until the blocks held here are not
the worker's own any more: at the old address, or where a driver that was started again listens now.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import threading
import time
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from blockflow.errors import ConnectionFileError, RemoteProtocolError, UnreachableError
from blockflow.freshness import begin_block
from blockflow.mounts import disk_of, full_disk
from blockflow.net.alarm import Alarm
from blockflow.net.connection_file import Connection, keep_connection, read_connection
from blockflow.net.context import INVITATION
from blockflow.net.dial import dial
from blockflow.net.signals import HEARD, IN_JOBS, Signals
from blockflow.place import COORDINATOR_THREAD, started, this_place
from blockflow.plan.block import Block
from blockflow.tally import TALLY
from blockflow.wire.ending import Advice, Ending, time_limit
from blockflow.wire.failures import FailureText
from blockflow.wire.framing import frame
from blockflow.wire.messages import decode_from_driver, encode
from blockflow.wire.session import WorkerSession
from blockflow.wire.storage_errors import FailureKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from blockflow.net.context import Context
    from blockflow.net.pipe import Pipe
    from blockflow.wire.held import Given

FIRST_WAIT = 0.1
LONGEST_WAIT = 5.0
"""Seconds between two attempts to find the driver again: doubled each time, and then up to twice as long by chance."""

PART_SECONDS = 2.0
"""How long the driver may take to answer a goodbye by closing the connection."""

LAST_PATIENCE = 0.25
"""Seconds between the end of a lease and the end of a process that has not looked at its clock: the driver gives blocks
to others half a second after it at the earliest."""

RUN_SECONDS = 0.8
"""How long a run inside a block may take to end: less than processes are given to end before they are killed."""

_CLOCK = time.CLOCK_BOOTTIME if hasattr(time, "CLOCK_BOOTTIME") else time.CLOCK_MONOTONIC

EXIT_TIMEOUT = 70
EXIT_FENCED = 75
"""Exit codes of a process that ended itself: EX_SOFTWARE and EX_TEMPFAIL of sysexits.h."""


class Link:
    """A connection to the driver, and the blocks that came over it."""

    def __init__(self, connection: Connection, *, task: str, process: int | None, code: str = "") -> None:
        self._code = code
        """Digest of the code that this worker was sent."""
        self._path = connection.path
        self._resumable = connection.resumable
        self._task = task
        self._process = process
        self._pipe: Pipe | None = None
        """None while the connection is lost."""
        self._session = WorkerSession()
        self._lock = threading.RLock()
        """Guards everything here. Taken by itself where each block passes, which is cheaper than by the condition."""
        self._changed = threading.Condition(self._lock)
        """Notified when something was received."""
        self._lost: str | None = None
        """Why there is no connection now."""
        self._hopeless = False
        """There will not be one any more."""
        self._over = False
        """The run has ended."""
        self._closed = False
        self.forked = False
        """This process is a copy of the one that the driver knows, made by user code: it is no worker."""
        self._current: dict[tuple[int, int], tuple[Given, float]] = {}
        """By lease and position: blocks that the user's code is at work on, oldest first, and since when."""
        self._alarm = Alarm()
        self._lease_end: float | None = None
        """When it rings because of the lease, as far as the second thread knew when it last looked."""
        self._ending = Ending()
        self._grace: Callable[[], float] | None = None
        self._signals: Signals | None = None
        """None if somebody else listens to signals."""
        self._thread = threading.Thread(target=self._keep_alive, name="blockflow-link", daemon=True)

    @classmethod
    def open(
        cls,
        connection: Connection,
        *,
        task: str,
        process: int | None,
        code: str = "",
        grace: Callable[[], float] | None = None,
    ) -> Link | None:
        """Connect to a run and join it.

        Args:
            connection: Where the run listens.
            task: The task to work for.
            process: Number of the process that the driver started.
            code: Digest of the code that it was sent; empty if that is not known.
            grace: In a job: how many seconds are left when it is told to end.

        Returns:
            The link; None if the run is over.

        Raises:
            UnreachableError: Nobody answers, or not with this run's key.
            ConnectionFileError: The driver refuses this worker.
        """
        if connection.finished:
            return None
        link = cls(connection, task=task, process=process, code=code)
        limit = time_limit(os.environ)
        link._ending = Ending(None if limit is None else _now() + limit - time.time())
        link._pipe = link._join(connection)
        link._grace = grace
        in_job = grace is not None or "LSB_JOBID" in os.environ
        link._signals = Signals.listen(IN_JOBS if in_job else HEARD)
        _follow_forks(weakref.ref(link))
        link._thread.start()
        link._look_when_woken()
        return link

    def _join(self, connection: Connection) -> Pipe:
        """Connect, introduce this worker, and wait for the answer."""
        pipe = dial(connection)
        session, place = self._session, this_place()
        try:
            with self._changed:
                session.hello(
                    run=connection.run,
                    task=self._task,
                    process=self._process,
                    host=place,
                    pid=os.getpid(),
                    started=started(os.getpid()),
                    code=self._code,
                    now=_now(),
                )
                data = self._outgoing()
            pipe.send(data)
            for body in pipe.converse():
                with self._changed:
                    session.receive(decode_from_driver(body))
                if session.refused is not None:
                    raise ConnectionFileError(f"the driver refuses this worker: {session.refused}")
                if session.welcomed:
                    break
        except ConnectionFileError:
            pipe.close()
            raise
        except (OSError, RemoteProtocolError) as error:
            pipe.close()
            raise UnreachableError(
                f"the connection to run {connection.run} failed ({error}), see {self._path}"
            ) from error
        pipe.hurry()
        return pipe

    def next_block(self) -> tuple[Given, Block] | None:
        """The next block; waits until there is one. None if there are no more.

        Raises:
            UnreachableError: The driver is gone, or this process is a copy of the worker.
        """
        if self.forked:
            raise UnreachableError("this process was forked from a worker, and is none itself: it gets no blocks")
        with self._lock:
            while True:
                now = _now()
                self._watch(now)  # this thread may have slept longer than its blocks are its own
                given = None if self._closed else self._session.next_block(now)
                if given is not None:
                    self._current[given.lease.number, given.position] = given, now
                    self._flush()
                    if self._session.timeout_of(given) is not None:
                        self._set_alarm(now)
                    break
                if self._session.finished or self._closed or self._over:
                    return None
                if self._lost is not None and self._hopeless:
                    raise UnreachableError(self._lost)
                self._session.ask(now)
                self._flush()
                self._changed.wait()
        begin_block()
        assert self._session.grid is not None
        grid, total = self._session.grid, self._session.total
        return given, Block.of_grid(grid, given.index, total=total, task_id=self._task, attempt=given.attempt)

    def block_done(self, given: Given, failure: FailureText | None, seconds: float, *, asks: bool) -> None:
        """Say that the user's code is done with a block.

        Args:
            given: The block.
            failure: What went wrong; None for success.
            seconds: How long it took.
            asks: The next block will be wanted at once.
        """
        if self.forked:
            return
        if failure is not None and failure.kind is not FailureKind.CODE:
            failure = replace(failure, disk=disk_of(failure.disk) if failure.disk else full_disk())
        with self._lock:
            self._current.pop((given.lease.number, given.position), None)
            now = _now()
            if self._session.timeout_of(given) is not None:
                self._set_alarm(now)
            self._ending.measured(seconds)
            stored = TALLY.take() if TALLY.watched else None
            self._session.block_done(given, failure, seconds, now, asks=asks, stored=stored)
            self._flush()

    def unable(self, why: FailureText) -> None:
        """Say that this worker cannot begin, and why."""
        with self._lock:
            self._session.unable(why)
            self._flush()

    def remark_on_arrays(self) -> None:
        """Say that the function returns arrays, and nothing is done with them; goes out with the next report."""
        with self._lock:
            self._session.remark_on_arrays()

    def close(self, reason: str = "") -> None:
        """Report what is done, give back what is not started, and leave; does nothing the second time."""
        if self.forked:  # the lock may be held for ever here, by a thread that was not copied
            return
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._session.goodbye(reason, _now())
            self._flush()
            self._alarm.set(None, _now())
            pipe = self._pipe
            if pipe is not None:
                pipe.part(PART_SECONDS)
                pipe.wake()
            self._changed.notify_all()
        self._thread.join(timeout=1.0)
        if self._signals is not None:
            self._signals.close()
        if pipe is not None:
            pipe.close()

    def follow_fork(self) -> None:
        """Cut the connection off in a copy of this process; the worker goes on with its own."""
        self.forked = True
        self._current = {}
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.close()

    # ------------------------------------------------------------------------------------- under the lock

    def _outgoing(self) -> bytes:
        return b"".join(frame(encode(message)) for message in self._session.take_outgoing())

    def _flush(self) -> None:
        """Send what the session wants sent; what cannot be sent is said again on the next connection."""
        if not self._session.has_outgoing:
            return
        data = self._outgoing()
        if self._pipe is not None:
            try:
                self._pipe.send(data)
            except OSError as error:
                self._lose(str(error))

    def _lose(self, why: str) -> None:
        """The connection is gone; work goes on, and the driver is looked for."""
        if self._pipe is None:
            return
        self._pipe.close()
        self._pipe = None
        self._lost = f"the connection to the driver is lost ({why}): it was stopped or killed, or the network was"
        if not self._closed:
            threading.Thread(target=self._look_for_driver, name="blockflow-search", daemon=True).start()

    def _receive(self) -> None:
        """Take in everything that has arrived."""
        if self._pipe is None:
            return
        try:
            for body in self._pipe.receive():
                self._session.receive(decode_from_driver(body))
        except (OSError, RemoteProtocolError) as error:
            self._lose(str(error))

    # ------------------------------------------------------------------------------------- the second thread

    def _keep_alive(self) -> None:
        next_heartbeat = _now() + self._session.heartbeat_seconds
        while True:
            with self._changed:
                if self._closed:
                    return
                now = _now()
                self._watch(now)  # first: an answer that comes too late must not revive what is not ours any more
                self._receive()
                self._notice_silence(now)
                self._lease_end = self._end_of_lease()
                self._set_alarm(now)
                self._end_in_time(now)
                if self._pipe is not None and now >= next_heartbeat:
                    self._session.heartbeat(now)
                    next_heartbeat = now + self._session.heartbeat_seconds
                self._flush()
                self._changed.notify_all()
                self._watch(_now())
                wait = self._until_due(now, next_heartbeat)
                pipe = self._pipe
                if pipe is None:
                    self._changed.wait(min(max(wait, 0.01), 0.1))
            if pipe is not None:
                pipe.wait(wait, -1 if self._signals is None else self._signals.fileno())

    def _notice_silence(self, now: float) -> None:
        """Try a new connection when nothing is answered: a network that was cut, or a firewall, tells nobody.

        Half of the lease is left for that. On the driver's machine only a driver that is frozen does not answer.
        """
        silent = self._session.unanswered_for(now)
        if not self._session.watched and silent > self._session.lease_seconds / 2:
            self._lose(f"nothing was answered for {silent:.0f} s")

    def _look_when_woken(self) -> None:
        """Look at the clock before anything else when the process goes on after it was stopped.

        The second thread would come too late: user code might write before it runs. Signals are handled in the main
        thread before its next step, which is where user code usually is.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        before = signal.getsignal(signal.SIGCONT)

        def woken(number: int, frame: FrameType | None) -> None:
            # Without the lock, which may be held right here.
            deadline = self._session.deadline
            if self._current and not self._is_seen and deadline is not None and _now() > deadline:
                self._end_fenced()
            if callable(before):
                before(number, frame)

        if before is not None:  # somebody else's, and not Python's
            signal.signal(signal.SIGCONT, woken)

    def _until_due(self, now: float, next_heartbeat: float) -> float:
        """Seconds until the clock has to be looked at."""
        due = [next_heartbeat, now + 1.0]
        if self._session.holds and self._session.deadline is not None and self._session.deadline > now:
            due.append(self._session.deadline)
        timeout = self._session.timeout_of(None)  # those that are found out while a run goes on are long
        if timeout is not None:
            # The next block may start at any time, so look often enough to notice its timeout at a tenth late.
            due.append(now + max(0.01, min(timeout / 10, 1.0)))
        return max(0.0, min(due) - now)

    def _set_alarm(self, now: float) -> None:
        """Have this process ended even if C code keeps Python's lock; later than the second thread would."""
        limits = [(began, self._session.timeout_of(given)) for given, began in self._current.values()]
        ends = [began + 2 * timeout + 1.0 for began, timeout in limits if timeout is not None]
        self._alarm.set(min(ends if self._lease_end is None else [*ends, self._lease_end], default=None), now)

    def _end_of_lease(self) -> float | None:
        """When this process has to be gone if the second thread does not run until then; None if it may live on."""
        deadline = self._session.deadline
        if deadline is None or self._is_seen or not self._session.holds:
            return None
        return deadline + LAST_PATIENCE

    @property
    def _is_seen(self) -> bool:
        """Whether the driver would notice the end of this process, as far as is known here."""
        return self._session.watched and self._pipe is not None

    def _end_in_time(self, now: float) -> None:
        """Take nothing more, or end in the middle of a block, if this process was told to end or soon will be ended."""
        if self._signals is not None and self._signals.heard():
            self._ending.signalled(now, None if self._grace is None else self._grace())
        began = min((began for _, began in self._current.values()), default=None)
        advice = self._ending.advice(now, began, dismissed=self._session.dismissed)
        if advice is Advice.FINISH and not self._session.finished:
            self._session.drain()
        elif advice is Advice.ABANDON:
            blocks = ", ".join(str(given.index) for given, _ in self._current.values())
            text = f"ended before its blocks were done; given back: {blocks}" if blocks else "ended"
            self._session.goodbye(text, now, under_way=bool(blocks))
            self._flush()
            with contextlib.suppress(Exception):
                sys.stderr.write(f"blockflow: this process was told to end, or its job is about to: {text}\n")
                sys.stdout.flush()
                sys.stderr.flush()
            _let_runs_end(now + RUN_SECONDS if self._session.deadline is None else self._session.deadline)
            os._exit(0)

    def _watch(self, now: float) -> None:
        """End the process when its blocks are not its own any more, or when one of them takes too long."""
        deadline = self._session.deadline
        if deadline is not None and now > deadline and self._session.holds and self._on_its_own():
            self._end_fenced()
        if self._session.overtaken or (self._over and self._current):
            _dump_stacks(
                "the run has ended, or has given the block under way here to another worker; this process ends at once"
            )
            os._exit(EXIT_FENCED)
        for given, began in self._current.values():
            timeout = self._session.timeout_of(given)
            if timeout is None or now - began <= timeout:
                continue
            text = f"block {given.index} took longer than its timeout of {timeout:g} s"
            _dump_stacks(f"{text}; this is what the process was doing:")
            error = f"TimeoutError: it took longer than its timeout of {timeout:g} s"
            failure = FailureText(error=error, traceback="", where="")
            # C code may go on writing until this process has ended: only the end of the connection makes it a failure.
            self._session.goodbye(text, now, under_way=True, failed=(given, failure))
            self._flush()
            os._exit(EXIT_TIMEOUT)

    def _end_fenced(self) -> NoReturn:
        _dump_stacks(
            f"the driver has not answered for {self._session.lease_seconds:g} s, so the blocks held here may be "
            "another worker's by now; this process ends at once"
        )
        os._exit(EXIT_FENCED)

    def _on_its_own(self) -> bool:
        """Whether nobody would notice the end of this process, so that its deadline counts."""
        if not self._session.watched:
            return True
        self._receive()  # after a long time in C code: the connection may have been lost meanwhile
        if self._pipe is None:
            return True
        # The driver may be frozen, and another one may have taken over its run. It was asked, and has not answered.
        return self._resumable and self._session.unanswered_for(_now()) > self._session.lease_seconds

    # ------------------------------------------------------------------------------------- the third thread

    def _look_for_driver(self) -> None:
        """Find the driver again, at the address that the connection file tells now."""
        wait = FIRST_WAIT
        while True:
            with self._changed:
                if self._closed or self._too_late():
                    self._hopeless = True
                    self._changed.notify_all()
                    return
            if self._find_driver():
                return
            with self._changed:
                self._changed.wait(wait * (1.0 + os.urandom(1)[0] / 256))
            wait = min(2 * wait, LONGEST_WAIT)

    def _find_driver(self) -> bool:
        """Try once; whether there is nothing to look for any more."""
        try:
            connection = read_connection(self._path)
        except ConnectionFileError:
            return False
        pipe: Pipe | None = None
        hopeless = False
        if not connection.finished:
            try:
                pipe = self._join(connection)
            except (ConnectionFileError, UnreachableError) as error:
                # Nobody listens on this machine any more, and nobody will.
                hopeless = isinstance(error.__cause__, ConnectionRefusedError) and not connection.resumable
                if not hopeless:
                    return False
        with self._changed:
            self._over = connection.finished
            self._hopeless = hopeless
            if pipe is not None:
                self._pipe, self._lost = pipe, None
                self._session.claim(_now())
                self._flush()
            self._changed.notify_all()
        return True

    def _too_late(self) -> bool:
        """Whether what was held here may be somebody else's by now, so that there is nothing to come back with."""
        deadline = self._session.deadline
        return deadline is None or _now() > deadline


def _follow_forks(link: weakref.ref[Link]) -> None:
    """Tell a link of forks as long as it lives; Python never forgets whom it tells."""

    def in_child() -> None:
        if (here := link()) is not None:
            here.follow_fork()

    os.register_at_fork(after_in_child=in_child)


SAID_FAILED = FailureText(error="block.status was set to FAILED", traceback="", where="")


def print_failure(block: Block, failure: FailureText) -> None:
    """Print a failure that was reported; where nothing can be printed, the report has to do."""
    if failure.traceback:
        with contextlib.suppress(BaseException):  # the stream may be closed, full, or the user's own
            sys.stderr.write(f"block {block.block_id}, attempt {block.attempt}:\n{failure.traceback}")


def open_link(context: Context, grace: Callable[[], float] | None = None) -> Link | None:
    """The link that a context describes; None if the run is over.

    Args:
        context: What a worker is told about its run.
        grace: In a job: how many seconds are left when it is told to end.

    Raises:
        ConnectionFileError: The context or its connection file cannot be used, or the driver refuses.
        UnreachableError: Nobody answers, or not with this run's key.
    """
    path, worker = context.get("connection"), context.get("worker_id")
    if path is None and INVITATION in context:
        path = keep_connection(context.reveal(INVITATION))
    if path is None or "task_id" not in context or not (worker is None or worker.isdecimal()):
        raise ConnectionFileError(f"the context names no connection file, no task, or no worker by number: {context}")
    connection = read_connection(path)
    try:
        process = None if worker is None else int(worker)
        return Link.open(
            connection, task=context["task_id"], process=process, code=context.get("code") or "", grace=grace
        )
    except UnreachableError:
        if read_connection(path).finished:
            return None  # the run ended in this very moment
        raise


def _let_runs_end(latest: float) -> None:
    """Wait for a run that a block of this process has started: it was told to end as well, and has processes.

    Args:
        latest: When blocks of this process may be another worker's.
    """
    end = min(_now() + RUN_SECONDS, latest)
    while _now() < end and any(thread.name == COORDINATOR_THREAD for thread in threading.enumerate()):
        time.sleep(0.01)


def _now() -> float:
    """Seconds on a clock that also counts while the machine sleeps."""
    return time.clock_gettime(_CLOCK)


def _dump_stacks(why: str) -> None:
    with contextlib.suppress(Exception):
        sys.stderr.write(f"\nblockflow: {why}\n")
        sys.stderr.flush()
        faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr, all_threads=True)
