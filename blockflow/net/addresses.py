"""Where does a driver listen, and under which addresses do workers elsewhere find it?

What is said in an argument counts, then what is said in the environment. Who says nothing gets the address that this
machine's own name stands for, as the nodes of a cluster resolve it the same way. Never all of its addresses at once,
unless it is asked for: what listens there can be reached from networks that nobody thought of.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from blockflow.errors import PlanError
from blockflow.escaping import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOGGER = get_logger()

HOST_VARIABLES = ("BLOCKFLOW_HOST", "DAISY_HOST")
"""Environment variables for the address to listen on; the second is known to users of daisy."""
PORT_VARIABLE = "BLOCKFLOW_PORT"
ADVERTISE_VARIABLE = "BLOCKFLOW_ADVERTISE"

EVERYWHERE = ("0.0.0.0", "::")
"""All addresses of this machine: those of the old kind, or both kinds."""

_ANY = range(1)
_NAME = re.compile(r"\w([\w.-]*\w)?\.?")
_ROUTED = (("192.0.2.1", socket.AF_INET), ("2001:db8::1", socket.AF_INET6))
"""Addresses that are nobody's, reserved for documentation."""

Address: TypeAlias = tuple[str, int]
"""Host and port."""


class Endpoint(NamedTuple):
    """Where a driver listens, and what it tells workers elsewhere."""

    host: str
    """Name or address."""
    ports: range = _ANY
    """One of them; 0 for any that is free."""
    advertised: tuple[tuple[str, int | None], ...] = ()
    """What to tell, instead of what it listens on, to be tried in this order; None for the port it listens on."""

    def __str__(self) -> str:
        """Host and ports as text.

        >>> str(Endpoint("10.1.2.3", range(9000, 9101))), str(Endpoint("::1"))
        ('10.1.2.3:9000-9100', '[::1]:0')
        """
        last = f"-{self.ports[-1]}" if len(self.ports) > 1 else ""
        return f"{shown(self.host, self.ports[0])}{last}"

    def addresses(self, port: int) -> tuple[Address, ...]:
        """What to tell workers, to be tried in this order.

        >>> Endpoint("10.1.2.3", advertised=(("login1", None), ("gate", 80))).addresses(9000)
        (('login1', 9000), ('gate', 80))

        Args:
            port: Where the driver listens.
        """
        told = self.advertised
        if not told:
            hosts = _all_own(self.host) if self.host in EVERYWHERE else [self.host]
            told = tuple((host, None) for host in hosts)
        return tuple(dict.fromkeys((host, port if other is None else other) for host, other in told))


def endpoint_of(
    host: Any = None,
    port: Any = 0,
    advertise: Any = None,
    *,
    environment: Mapping[str, str],
    elsewhere: bool,
) -> Endpoint | None:
    """Where to listen; None if all workers are on this machine, and nobody has asked for more.

    >>> endpoint_of("0.0.0.0", "9000-9100", "login1, [2001:db8::7]:80", environment={}, elsewhere=True)
    Endpoint(host='0.0.0.0', ports=range(9000, 9101), advertised=(('login1', None), ('2001:db8::7', 80)))

    Args:
        host: Name or address to listen on.
        port: Port to listen on, or several (``"9000-9100"``, a range) of which one has to be free; 0 for any.
        advertise: What to tell workers instead: one address or several, each with a port or without.
        environment: Where to look for what is not given.
        elsewhere: Some workers are on other machines.

    Raises:
        PlanError: One of them cannot be right; the message names it.
    """
    asked = _checked_ports("port", port)
    host_said = _said("host", host, HOST_VARIABLES, environment)
    port_said = _said("port", None if asked == _ANY else port, (PORT_VARIABLE,), environment)
    told_said = _said("advertise", advertise, (ADVERTISE_VARIABLE,), environment)
    ports = _checked_ports(*port_said) if port_said else _ANY
    told = _checked_advertised(*told_said) if told_said else ()
    if host_said:
        return Endpoint(_checked_host(*host_said), ports, told)
    if elsewhere or advertise is not None:
        return Endpoint(own_address(), ports, told)
    return None if asked == _ANY else Endpoint("127.0.0.1", ports, told)


def _said(what: str, value: Any, variables: Iterable[str], environment: Mapping[str, str]) -> tuple[str, Any] | None:
    """By which name something was said, and what; None if it was not."""
    if value is not None:
        return what, value
    return next(((name, environment[name]) for name in variables if environment.get(name)), None)


def shown(host: str, port: int) -> str:
    """An address as people write it.

    >>> shown("node7", 80), shown("2001:db8::7", 80)
    ('node7:80', '[2001:db8::7]:80')
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def own_address() -> str:
    """The address of the interface that this machine's name stands for.

    Where the name stands for this machine only (127.0.0.1, or Debian's 127.0.1.1), other machines cannot connect; a
    warning says so.
    """
    candidates = _named()
    for address in candidates:
        if not _is_loopback(address):
            return address
    _LOGGER.warning(
        "the name of this machine, %s, stands for %s, which other machines cannot reach: if workers cannot connect, "
        "pass host= with an address of this machine that they see (`hostname -I` lists them), or set BLOCKFLOW_HOST",
        socket.gethostname(),
        " and ".join(dict.fromkeys(candidates)) or "no address",
    )
    return candidates[0] if candidates else "127.0.0.1"


def resolved(host: str) -> list[str]:
    """The addresses of a name, in the order of preference of this machine.

    Raises:
        OSError: It has none.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _all_own(host: str) -> list[str]:
    """This machine's name, and its addresses that others may see, as far as they can be found out."""
    found = [socket.gethostname(), *(address for address in _named() if not _is_loopback(address))]
    for target, family in _ROUTED:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as asking:
                asking.connect((target, 9))  # sends nothing: it only chooses the interface
                found.append(asking.getsockname()[0])
        except OSError:
            continue
    return [address for address in found if host != EVERYWHERE[0] or ":" not in address]


def _named() -> list[str]:
    """The addresses that this machine's name stands for, and that can be listened on; without scopes."""
    import ipaddress

    addresses: list[str] = []
    for name in (socket.gethostname(), socket.getfqdn()):
        try:
            addresses += resolved(name)
        except OSError:
            continue
    return [address for address in addresses if "%" not in address and not ipaddress.ip_address(address).is_link_local]


def _is_loopback(address: str) -> bool:
    import ipaddress

    return ipaddress.ip_address(address).is_loopback


def _checked_host(what: str, value: Any) -> str:
    """A name or an address, without port; IPv6 with brackets or without."""
    text = value[1:-1] if isinstance(value, str) and value[:1] == "[" and value[-1:] == "]" else value
    if not isinstance(text, str) or not _is_host(text):
        raise PlanError(
            f"{what} must be a name or an address, without a port, such as 'login1', '10.1.2.3' or '2001:db8::7', "
            f"got {value!r}"
        )
    return text


def _is_host(text: str) -> bool:
    import ipaddress

    if ":" in text or re.fullmatch(r"[\d.]+", text):
        try:
            ipaddress.ip_address(text)
        except ValueError:
            return False
        return True
    return _NAME.fullmatch(text) is not None and len(text) <= 253


def _checked_ports(what: str, value: Any) -> range:
    """Ports as a range."""
    ports: range | None = None
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d{1,6})(?:\s*-\s*(\d{1,6}))?\s*", value, re.ASCII)):
        first, last = match.groups()
        ports = range(int(first), int(last or first) + 1)
    elif isinstance(value, range) and value.step == 1:
        ports = value
    elif not isinstance(value, bool) and isinstance(value, Integral):
        ports = range(int(value), int(value) + 1)
    if ports is not None and (ports == _ANY or (len(ports) and 1 <= ports[0] <= ports[-1] <= 65535)):
        return ports
    raise PlanError(
        f"{what} must be a whole number from 0 to 65535 (0 for any port that is free), or several from 1 to 65535, "
        f"such as '9000-9100', got {value!r}"
    )


def _checked_advertised(what: str, value: Any) -> tuple[tuple[str, int | None], ...]:
    """Addresses with a port or without."""
    entries = value.split(",") if isinstance(value, str) else list(value) if isinstance(value, Iterable) else [value]
    told = []
    for entry in entries:
        address = _advertised(entry.strip()) if isinstance(entry, str) else None
        if address is None:
            raise PlanError(
                f"{what} must be one address that workers see, or several, each with a port from 1 to 65535 or "
                f"without, such as 'login1', '10.1.2.3:9000' or '[2001:db8::7]:9000', got {entry!r}"
            )
        told.append(address)
    if not told:
        raise PlanError(f"{what} must name at least one address, got {value!r}")
    return tuple(told)


def _advertised(text: str) -> tuple[str, int | None] | None:
    """Host and port, if there is one; None if it can be no address of one machine."""
    match = re.fullmatch(r"(\[[^\]]*\]|[^:]*):(\d{1,5})", text, re.ASCII)
    host, port = (match[1], int(match[2])) if match else (text, None)
    if host[:1] == "[" and host[-1:] == "]":
        host = host[1:-1]
    right = _is_host(host) and host not in EVERYWHERE and (port is None or 1 <= port <= 65535)
    return (host, port) if right else None
