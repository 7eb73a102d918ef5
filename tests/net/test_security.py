"""Who may take part in a run? Nobody without its key; and a stranger costs the run nothing.

Every test here ends with the run itself ending well: the fixture checks it.
"""

from __future__ import annotations

import datetime
import os
import re
import socket
import ssl
import stat
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import blockflow
from blockflow import Client, Context
from blockflow.errors import ConnectionFileError, UnreachableError
from blockflow.net.connection_file import Connection, read_connection, write_connection
from blockflow.net.tls import client_context, make_certificate, server_name
from blockflow.secret import Secret
from blockflow.wire.framing import FrameReader, frame
from blockflow.wire.messages import PROTOCOL, Hello, Refused, decode_from_driver, encode
from tests.net import waiting
from tests.net.waiting import until

if TYPE_CHECKING:
    from tests.net.waiting import WaitingRun


def plain(connection: Connection) -> socket.socket:
    return socket.create_connection(connection.addresses[0], timeout=10)


def is_closed(stream: socket.socket) -> bool:
    """Whether the other side closes the connection without having said anything."""
    try:
        return stream.recv(100) == b""
    except (ConnectionError, ssl.SSLError):
        return True


def hello(connection: Connection, **other: object) -> bytes:
    said: dict[str, object] = {"run": connection.run, "task": "wait", "protocol": PROTOCOL} | other
    message = Hello(int(str(said["protocol"])), str(said["run"]), str(said["task"]), None, "somewhere", 1, None)
    return frame(encode(message))


def foreign(tmp_path: Path, connection: Connection) -> Connection:
    """A connection file for the same address with a key that somebody else made."""
    folder = tmp_path / "foreign"
    folder.mkdir(mode=0o700)
    pem = make_certificate(connection.run, datetime.datetime.now(datetime.UTC))
    return write_connection(folder, connection.run, connection.addresses, pem)


def test_a_client_that_does_not_encrypt_is_closed(waiting_run: WaitingRun) -> None:
    with plain(waiting_run.connection) as stream:
        stream.sendall(hello(waiting_run.connection))
        assert is_closed(stream)


def test_a_client_without_a_certificate_is_closed(waiting_run: WaitingRun) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with context.wrap_socket(plain(waiting_run.connection)) as stream:
        assert is_closed(stream)


def test_a_client_with_another_key_is_closed(waiting_run: WaitingRun, tmp_path: Path) -> None:
    context = client_context(foreign(tmp_path, waiting_run.connection).path)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with context.wrap_socket(plain(waiting_run.connection)) as stream:
        assert is_closed(stream)


def test_older_versions_of_tls_are_not_spoken(waiting_run: WaitingRun) -> None:
    context = client_context(waiting_run.connection.path)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    with plain(waiting_run.connection) as stream, pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(stream, server_hostname=server_name(waiting_run.connection.run))


def friend(connection: Connection) -> ssl.SSLSocket:
    context = client_context(connection.path)
    return context.wrap_socket(plain(connection), server_hostname=server_name(connection.run))


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"run": "another"}, "this is run .*, not 'another'"),
        ({"task": "dream"}, "no task is called 'dream'"),
        ({"protocol": 99}, "the worker speaks protocol 99"),
    ],
)
def test_a_friend_who_belongs_elsewhere_is_told_so(
    waiting_run: WaitingRun, said: dict[str, object], reason: str
) -> None:
    with friend(waiting_run.connection) as stream:
        stream.sendall(hello(waiting_run.connection, **said))
        (body,) = FrameReader(10_000).feed(stream.recv(10_000))
        refused = decode_from_driver(body)
        assert isinstance(refused, Refused)
        assert re.search(reason, refused.reason)
        assert is_closed(stream)


@pytest.mark.parametrize(
    "garbage",
    [b"\xff" * 100, struct.pack("<I", 2**32 - 1), struct.pack("<I", 0), frame(b"\xc1"), frame(b"\x91" * 900)],
)
def test_garbage_costs_its_sender_the_connection(waiting_run: WaitingRun, garbage: bytes) -> None:
    with friend(waiting_run.connection) as stream:
        stream.sendall(garbage)
        assert waiting.is_closed(stream), "what can be answered is told why before"


def test_idle_strangers_do_not_keep_a_run_from_ending(waiting_run: WaitingRun) -> None:
    strangers = [plain(waiting_run.connection) for _ in range(200)]
    half = [plain(waiting_run.connection) for _ in range(20)]
    for stream in half:
        stream.sendall(b"\x16\x03\x01")
    waiting_run.go.touch()
    for stream in strangers + half:
        assert is_closed(stream), "the run closes them when it ends, at the latest"
        stream.close()


def test_only_this_machine_can_connect_and_only_this_user_can_read_the_key(waiting_run: WaitingRun) -> None:
    connection = waiting_run.connection
    assert [host for host, _ in connection.addresses] == ["127.0.0.1"]
    port = connection.addresses[0][1]
    listening = [
        line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"
    ]
    assert [address for address in listening if address.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]
    path = Path(connection.path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_key_is_nowhere_but_in_its_file(waiting_run: WaitingRun) -> None:
    lines = Path(waiting_run.connection.path).read_text().splitlines()
    secret = lines[lines.index("-----BEGIN PRIVATE KEY-----") + 1].encode()
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                assert secret not in (process / name).read_bytes()
            except OSError:
                continue  # it has ended
    for file in (waiting_run.folder / "logs").rglob("*"):
        if file.is_file() and file.suffix != ".connection":
            assert secret not in file.read_bytes()


def test_the_key_is_gone_when_the_run_is_over_and_a_late_worker_learns_it(waiting_run: WaitingRun) -> None:
    connection = waiting_run.connection
    waiting_run.go.touch()
    path = Path(connection.path)
    until(lambda: "PRIVATE" not in path.read_text(), "the run ends")
    assert read_connection(connection.path).finished
    client = Client(Context(task_id="wait", connection=connection.path))
    with client.acquire_block() as block:
        assert block is None


def test_a_file_that_others_can_read_is_refused(waiting_run: WaitingRun, tmp_path: Path) -> None:
    open_to_all = tmp_path / "open.connection"
    open_to_all.write_text(Path(waiting_run.connection.path).read_text())
    open_to_all.chmod(0o644)
    with pytest.raises(ConnectionFileError, match=r"can be read by others \(mode 0644\)"):
        read_connection(str(open_to_all))


def test_a_wrong_key_is_named(waiting_run: WaitingRun, tmp_path: Path) -> None:
    connection = foreign(tmp_path, waiting_run.connection)
    with pytest.raises(UnreachableError, match="answers, but not with the key of run"):
        Client(Context(task_id="wait", connection=connection.path))


SCRIPT = """
from blockflow import Client
client = Client()
while True:
    with client.acquire_block() as block:
        if block is None:
            break
"""


def script(context: str | None) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != Context.ENV_VARIABLE}
    environment["PYTHONPATH"] = str(Path(blockflow.__file__).parent.parent)
    if context is not None:
        environment[Context.ENV_VARIABLE] = context
    return subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_script_without_context_says_so() -> None:
    done = script(None)
    assert done.returncode != 0
    assert "this process has no context (DAISY_CONTEXT is not set)" in done.stderr


def test_a_script_with_a_damaged_context_says_so() -> None:
    done = script("hostname=x:port=y")
    assert done.returncode != 0
    assert "DAISY_CONTEXT is no context" in done.stderr


def test_a_script_with_a_stale_context_says_so(tmp_path: Path) -> None:
    missing = script(Context(task_id="t", connection=tmp_path / "gone.connection").to_env())
    assert missing.returncode != 0
    assert "there is no connection file" in missing.stderr
    tmp_path.chmod(0o700)
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    pem = make_certificate("old", datetime.datetime.now(datetime.UTC))
    dead = write_connection(tmp_path, "old", (("127.0.0.1", port),), pem)
    done = script(Context(task_id="t", connection=dead.path).to_env())
    assert done.returncode != 0
    assert f"the driver of run old cannot be reached: 127.0.0.1:{port}" in done.stderr


def test_a_straggler_that_finds_its_run_finished_ends_well(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    over = write_connection(tmp_path, "over", (), Secret(""))
    assert script(Context(task_id="t", connection=over.path).to_env()).returncode == 0
