"""One connection of a worker to its driver: frames go out and come in, nothing waits longer than it is told to."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from typing import TYPE_CHECKING

from blockflow.wire.framing import FrameReader
from blockflow.wire.messages import LARGEST_MESSAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

SEND_SECONDS = 20.0
"""A driver that takes nothing for so long is as good as gone."""


class Pipe:
    """Frames over a socket.

    Args:
        stream: A socket whose handshake, if there is one, is done.
        reads: What it raises if it would have to wait until something arrives.
        writes: What it raises if it would have to wait until it can send.
    """

    def __init__(
        self,
        stream: socket.socket,
        *,
        reads: tuple[type[OSError], ...] = (),
        writes: tuple[type[OSError], ...] = (BlockingIOError,),
    ) -> None:
        self._stream = stream
        self._reads = reads
        """Also while it sends: TLS may have to listen first."""
        self._writes = writes
        self._waits = (*reads, *writes)
        self._frames = FrameReader(LARGEST_MESSAGE)

    def converse(self) -> Iterator[bytes]:
        """Bodies of frames as they come; waits for each, as long as the socket's timeout.

        Raises:
            OSError: The connection is lost.
            RemoteProtocolError: What came is no frame.
        """
        while True:
            data = self._stream.recv(65536)
            if not data:
                raise ConnectionAbortedError("closed by the driver; it may have another key")
            yield from self._frames.feed(data)

    def hurry(self) -> None:
        """Never wait from now on."""
        self._stream.setblocking(False)

    def send(self, data: bytes) -> None:
        """Send everything.

        Raises:
            OSError: The connection is lost.
        """
        left = memoryview(data)
        deadline = time.monotonic() + SEND_SECONDS
        while left:
            try:
                left = left[self._stream.send(left) :]
            except self._writes:
                self._wait_for(selectors.EVENT_WRITE, 1.0)
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the driver has not taken anything for {SEND_SECONDS:g} s") from None
            except self._reads:
                self._wait_for(selectors.EVENT_READ, 1.0)

    def receive(self) -> list[bytes]:
        """Bodies of the frames that have arrived.

        Raises:
            OSError: The connection is lost.
            RemoteProtocolError: What came is no frame.
        """
        bodies: list[bytes] = []
        while True:
            try:
                data = self._stream.recv(65536)
            except self._waits:
                return bodies
            if not data:
                if bodies:
                    return bodies  # what was said last counts; the end is noticed the next time
                raise ConnectionAbortedError("closed by the driver")
            bodies += self._frames.feed(data)

    def part(self, seconds: float) -> None:
        """Wait until the driver has closed the connection.

        An end that is closed with unread data resets the connection, and what it has sent last may be lost.
        """
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                if not self._stream.recv(65536):
                    return
            except self._waits:
                self._wait_for(selectors.EVENT_READ, left)
            except OSError:
                return

    def wait(self, seconds: float, also: int = -1) -> None:
        """Wait until something arrives, here or at another descriptor, or the time is over."""
        if self._stream.fileno() >= 0:
            with contextlib.suppress(OSError, ValueError):  # another thread may close it in this moment
                self._wait_for(selectors.EVENT_READ, seconds, also)

    def wake(self) -> None:
        """End :meth:`wait` in another thread, and the conversation with it."""
        with contextlib.suppress(OSError):
            self._stream.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def _wait_for(self, event: int, seconds: float, also: int = -1) -> None:
        with selectors.DefaultSelector() as selector:  # select.select knows no descriptor above 1023
            selector.register(self._stream, event)
            if also >= 0:
                selector.register(also, selectors.EVENT_READ)
            selector.select(max(0.0, seconds))
