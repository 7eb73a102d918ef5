"""Where does one commit end in the journal, which one is whole, and what is the rest?

A file begins with a fixed head: magic, version of the format, number of its first record, id of its run (16 bytes),
CRC32. Then frames follow, one for each group of records that became durable together: magic, length of the body, number
of records, number of the first one, CRC32 of the body, CRC32 of these 24 bytes, body. All numbers are little-endian.

A frame is only written after everything in front of it is durable. So whatever follows the last whole frame is

* a torn tail, if it can be the beginning of the one next frame: that commit was never acknowledged, and is left out;
* damage, if anything stands behind it that was written later: a frame that is not whole was, once.
"""

from __future__ import annotations

import struct
from typing import NamedTuple
from zlib import crc32

from blockflow.errors import DamagedLedgerError, LedgerVersionError

VERSION = 2
"""Of the format of journals. The first one, of 0.1.0, had no id of a run."""

LARGEST_BODY = 4 * 1024 * 1024
"""Bytes in the body of a frame."""

MAGIC = b"\xff\xb1\xf0\xfe"
"""Begins a frame; these bytes cannot occur in UTF-8."""

_FILE_MAGIC = b"\xffblockflow-j\n"
_HEAD = struct.Struct("<HQ16s")
HEAD_SIZE = len(_FILE_MAGIC) + _HEAD.size + 4
_FIRST_HEAD_SIZE = HEAD_SIZE - 16

_FRAME = struct.Struct("<4sIIQI")
_CRC = struct.Struct("<I")
FRAME_HEAD_SIZE = _FRAME.size + _CRC.size


class Frame(NamedTuple):
    """One group of records."""

    first: int
    """Number of the first record; they are counted from 1 over the life of the run."""
    size: int
    """Number of records, at least 1."""
    body: bytes


class Head(NamedTuple):
    """What a file says before its first frame."""

    first: int
    """Number of its first record."""
    run: str
    """Id of the run that it belongs to, 32 hexadecimal digits."""


def encode_head(head: Head) -> bytes:
    """The head of a file."""
    data = _FILE_MAGIC + _HEAD.pack(VERSION, head.first, bytes.fromhex(head.run))
    return data + _CRC.pack(crc32(data))


def encode_frame(first: int, count: int, body: bytes) -> bytes:
    """A group of records as a frame.

    >>> len(encode_frame(1, 1, b"body")) - FRAME_HEAD_SIZE
    4
    """
    head = _FRAME.pack(MAGIC, len(body), count, first, crc32(body))
    return head + _CRC.pack(crc32(head)) + body


def decode_head(data: bytes, name: str) -> Head:
    """The head of a file.

    Args:
        data: The file's first bytes, as many as a head has.
        name: Of the file, for messages.

    Raises:
        DamagedLedgerError: It has no head, or a damaged one.
        LedgerVersionError: Another version of blockflow wrote it.
    """
    whole = _ends_with_crc(data, HEAD_SIZE)
    if not whole and not _ends_with_crc(data, _FIRST_HEAD_SIZE):
        raise DamagedLedgerError(f"{name} is damaged at byte 0: it does not begin as a journal does")
    version = int.from_bytes(data[len(_FILE_MAGIC) : len(_FILE_MAGIC) + 2], "little")
    if version != VERSION:
        raise LedgerVersionError(
            f"{name} has format {version}, this blockflow reads {VERSION}: go on with the version that began the run"
        )
    _, first, run = _HEAD.unpack_from(data, len(_FILE_MAGIC))
    return Head(first, run.hex())


def _ends_with_crc(data: bytes, size: int) -> bool:
    """Whether the first bytes are a head of a size."""
    if not data.startswith(_FILE_MAGIC) or len(data) < size:
        return False
    return bool(_CRC.unpack_from(data, size - 4)[0] == crc32(data[: size - 4]))


class FrameReader:
    """Cuts the bytes of a file into frames, however they were split on the way.

    Args:
        name: Of the file, for messages.

    >>> reader = FrameReader("journal")
    >>> head = encode_head(Head(first=1, run=32 * "a"))
    >>> reader.feed(head + encode_frame(1, 2, b"some records") + encode_frame(3, 1, b"torn")[:-1])
    [Frame(first=1, size=2, body=b'some records')]
    >>> reader.finish(), reader.good
    (31, 83)
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._rest = b""
        self._stuck = False
        self.first: int | None = None
        """Number of the first record of the file, once the head was read."""
        self.next = 0
        """Number of the record that follows those read so far."""
        self.good = 0
        """Bytes of the file that are head and whole frames."""

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are whole now.

        Raises:
            DamagedLedgerError: The head is damaged.
            LedgerVersionError: Another version of blockflow wrote this file.
        """
        rest = self._rest + data
        begin = 0
        if self.first is None:
            if len(rest) < HEAD_SIZE:
                self._rest = rest
                return []
            self.first = self.next = decode_head(rest[:HEAD_SIZE], self._name).first
            begin = HEAD_SIZE
        frames: list[Frame] = []
        while not self._stuck:
            head = _frame_head(rest, begin)
            if head is None or head[2] != self.next:
                self._stuck = len(rest) - begin >= FRAME_HEAD_SIZE
                break
            length, count, first, check = head
            end = begin + FRAME_HEAD_SIZE + length
            if end > len(rest):
                break
            body = rest[begin + FRAME_HEAD_SIZE : end]
            if crc32(body) != check:
                self._stuck = True
                break
            frames.append(Frame(first, count, body))
            self.next += count
            begin = end
        self._rest = rest[begin:]
        self.good += begin
        return frames

    def finish(self) -> int:
        """There are no more bytes: how many of them are a torn tail.

        Raises:
            DamagedLedgerError: They cannot be one.
        """
        if self.first is None:
            decode_head(self._rest, self._name)
        rest = self._rest
        if not rest:
            return 0
        head = _frame_head(rest, 0)
        if head is not None:
            found = FRAME_HEAD_SIZE + head[0] if head[2] != self.next or len(rest) > FRAME_HEAD_SIZE + head[0] else 0
        else:
            found = _find_frame(rest)
            if not found and len(rest) > FRAME_HEAD_SIZE + LARGEST_BODY:
                found = len(rest)
        if found:
            raise DamagedLedgerError(
                f"{self._name} is damaged at byte {self.good}: record {self.next} should begin there and cannot be "
                f"read, and what stands at byte {self.good + found} was written later. Put the file back from a copy, "
                "or use reset=True to start over; nothing was changed"
            )
        return len(rest)


def _frame_head(data: bytes, at: int) -> tuple[int, int, int, int] | None:
    """Length of the body, number of records, number of the first one, and CRC32 of the body; None if there is none."""
    if len(data) - at < FRAME_HEAD_SIZE:
        return None
    magic, length, count, first, check = _FRAME.unpack_from(data, at)
    (own,) = _CRC.unpack_from(data, at + _FRAME.size)
    if magic != MAGIC or not 0 < length <= LARGEST_BODY or not count or own != crc32(data[at : at + _FRAME.size]):
        return None
    return length, count, first, check


def _find_frame(data: bytes) -> int:
    """Where a frame begins behind the first byte; 0 if there is none."""
    at = data.find(MAGIC, 1)
    while at > 0:
        if _frame_head(data, at) is not None:
            return at
        at = data.find(MAGIC, at + 1)
    return 0
