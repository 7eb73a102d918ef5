"""A disk that crashes: what was not synced may be there afterwards, or not, or in pieces.

Names and data become durable independently of one another. A crash keeps, of each folder, what was synced and the
first of the changes since, any number of them; of each file that grew, what was synced and any sectors of the rest.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

SECTOR = 16
"""Bytes; real ones have 512, but then a test would have to write as much."""


class Crash(BaseException):
    """The machine has lost power."""


@dataclass(eq=False)
class FakeFile:
    data: bytes = b""
    durable: bytes = b""
    touched: float = 0.0

    def after_crash(self, random: Random) -> FakeFile:
        kept = bytearray(self.durable)
        if self.data != self.durable:
            kept = kept[: len(self.data)] if random.random() < 0.5 else kept
            grown = self.data[: random.randint(min(len(kept), len(self.data)), len(self.data))]
            for begin in range(len(kept), len(grown), SECTOR):
                sector = grown[begin : begin + SECTOR]
                kept += sector if random.random() < 0.7 else bytes(len(sector))
        return FakeFile(bytes(kept), bytes(kept), self.touched)


@dataclass(eq=False)
class FakeFolder:
    names: dict[str, FakeFile | FakeFolder] = field(default_factory=dict)
    durable: dict[str, FakeFile | FakeFolder] = field(default_factory=dict)
    changes: list[dict[str, FakeFile | FakeFolder]] = field(default_factory=list)
    """The names after each change since the last sync."""

    def changed(self) -> None:
        self.changes.append(dict(self.names))

    def after_crash(self, random: Random) -> FakeFolder:
        kept = random.choice([self.durable, *self.changes])
        names = {name: node.after_crash(random) for name, node in kept.items()}
        return FakeFolder(dict(names), dict(names))


class FakeDisk:
    """Implements :class:`blockflow.ledger.disk.Disk`.

    Args:
        root: What is on it.
    """

    def __init__(self, root: FakeFolder | None = None) -> None:
        self.root = root or FakeFolder()
        self.operations = 0
        self.crash_at: int | None = None
        """The operation with this number is not carried out, or in part; nothing is from then on."""
        self.errors: dict[int, int] = {}
        """By number of an operation: the error that it raises."""
        self.room: int | None = None
        """Bytes that can still be written."""
        self.now = 0.0

    def crashed(self, random: Random) -> FakeDisk:
        """The disk as it may be found after a crash."""
        disk = FakeDisk(self.root.after_crash(random))
        disk.now = self.now
        return disk

    def names(self, folder: str) -> list[str]:
        self._alive()
        try:
            found = self._find(folder)
        except FileNotFoundError:
            return []
        assert isinstance(found, FakeFolder), folder
        return sorted(found.names)

    def read(self, path: str) -> bytes:
        self._alive()
        return self._file(path).data

    def pieces(self, path: str) -> Iterator[bytes]:
        data = self.read(path)
        for begin in range(0, len(data), 1000):
            yield data[begin : begin + 1000]

    def write(self, path: str, data: bytes) -> None:
        self._operation()
        self._take(len(data))
        folder, name = self._parent(path)
        folder.names[name] = FakeFile(data, data, self.now)
        folder.changed()

    def create(self, path: str, data: bytes) -> None:
        self._operation()
        folder, name = self._parent(path)
        if name in folder.names:
            raise FileExistsError(errno.EEXIST, "exists", path)
        self._take(len(data))
        folder.names[name] = FakeFile(data, data, self.now)
        folder.changed()

    def open(self, path: str) -> FakeAppendFile:
        return FakeAppendFile(self, self._file(path))

    def rename(self, old: str, new: str) -> None:
        self._operation()
        folder, name = self._parent(old)
        if name not in folder.names:
            raise FileNotFoundError(errno.ENOENT, "missing", old)
        other, new_name = self._parent(new)
        assert other is folder, "only within a folder"
        assert not isinstance(folder.names.get(new_name), FakeFolder), "a folder is in the way"
        folder.names[new_name] = folder.names.pop(name)
        folder.changed()

    def remove(self, path: str) -> None:
        self._alive()
        try:
            self._find(path)
        except FileNotFoundError:
            return
        folder, name = self._parent(path)
        node = folder.names[name]
        if isinstance(node, FakeFolder):  # one by one, and a crash may come in between
            for inner in list(node.names):
                self.remove(f"{path}/{inner}")
        self._operation()
        del folder.names[name]
        folder.changed()

    def sync(self, folder: str) -> None:
        self._operation()
        found = self._find(folder)
        assert isinstance(found, FakeFolder)
        found.durable = dict(found.names)
        found.changes.clear()

    def touch(self, path: str) -> None:
        self._operation()
        self._file(path).touched = self.now

    def age(self, path: str) -> float:
        self._alive()
        return self.now - self._file(path).touched

    def _operation(self) -> None:
        self._alive()
        number = self.operations
        self.operations += 1
        if number == self.crash_at:
            raise Crash
        if number in self.errors:
            raise OSError(self.errors[number], "injected")

    def _alive(self) -> None:
        if self.crash_at is not None and self.operations > self.crash_at:
            raise Crash

    def _take(self, size: int) -> None:
        if self.room is not None:
            if size > self.room:
                raise OSError(errno.ENOSPC, "no space left")
            self.room -= size

    def _find(self, path: str) -> FakeFile | FakeFolder:
        node: FakeFile | FakeFolder = self.root
        for name in filter(None, path.split("/")):
            if not isinstance(node, FakeFolder) or name not in node.names:
                raise FileNotFoundError(errno.ENOENT, "missing", path)
            node = node.names[name]
        return node

    def _file(self, path: str) -> FakeFile:
        found = self._find(path)
        assert isinstance(found, FakeFile), path
        return found

    def _parent(self, path: str) -> tuple[FakeFolder, str]:
        *folders, name = path.split("/")
        here = self.root
        for each in folders:
            inner = here.names.get(each)
            if inner is None:
                inner = here.names[each] = FakeFolder()
                here.changed()
            assert isinstance(inner, FakeFolder)
            here = inner
        return here, name


class FakeAppendFile:
    def __init__(self, disk: FakeDisk, file: FakeFile) -> None:
        self._disk = disk
        self._file = file

    def append(self, data: bytes) -> None:
        self._disk._alive()
        try:
            self._disk._operation()
            self._disk._take(len(data))
        except (Crash, OSError):
            self._file.data += data[: len(data) // 2]  # a part was written
            raise
        self._file.data += data

    def sync(self) -> None:
        self._disk._operation()
        self._file.durable = self._file.data

    def truncate(self, size: int) -> None:
        self._disk._operation()
        self._file.data = self._file.data[:size]

    def close(self) -> None:
        pass
