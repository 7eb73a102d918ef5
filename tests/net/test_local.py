"""A run of one machine listens on a socket in the file system: who can reach it, and what is left of it?"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from blockflow import Context, Roi, Task, run_blockwise
from blockflow.errors import UnreachableError
from blockflow.net.connection_file import Connection, private_directory, write_connection
from blockflow.net.dial import dial
from blockflow.net.link import open_link
from blockflow.net.listen import bind_here
from blockflow.secret import Secret
from blockflow.trusted_files import open_folder

if TYPE_CHECKING:
    from tests.net.waiting import WaitingRun


def listening_ports(pid: int) -> set[str]:
    """Inodes of TCP sockets on which a process listens."""
    files = {os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir() if file.is_symlink()}
    tables = [Path(f"/proc/net/{table}").read_text().splitlines()[1:] for table in ("tcp", "tcp6")]
    inodes = [line.split()[9] for lines in tables for line in lines if line.split()[3] == "0A"]
    return {inode for inode in inodes if f"socket:[{inode}]" in files}


def test_nothing_listens_on_the_network(local_run: WaitingRun) -> None:
    assert local_run.connection.addresses == ()
    assert listening_ports(os.getpid()) == set()


def test_only_this_user_can_reach_the_socket(local_run: WaitingRun) -> None:
    path = Path(local_run.connection.socket)
    assert path.is_socket()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_connection_file_of_a_local_run_holds_no_key(local_run: WaitingRun) -> None:
    assert "PRIVATE" not in Path(local_run.connection.path).read_text()


def test_strangers_that_say_nothing_or_nonsense_disturb_nobody(local_run: WaitingRun) -> None:
    path = local_run.connection.socket
    streams = []
    for words in (b"", b"\xff" * 100, b"\x10\x00\x00\x00", b"GET / HTTP/1.1\r\n\r\n"):
        stream = socket.socket(socket.AF_UNIX)
        folder = os.open(os.path.dirname(path), os.O_PATH)
        stream.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
        os.close(folder)
        stream.sendall(words)
        streams.append(stream)
    local_run.go.touch()
    for stream in streams:
        stream.settimeout(30)
        assert stream.recv(1) == b"", "closed, at the latest when the run ends"
        stream.close()


def test_the_socket_goes_with_the_run(tmp_path: Path) -> None:
    from blockflow.logging import get_log_basedir, set_log_basedir

    before = get_log_basedir()
    set_log_basedir(tmp_path / ("a long name " * 12))
    try:
        task = Task("t", Roi((0,), (3,)), Roi((0,), (1,)), Roi((0,), (1,)), lambda block: None)
        assert run_blockwise([task], progress=False, summary=False)
    finally:
        set_log_basedir(before)
    (folder,) = tmp_path.iterdir()
    assert [path.suffix for path in (folder / ".runs").iterdir()] == [".connection"]


def test_a_driver_that_is_gone_is_told_from_one_that_never_was_here(tmp_path: Path) -> None:
    directory = private_directory(tmp_path / "runs")
    with open_folder(directory, private=True) as folder:
        listening = bind_here(folder, "run.socket")
    connection = write_connection(directory, "run", (), Secret(""), socket="run.socket")
    listening.close()
    with pytest.raises(UnreachableError, match=r"run\.socket.*pass host= to run_blockwise") as gone:
        dial(connection)
    assert isinstance(gone.value.__cause__, ConnectionRefusedError)
    (directory / "run.socket").unlink()
    with pytest.raises(UnreachableError, match="does not answer") as gone:
        dial(connection)
    assert isinstance(gone.value.__cause__, ConnectionRefusedError)


def test_a_straggler_finds_its_run_finished(tmp_path: Path) -> None:
    directory = private_directory(tmp_path / "runs")
    over = write_connection(directory, "run", (), Secret(""))
    assert isinstance(over, Connection)
    assert over.finished
    assert open_link(Context(task_id="t", connection=over.path)) is None
