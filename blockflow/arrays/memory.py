"""Shared memory: where does memory live that several processes map, and who gives it back?

Nothing may stay behind, whoever is killed and however. Three ways were compared:

1. ``multiprocessing.shared_memory``: files in ``/dev/shm`` that a tracker process unlinks. Before Python
   3.13 an attaching process registers the file too and unlinks it under the owner's feet when it exits;
   when owner and tracker die together (SIGKILL of a job's process group, the out-of-memory killer) the file
   stays until reboot; and a container's ``/dev/shm`` is 64 MiB unless somebody asked for more.
2. A file that tells whether its owner lives, swept by whoever creates the next one. Correct, but the memory
   of a killed owner is only given back at that next creation.
3. Anonymous memory (``memfd_create``), reached by others of the same user through ``/proc/<owner>/fd/<n>``.
   No name exists that could stay behind: the kernel frees the pages when the last descriptor and mapping
   are gone, by exit, crash or SIGKILL alike. No tracker, no sweeping, no limit but memory.

Linux therefore uses 3. A name of 128 random bits is the memory's identity, so that a recycled process id or
descriptor is recognised and refused. Where that is impossible (macOS, BSD, a container without ``/proc``)
it is 2: a file of mode 0600 in the directory for temporary files, under an exclusive lock that the kernel
drops when the owner dies; after a SIGKILL it waits there for the next creation by the same user. Windows is
not supported.
"""

from __future__ import annotations

import errno
import os
import platform
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

__all__ = ["AnonymousMemory", "Home", "LockedFile", "new_memory"]


@dataclass(frozen=True, slots=True)
class AnonymousMemory:
    """Memory without a name in any file system, reached through its owner's descriptor."""

    pid: int
    """Of the owner."""
    host: str
    """Of the owner; for messages."""
    descriptor: int
    """In the owner's table."""
    name: str
    """What the kernel calls it; unique."""

    def attach(self, flags: int) -> int:
        """A descriptor of this process for it; ``OSError`` if the owner is gone or not ours to look at."""
        link = f"/proc/{self.pid}/fd/{self.descriptor}"
        self._expect_at(link)  # before opening: what has that number now may be a pipe that blocks
        descriptor = os.open(link, flags | os.O_CLOEXEC)
        try:
            self._expect_at(f"/proc/self/fd/{descriptor}")
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _expect_at(self, link: str) -> None:
        if os.readlink(link) != f"/memfd:{self.name} (deleted)":
            raise FileNotFoundError(errno.ENOENT, "process id or descriptor has been reused", link)

    def release(self, descriptor: int) -> None:
        """Give up the owner's descriptor, or the copy of it in a forked child."""
        os.close(descriptor)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@dataclass(frozen=True, slots=True)
class LockedFile:
    """A file that its owner holds under an exclusive lock, so that a sweep knows it is in use."""

    pid: int
    """Of the owner."""
    host: str
    """Of the owner; for messages."""
    path: str
    """Absolute."""

    def attach(self, flags: int) -> int:
        """A descriptor of this process for it; ``OSError`` if it is gone."""
        return os.open(self.path, flags | os.O_CLOEXEC)

    def release(self, descriptor: int) -> None:
        """Give up the owner's descriptor and the file; in a forked child only its copy of the descriptor."""
        if os.getpid() == self.pid:
            Path(self.path).unlink(missing_ok=True)
        os.close(descriptor)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} in {self.path}"


Home: TypeAlias = AnonymousMemory | LockedFile


def new_memory(length: int) -> tuple[Home, int]:
    """New memory, filled with zeros and owned by this process, and its descriptor.

    Args:
        length: In bytes, at least 1.

    Raises:
        OSError: No room.

    >>> home, descriptor = new_memory(100)
    >>> os.fstat(descriptor).st_size
    100
    >>> home.release(descriptor)
    """
    home, descriptor = _anonymous() or _locked_file(Path(tempfile.gettempdir()))
    try:
        os.ftruncate(descriptor, length)
        if isinstance(home, LockedFile) and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, length)  # a full disk is an error now, not a SIGBUS later
    except OSError:
        home.release(descriptor)
        raise
    return home, descriptor


def _anonymous() -> tuple[AnonymousMemory, int] | None:
    name = f"blockflow-{secrets.token_hex(16)}"
    try:
        descriptor = os.memfd_create(name)
    except (AttributeError, OSError):  # not Linux, or forbidden here
        return None
    home = AnonymousMemory(os.getpid(), platform.node(), descriptor, name)
    try:
        os.close(home.attach(os.O_RDWR))
    except OSError:  # no usable /proc
        os.close(descriptor)
        return None
    return home, descriptor


def _locked_file(folder: Path) -> tuple[LockedFile, int]:
    prefix = f"blockflow-{os.getuid()}-"
    for left in folder.glob(f"{prefix}*.shared"):
        _sweep(left)
    while True:
        path = folder / f"{prefix}{secrets.token_hex(16)}.shared"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        if _lock(descriptor) and os.fstat(descriptor).st_nlink:
            return LockedFile(os.getpid(), platform.node(), str(path)), descriptor
        os.close(descriptor)  # a sweep came between creating and locking; it removes the file


def _sweep(path: Path) -> None:
    """Remove a file whose owner is dead: the kernel has dropped its lock."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return  # removed meanwhile, or not ours
    if _lock(descriptor):
        path.unlink(missing_ok=True)
    os.close(descriptor)


def _lock(descriptor: int) -> bool:
    import fcntl  # Windows has none, and importing this module must not fail there

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
