from __future__ import annotations

import errno
import fcntl
import gc
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blockflow.arrays import memory
from blockflow.arrays.memory import AnonymousMemory, LockedFile, new_memory

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="anonymous memory needs Linux")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@linux
def test_linux_leaves_no_name_in_any_file_system(folder: Path) -> None:
    home, descriptor = new_memory(10)
    assert isinstance(home, AnonymousMemory)
    assert os.fstat(descriptor).st_nlink == 0
    assert list(folder.iterdir()) == []
    home.release(descriptor)


@linux
def test_a_reused_descriptor_is_not_mistaken_for_the_memory() -> None:
    home, descriptor = new_memory(10)
    home.release(descriptor)
    other, reused = new_memory(10)
    assert reused == descriptor
    with pytest.raises(FileNotFoundError, match="reused"):
        home.attach(os.O_RDWR)
    other.release(reused)


@linux
def test_a_descriptor_reused_while_attaching_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    home, descriptor = new_memory(10)
    other, wrong = new_memory(10)
    opened = os.open
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "open", lambda _, flags: opened(f"/proc/self/fd/{wrong}", flags))
    with pytest.raises(FileNotFoundError, match="reused"):
        home.attach(os.O_RDWR)
    assert len(os.listdir("/proc/self/fd")) == before
    home.release(descriptor)
    other.release(wrong)


@linux
@pytest.mark.parametrize("missing", ["memfd_create", "proc"])
def test_without_anonymous_memory_it_is_a_file(missing: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any) -> Any:
        raise OSError(errno.EACCES, "forbidden")

    monkeypatch.setattr(os, "memfd_create" if missing == "memfd_create" else "readlink", forbidden)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    home, descriptor = new_memory(10)
    assert isinstance(home, LockedFile)
    assert Path(home.path).parent == folder
    assert Path(home.path).stat().st_mode & 0o777 == 0o600
    assert os.fstat(descriptor).st_size == 10
    home.release(descriptor)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_anonymous", lambda: None)


@pytest.mark.usefixtures("files")
def test_a_sweep_removes_what_nobody_holds_and_only_that(folder: Path) -> None:
    alive, descriptor = new_memory(10)
    assert isinstance(alive, LockedFile)
    dead = folder / f"blockflow-{os.getuid()}-dead.shared"
    dead.touch()
    foreign = [folder / "blockflow-x.shared", folder / f"blockflow-{os.getuid()}-x.txt"]
    for path in foreign:
        path.touch()
    link = folder / f"blockflow-{os.getuid()}-link.shared"
    link.symlink_to(foreign[0])
    other, second = new_memory(10)
    assert isinstance(other, LockedFile)
    assert sorted(folder.iterdir()) == sorted([*foreign, link, Path(alive.path), Path(other.path)])
    alive.release(descriptor)
    other.release(second)


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("swept", ["before it is locked", "and locked"])
def test_a_sweep_between_creating_and_locking_costs_another_try(
    swept: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, calls, sweepers = fcntl.flock, [], []

    def flock(descriptor: int, operation: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            (path,) = folder.iterdir()
            if swept == "and locked":
                sweepers.append(os.open(path, os.O_RDWR))
                lock(sweepers[0], fcntl.LOCK_EX)
            path.unlink()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    home, descriptor = new_memory(10)
    assert len(calls) == 2
    assert isinstance(home, LockedFile)
    assert Path(home.path).exists()
    home.release(descriptor)
    for sweeper in sweepers:
        os.close(sweeper)


@pytest.mark.usefixtures("files")
def test_a_forked_child_gives_up_its_descriptor_and_leaves_the_file() -> None:
    home, descriptor = new_memory(10)
    assert isinstance(home, LockedFile)
    replace(home, pid=os.getpid() + 1).release(os.dup(descriptor))
    os.close(home.attach(os.O_RDWR))
    home.release(descriptor)


@pytest.mark.usefixtures("files")
def test_a_full_disk_is_an_error_before_the_first_write(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="no space"):
        new_memory(10)
    assert list(folder.iterdir()) == []
