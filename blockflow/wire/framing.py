"""Where does one message end and the next begin?

A frame is the length of its body, 4 bytes little-endian, and the body. A length above the limit is refused before
anything is allocated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockflow.errors import LocalProtocolError, RemoteProtocolError
from blockflow.wire.messages import LARGEST_MESSAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEADER = 4


def frame(body: bytes) -> bytes:
    """A body with its length in front.

    Raises:
        LocalProtocolError: The body is empty, or larger than any message may be.
    """
    if not 0 < len(body) <= LARGEST_MESSAGE:
        raise LocalProtocolError(f"a message has 1 to {LARGEST_MESSAGE} bytes, this one {len(body)}")
    return len(body).to_bytes(_HEADER, "little") + body


class FrameReader:
    """Cuts a stream of bytes into bodies; how the bytes were split on the way does not matter.

    Args:
        limit: Bytes in a body at most; may be changed at any time.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bodies that are complete now, one by one, so that a wrong frame takes none in front of it along.

        Raises:
            RemoteProtocolError: A frame announces more than the limit, or nothing.
        """
        self._buffer += data
        return self._complete()

    def _complete(self) -> Iterator[bytes]:
        begin = 0
        try:
            while len(self._buffer) - begin >= _HEADER:
                length = int.from_bytes(self._buffer[begin : begin + _HEADER], "little")
                if not 0 < length <= self.limit:
                    raise RemoteProtocolError(f"a frame of {length} bytes; 1 to {self.limit} are allowed here")
                end = begin + _HEADER + length
                if len(self._buffer) < end:
                    break
                body = bytes(self._buffer[begin + _HEADER : end])
                begin = end
                yield body
        finally:
            del self._buffer[:begin]
