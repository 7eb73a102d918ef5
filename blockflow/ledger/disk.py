"""What does the ledger need from a file system, and how does a real one give it?

Whole files appear at once or not at all; files that grow are appended to by one writer, told when to be durable, and
cut back when the disk is full. That is all, and NFS, Lustre and GPFS can do it: no locks, no maps of memory, no
databases. A simulator may put an object of its own in place of :class:`LocalDisk`.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Protocol

from blockflow.freshness import caching_of, refresh_folder, refresh_now
from blockflow.trusted_files import DRAFT, PRIVATE, reopen_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from blockflow.trusted_files import Folder

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
        """Return when everything appended so far is durable.

        Raises:
            FileNotFoundError: The file has been removed, or moved elsewhere.
        """

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
        root: The run directory; must be there, and this user's own.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._caching = caching_of(root)

    def names(self, folder: str) -> list[str]:
        """See :class:`Disk`."""
        refresh_folder(self.root / folder, self._caching)
        try:
            with self._folder(f"{folder}/") as (opened, _):
                return opened.names()
        except FileNotFoundError:
            return []

    def read(self, path: str) -> bytes:
        """See :class:`Disk`."""
        refresh_now(self.root / path, self._caching)
        with self._folder(path) as (folder, name):
            return folder.read(name)

    def pieces(self, path: str) -> Iterator[bytes]:
        """See :class:`Disk`."""
        refresh_now(self.root / path, self._caching)
        with self._folder(path) as (folder, name):
            descriptor = folder.open(name, os.O_RDONLY)
        with open(descriptor, "rb", buffering=0) as file:
            while piece := file.read(_PIECE):
                yield piece

    def write(self, path: str, data: bytes) -> None:
        """See :class:`Disk`."""
        with self._folder(path, make=PRIVATE) as (folder, name):
            folder.write(name, data, sync=True)

    def create(self, path: str, data: bytes) -> None:
        """See :class:`Disk`."""
        with self._folder(path, make=PRIVATE) as (folder, name):
            descriptor = folder.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            _write_at(descriptor, data, 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def open(self, path: str) -> AppendFile:
        """See :class:`Disk`."""
        with self._folder(path) as (folder, name):
            return _LocalFile(str(self.root / path), folder.open(name, os.O_WRONLY))

    def rename(self, old: str, new: str) -> None:
        """See :class:`Disk`."""
        with reopen_folder(str(self.root)) as folder:
            folder.rename(old, new)

    def remove(self, path: str) -> None:
        """See :class:`Disk`."""
        with contextlib.suppress(FileNotFoundError), self._folder(path) as (folder, name):
            folder.remove_tree(name)

    def sync(self, folder: str) -> None:
        """See :class:`Disk`."""
        with self._folder(f"{folder}/") as (opened, _):
            opened.sync()

    def touch(self, path: str) -> None:
        """See :class:`Disk`."""
        with self._folder(path) as (folder, name):
            folder.touch(name)

    def age(self, path: str) -> float:
        """See :class:`Disk`."""
        refresh_now(self.root / path, self._caching)
        with self._folder(path) as (folder, name):
            written = folder.status(name)
            if written is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            probe = f"now.{os.getpid()}{DRAFT}"
            folder.write(probe, b"")
            now = folder.status(probe)
            folder.remove(probe)
        return (now or written).st_mtime - written.st_mtime

    @contextlib.contextmanager
    def _folder(self, path: str, make: int | None = None) -> Iterator[tuple[Folder, str]]:
        """Open the folder of a file; no folder of a run directory is a link to another one."""
        *above, name = path.split("/")
        folder = reopen_folder(str(self.root))
        try:
            for part in filter(None, above):
                below = folder.folder(part, make=make)
                folder.close()
                folder = below
            yield folder, name
        finally:
            folder.close()


class _LocalFile:
    """An open file, and how long it is: one writer knows that better than the server of a network file system."""

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        status = os.fstat(descriptor)
        self._size = status.st_size
        self._counts_names = status.st_nlink > 0  # some file systems in user space do not

    def append(self, data: bytes) -> None:
        _write_at(self._descriptor, data, self._size)
        self._size += len(data)

    def sync(self) -> None:
        # macOS has no fdatasync
        getattr(os, "fdatasync", os.fsync)(self._descriptor)
        os.lstat(self._path)  # what is written to a file without a name is lost when it is closed
        if self._counts_names and os.fstat(self._descriptor).st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, "the file was removed, and another one made", self._path)

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
