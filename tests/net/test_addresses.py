"""The address that nodes of a cluster can reach: that for which this machine's name stands, never all at once."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from blockflow.net.addresses import own_address

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, list[str]]], None]:
    """Sets which names stand for which addresses; this machine is node1, or in full node1.site."""

    def resolver(known: dict[str, list[str]]) -> None:
        def getaddrinfo(name: str, port: object, **options: object) -> list[Any]:
            if name not in known:
                raise socket.gaierror("unknown")
            return [(0, 0, 0, "", (address, 0)) for address in known[name]]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        monkeypatch.setattr(socket, "gethostname", lambda: "node1")
        monkeypatch.setattr(socket, "getfqdn", lambda: "node1.site")

    return resolver


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({"node1": ["10.1.2.3"]}, "10.1.2.3"),
        ({"node1": ["127.0.1.1"], "node1.site": ["10.1.2.3", "10.9.9.9"]}, "10.1.2.3"),
        ({"node1": ["fe80::1%eth0", "fe80::1", "2001:db8::7"]}, "2001:db8::7"),
    ],
)
def test_the_first_that_others_can_reach(names: Any, known: Any, expected: str, caplog: Any) -> None:
    names(known)
    assert own_address() == expected
    assert caplog.text == ""


@pytest.mark.parametrize(("known", "expected"), [({"node1": ["127.0.1.1"]}, "127.0.1.1"), ({}, "127.0.0.1")])
def test_a_name_that_stands_for_itself_only(names: Any, known: Any, expected: str, caplog: Any) -> None:
    names(known)
    assert own_address() == expected
    assert "pass host= with an address of this machine" in caplog.text
