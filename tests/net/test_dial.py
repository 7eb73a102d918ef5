"""Reaching a driver at one of several addresses: in their order, patiently, and with an account of what happened."""

from __future__ import annotations

import contextlib
import datetime
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from blockflow.errors import UnreachableError
from blockflow.net import dial as dialling
from blockflow.net.connection_file import private_directory, write_connection
from blockflow.net.dial import dial
from blockflow.net.tls import make_certificate, server_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from blockflow.net.connection_file import Connection

Address = tuple[str, int]

PATIENCE = 20.0

NOWHERE = "no-such-host.invalid"


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is asked for names: one stands for two addresses, and another one for none."""
    real = socket.getaddrinfo

    def getaddrinfo(host: str, *more: Any, **options: Any) -> Any:
        if host == NOWHERE:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if host == "driver":
            return [(0, 0, 0, "", (address, 0)) for address in ("127.0.0.2", "127.0.0.1")]
        return real(host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


class Door:
    """A listening socket behind which somebody shakes hands, once it is opened."""

    def __init__(self, host: str, context: ssl.SSLContext) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listening = socket.create_server((host, 0), family=family)
        self.address: Address = (host, int(self._listening.getsockname()[1]))
        self.joined = 0
        self._context = context
        self._thread = threading.Thread(target=self._serve)

    def open(self) -> None:
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listening.accept()
            except OSError:  # it is closed
                return
            self.joined += 1  # before the other side can be done
            plain.settimeout(PATIENCE)
            with plain, contextlib.suppress(OSError):
                self._context.wrap_socket(plain, server_side=True).close()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._thread.join(PATIENCE)
        self._listening.close()


class Scene:
    """Doors of a run, and its connection file."""

    def __init__(self, folder: Path, ahead: datetime.timedelta = datetime.timedelta(0)) -> None:
        self._folder = folder
        self._pem = make_certificate("run", datetime.datetime.now(datetime.UTC) + ahead)
        self.doors: list[Door] = []

    def connection(self, *addresses: Address) -> Connection:
        return write_connection(private_directory(self._folder), "run", addresses, self._pem)

    def silent(self, host: str = "127.0.0.1", *, key: bool = True) -> Door:
        """One behind which nobody says anything yet; with this run's key, or another's."""
        run = "run" if key else "other"
        pem = self._pem if key else make_certificate("other", datetime.datetime.now(datetime.UTC))
        connection = write_connection(private_directory(self._folder / run), run, (), pem)
        door = Door(host, server_context(connection.path))
        self.doors.append(door)
        return door

    def door(self, host: str = "127.0.0.1", *, key: bool = True) -> Door:
        door = self.silent(host, key=key)
        door.open()
        return door


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path / "private")
    yield made
    for door in made.doors:
        door.close()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], None]:
    def patience(first: float, then: float) -> None:
        monkeypatch.setattr(dialling, "HASTY_SECONDS", first)
        monkeypatch.setattr(dialling, "CONNECT_SECONDS", then)

    return patience


@pytest.fixture
def nobody() -> Iterator[Address]:
    """An address that refuses."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield closed.getsockname()


def test_the_first_that_answers_is_taken(scene: Scene, nobody: Address) -> None:
    first, second = scene.door(), scene.door()
    dial(scene.connection(nobody, (NOWHERE, 9), first.address, second.address)).close()
    assert (first.joined, second.joined) == (1, 0)


def test_a_silent_address_does_not_keep_others_from_being_tried(scene: Scene, hasty: Callable[..., None]) -> None:
    hasty(0.2, 30.0)
    good = scene.door()
    dial(scene.connection(scene.silent().address, good.address)).close()
    assert good.joined == 1


def test_a_slow_address_gets_more_time_when_no_other_answers(
    scene: Scene, hasty: Callable[..., None], nobody: Address
) -> None:
    hasty(0.1, 30.0)
    slow = scene.silent()
    threading.Timer(0.5, slow.open).start()  # the first attempt has been given up by then
    dial(scene.connection(slow.address, nobody)).close()
    assert slow.joined == 2


def test_every_address_and_what_happened_there_is_named(
    scene: Scene, hasty: Callable[..., None], nobody: Address
) -> None:
    hasty(0.2, 0.2)
    silent, foreign = scene.silent(), scene.door(key=False)
    addresses = (nobody, silent.address, foreign.address, (NOWHERE, 9))
    with pytest.raises(UnreachableError) as caught:
        dial(scene.connection(*addresses))
    said = str(caught.value)
    assert f"127.0.0.1:{nobody[1]} ([Errno 111] Connection refused)" in said
    assert f"127.0.0.1:{silent.address[1]} (" in said
    assert "timed out" in said
    assert f"127.0.0.1:{foreign.address[1]} answers, but not with the key of run run" in said
    assert f"{NOWHERE}:9 (Name or service not known)" in said
    assert f"this machine ({socket.gethostname()}) cannot reach that address: then pass host= or advertise=" in said


@pytest.mark.parametrize(("days", "said"), [(3, "is not valid yet"), (-100, "has expired")])
def test_clocks_that_differ_are_named(tmp_path: Path, days: int, said: str) -> None:
    scene = Scene(tmp_path / "private", datetime.timedelta(days=days))
    door = scene.door()
    with pytest.raises(UnreachableError) as caught:
        dial(scene.connection(door.address))
    door.close()
    assert said in str(caught.value)
    assert "the clocks of the two differ" in str(caught.value)


def test_a_clock_that_is_hours_behind_is_no_hindrance(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "private", datetime.timedelta(hours=23))
    door = scene.door()
    dial(scene.connection(door.address)).close()
    door.close()


def test_every_address_of_a_name_is_tried(scene: Scene, nobody: Address) -> None:
    good = scene.door()
    dial(scene.connection(("driver", good.address[1]))).close()
    with pytest.raises(UnreachableError, match=r"driver:\d+ at 127\.0\.0\.2 \(.*; driver:\d+ at 127\.0\.0\.1 \("):
        dial(scene.connection(("driver", nobody[1])))


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_ipv6(scene: Scene, nobody: Address) -> None:
    good = scene.door("::1")
    dial(scene.connection(good.address)).close()
    with pytest.raises(UnreachableError, match=r"cannot be reached: \[::1\]:\d+ \("):
        dial(scene.connection(("::1", nobody[1])))


def test_who_refuses_on_this_machine_is_gone_but_not_if_the_driver_may_be_elsewhere(
    scene: Scene, nobody: Address
) -> None:
    with pytest.raises(UnreachableError) as here:
        dial(scene.connection(nobody))
    assert isinstance(here.value.__cause__, ConnectionRefusedError)
    with pytest.raises(UnreachableError) as elsewhere:
        dial(scene.connection(nobody, (NOWHERE, 9)))
    assert elsewhere.value.__cause__ is None
