"""The worker's end of the wire: a plain socket for a synchronous caller, and a thread that keeps it alive.

Worker scripts are synchronous, so the caller blocks while it waits for a block. A second thread reads what the driver
sends, sends heartbeats, and watches the clock: it ends the process when a block takes longer than its timeout, and
when the driver has not answered for so long that the blocks held here may have been given to somebody else.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import selectors
import socket
import ssl
import sys
import threading
import time
from typing import TYPE_CHECKING

from blockflow.errors import ConnectionFileError, RemoteProtocolError, UnreachableError
from blockflow.net.connection_file import Connection, read_connection
from blockflow.net.tls import client_context, server_name
from blockflow.plan.block import Block
from blockflow.wire.failures import FailureText
from blockflow.wire.framing import FrameReader, frame
from blockflow.wire.messages import LARGEST_MESSAGE, Finished, decode_from_driver, encode
from blockflow.wire.session import Given, WorkerSession

if TYPE_CHECKING:
    from blockflow.net.context import Context

CONNECT_SECONDS = 10.0
"""How long one address may take to answer."""

PART_SECONDS = 2.0
"""How long the driver may take to answer a goodbye by closing the connection."""

EXIT_TIMEOUT = 70
EXIT_FENCED = 75
EXIT_LEFT = 76
"""Exit codes of a process that ended itself: EX_SOFTWARE and EX_TEMPFAIL of sysexits.h, and one of our own."""


class Link:
    """A connection to the driver, and the blocks that came over it."""

    def __init__(self, task: str, stream: ssl.SSLSocket, path: str) -> None:
        self._task = task
        self._socket = stream
        self._path = path
        """The connection file."""
        self._session = WorkerSession()
        self._frames = FrameReader(LARGEST_MESSAGE)
        self._changed = threading.Condition()
        """Guards everything here; notified when something was received."""
        self._lost: str | None = None
        self._closed = False
        self._current: tuple[Given, float] | None = None
        self._leave_by: float | None = None
        """When this worker, which was told to go, leaves even if its block is not done."""
        self._thread = threading.Thread(target=self._keep_alive, name="blockflow-link", daemon=True)

    @classmethod
    def open(cls, connection: Connection, *, task: str, process: int | None) -> Link | None:
        """Connect to a run and join it.

        Args:
            connection: Where the run listens.
            task: The task to work for.
            process: Number of the process that the driver started.

        Returns:
            The link; None if the run is over.

        Raises:
            UnreachableError: Nobody answers, or not with this run's key.
            ConnectionFileError: The driver refuses this worker.
        """
        if connection.finished:
            return None
        stream = _connect(connection)
        link = cls(task, stream, connection.path)
        try:
            link._join(connection.run, process)
        except BaseException:
            stream.close()
            raise
        stream.setblocking(False)
        link._thread.start()
        return link

    def _join(self, run: str, process: int | None) -> None:
        """Introduce this worker, and wait for the answer."""
        session, host = self._session, socket.gethostname()
        session.hello(run=run, task=self._task, process=process, host=host, pid=os.getpid(), now=_now())
        try:
            self._socket.sendall(self._outgoing())
            while session.welcome is None and session.refused is None:
                data = self._socket.recv(65536)
                if not data:
                    raise ConnectionAbortedError("closed by the driver; it may have another key")
                self._take_in(data)
        except (OSError, RemoteProtocolError) as error:
            raise UnreachableError(f"the connection to run {run} failed ({error}), see {self._path}") from error
        if session.refused is not None:
            raise ConnectionFileError(f"the driver refuses this worker: {session.refused}")

    def next_block(self) -> tuple[Given, Block] | None:
        """The next block; waits until there is one. None if there are no more.

        Raises:
            UnreachableError: The driver is gone.
        """
        with self._changed:
            while True:
                now = _now()
                self._watch(now)  # this thread may have slept longer than its blocks are its own
                given = self._session.next_block(now) if self._lost is None else None
                if given is not None:
                    self._current = given, now
                    self._flush()
                    if self._timeout is not None:
                        # For C code that keeps Python's lock, where the second thread cannot run: dumped and ended
                        # by a thread that needs no lock.
                        faulthandler.dump_traceback_later(
                            2 * self._timeout + 1.0, exit=True, file=sys.__stderr__ or sys.stderr
                        )
                    break
                if self._session.finished or self._closed:
                    return None
                if self._lost is not None:
                    if self._run_is_over():
                        return None
                    raise UnreachableError(self._lost)
                self._session.ask(now)
                self._flush()
                self._changed.wait()
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
        with self._changed:
            self._current = None
            if self._timeout is not None:
                faulthandler.cancel_dump_traceback_later()
            self._session.block_done(given, failure, seconds, _now(), asks=asks)
            self._flush()

    def close(self, reason: str = "") -> None:
        """Report what is done, give back what is not started, and leave; does nothing the second time."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._session.goodbye(reason, _now())
            self._flush()
            self._part()
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes the second thread
        self._thread.join(timeout=1.0)
        self._socket.close()

    def leave_in(self, seconds: float) -> None:
        """Take no more blocks, and leave when the present one is done; may be called by a signal handler.

        Args:
            seconds: After this time the process ends, and the block is given back.
        """
        if self._leave_by is None:
            self._leave_by = _now() + seconds  # the second thread does the rest: here the lock may be taken

    # ------------------------------------------------------------------------------------- under the lock

    def _outgoing(self) -> bytes:
        return b"".join(frame(encode(message)) for message in self._session.take_outgoing())

    def _flush(self) -> None:
        """Send what the session wants sent."""
        data = memoryview(self._outgoing())
        while data and self._lost is None:
            try:
                data = data[self._socket.send(data) :]
            except ssl.SSLWantWriteError:
                self._wait_for(selectors.EVENT_WRITE)
            except ssl.SSLWantReadError:
                self._wait_for(selectors.EVENT_READ)
            except OSError as error:
                self._lose(str(error))

    def _part(self) -> None:
        """Wait until the driver has closed the connection.

        An end that is closed with unread data resets the connection, and what it has sent last may be lost.
        """
        deadline = _now() + PART_SECONDS
        while self._lost is None and _now() < deadline:
            try:
                if not self._socket.recv(65536):
                    return
            except ssl.SSLWantReadError:
                self._wait_for(selectors.EVENT_READ)
            except OSError:
                return

    def _wait_for(self, event: int) -> None:
        with selectors.DefaultSelector() as selector:  # select.select knows no descriptor above 1023
            selector.register(self._socket, event)
            selector.select(1.0)

    def _take_in(self, data: bytes) -> None:
        for body in self._frames.feed(data):
            self._session.receive(decode_from_driver(body))

    def _lose(self, why: str) -> None:
        if self._lost is None:
            self._lost = f"the connection to the driver is lost ({why}): it was stopped or killed, or the network was"

    def _run_is_over(self) -> bool:
        """Whether the driver ended its run before it closed the connection."""
        try:
            return read_connection(self._path).finished
        except ConnectionFileError:
            return False

    def _receive(self) -> None:
        """Take in everything that has arrived."""
        while self._lost is None:
            try:
                data = self._socket.recv(65536)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as error:
                self._lose(str(error))
                return
            if not data:
                self._lose("closed by the driver")
                return
            try:
                self._take_in(data)
            except RemoteProtocolError as error:
                self._lose(str(error))

    # ------------------------------------------------------------------------------------- the second thread

    def _keep_alive(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            next_heartbeat = _now() + self._session.heartbeat_seconds
            while True:
                with self._changed:
                    if self._closed:
                        return
                    now = _now()
                    self._receive()
                    self._go_if_told(now)
                    if now >= next_heartbeat:
                        self._session.heartbeat(now)
                        next_heartbeat = now + self._session.heartbeat_seconds
                    self._flush()
                    self._changed.notify_all()
                    lost = self._lost is not None
                    self._watch(now)
                    wait = self._until_due(now, next_heartbeat)
                if lost:
                    time.sleep(min(wait, 0.1))
                else:
                    selector.select(wait)

    def _go_if_told(self, now: float) -> None:
        """Do what :meth:`leave_in` asked for."""
        if self._leave_by is None:
            return
        if not self._session.finished:
            self._session.receive(Finished())
        if now > self._leave_by and self._current is not None:
            self._session.goodbye("told to go, and its block takes longer", now)
            self._flush()
            os._exit(EXIT_LEFT)

    def _until_due(self, now: float, next_heartbeat: float) -> float:
        """Seconds until the clock has to be looked at."""
        due = [next_heartbeat, now + 1.0]
        timeout = self._timeout
        if timeout is not None:
            # The next block may start at any time, so look often enough to notice its timeout at a tenth late.
            due.append(now + max(0.01, min(timeout / 10, 1.0)))
        return max(0.0, min(due) - now)

    @property
    def _timeout(self) -> float | None:
        welcome = self._session.welcome
        if welcome is None or welcome.timeout_microseconds is None:
            return None
        return welcome.timeout_microseconds / 1e6

    def _watch(self, now: float) -> None:
        """End the process when a block takes too long, or when its blocks are not its own any more."""
        timeout = self._timeout
        if timeout is not None and self._current is not None and now - self._current[1] > timeout:
            given, began = self._current
            text = f"block {given.index} took longer than its timeout of {timeout:g} s"
            _dump_stacks(f"{text}; this is what the process was doing:")
            error = f"TimeoutError: it took longer than its timeout of {timeout:g} s"
            failure = FailureText(error=error, traceback="", where="")
            self._session.block_done(given, failure, now - began, now, asks=False)
            self._session.goodbye(text, now)
            self._flush()
            self._part()
            os._exit(EXIT_TIMEOUT)
        deadline = self._session.deadline
        if deadline is not None and now > deadline and self._session.holds:
            _dump_stacks(
                f"the driver has not answered for {self._session.lease_seconds:g} s, so the blocks held here may be "
                "another worker's by now; this process ends at once"
            )
            os._exit(EXIT_FENCED)


SAID_FAILED = FailureText(error="block.status was set to FAILED", traceback="", where="")


def open_link(context: Context) -> Link | None:
    """The link that a context describes; None if the run is over.

    Raises:
        ConnectionFileError: The context or its connection file cannot be used, or the driver refuses.
        UnreachableError: Nobody answers, or not with this run's key.
    """
    path, worker = context.get("connection"), context.get("worker_id")
    if path is None or "task_id" not in context or not (worker is None or worker.isdecimal()):
        raise ConnectionFileError(f"the context names no connection file, no task, or no worker by number: {context}")
    connection = read_connection(path)
    try:
        return Link.open(connection, task=context["task_id"], process=None if worker is None else int(worker))
    except UnreachableError:
        if read_connection(path).finished:
            return None  # the run ended in this very moment
        raise


def _connect(connection: Connection) -> ssl.SSLSocket:
    try:
        context = client_context(connection.path)
    except (OSError, ssl.SSLError) as error:
        raise ConnectionFileError(f"connection file {connection.path} holds no usable key: {error}") from error
    tried = []
    for host, port in connection.addresses:
        try:
            plain = socket.create_connection((host, port), timeout=CONNECT_SECONDS)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return context.wrap_socket(plain, server_hostname=server_name(connection.run))
        except ssl.SSLError as error:
            tried.append(f"{host}:{port} answers, but not with the key of run {connection.run} ({error.reason})")
        except OSError as error:
            tried.append(f"{host}:{port} ({error})")
    raise UnreachableError(
        f"the driver of run {connection.run} cannot be reached: {'; '.join(tried)}. It was stopped or killed, or this "
        "machine cannot reach that address: then pass host= to run_blockwise"
    )


def _now() -> float:
    """Seconds on a clock that also counts while the machine sleeps."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def _dump_stacks(why: str) -> None:
    with contextlib.suppress(Exception):
        sys.stderr.write(f"\nblockflow: {why}\n")
        sys.stderr.flush()
        faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr, all_threads=True)
