"""The real disk does what the fake one does."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING

import pytest

from blockflow.ledger.disk import Disk, LocalDisk
from tests.ledger.fake_disk import FakeDisk

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["real", "fake"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    return LocalDisk(tmp_path) if request.param == "real" else FakeDisk()


def test_whole_files(disk: Disk) -> None:
    disk.write("a/b/file", b"one")
    disk.write("a/b/file", b"two")
    assert disk.read("a/b/file") == b"two"
    assert b"".join(disk.pieces("a/b/file")) == b"two"
    assert (disk.names(""), disk.names("a"), disk.names("a/b"), disk.names("c")) == (["a"], ["b"], ["file"], [])
    disk.sync("a/b")
    with pytest.raises(FileNotFoundError):
        disk.read("a/c")


def test_one_creates(disk: Disk) -> None:
    disk.create("claim", b"mine")
    with pytest.raises(FileExistsError):
        disk.create("claim", b"yours")
    assert disk.read("claim") == b"mine"


def test_files_that_grow(disk: Disk) -> None:
    disk.write("file", b"head")
    file = disk.open("file")
    file.append(b" and more")
    file.sync()
    file.truncate(4)
    file.append(b"!")
    file.close()
    assert disk.read("file") == b"head!"
    with pytest.raises(FileNotFoundError):
        disk.open("other")


def test_renaming_and_removing(disk: Disk) -> None:
    disk.write("folder/one", b"")
    disk.write("folder/deep/two", b"")
    disk.rename("folder", "other")
    assert disk.names("other") == ["deep", "one"]
    with pytest.raises(FileNotFoundError):
        disk.rename("folder", "again")
    disk.remove("other/one")
    disk.remove("other")
    disk.remove("other")
    assert disk.names("") == []


def test_age(disk: Disk) -> None:
    disk.write("file", b"")
    assert 0 <= disk.age("file") < 60
    disk.touch("file")
    assert 0 <= disk.age("file") < 60
    assert disk.names("") == ["file"]
    with pytest.raises(FileNotFoundError):
        disk.age("other")


def test_age_is_by_the_clock_of_the_file_system(tmp_path: Path) -> None:
    disk = LocalDisk(tmp_path)
    disk.write("file", b"")
    now = os.stat(tmp_path / "file").st_mtime
    os.utime(tmp_path / "file", (now - 100, now - 100))
    assert 100 <= disk.age("file") < 160


def test_a_file_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    disk = LocalDisk(tmp_path)
    disk.write("file", b"before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            disk.write("file", b"after")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (disk.names(""), disk.read("file")) == (["file"], b"before")
