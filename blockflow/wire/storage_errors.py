"""Storage errors that pass: exceptions of user code that say nothing about its block.

A disk that is full has space again when somebody has made some, and a file server that gave an error answers the next
time. The exception that arrives is often not the one that the operating system raised: zarr, numcodecs, HDF5 and
libraries in C++ or Rust wrap it. It is classified in three steps:

1. the exception, its causes and contexts, and the members of exception groups, nearest first;
2. of each, the number that an ``OSError`` carries, or else one that its text names (``errno = 28``, ``os error 28``);
3. the file is the one that an exception names, or else the innermost local variable of its traceback that is an open
   file or a path.
"""

from __future__ import annotations

import errno
import io
import os
import re
from collections import deque
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

MOST_LINKS = 50
"""Exceptions of one chain that are looked at."""

MOST_FRAMES = 50
"""Innermost frames of a traceback in which a file is looked for."""


class FailureKind(IntEnum):
    """What an attempt at a block has failed of; its numbers are said on the wire."""

    CODE = 0
    """The user's code: an attempt is counted."""
    FULL = 1
    """There is no space left, or no quota: nothing is counted, however long it lasts."""
    STORAGE = 2
    """Storage gave an error that may pass: nothing is counted for the first minutes."""


KIND_OF = {
    errno.ENOSPC: FailureKind.FULL,
    errno.EDQUOT: FailureKind.FULL,
    errno.EIO: FailureKind.STORAGE,
}
"""By error number: what it says. All others are the code's: no wait makes a missing file or a permission appear."""

_NUMBERED = r"(?i)(?:\[Errno |\berrno ?= ?|\bos error |\berrno: ?)(\d{1,4})\b"

_WORDS = {os.strerror(number): number for number in KIND_OF}
"""By text of the operating system, which libraries quote: the number."""

_SHORT_WRITE = r"\d+ requested and \d+ written"
"""What numpy says, without a number, when a disk takes only a part of an array."""


def storage_error(error: BaseException) -> tuple[FailureKind, str]:
    """Kind of failure that an exception of user code is, and the file that it is about; empty if that is unknown.

    >>> storage_error(OSError(errno.ENOSPC, "No space left on device", "/data/a"))
    (<FailureKind.FULL: 1>, '/data/a')
    >>> storage_error(RuntimeError("cannot write: os error 28"))
    (<FailureKind.FULL: 1>, '')
    >>> storage_error(FileNotFoundError(errno.ENOENT, "No such file or directory", "/data/a"))
    (<FailureKind.CODE: 0>, '')
    """
    chain = list(_chain(error))
    kinds = [kind for each in chain if (kind := _kind(each)) is not FailureKind.CODE]
    if not kinds:
        return FailureKind.CODE, ""
    return kinds[0], next((file for each in chain if (file := _file(each))), "")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and what it came from, nearest first."""
    todo = deque([error])
    seen: set[int] = set()
    while todo and len(seen) < MOST_LINKS:
        each = todo.popleft()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        todo += [other for other in (each.__cause__, each.__context__) if other is not None]
        if isinstance(each, BaseExceptionGroup):
            todo += each.exceptions


def _kind(error: BaseException) -> FailureKind:
    if isinstance(error, OSError) and error.errno is not None:
        return KIND_OF.get(error.errno, FailureKind.CODE)
    try:
        text = str(error)
    except Exception:  # user code
        return FailureKind.CODE
    if isinstance(error, OSError) and re.fullmatch(_SHORT_WRITE, text):
        return FailureKind.STORAGE
    for number in re.findall(_NUMBERED, text):
        if int(number) in KIND_OF:
            return KIND_OF[int(number)]
    return next((KIND_OF[number] for words, number in _WORDS.items() if words in text), FailureKind.CODE)


def _file(error: BaseException) -> str:
    """The file that an exception is about."""
    if isinstance(error, OSError):
        for name in (error.filename2, error.filename):
            if isinstance(name, str | bytes):
                return os.fsdecode(name)
    return _file_in_frames(error.__traceback__)


def _file_in_frames(traceback: TracebackType | None) -> str:
    frames: deque[TracebackType] = deque(maxlen=MOST_FRAMES)
    while traceback is not None:
        frames.append(traceback)
        traceback = traceback.tb_next
    for found in reversed(frames):
        values = list(found.tb_frame.f_locals.values())
        for name in [*map(_name_of_file, values), *map(_path, values)]:
            if name:
                return name
    return ""


def _name_of_file(value: object) -> str:
    name = getattr(value, "name", None) if isinstance(value, io.IOBase) else None
    return name if isinstance(name, str) else ""


def _path(value: object) -> str:
    if not isinstance(value, os.PathLike):
        return ""
    try:
        return os.fsdecode(value)
    except Exception:  # user code
        return ""
