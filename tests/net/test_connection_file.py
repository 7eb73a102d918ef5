"""The connection file: for its user only, written whole or not at all, and without a key when the run is over."""

from __future__ import annotations

import os
import resource
import stat
import time
from pathlib import Path

import pytest

from blockflow.errors import ConnectionFileError
from blockflow.net import connection_file
from blockflow.net.connection_file import (
    Connection,
    close_connection,
    private_directory,
    read_connection,
    write_connection,
)
from blockflow.secret import Secret

ADDRESSES = (("127.0.0.1", 4711), ("node17.cluster", 65535))


def mode(path: Path | str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return private_directory(tmp_path / "logs" / ".runs")


@pytest.fixture
def open_handed() -> object:
    """A umask that hides nothing."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_handed")
def test_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    folder = private_directory(tmp_path / "a" / "b")
    connection = write_connection(folder, "run", ADDRESSES, Secret("KEY"))
    assert (mode(folder), mode(connection.path)) == (0o700, 0o600)
    close_connection(connection)
    assert mode(connection.path) == 0o600


def test_what_is_written_is_read(folder: Path) -> None:
    written = write_connection(folder, "run", ADDRESSES, Secret("KEY\n"))
    assert read_connection(written.path) == written
    assert written == Connection(run="run", addresses=ADDRESSES, path=str(folder / "run.connection"))
    assert not written.finished
    assert Path(written.path).read_text().splitlines()[1:] == ["KEY"]


def test_a_relative_directory_gives_an_absolute_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert write_connection(Path(".runs"), "run", ADDRESSES, Secret("KEY")).path == str(folder / "run.connection")


def test_a_closed_connection_says_so_and_holds_no_key(folder: Path) -> None:
    connection = write_connection(folder, "run", ADDRESSES, Secret("KEY"))
    close_connection(connection)
    assert read_connection(connection.path).finished
    assert "KEY" not in Path(connection.path).read_text()
    assert [file.name for file in folder.iterdir()] == ["run.connection"]


def test_closing_in_a_directory_that_is_gone_is_no_error(folder: Path) -> None:
    connection = write_connection(folder, "run", ADDRESSES, Secret("KEY"))
    Path(connection.path).unlink()
    folder.rmdir()
    close_connection(connection)
    assert not folder.exists()


def test_where_nothing_can_be_written_the_key_goes_all_the_same(folder: Path) -> None:
    connection = write_connection(folder, "run", ADDRESSES, Secret("KEY"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))  # as on a full disk: no draft can be written
    try:
        close_connection(connection)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(folder.iterdir()) == []


def test_files_of_runs_of_long_ago_are_removed_but_not_those_of_living_runs(folder: Path) -> None:
    finished, living, recent = (
        write_connection(folder, name, ADDRESSES, Secret("KEY")) for name in ("old", "living", "new")
    )
    close_connection(finished)
    close_connection(recent)
    week = time.time() - connection_file._KEPT_SECONDS - 10
    for old in (finished, living):
        os.utime(old.path, (week, week))
    (folder / "damaged.connection").write_text("{")
    os.utime(folder / "damaged.connection", (week, week))
    close_connection(write_connection(folder, "next", ADDRESSES, Secret("KEY")))
    kept = sorted(file.name for file in folder.iterdir())
    assert kept == ["damaged.connection", "living.connection", "new.connection", "next.connection"]


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o660, 0o620, 0o601])
def test_a_file_that_others_can_use_is_refused(folder: Path, bits: int) -> None:
    connection = write_connection(folder, "run", ADDRESSES, Secret("KEY"))
    os.chmod(connection.path, bits)
    with pytest.raises(ConnectionFileError, match=rf"can be read by others \(mode {bits:04o}\)"):
        read_connection(connection.path)


def test_a_file_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(ConnectionFileError, match=r"there is no connection file .*long over or never was"):
        read_connection(str(folder / "none.connection"))


def test_a_directory_is_no_connection_file(folder: Path) -> None:
    with pytest.raises(ConnectionFileError, match="is no regular file"):
        read_connection(str(folder))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"{",
        b"[]",
        b"3",
        b"\xff\xfe\x00garbage",
        b'{"version":1,"run":"r"}',
        b'{"version":1,"run":"r","addresses":[],"more":1}',
        b'{"version":1,"run":3,"addresses":[]}',
        b'{"version":1,"run":"r","addresses":[["h"]]}',
        b'{"version":1,"run":"r","addresses":[["h","x"]]}',
        b'{"version":1,"run":"r","addresses":[["h",0]]}',
        b'{"version":1,"run":"r","addresses":[["h",70000]]}',
        b"x" * 1_000_000,
    ],
)
def test_a_damaged_file_is_refused(folder: Path, content: bytes) -> None:
    path = folder / "run.connection"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConnectionFileError, match="is not a connection file"):
        read_connection(str(path))


def test_another_version_is_refused(folder: Path) -> None:
    path = folder / "run.connection"
    path.write_text('{"version":2,"run":"r","addresses":[]}')
    path.chmod(0o600)
    with pytest.raises(ConnectionFileError, match="has version 2, this blockflow reads 1: use one everywhere"):
        read_connection(str(path))


def test_a_directory_that_others_could_read_is_refused_and_not_changed(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(ConnectionFileError, match=r"can be read by others \(mode 0755\).*`chmod 700` it"):
        private_directory(folder)
    assert mode(folder) == 0o755


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConnectionFileError, match="no private directory can be made"):
        private_directory(tmp_path / "file" / "runs")


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_text_is_kept_for_this_process(folder: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool) -> None:
    if not in_memory:
        monkeypatch.delattr(os, "memfd_create", raising=False)
        monkeypatch.setattr("tempfile.tempdir", str(folder))
    text = Path(write_connection(folder, "run", ADDRESSES, Secret("KEY")).path).read_text()
    kept = read_connection(connection_file.keep_connection(text))
    assert (kept.run, kept.addresses) == ("run", ADDRESSES)
    assert Path(kept.path).read_text() == text
    assert mode(kept.path) == 0o600
