"""Peers that are hostile, broken or slow, on both kinds of listener: what do they cost? Themselves.

Every test ends with the run itself ending well, with all its blocks done: the fixture checks it.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import blockflow
from blockflow.net.connection_file import read_connection
from blockflow.net.tls import client_context, server_name
from blockflow.switchboard import Switchboard
from blockflow.wire.framing import FrameReader, frame
from blockflow.wire.messages import (
    LARGEST_HELLO,
    LARGEST_MESSAGE,
    PROTOCOL,
    Failure,
    FromDriver,
    FromWorker,
    Goodbye,
    Heartbeat,
    Held,
    Hello,
    Report,
    Returned,
    Welcome,
    decode_from_driver,
    encode,
)
from tests.net.conftest import running
from tests.net.waiting import PATIENCE, is_closed, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blockflow.net.connection_file import Connection
    from tests.net.waiting import WaitingRun

LEASE = 1.0
"""Seconds; who takes a block and says nothing more keeps it for so long."""


@pytest.fixture(params=["127.0.0.1", None], ids=["network", "socket"])
def any_run(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WaitingRun]:
    """A run that listens on the network, or on a socket in the file system."""
    yield from running(tmp_path, request.param, LEASE)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The connections of which a driver in this process has looked at a frame."""
    seen: list[int] = []
    received = Switchboard.received

    def note(self: Switchboard, connection: int, body: bytes, now: float) -> Any:
        seen.append(connection)
        return received(self, connection, body, now)

    monkeypatch.setattr(Switchboard, "received", note)
    return seen


def plain(connection: Connection) -> socket.socket:
    """A connection to where a run listens, without a word."""
    stream = socket.socket(socket.AF_UNIX if connection.socket else socket.AF_INET)
    stream.settimeout(PATIENCE)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that little is enough to fill it
    if not connection.socket:
        stream.connect(connection.addresses[0])
        return stream
    folder = os.open(os.path.dirname(connection.socket), os.O_PATH)
    try:
        stream.connect(f"/proc/self/fd/{folder}/{os.path.basename(connection.socket)}")
    finally:
        os.close(folder)
    return stream


def friend(connection: Connection) -> socket.socket:
    """A connection of somebody who knows the key."""
    stream = plain(connection)
    if connection.socket:
        return stream
    return client_context(connection.path).wrap_socket(stream, server_hostname=server_name(connection.run))


def hello(connection: Connection, worker: int | None = None, process: int | None = None, pid: int = 1) -> Hello:
    return Hello(PROTOCOL, connection.run, "wait", process, "somewhere", pid, worker)


def say(stream: socket.socket, *messages: FromWorker) -> None:
    stream.sendall(b"".join(frame(encode(message)) for message in messages))


def answer(stream: socket.socket) -> FromDriver:
    """The next message of the driver."""
    frames = FrameReader(LARGEST_MESSAGE)
    while True:
        data = stream.recv(65536)
        assert data, "closed"
        for body in frames.feed(data):
            return decode_from_driver(body)


def is_served(connection: Connection) -> bool:
    """Whether an honest worker is welcome."""
    with friend(connection) as stream:
        say(stream, hello(connection))
        welcome = answer(stream)
        say(stream, Goodbye("only looking"))
        assert is_closed(stream)
        return isinstance(welcome, Welcome)


# ------------------------------------------------------------------------------------------------------------ nonsense


def samples(connection: Connection) -> list[FromWorker]:
    """One message of each kind, which refer to nothing that is there."""
    failure = Failure(0, "error", "traceback", "where")
    return [
        hello(connection),
        hello(connection, worker=3, process=2**40),
        Report(2**50, 1, 10, None, False, 1),
        Report(2**50, 1, 10, failure, False, 2),
        Report(0, 0, 0, None, True, 3),
        Returned(2**50, 1),
        Heartbeat(4),
        Held(2**50, 2**50, (0, 1), 5),
        Goodbye("reason"),
    ]


def damaged(body: bytes, dice: random.Random) -> bytes:
    """A frame with something wrong in it, or around it."""
    data = bytearray(body)
    for _ in range(dice.randint(1, 4)):
        match dice.randrange(4):
            case 0:
                data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
            case 1:
                del data[dice.randrange(len(data)) :]
            case 2:
                at = dice.randrange(len(data) + 1)
                data[at:at] = dice.randbytes(dice.randint(1, 20))
            case _:
                data[dice.randrange(len(data))] = dice.choice(b"\x00\x7f\x80\xc0\xc1\xcf\xdd\xdf\xff")
        if not data:
            break
    length = len(data) if dice.random() < 0.9 else dice.randrange(2**32)
    return struct.pack("<I", length) + bytes(data)


@pytest.mark.parametrize("welcome", [False, True], ids=["stranger", "worker"])
def test_damaged_messages_cost_their_sender_the_connection(any_run: WaitingRun, welcome: bool) -> None:
    dice = random.Random(7)
    connection = any_run.connection
    bodies = [encode(message) for message in samples(connection)]
    for _ in range(150):
        with friend(connection) as stream:
            if welcome:
                say(stream, hello(connection))
                assert isinstance(answer(stream), Welcome)
            try:
                for _ in range(20):
                    stream.sendall(damaged(dice.choice(bodies), dice))
                stream.shutdown(socket.SHUT_WR)
            except OSError:
                continue  # closed already
    assert is_served(connection)


def test_noise_costs_its_sender_the_connection(any_run: WaitingRun) -> None:
    dice = random.Random(8)
    for _ in range(50):
        with plain(any_run.connection) as stream:
            try:
                for _ in range(dice.randint(1, 50)):
                    stream.sendall(dice.randbytes(dice.randint(1, 3000)))
            except OSError:
                continue
    assert is_served(any_run.connection)


@pytest.mark.parametrize(
    "order",
    [
        ["Heartbeat"],
        ["Report"],
        ["Held"],
        ["Goodbye"],
        ["Hello", "Hello"],
        ["Hello", "Report", "Held"],
        ["Hello", "Goodbye", "Report"],
    ],
    ids="-".join,
)
def test_messages_in_a_wrong_order_cost_their_sender_the_connection(any_run: WaitingRun, order: list[str]) -> None:
    kinds = {type(message).__name__: message for message in reversed(samples(any_run.connection))}
    with friend(any_run.connection) as stream:
        say(stream, *(kinds[name] for name in order))
        assert is_closed(stream)
    assert is_served(any_run.connection)


def test_who_says_that_it_is_somebody_else_is_closed(any_run: WaitingRun) -> None:
    connection = any_run.connection
    with friend(connection) as stream:
        say(stream, hello(connection, pid=1))
        welcome = answer(stream)
        assert isinstance(welcome, Welcome)
        for liar in (hello(connection, worker=welcome.worker, pid=2), hello(connection, worker=2**50)):
            with friend(connection) as other:
                say(other, liar)
                assert is_closed(other)
        say(stream, Heartbeat(1))
        answer(stream)  # still a worker


def test_a_lease_of_somebody_else_cannot_be_claimed_or_reported(any_run: WaitingRun) -> None:
    """The only worker holds lease 1: others who speak of it are told that it is not theirs."""
    connection = any_run.connection
    with friend(connection) as stream:
        say(stream, hello(connection))
        assert isinstance(answer(stream), Welcome)
        say(stream, Held(1, 1, (0, 1), 1))
        told: Any = answer(stream)
        assert told.stale
        say(stream, Report(1, 1, 10, None, False, 2))
        told = answer(stream)
        assert told.stale


# ------------------------------------------------------------------------------------------------------------- too much


@pytest.mark.parametrize("size", [LARGEST_HELLO + 1, 2**31, 2**32 - 1])
def test_an_oversized_frame_is_refused_by_its_header(any_run: WaitingRun, size: int) -> None:
    with friend(any_run.connection) as stream:
        stream.sendall(struct.pack("<I", size))
        assert is_closed(stream), "not one byte of its body was waited for"
    assert is_served(any_run.connection)


def test_a_worker_may_not_send_more_than_a_message_may_have(any_run: WaitingRun) -> None:
    with friend(any_run.connection) as stream:
        say(stream, hello(any_run.connection))
        assert isinstance(answer(stream), Welcome)
        stream.sendall(struct.pack("<I", LARGEST_MESSAGE + 1))
        assert is_closed(stream)
    assert is_served(any_run.connection)


def test_a_flood_leaves_time_for_others(any_run: WaitingRun) -> None:
    """Heartbeats without end, and no answer is ever read."""
    connection = any_run.connection
    over = threading.Event()
    with friend(connection) as stream:
        say(stream, hello(connection))
        flood = b"".join(frame(encode(Heartbeat(number))) for number in range(1000))

        def pour() -> None:
            with contextlib.suppress(OSError):  # it loses its connection sooner or later, as it does not read
                while not over.is_set():
                    stream.sendall(flood)

        thread = threading.Thread(target=pour)
        thread.start()
        try:
            for _ in range(5):
                assert is_served(connection)
        finally:
            over.set()
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)
    assert not thread.is_alive()


# ------------------------------------------------------------------------------------------------------------- too slow


def test_half_of_anything_keeps_nobody_waiting(any_run: WaitingRun) -> None:
    connection = any_run.connection
    whole = frame(encode(hello(connection)))
    with contextlib.ExitStack() as streams:
        for place in range(100):
            streams.enter_context(plain(connection)).sendall(whole[: place % len(whole)])
        half = [streams.enter_context(friend(connection)) for _ in range(20)]
        for place, stream in enumerate(half):
            stream.sendall(whole[:place])
        worker = streams.enter_context(friend(connection))
        say(worker, hello(connection))
        assert isinstance(answer(worker), Welcome)
        worker.sendall(frame(encode(Heartbeat(1)))[:-1])
        assert is_served(connection)
        any_run.go.touch()
        assert all(is_closed(stream) for stream in [*half, worker]), "at the latest when the run ends"


def test_one_byte_at_a_time_is_a_message_too(any_run: WaitingRun) -> None:
    connection = any_run.connection
    with friend(connection) as stream:
        for byte in frame(encode(hello(connection))):
            stream.sendall(bytes([byte]))
        assert isinstance(answer(stream), Welcome)


def test_connections_that_come_and_go_cost_nothing(any_run: WaitingRun) -> None:
    connection = any_run.connection
    before = len(os.listdir("/proc/self/fd"))
    for number in range(300):
        stream = plain(connection)
        if number % 2:  # a reset instead of an end
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.close()
    assert is_served(connection)
    until(lambda: len(os.listdir("/proc/self/fd")) <= before + 2, "their files are closed")


# ------------------------------------------------------------------------------------------------------ without the key


def test_nothing_that_a_stranger_says_is_looked_at(any_run: WaitingRun, decoded: list[int]) -> None:
    """Without the key nothing gets as far as the frames, whatever it is. On a socket, the key is to be this user."""
    connection = any_run.connection
    if connection.socket:
        pytest.skip("who can connect to the socket is this user: see the next test")
    until(lambda: bool(decoded), "the worker of this run has joined")
    known = set(decoded)
    words = frame(encode(hello(connection)))
    no_key = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    no_key.check_hostname = False
    no_key.verify_mode = ssl.CERT_NONE
    for _ in range(20):
        with plain(connection) as stream:
            stream.sendall(words * 10)
            assert is_closed(stream)
        try:
            with no_key.wrap_socket(plain(connection)) as stream:
                stream.sendall(words * 10)
                assert is_closed(stream)
        except (ssl.SSLError, ConnectionError):
            continue
    assert set(decoded) == known
    assert is_served(connection)
    assert set(decoded) > known


OTHER_USER = """
    import os, socket, sys
    stream = socket.socket(socket.AF_UNIX)
    stream.settimeout(30)
    folder = os.open(sys.argv[1], os.O_PATH)
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    stream.connect(f"/proc/self/fd/{folder}/{sys.argv[2]}")
    try:
        stream.sendall(bytes.fromhex(sys.argv[3]))
        print("closed" if not stream.recv(100) else "served")
    except ConnectionError:
        print("closed")
    """


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_gets_nowhere_even_where_the_directory_lets_it_in(tmp_path: Path, decoded: list[int]) -> None:
    for run in running(tmp_path, None, LEASE):
        until(lambda: bool(decoded), "the worker of this run has joined")
        known = set(decoded)
        place = Path(run.connection.socket)
        words = frame(encode(hello(run.connection))).hex()
        command = [sys.executable, "-c", textwrap.dedent(OTHER_USER), str(place.parent), place.name, words]
        shut = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert "PermissionError" in shut.stderr, "the directory keeps it out"
        place.parent.chmod(0o711)
        place.chmod(0o777)
        told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        place.parent.chmod(0o700)
        assert told.stdout.strip() == "closed", told.stderr
        assert set(decoded) == known
        assert is_served(run.connection)


FEW_FILES = """
    import logging, os, resource, sys, time
    from blockflow import Roi, Task, run_blockwise

    logging.basicConfig()
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    def wait(block):
        while not os.path.exists("go"):
            time.sleep(0.01)
        if block.index == 1:
            os._exit(1)

    def work(block):
        if block.index == 1 and not os.path.exists("died"):
            open("died", "w").close()
            wait(block)
        while not os.path.exists("go"):
            time.sleep(0.01)

    one = Roi((0,), (1,))
    task = Task("wait", Roi((0,), (8,)), one, one, work, num_workers=2)
    assert run_blockwise(task, host="127.0.0.1", run_dir="run", progress=False, summary=False)
    """


def test_strangers_do_not_use_up_the_files_of_a_driver(tmp_path: Path) -> None:
    """A driver that may open few files still can start workers, and write its ledger."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(FEW_FILES))
    environment = os.environ | {"PYTHONPATH": str(Path(blockflow.__file__).parents[1])}
    with (tmp_path / "said").open("w") as said:
        driver = subprocess.Popen([sys.executable, script], cwd=tmp_path, env=environment, stdout=said, stderr=said)
    strangers: list[socket.socket] = []
    try:
        until(lambda: any((tmp_path / "run" / "connection").glob("*.connection")), "the run listens")
        (path,) = (tmp_path / "run" / "connection").glob("*.connection")
        connection = read_connection(str(path))
        strangers += [plain(connection) for _ in range(300)]
        until((tmp_path / "died").exists, "a worker is at block 1")
        (tmp_path / "go").touch()
        assert driver.wait(PATIENCE) == 0, (tmp_path / "said").read_text()
    finally:
        driver.kill()
        driver.wait()
        for stranger in strangers:
            stranger.close()
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
