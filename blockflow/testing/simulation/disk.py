"""What is left on a disk when the driver dies? A disk in memory that fills up, fails and crashes.

A driver that is killed leaves everything that it wrote: the system holds it. When the power goes, of each file only
what was synced is certainly there, and any part of the rest; and of each folder what was synced, and the first few of
the changes since. A driver may die before each operation, or when it is half done.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

_SECTOR = 32
"""Bytes that reach the disk together. Real ones have 512; but then the few bytes of a simulated run never tear."""


class Died(BaseException):
    """The driver has died in this very moment."""


@dataclass(eq=False, slots=True)
class _File:
    data: bytearray
    durable: bytes = b""
    """What is there even if the power goes."""
    touched: float = 0.0


@dataclass(eq=False, slots=True)
class _Folder:
    names: dict[str, _File] = field(default_factory=dict)
    history: list[dict[str, _File]] = field(default_factory=lambda: [{}])
    """The names when they were synced last, and after each change since."""

    def changed(self) -> None:
        self.history.append(dict(self.names))


class SimulatedDisk:
    """The run directory, as :class:`blockflow.ledger.disk.Disk` wants it.

    Args:
        random: Decides what a crash leaves.
        now: Seconds on the clock of the file system.
    """

    def __init__(self, random: Random, now: Callable[[], float]) -> None:
        self._random = random
        self._now = now
        self._folders: dict[str, _Folder] = {"": _Folder()}
        self.full = False
        """Nothing more can be written."""
        self.fails = False
        """The next sync raises an error."""
        self.dies_after: int | None = None
        """So many operations from now the driver dies."""

    def lose_power(self) -> None:
        """Forget what was not synced, as far as chance wants."""
        for folder in self._folders.values():
            folder.names = dict(self._random.choice(folder.history))
            folder.history = [dict(folder.names)]
            for file in folder.names.values():
                self._tear(file)

    def _tear(self, file: _File) -> None:
        """Of what was written behind the durable part, some sectors are there, and others are not."""
        if file.data == file.durable:
            return
        kept = bytearray(file.durable)
        most = len(file.data)
        grown = file.data[: self._random.choice((most, self._random.randint(min(len(kept), most), most)))]
        while len(kept) < len(grown):
            sector = grown[len(kept) : len(kept) + _SECTOR]
            kept += sector if self._random.random() < 0.7 else bytes(len(sector))
        file.data, file.durable = kept, bytes(kept)

    # --------------------------------------------------------------------------------- what the ledger asks for

    def names(self, folder: str) -> list[str]:
        """See :class:`blockflow.ledger.disk.Disk`."""
        inner = [path.rpartition("/")[2] for path in self._folders if path and path.rpartition("/")[0] == folder]
        found = self._folders.get(folder)
        return sorted([*inner, *(found.names if found is not None else ())])

    def read(self, path: str) -> bytes:
        """See :class:`blockflow.ledger.disk.Disk`."""
        return bytes(self._file(path).data)

    def pieces(self, path: str) -> Iterator[bytes]:
        """See :class:`blockflow.ledger.disk.Disk`."""
        data = self.read(path)
        middle = self._random.randint(0, len(data))
        yield from filter(None, (data[:middle], data[middle:]))

    def write(self, path: str, data: bytes) -> None:
        """See :class:`blockflow.ledger.disk.Disk`."""
        self._operation()
        self._take_space()
        folder, name = self._parent(path)
        folder.names[name] = _File(bytearray(data), data, self._now())
        folder.changed()

    def create(self, path: str, data: bytes) -> None:
        """See :class:`blockflow.ledger.disk.Disk`."""
        folder, name = self._parent(path)
        if name in folder.names:
            raise FileExistsError(errno.EEXIST, "it exists", path)
        self.write(path, data)

    def open(self, path: str) -> _AppendFile:
        """See :class:`blockflow.ledger.disk.Disk`."""
        return _AppendFile(self, self._file(path))

    def rename(self, old: str, new: str) -> None:
        """See :class:`blockflow.ledger.disk.Disk`."""
        self._operation()
        if old in self._folders:  # a folder: durable at once, which a real one need not be
            moved = [path for path in self._folders if path == old or path.startswith(f"{old}/")]
            for path in moved:
                self._folders[new + path[len(old) :]] = self._folders.pop(path)
            return
        source, name = self._parent(old)
        target, new_name = self._parent(new)
        target.names[new_name] = source.names.pop(name)
        source.changed()
        target.changed()

    def remove(self, path: str) -> None:
        """See :class:`blockflow.ledger.disk.Disk`."""
        self._operation()
        for folder in [folder for folder in self._folders if folder == path or folder.startswith(f"{path}/")]:
            del self._folders[folder]
        parent, name = self._parent(path)
        if parent.names.pop(name, None) is not None:
            parent.changed()

    def sync(self, folder: str) -> None:
        """See :class:`blockflow.ledger.disk.Disk`."""
        self._operation()
        found = self._folders[folder]
        found.history = [dict(found.names)]

    def touch(self, path: str) -> None:
        """See :class:`blockflow.ledger.disk.Disk`."""
        self._file(path).touched = self._now()

    def age(self, path: str) -> float:
        """See :class:`blockflow.ledger.disk.Disk`."""
        return self._now() - self._file(path).touched

    # ----------------------------------------------------------------------------------------------- internals

    def _operation(self) -> None:
        if self.dies_after is not None:
            self.dies_after -= 1
            if self.dies_after < 0:
                self.dies_after = None
                raise Died

    def _take_space(self) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "no space left on the simulated disk")

    def _file(self, path: str) -> _File:
        folder, _, name = path.rpartition("/")
        found = self._folders.get(folder)
        if found is None or name not in found.names:
            raise FileNotFoundError(errno.ENOENT, "it is not there", path)
        return found.names[name]

    def _parent(self, path: str) -> tuple[_Folder, str]:
        folder, _, name = path.rpartition("/")
        return self._folders.setdefault(folder, _Folder()), name


class _AppendFile:
    """A file that grows."""

    def __init__(self, disk: SimulatedDisk, file: _File) -> None:
        self._disk = disk
        self._file = file

    def append(self, data: bytes) -> None:
        try:
            self._disk._operation()
            self._disk._take_space()
        except (Died, OSError):
            self._file.data += data[: self._disk._random.randint(0, len(data))]
            raise
        self._file.data += data

    def sync(self) -> None:
        self._disk._operation()
        if self._disk.fails:
            self._disk.fails = False
            raise OSError(errno.EIO, "the simulated disk has failed")
        self._file.durable = bytes(self._file.data)

    def truncate(self, size: int) -> None:
        self._disk._operation()
        del self._file.data[size:]

    def close(self) -> None:
        pass
