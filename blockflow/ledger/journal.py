"""How do records become durable, in order, and how are they read back?

The journal is a folder of files, one behind the other. Each driver begins a file of its own, and another whenever a
snapshot is made; nobody appends to a file that somebody else began. The head of a file says which record is its first,
and so where the file before it ends: what stands there behind that point was never acknowledged, and does not count.

1. :meth:`Journal.append` takes records and numbers them; it only keeps them in memory.
2. :meth:`Journal.commit` writes all of them as one frame, and returns when it is durable.
3. A full disk changes nothing: what was written of the frame is cut off again, and the next commit tries anew. That the
   disk is full may be said by the sync as well (NFS does so); the frame is then written again, never only synced.
4. Any other error is final. After a failed sync nobody knows what is on the disk, and a second one may succeed without
   having written anything (https://www.usenix.org/conference/atc20/presentation/rebello).
"""

from __future__ import annotations

import errno
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from blockflow.errors import DamagedLedgerError, LedgerError, LedgerFullError
from blockflow.ledger.frames import HEAD_SIZE, FrameReader, Head, decode_head, encode_frame, encode_head
from blockflow.ledger.records import decode_records, encode_records, join_records

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blockflow.ledger.disk import AppendFile, Disk
    from blockflow.ledger.frames import Frame
    from blockflow.ledger.records import Record

FOLDER = "journal"

LAST_FILE = "journal.json"
"""Names the last file of the journal, so that its loss is noticed."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What operating systems say when there is no space left."""

_FRAME_BYTES = 1 << 20
"""A frame that has as many takes no more records; one more never exceeds what a frame may hold."""


@dataclass(frozen=True, slots=True, order=True)
class JournalFile:
    """One file of the journal."""

    epoch: int
    """Of the driver that began it."""
    first: int
    """Number of its first record."""

    @property
    def path(self) -> str:
        """In the run directory."""
        return f"{FOLDER}/{self.epoch:010d}-{self.first:020d}"


def journal_files(disk: Disk) -> list[JournalFile]:
    """The files of the journal, in order."""
    found = []
    for name in disk.names(FOLDER):
        epoch, _, first = name.partition("-")
        if epoch.isdecimal() and first.isdecimal():
            found.append(JournalFile(int(epoch), int(first)))
    return sorted(found)


class _Last(msgspec.Struct, frozen=True):
    """What :data:`LAST_FILE` says."""

    run: str
    epoch: int
    first: int


def check_journal(disk: Disk, run: str) -> None:
    """Refuse files of other runs, and the loss of the last file; that of any other is noticed when they are read.

    Args:
        disk: The run directory.
        run: Id of the run that it belongs to.

    Raises:
        DamagedLedgerError: A file belongs to another run, or the last one is missing.
        LedgerVersionError: Another version of blockflow wrote a file.
    """
    files = journal_files(disk)
    begun = False
    for file in files:
        begin = b""
        for piece in disk.pieces(file.path):  # of any size
            begin += piece
            if len(begin) > HEAD_SIZE:
                break
        refuse_foreign(file.path, decode_head(begin[:HEAD_SIZE], file.path).run, run)
        begun = begun or len(begin) > HEAD_SIZE
    try:
        last = msgspec.json.decode(disk.read(LAST_FILE), type=_Last)
    except FileNotFoundError:
        if not begun:  # a driver died just before it named its first file
            return
        raise DamagedLedgerError(f"{LAST_FILE} is missing; {_WAYS_OUT}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DamagedLedgerError(f"{LAST_FILE} is damaged ({error}); {_WAYS_OUT}") from None
    refuse_foreign(LAST_FILE, last.run, run)
    expected = JournalFile(last.epoch, last.first)
    if not files or files[-1] < expected:
        raise DamagedLedgerError(
            f"{expected.path} is missing, the last file of the journal, and what was recorded in it; {_WAYS_OUT}"
        )


def refuse_foreign(name: str, found: str, run: str) -> None:
    """Refuse a file of another run.

    Args:
        name: Of the file.
        found: Id of the run that it names.
        run: Id of the run that the directory belongs to.

    Raises:
        DamagedLedgerError: These are two runs.
    """
    if found != run:
        raise DamagedLedgerError(
            f"{name} belongs to another run ({found[:8] or 'it names none'}) than this run directory ({run[:8]}): a "
            f"file of another run directory, or one from before a reset, was put here; {_WAYS_OUT}"
        )


_WAYS_OUT = "put back the one that was here from a copy, or use reset=True to start over; nothing was changed"


def sync_last(disk: Disk) -> None:
    """Make the last file of the journal durable.

    A driver that was killed had perhaps not synced what the next one reads, and goes on from.
    """
    for last in journal_files(disk)[-1:]:
        file = disk.open(last.path)
        file.sync()
        file.close()


class Journal:
    """The writing end of the journal; records may be appended while others are committed.

    Args:
        disk: The run directory.
        epoch: Of this driver.
        next_number: Number of the next record.
        run: Id of the run.
    """

    def __init__(self, disk: Disk, epoch: int, next_number: int, *, run: str) -> None:
        self._disk = disk
        self._epoch = epoch
        self._run = run
        self._pending: list[bytes] = []
        self._appended = self._durable = next_number - 1
        self._appending = threading.Lock()
        """Held for moments only: the pending records and the numbers."""
        self._committing = threading.Lock()
        """Held while the disk is waited for: the file."""
        self._broken: LedgerError | None = None
        self._file: AppendFile | None = None
        self._begun: JournalFile | None = None
        """The file that is written."""
        self._size = 0
        self.bytes_written = 0
        """In all files of this journal."""

    def begin(self) -> None:
        """Begin a file; from now on, others that were begun for the same or a later record do not count.

        Raises:
            OSError: It could not be made.
        """
        with self._committing:
            self._begin()

    def append(self, records: Sequence[Record]) -> int:
        """Take records, to be committed later; returns the number of the last one.

        Raises:
            LedgerError: A value is out of bounds, or a commit has failed for good.
        """
        encoded = encode_records(records)
        with self._appending:
            self._check()
            self._pending += encoded
            self._appended += len(encoded)
            return self._appended

    def commit(self) -> int:
        """Make what was appended durable; returns the number of the last durable record.

        Raises:
            LedgerFullError: No space is left; call it again when there is.
            LedgerError: The disk failed, now or before; what was appended and not committed may be lost.
        """
        with self._committing:
            self._commit()
            return self._durable

    def rotate(self) -> int:
        """Commit, and begin another file; returns the number of the last record in front of it.

        Raises:
            LedgerFullError: No space is left; nothing has changed.
            LedgerError: See :meth:`commit`.
        """
        with self._committing:
            self._commit()
            try:
                self._begin()
            except OSError as error:
                if error.errno in FULL:
                    raise LedgerFullError(_full(error)) from error
                raise self._fail(error) from error
            return self._durable

    def close(self) -> None:
        """Let go of the file; what was not committed is lost."""
        with self._committing, self._appending:
            self._broken = self._broken or LedgerError("the ledger is closed")
            if self._file is not None:
                self._file.close()
                self._file = None

    def _begin(self) -> None:
        file = JournalFile(self._epoch, self._durable + 1)
        if file == self._begun:
            return  # it has no record yet
        self._disk.write(file.path, encode_head(Head(file.first, self._run)))
        try:
            self._disk.sync(FOLDER)
            if self._begun is None:
                self._disk.sync("")  # the folder itself may be new
            self._name_last(file)
            self._disk.sync("")
            opened = self._disk.open(file.path)
        except OSError:
            self._undo(file)
            raise
        if self._file is not None:
            self._file.close()
        self._file, self._begun = opened, file
        self._size = HEAD_SIZE

    def _name_last(self, file: JournalFile) -> None:
        self._disk.write(LAST_FILE, self._last_of(file))

    def _last_of(self, file: JournalFile) -> bytes:
        """Return the content of the file that names the last file of the journal."""
        return msgspec.json.encode(_Last(self._run, file.epoch, file.first)) + b"\n"

    def _undo(self, file: JournalFile) -> None:
        """Remove a file that could not be begun: while it is there, no further records of the one before it count.

        Raises:
            LedgerError: It is there still.
        """
        if self._begun is None:
            return  # nothing is written to the one before
        try:
            if self._disk.read(LAST_FILE) != self._last_of(self._begun):  # a full disk could not take it again
                self._name_last(self._begun)
            self._disk.remove(file.path)
        except OSError as fault:
            raise self._fail(fault) from fault

    def _commit(self) -> None:
        with self._appending:
            goal = self._appended
        while self._durable < goal or self._broken:
            with self._appending:
                self._check()
                count = _first_frame(self._pending)
                encoded = self._pending[:count]
            self._write(encode_frame(self._durable + 1, count, join_records(encoded)))
            with self._appending:
                del self._pending[:count]
                self._durable += count

    def _write(self, frame: bytes) -> None:
        assert self._file is not None, "a journal is begun before anything is committed"
        try:
            self._file.append(frame)
            self._file.sync()
        except OSError as error:
            if error.errno not in FULL:
                raise self._fail(error) from error
            try:
                self._file.truncate(self._size)
            except OSError as fault:
                raise self._fail(fault) from fault
            raise LedgerFullError(_full(error)) from error
        self._size += len(frame)
        self.bytes_written += len(frame)

    def _check(self) -> None:
        if self._broken:
            raise self._broken

    def _fail(self, error: OSError) -> LedgerError:
        if isinstance(error, FileNotFoundError):
            self._broken = LedgerError(
                f"the journal is gone while the run goes on ({error}): it was removed or moved, and what happened to "
                "the blocks since then is not recorded. Nothing more is; put the journal back and run the same again, "
                "or pass reset=True to start over"
            )
            return self._broken
        self._broken = LedgerError(
            f"the ledger cannot be written ({error}): the disk or the file server failed, and nobody knows what is on "
            "it. Nothing more is recorded; run the same again when the file system is well"
        )
        return self._broken


class JournalReader:
    """The reading end of the journal.

    Args:
        disk: The run directory.
        after: Number of the last record that is not wanted; a snapshot holds it.
    """

    def __init__(self, disk: Disk, after: int) -> None:
        self._disk = disk
        self._after = after
        self.next_number = after + 1
        """Number of the record that follows those read so far."""
        self.torn = 0
        """Bytes of a commit that was never acknowledged, at the end."""

    def batches(self) -> Iterator[tuple[int, list[Record]]]:
        """All records in order, many at once, with the number of the first; none are of two files.

        Raises:
            DamagedLedgerError: Records are missing, or are none.
            LedgerVersionError: Another version of blockflow wrote a file.
        """
        files = journal_files(self._disk)
        for place, file in enumerate(files):
            end = files[place + 1].first if place + 1 < len(files) else None
            if end is not None and end <= self.next_number:
                continue  # a snapshot holds all of it
            yield from self._batches(file, end)

    def _batches(self, file: JournalFile, end: int | None) -> Iterator[tuple[int, list[Record]]]:
        """The records of a file in front of the one with number `end`, where the next file begins."""
        reader = FrameReader(file.path)
        for piece in self._disk.pieces(file.path):
            frames = reader.feed(piece)
            self._expect(reader.first or 0, file)
            records: list[Record] = []
            for frame in frames:
                if end is not None and frame.first >= end:
                    break
                known = self.next_number - frame.first
                if known < frame.size:
                    records += _decoded(frame, file)[known:]
                    self.next_number = frame.first + frame.size
            if records:
                yield self.next_number - len(records), records
            if end is not None and self.next_number >= end:
                return
        self.torn = reader.finish()
        self._expect(end or reader.first or 0, file)

    def _expect(self, number: int, file: JournalFile) -> None:
        """Refuse a gap in front of a record."""
        if number > self.next_number:
            raise DamagedLedgerError(
                f"records {self.next_number} to {number - 1} are missing from {file.path} or in front of it: a file of "
                "the journal, or the snapshot (ledger.zarr), was removed, cut or replaced; put it back from a copy, or "
                "use reset=True to start over"
            )


def _decoded(frame: Frame, file: JournalFile) -> list[Record]:
    try:
        records = decode_records(frame.body)
    except LedgerError as error:
        raise DamagedLedgerError(f"record {frame.first} in {file.path} cannot be read: {error}") from None
    if len(records) != frame.size:
        raise DamagedLedgerError(
            f"record {frame.first} in {file.path} should be the first of {frame.size}, it is of {len(records)}"
        )
    return records


def _first_frame(encoded: list[bytes]) -> int:
    """How many of the records fit into one frame."""
    size = 0
    for count, body in enumerate(encoded):
        if size >= _FRAME_BYTES:
            return count
        size += len(body)
    return len(encoded)


def _full(error: OSError) -> str:
    return f"no space is left for the ledger ({error.strerror}); nothing is lost: make room, and the run goes on"
