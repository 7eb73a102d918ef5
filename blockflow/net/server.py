"""The driver's end of the wire: who connects, and what arrives from them?

tornado carries the bytes, and encrypts what comes over the network. A connection that does not finish its handshake in
time, or presents another key, is closed before a byte of it is looked at. So is one of another user on a socket of this
machine.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import struct
from typing import TYPE_CHECKING, Any

from tornado.iostream import IOStream, SSLIOStream, StreamBufferFullError, StreamClosedError

from blockflow.net.listen import BACKLOG
from blockflow.wire.framing import frame
from blockflow.wire.messages import encode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from blockflow.net.complaints import Complaints
    from blockflow.wire.messages import FromDriver

HANDSHAKE_SECONDS = 10.0
"""How long a stranger may take to prove that it knows the key."""

MOST_STRANGERS = 512
"""Connections at once that have not proved it yet, or half of the files that this process may open if that is less. One
more, and the one that has waited for longest is closed: who knows the key needs only milliseconds."""

REST_SECONDS = 0.1
"""How long nobody is accepted when this process may open no more files."""

LARGEST_BITE = 16 * 1024
"""Bytes of one worker that are looked at before others have their turn."""

LARGEST_BACKLOG = 1024 * 1024
"""Bytes waiting for one worker; one that does not read loses its connection."""


class Peer:
    """One connection whose handshake is done."""

    def __init__(self, stream: IOStream) -> None:
        self._stream = stream
        self.broken = False
        """It ended, but was not closed at its other end."""

    async def receive(self) -> bytes:
        """Whatever has arrived; empty at the end."""
        try:
            arriving = asyncio.ensure_future(self._stream.read_bytes(LARGEST_BITE, partial=True))
            if arriving.done():
                await asyncio.sleep(0)  # else who sends without end would keep all others waiting
            return bytes(await arriving)
        except StreamClosedError as error:
            self.broken = self.broken or error.real_error is not None
        except (ssl.SSLError, OSError):
            self.broken = True
        return b""

    def send(self, messages: list[FromDriver]) -> None:
        """Send messages; they leave in this order, in the background."""
        if self._stream.closed():
            return  # its end is noticed where it is read
        data = b"".join(frame(encode(message)) for message in messages)
        try:
            self._stream.write(data).add_done_callback(_ignore)
        except (StreamBufferFullError, StreamClosedError, OSError):
            self.broken = True
            self._stream.close()

    def close(self) -> None:
        """Close the connection; what was sent before still leaves."""
        self.broken = True
        if self._stream.writing():
            self._stream.write(b"").add_done_callback(self._close_after)
        else:
            self._stream.close()

    def _close_after(self, done: Any) -> None:
        _ignore(done)
        self._stream.close()


def _ignore(done: Any) -> None:
    """Look at the outcome of a write, so that a lost connection is not reported as an unhandled error."""
    if not done.cancelled():
        done.exception()


class WorkerServer:
    """Accepts workers.

    Args:
        connection_file: Holds the run's key and certificate; None for a socket of this machine.
        serve: Called with each connection that has proved to know the key; the connection ends with it.
        complaints: Collects what is wrong with the others.
    """

    def __init__(
        self, connection_file: str | None, serve: Callable[[Peer], Awaitable[None]], complaints: Complaints
    ) -> None:
        self._tls: ssl.SSLContext | None = None
        if connection_file is not None:
            from blockflow.net.tls import server_context

            self._tls = server_context(connection_file)
        self._serve = serve
        self._complaints = complaints
        _silence_tornado()
        self._listening: list[socket.socket] = []
        self._strangers: dict[IOStream, None] = {}
        """Those whose handshake is not done, oldest first."""
        self._most_strangers = min(MOST_STRANGERS, _most_files() // 2)
        self._streams: set[IOStream] = set()
        self._serving: set[asyncio.Task[None]] = set()

    def add_socket(self, listening: socket.socket) -> None:
        """Accept what connects to a socket, in the running loop."""
        self._listening.append(listening)
        asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def close_all(self) -> None:
        """Close every connection, and listen no more."""
        for listening in self._listening:
            asyncio.get_running_loop().remove_reader(listening)
            listening.close()
        self._listening.clear()
        for stream in list(self._streams):
            stream.close()

    def _accept(self, listening: socket.socket) -> None:
        """Take in everybody who waits at the door."""
        for _ in range(BACKLOG):
            try:
                connection, _ = listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:  # this process may open no more files
                self._rest(listening)
                return
            connection.setblocking(False)
            try:
                stream = self._stream(connection)
            except OSError:  # it has left already, without an orderly end
                connection.close()
                continue
            serving = asyncio.ensure_future(self._let_in(stream))
            self._serving.add(serving)
            serving.add_done_callback(self._serving.discard)

    def _rest(self, listening: socket.socket) -> None:
        """Accept nobody for a moment."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)
        self._turn_away_oldest()

        def go_on() -> None:
            if listening in self._listening:
                loop.add_reader(listening, self._accept, listening)

        loop.call_later(REST_SECONDS, go_on)

    def _stream(self, connection: socket.socket) -> IOStream:
        if self._tls is None:
            return IOStream(connection, max_buffer_size=4 * LARGEST_BACKLOG)
        connection.getpeername()  # for who has left; Python 3.11 forgets to close the socket when it finds that out
        wrapped = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return SSLIOStream(wrapped, max_buffer_size=4 * LARGEST_BACKLOG)

    async def _let_in(self, stream: IOStream) -> None:
        """Serve a connection, if it proves in time that it knows the key."""
        if len(self._strangers) >= self._most_strangers:
            self._turn_away_oldest()
        self._strangers[stream] = None
        self._streams.add(stream)
        try:
            if isinstance(stream, SSLIOStream):
                await asyncio.wait_for(stream.wait_for_handshake(), HANDSHAKE_SECONDS)
            elif not _is_ours(stream.socket):
                raise PermissionError("it belongs to another user")
        except Exception as error:  # of whatever kind: nobody that has not proved anything may raise here
            stream.close()
            self._streams.discard(stream)
            reason = (error.real_error if isinstance(error, StreamClosedError) else error) or "it was closed"
            self._complaints.add(
                "handshake",
                f"a connection was turned away that did not prove to know the key of this run ({reason!r})",
            )
            return
        finally:
            self._strangers.pop(stream, None)
        stream.set_nodelay(True)
        stream.max_write_buffer_size = LARGEST_BACKLOG
        try:
            await self._serve(Peer(stream))
        finally:
            stream.close()
            self._streams.discard(stream)

    def _turn_away_oldest(self) -> None:
        oldest = next(iter(self._strangers), None)
        if oldest is not None:
            del self._strangers[oldest]
            oldest.close()


def _silence_tornado() -> None:
    """Keep tornado from printing a line for each stranger; the complaints have them."""
    logger = logging.getLogger("tornado.general")
    if _is_no_stranger not in logger.filters:
        logger.addFilter(_is_no_stranger)


def _is_no_stranger(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("SSL Error on")


def _most_files() -> int:
    """How many files this process may open."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return 2 * MOST_STRANGERS
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 2 * MOST_STRANGERS if soft == resource.RLIM_INFINITY else soft


def _is_ours(stream: socket.socket) -> bool:
    """Whether the other end of a local socket belongs to this user; its directory lets nobody else in anyway."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    credentials = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", credentials)[1] in (os.getuid(), 0))
