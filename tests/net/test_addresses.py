"""Where a driver listens, and what it tells workers: what was said, or that for which this machine's name stands."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from blockflow.errors import PlanError
from blockflow.net.addresses import Endpoint, endpoint_of, own_address

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


def endpoint(
    host: Any = None, port: Any = 0, advertise: Any = None, *, elsewhere: bool = False, **environment: str
) -> Endpoint | None:
    return endpoint_of(host, port, advertise, environment=environment, elsewhere=elsewhere)


# ------------------------------------------------------------------------------------------- who says what, and where


def test_a_run_of_one_machine_listens_nowhere() -> None:
    assert endpoint() is None
    assert endpoint(BLOCKFLOW_PORT="9000", BLOCKFLOW_ADVERTISE="login1") is None, "these are for runs that listen"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"BLOCKFLOW_HOST": "10.1.2.3", "DAISY_HOST": "10.9.9.9"}, "10.1.2.3"),
        ({"DAISY_HOST": "10.9.9.9"}, "10.9.9.9"),
        ({"BLOCKFLOW_HOST": "", "DAISY_HOST": ""}, None),
    ],
)
def test_the_environment_says_what_arguments_do_not(environment: dict[str, str], expected: str | None) -> None:
    found = endpoint_of(environment=environment, elsewhere=False)
    assert (None if found is None else found.host) == expected
    more = {"BLOCKFLOW_PORT": "9000", "BLOCKFLOW_ADVERTISE": "login1", **environment}
    given = endpoint_of("localhost", 7, "x", environment=more, elsewhere=False)
    assert given == Endpoint("localhost", range(7, 8), (("x", None),))


def test_ports_and_advertised_addresses_of_the_environment() -> None:
    found = endpoint("localhost", BLOCKFLOW_PORT="9000-9002", BLOCKFLOW_ADVERTISE=" login1 ,10.1.2.3:80")
    assert found == Endpoint("localhost", range(9000, 9003), (("login1", None), ("10.1.2.3", 80)))


def test_a_port_alone_is_for_this_machine_and_workers_elsewhere_need_its_own_address(names: Any) -> None:
    names({"node1": ["10.1.2.3"]})
    assert endpoint(port=9000) == Endpoint("127.0.0.1", range(9000, 9001))
    assert endpoint(elsewhere=True) == Endpoint("10.1.2.3")
    assert endpoint(port=range(9000, 9002), elsewhere=True) == Endpoint("10.1.2.3", range(9000, 9002))
    assert endpoint(advertise="gate:80") == Endpoint("10.1.2.3", advertised=(("gate", 80),))


@pytest.mark.parametrize("port", [9000, "9000", " 9000 ", range(9000, 9001), "9000-9000"])
def test_one_port(port: Any) -> None:
    assert endpoint("h", port) == Endpoint("h", range(9000, 9001))


@pytest.mark.parametrize("host", ["2001:db8::7", "[2001:db8::7]"])
def test_ipv6_with_brackets_or_without(host: str) -> None:
    assert endpoint(host) == Endpoint("2001:db8::7")
    assert endpoint("h", 0, host) == Endpoint("h", advertised=(("2001:db8::7", None),))


def test_several_addresses_in_their_order() -> None:
    found = endpoint("0.0.0.0", "9000-9100", ["login1", "gate:80", "[2001:db8::7]:81", "login1"])
    assert found is not None
    assert str(found) == "0.0.0.0:9000-9100"
    assert found.addresses(9007) == (("login1", 9007), ("gate", 80), ("2001:db8::7", 81))


def test_what_is_told_of_all_addresses(names: Any) -> None:
    names({"node1": ["127.0.1.1", "10.1.2.3", "fe80::1", "2001:db8::7"]})
    assert Endpoint("0.0.0.0").addresses(9)[:2] == (("node1", 9), ("10.1.2.3", 9))
    assert not [host for host, _ in Endpoint("0.0.0.0").addresses(9) if ":" in host or host.startswith("127.")]
    assert ("2001:db8::7", 9) in Endpoint("::").addresses(9)


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "host", ["", " ", "a b", "node:9000", "10.1.2.300", "10.1", "[::1", "::g", "-x", 7, True, "a/b"]
)
def test_wrong_hosts_are_refused(host: Any) -> None:
    with pytest.raises(PlanError, match=r"^host must be a name or an address, without a port"):
        endpoint(host)
    if isinstance(host, str) and host:
        with pytest.raises(PlanError, match=r"^BLOCKFLOW_HOST must be a name or an address"):
            endpoint(BLOCKFLOW_HOST=host)


@pytest.mark.parametrize(
    "port", [-1, 65536, "0-10", "65535-65536", "9100-9000", "http", "", "9000,9001", True, 80.0, None, range(0), "٣"]
)
def test_wrong_ports_are_refused(port: Any) -> None:
    with pytest.raises(PlanError, match=r"^port must be a whole number from 0 to 65535 .* such as '9000-9100', got"):
        endpoint("h", port)
    if isinstance(port, str) and port:
        with pytest.raises(PlanError, match=r"^BLOCKFLOW_PORT must be"):
            endpoint("h", BLOCKFLOW_PORT=port)


@pytest.mark.parametrize(
    "advertise",
    ["", "a,,b", "a b", "h:0", "h:70000", "h:x", "0.0.0.0", "::", "[::]:9", "[h]x", "10.1.2.300:9", ["h", 7], 7],
)
def test_wrong_advertised_addresses_are_refused(advertise: Any) -> None:
    with pytest.raises(PlanError, match=r"^advertise must be one address that workers see, or several"):
        endpoint("h", 0, advertise)
    if isinstance(advertise, str) and advertise:
        with pytest.raises(PlanError, match=r"^BLOCKFLOW_ADVERTISE must be"):
            endpoint("h", BLOCKFLOW_ADVERTISE=advertise)


def test_no_address_at_all_is_refused() -> None:
    with pytest.raises(PlanError, match=r"^advertise must name at least one address, got \[\]"):
        endpoint("h", 0, [])
