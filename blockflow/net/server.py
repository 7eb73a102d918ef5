"""The driver's end of the wire: who connects, and what arrives from them?

tornado listens, and encrypts what comes over the network. A connection that does not finish its handshake in time, or
presents another key, is closed before a byte of it is looked at. So is one of another user on a socket of this machine.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from typing import TYPE_CHECKING, Any

from tornado.iostream import IOStream, StreamBufferFullError, StreamClosedError
from tornado.tcpserver import TCPServer

from blockflow.wire.framing import frame
from blockflow.wire.messages import encode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from blockflow.wire.messages import FromDriver

HANDSHAKE_SECONDS = 10.0
"""How long a stranger may take to prove that it knows the key."""

MOST_STRANGERS = 512
"""Connections at once that have not proved it yet, and half of the files that a process may open on most machines. One
more, and the one that has waited for longest is closed: who knows the key needs only milliseconds."""

LARGEST_BACKLOG = 1024 * 1024
"""Bytes waiting for one worker; one that does not read loses its connection."""


class Peer:
    """One connection whose handshake is done."""

    def __init__(self, stream: IOStream) -> None:
        self._stream = stream

    async def receive(self) -> bytes:
        """Whatever has arrived; empty at the end."""
        try:
            return bytes(await self._stream.read_bytes(65536, partial=True))
        except (StreamClosedError, ssl.SSLError, OSError):
            return b""

    def send(self, messages: list[FromDriver]) -> None:
        """Send messages; they leave in this order, in the background."""
        if self._stream.closed():
            return  # its end is noticed where it is read
        data = b"".join(frame(encode(message)) for message in messages)
        try:
            self._stream.write(data).add_done_callback(_ignore)
        except (StreamBufferFullError, StreamClosedError, OSError):
            self._stream.close()

    def close(self) -> None:
        """Close the connection; what was sent before still leaves."""
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


class WorkerServer(TCPServer):
    """Accepts workers.

    Args:
        connection_file: Holds the run's key and certificate; None for a socket of this machine.
        serve: Called with each connection that has proved to know the key; the connection ends with it.
    """

    def __init__(self, connection_file: str | None, serve: Callable[[Peer], Awaitable[None]]) -> None:
        options = None
        if connection_file is not None:
            from blockflow.net.tls import server_context

            options = server_context(connection_file)
        super().__init__(ssl_options=options, max_buffer_size=4 * LARGEST_BACKLOG)
        self._encrypts = options is not None
        self._serve = serve
        self._strangers: dict[IOStream, None] = {}
        """Those whose handshake is not done, oldest first."""
        self._streams: set[IOStream] = set()

    async def handle_stream(self, stream: IOStream, address: tuple[str, int]) -> None:
        """Let a connection in, if it proves in time that it knows the key."""
        if len(self._strangers) >= MOST_STRANGERS:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.close()
        self._strangers[stream] = None
        self._streams.add(stream)
        try:
            if self._encrypts:
                await asyncio.wait_for(stream.wait_for_handshake(), HANDSHAKE_SECONDS)  # type: ignore[attr-defined]
            elif not _is_ours(stream.socket):
                raise StreamClosedError
        except (StreamClosedError, ssl.SSLError, OSError, TimeoutError):
            stream.close()
            self._streams.discard(stream)
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

    def close_all(self) -> None:
        """Close every connection, and listen no more."""
        self.stop()
        for stream in list(self._streams):
            stream.close()


def _is_ours(stream: socket.socket) -> bool:
    """Whether the other end of a local socket belongs to this user; its directory lets nobody else in anyway."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    credentials = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", credentials)[1] in (os.getuid(), 0))
