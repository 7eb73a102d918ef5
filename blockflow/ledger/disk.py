"""What does the ledger need from a file system, and how does a real one give it?

Whole files appear at once or not at all; files that grow are appended to by one writer, told when to be durable, and
cut back when the disk is full. That is all, and NFS, Lustre and GPFS can do it: no locks, no maps of memory, no
databases. A simulator may put an object of its own in place of :class:`LocalDisk`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DRAFT = ".draft"
"""Suffix of files that are being written."""

_PIECE = 1 << 20
"""Bytes read at once."""


class AppendFile(Protocol):
    """A file that grows."""

    def append(self, data: bytes) -> None:
        """Write behind what is there.

        Raises:
            OSError: Not all of it was written, but some of it may have been.
        """

    def sync(self) -> None:
        """Return when everything appended so far is durable."""

    def truncate(self, size: int) -> None:
        """Cut the file to a size in bytes."""

    def close(self) -> None:
        """Let go of the file."""


class Disk(Protocol):
    """The files of one run directory, by paths like ``"journal/1"``; everything raises OSError as :mod:`os` does."""

    def names(self, folder: str) -> list[str]:
        """Names in a folder, sorted; none if it is not there."""

    def read(self, path: str) -> bytes:
        """A whole file."""

    def pieces(self, path: str) -> Iterator[bytes]:
        """A file from its beginning to its end, in pieces of any size."""

    def write(self, path: str, data: bytes) -> None:
        """Make a file, or replace it: whole, or not at all. Durable when its folder is synced."""

    def create(self, path: str, data: bytes) -> None:
        """Make a file that must not be there; of several that try, one succeeds. Durable when its folder is synced.

        Raises:
            FileExistsError: It is there.
        """

    def open(self, path: str) -> AppendFile:
        """A file that is there, to append to it."""

    def rename(self, old: str, new: str) -> None:
        """Give a file or folder another name, which no folder has. Durable when the folder around it is synced."""

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with everything in it, if it is there."""

    def sync(self, folder: str) -> None:
        """Return when names made, changed and removed in a folder are durable; ``""`` is the run directory."""

    def touch(self, path: str) -> None:
        """Set the time of a file to now."""

    def age(self, path: str) -> float:
        """Seconds since a file was written or touched, by the clock of the file system."""


class LocalDisk:
    """A :class:`Disk` on a mounted file system.

    Args:
        root: The run directory; must be there.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self, folder: str) -> list[str]:
        """See :class:`Disk`."""
        try:
            return sorted(os.listdir(self.root / folder))
        except FileNotFoundError:
            return []

    def read(self, path: str) -> bytes:
        """See :class:`Disk`."""
        return (self.root / path).read_bytes()

    def pieces(self, path: str) -> Iterator[bytes]:
        """See :class:`Disk`."""
        with open(self.root / path, "rb", buffering=0) as file:
            while piece := file.read(_PIECE):
                yield piece

    def write(self, path: str, data: bytes) -> None:
        """See :class:`Disk`."""
        target = self.root / path
        draft = target.with_name(f"{target.name}.{os.getpid()}{DRAFT}")
        try:
            self._make(draft, data, os.O_TRUNC)
            draft.replace(target)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise

    def create(self, path: str, data: bytes) -> None:
        """See :class:`Disk`."""
        self._make(self.root / path, data, os.O_EXCL)

    def open(self, path: str) -> AppendFile:
        """See :class:`Disk`."""
        return _LocalFile(os.open(self.root / path, os.O_WRONLY | os.O_CLOEXEC))

    def rename(self, old: str, new: str) -> None:
        """See :class:`Disk`."""
        (self.root / old).rename(self.root / new)

    def remove(self, path: str) -> None:
        """See :class:`Disk`."""
        target = self.root / path
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISDIR(os.lstat(target).st_mode):
                shutil.rmtree(target)
            else:
                target.unlink()

    def sync(self, folder: str) -> None:
        """See :class:`Disk`."""
        descriptor = os.open(self.root / folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def touch(self, path: str) -> None:
        """See :class:`Disk`."""
        os.utime(self.root / path)

    def age(self, path: str) -> float:
        """See :class:`Disk`."""
        written = os.stat(self.root / path).st_mtime
        probe = f"now.{os.getpid()}{DRAFT}"
        self._make(self.root / probe, b"", os.O_TRUNC)
        now = os.stat(self.root / probe).st_mtime
        self.remove(probe)
        return now - written

    def _make(self, target: Path, data: bytes, how: int) -> None:
        folder = target.parent
        if not folder.exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | how, 0o600)
        try:
            _write_at(descriptor, data, 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class _LocalFile:
    """An open file, and how long it is: one writer knows that better than the server of a network file system."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size

    def append(self, data: bytes) -> None:
        _write_at(self._descriptor, data, self._size)
        self._size += len(data)

    def sync(self) -> None:
        # macOS has no fdatasync
        getattr(os, "fdatasync", os.fsync)(self._descriptor)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)
        self._size = size

    def close(self) -> None:
        os.close(self._descriptor)


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    rest = memoryview(data)
    while rest:  # a disk that is nearly full takes a part first, and says so at the next
        written = os.pwrite(descriptor, rest, offset)
        rest = rest[written:]
        offset += written
