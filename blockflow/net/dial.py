"""How does a worker reach its driver?"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

from blockflow.errors import ConnectionFileError, UnreachableError
from blockflow.net.tls import client_context, server_name

if TYPE_CHECKING:
    from blockflow.net.connection_file import Connection

CONNECT_SECONDS = 10.0
"""How long one address may take to answer."""


def dial(connection: Connection) -> ssl.SSLSocket:
    """A connection to a run; both sides have proved that they know its key. Each address is tried in turn.

    Raises:
        ConnectionFileError: The connection file holds no key.
        UnreachableError: Nobody answers, or not with this run's key; the message tells what happened at each address.
            Its cause is a ConnectionRefusedError where nobody listens on this very machine.
    """
    try:
        context = client_context(connection.path)
    except (OSError, ssl.SSLError) as error:
        raise ConnectionFileError(f"connection file {connection.path} holds no usable key: {error}") from error
    tried = []
    refused: OSError | None = None
    for host, port in connection.addresses:
        try:
            plain = socket.create_connection((host, port), timeout=CONNECT_SECONDS)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return context.wrap_socket(plain, server_hostname=server_name(connection.run))
        except ssl.SSLError as error:
            tried.append(f"{host}:{port} answers, but not with the key of run {connection.run} ({error.reason})")
        except OSError as error:
            tried.append(f"{host}:{port} ({error})")
            if isinstance(error, ConnectionRefusedError) and host in ("127.0.0.1", "::1", "localhost"):
                refused = error
    raise UnreachableError(
        f"the driver of run {connection.run} cannot be reached: {'; '.join(tried)}. It was stopped or killed, or this "
        "machine cannot reach that address: then pass host= to run_blockwise"
    ) from refused
