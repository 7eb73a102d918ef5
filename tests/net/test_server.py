"""The driver's end of the wire, with peers that do not behave."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from blockflow.net import server as module
from blockflow.net.addresses import Endpoint
from blockflow.net.complaints import Complaints
from blockflow.net.connection_file import private_directory, write_connection
from blockflow.net.listen import bind, bind_first
from blockflow.net.server import Peer, WorkerServer
from blockflow.net.tls import client_context, make_certificate, server_name
from blockflow.wire.framing import FrameReader
from blockflow.wire.messages import Alive, FromDriver, decode_from_driver
from tests.net.waiting import is_closed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

PATIENCE = 20.0


class Address:
    """Where a server under test listens."""

    def __init__(self, path: str, port: int) -> None:
        self.path = path
        self.port = port
        self.served: list[Peer] = []

    def stranger(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def friend(self) -> ssl.SSLSocket:
        return client_context(self.path).wrap_socket(self.stranger(), server_hostname=server_name("run"))


@asynccontextmanager
async def serving(folder: Path, serve: Callable[[Peer], Awaitable[None]]) -> AsyncIterator[Address]:
    listening = bind("127.0.0.1", 0)
    port = int(listening.getsockname()[1])
    pem = make_certificate("run", datetime.datetime.now(datetime.UTC))
    connection = write_connection(private_directory(folder / "runs"), "run", (("127.0.0.1", port),), pem)
    address = Address(connection.path, port)

    async def keep(peer: Peer) -> None:
        address.served.append(peer)
        await serve(peer)

    server = WorkerServer(connection.path, keep, Complaints())
    server.add_socket(listening)
    try:
        yield address
    finally:
        server.close_all()


async def echo(peer: Peer) -> None:
    """Answer every byte with a message."""
    while data := await peer.receive():
        peer.send([Alive(byte) for byte in data])


def read_messages(stream: ssl.SSLSocket, count: int) -> list[FromDriver]:
    reader, messages = FrameReader(100_000), list[FromDriver]()
    while len(messages) < count:
        data = stream.recv(65536)
        assert data, "closed"
        messages += map(decode_from_driver, reader.feed(data))
    return messages


def flood(stream: ssl.SSLSocket) -> None:
    while True:
        stream.sendall(bytes(100_000))


async def later(function: Callable[[], object]) -> object:
    """Call a blocking function of the client's side."""
    return await asyncio.wait_for(asyncio.to_thread(function), PATIENCE)


def test_messages_come_in_order_and_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, echo) as address:

            def talk() -> None:
                with address.friend() as stream:
                    for begin in range(0, 200, 50):
                        stream.sendall(bytes(range(begin, begin + 50)))
                        assert read_messages(stream, 50) == [Alive(byte) for byte in range(begin, begin + 50)]

            await later(talk)

    asyncio.run(main())


def test_a_friend_gets_in_whatever_number_of_strangers_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stranger that has waited for longest has to go: a friend needs milliseconds."""
    monkeypatch.setattr(module, "MOST_STRANGERS", 10)

    async def main() -> None:
        async with serving(tmp_path, echo) as address:

            def talk() -> None:
                strangers = [address.stranger() for _ in range(30)]
                with address.friend() as stream:
                    stream.sendall(b"\7")
                    assert read_messages(stream, 1) == [Alive(7)]
                assert all(is_closed(stranger) for stranger in strangers[:20])
                for stranger in strangers:
                    stranger.close()

            await later(talk)
            assert len(address.served) == 1

    asyncio.run(main())


def test_a_stranger_has_to_hurry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HANDSHAKE_SECONDS", 0.05)

    async def main() -> None:
        async with serving(tmp_path, echo) as address:

            def talk() -> None:
                with address.stranger() as stream:
                    stream.sendall(b"\x16\x03\x01")
                    assert is_closed(stream)

            await later(talk)
            assert address.served == []

    asyncio.run(main())


def test_a_peer_that_does_not_read_loses_its_connection_and_nobody_else(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, echo) as address:

            def talk() -> None:
                with address.friend() as deaf, address.friend() as stream:
                    deaf.settimeout(0.2)
                    with pytest.raises((OSError, ssl.SSLError)):
                        flood(deaf)
                    stream.sendall(b"\7")
                    assert read_messages(stream, 1) == [Alive(7)]

            await later(talk)

    asyncio.run(main())


def test_what_was_sent_leaves_before_a_connection_is_closed(tmp_path: Path) -> None:
    async def say_and_close(peer: Peer) -> None:
        await peer.receive()
        peer.send([Alive(number) for number in range(5000)])
        peer.close()
        while await peer.receive():
            continue

    async def main() -> None:
        async with serving(tmp_path, say_and_close) as address:

            def talk() -> None:
                with address.friend() as stream:
                    stream.sendall(b"x")
                    assert len(read_messages(stream, 5000)) == 5000
                    assert is_closed(stream)

            await later(talk)

    asyncio.run(main())


def test_closing_everything_closes_friends_and_strangers(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, echo) as address:

            def join() -> tuple[socket.socket, ssl.SSLSocket]:
                stranger, friend = address.stranger(), address.friend()
                friend.sendall(b"\7")
                read_messages(friend, 1)
                return stranger, friend

            streams = await later(join)
        assert isinstance(streams, tuple)

        def look() -> None:
            for stream in streams:
                assert is_closed(stream)
                stream.close()
            with pytest.raises(OSError, match="refused"):
                address.stranger()

        await later(look)

    asyncio.run(main())


def test_a_message_to_somebody_who_left_is_no_error(tmp_path: Path) -> None:
    left = asyncio.Event()

    async def wait_and_send(peer: Peer) -> None:
        assert await peer.receive() == b""
        for _ in range(10):
            peer.send([Alive(1)])
        peer.close()
        left.set()

    async def main() -> None:
        async with serving(tmp_path, wait_and_send) as address:
            await later(lambda: address.friend().close())
            await asyncio.wait_for(left.wait(), PATIENCE)

    asyncio.run(main())


@pytest.mark.parametrize("host", ["", "localhost", "127.0.0.1"])
def test_a_name_or_an_address_can_be_bound(host: str) -> None:
    with bind(host, 0) as listening:
        port = listening.getsockname()[1]
        socket.create_connection((host or "localhost", port), timeout=PATIENCE).close()
        with pytest.raises(OSError, match="in use"):
            bind(host, port)


def test_the_first_port_that_is_free() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with bind_first(Endpoint("127.0.0.1", range(port, min(port + 100, 65536)))) as listening:
            assert listening.getsockname()[1] > port
        with pytest.raises(OSError, match="in use"):
            bind_first(Endpoint("127.0.0.1", range(port, port + 1)))


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_all_addresses_are_those_of_both_kinds(host: str) -> None:
    with bind("::", 0) as listening:
        socket.create_connection((host, listening.getsockname()[1]), timeout=PATIENCE).close()


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host.invalid"])
def test_an_address_that_is_not_ours_is_an_error(host: str) -> None:
    with pytest.raises(OSError):
        bind(host, 0)
