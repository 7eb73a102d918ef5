"""Under which address can other machines reach this one?

The address that this machine's own name stands for, as the nodes of a cluster resolve it the same way. Never all of
its addresses at once: what listens there can be reached from networks that nobody thought of.
"""

from __future__ import annotations

import ipaddress
import logging
import socket

_LOGGER = logging.getLogger("blockflow")


def own_address() -> str:
    """The address of the interface that this machine's name stands for.

    Where the name stands for this machine only (127.0.0.1, or Debian's 127.0.1.1), other machines cannot connect; a
    warning says so.
    """
    name = socket.gethostname()
    candidates = [address for known in (name, socket.getfqdn()) for address in _resolve(known)]
    for address in candidates:
        if not ipaddress.ip_address(address).is_loopback:
            return address
    _LOGGER.warning(
        "the name of this machine, %s, stands for %s, which other machines cannot reach: if workers cannot connect, "
        "pass host= with an address of this machine that they see (`hostname -I` lists them), or set DAISY_HOST",
        name,
        " and ".join(dict.fromkeys(candidates)) or "no address",
    )
    return candidates[0] if candidates else "127.0.0.1"


def _resolve(name: str) -> list[str]:
    """The addresses of a name that can be listened on; without scopes."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    addresses = [str(entry[4][0]) for entry in found]
    return [address for address in addresses if "%" not in address and not ipaddress.ip_address(address).is_link_local]
