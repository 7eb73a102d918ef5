"""Results: how does what a function returned in a worker process come back, when no data crosses the wire?

Each worker appends records to a file of its own in a private folder; a record is written in one piece, before the
block is reported as done. The driver reads whatever is complete. A block that ran twice, because its worker was lost
in between, has two records, which are equally good. An exception is kept like a result, so that it keeps its type.

A record is a header (kind, index of the block, attempt, length and CRC-32 of the rest) and a pickle. These files are
as private as the processes that write and read them: they belong to one user, and never come from the network.
"""

from __future__ import annotations

import os
import pickle
import secrets
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from blockflow.errors import RunError
from blockflow.freshness import refresh_folder, refresh_now
from blockflow.launch.pickler import dumps
from blockflow.trusted_files import PRIVATE, open_folder, opened_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["FAILURE", "RESULT", "Record", "ResultFolder", "ResultWriter", "as_exception"]

RESULT, FAILURE = 0, 1

_HEADER = struct.Struct("<BQQQI")

_SUFFIX = ".results"


@dataclass(frozen=True, slots=True)
class Record:
    """Where in which file something is kept."""

    kind: int
    index: int
    """Of the block, C order."""
    attempt: int
    path: Path
    offset: int
    """Bytes before the pickle."""
    length: int
    """Of the pickle, in bytes."""

    def load(self) -> Any:
        """What is kept."""
        refresh_now(self.path)
        with opened_file(self.path, private=True) as descriptor:
            return pickle.loads(os.pread(descriptor, self.length, self.offset))


class ResultWriter:
    """The file of one process; it is made when there is something to keep."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None

    def keep(self, kind: int, index: int, attempt: int, value: Any) -> None:
        """Append a record.

        Raises:
            RunError: The value cannot be pickled, or there is no room for it.
        """
        try:
            body = dumps(value, sources=False)
        except Exception as error:
            raise RunError(
                f"what the function returned for block {index} cannot be kept ({type(value).__name__}: {error}); "
                "return arrays, numbers, text, or containers of them"
            ) from error
        if self._descriptor is None:
            name = f"{os.uname().nodename}-{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
            with open_folder(self._folder, make=PRIVATE, private=True) as folder:
                self._descriptor = folder.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        rest = memoryview(_HEADER.pack(kind, index, attempt, len(body), zlib.crc32(body)) + body)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def keep_failure(self, index: int, attempt: int, error: BaseException) -> None:
        """Append an exception, if it is the same after a round trip."""
        for kept in (error, _Parts(type(error), error.args, error.__dict__)):
            try:
                again = as_exception(pickle.loads(dumps(kept, sources=False)))
                if type(again) is type(error) and str(again) == str(error):
                    self.keep(FAILURE, index, attempt, kept)
                    return
            except Exception:
                continue

    def close(self) -> None:
        """Give up the file; another one is made if need be."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class _Parts(NamedTuple):
    """An exception that cannot be pickled as a whole, because its constructor wants other arguments."""

    kind: type[BaseException]
    args: tuple[Any, ...]
    state: dict[str, Any]


def as_exception(kept: Any) -> BaseException:
    """The exception that a failure is about.

    >>> as_exception(_Parts(ValueError, ("too large",), {"limit": 3})).limit
    3
    """
    if isinstance(kept, BaseException):
        return kept
    error: BaseException = kept.kind.__new__(kept.kind, *kept.args)
    error.args = kept.args
    error.__dict__.update(kept.state)
    return error


class ResultFolder:
    """What all processes have kept in a folder so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[Path, int] = {}

    def new(self) -> Iterator[Record]:
        """The records that were completed since the last call.

        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ResultWriter(pathlib.Path(folder)).keep(RESULT, 3, 0, "three")
        ...     [(record.index, record.load()) for record in ResultFolder(pathlib.Path(folder)).new()]
        [(3, 'three')]
        """
        refresh_folder(self.folder)
        for path in sorted(self.folder.glob(f"*{_SUFFIX}")):
            begin = self._read.get(path, 0)
            refresh_now(path)
            with opened_file(path, private=True) as descriptor:
                size = os.fstat(descriptor).st_size
                while begin + _HEADER.size <= size:
                    header = os.pread(descriptor, _HEADER.size, begin)
                    kind, index, attempt, length, crc = _HEADER.unpack(header)
                    body = begin + _HEADER.size
                    if body + length > size or not _is_whole(descriptor, body, length, crc):
                        break  # it is being written, or its writer was killed
                    begin = body + length
                    yield Record(kind, index, attempt, path, body, length)
                    self._read[path] = begin


def _is_whole(descriptor: int, offset: int, length: int, crc: int) -> bool:
    return zlib.crc32(os.pread(descriptor, length, offset)) == crc
