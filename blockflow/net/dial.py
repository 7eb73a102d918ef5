"""How does a worker reach its driver?

A run of one machine listens on a socket in the file system, in a directory that only its user can enter: whoever can
connect could also read the key. On the network it listens with TLS, and both sides prove that they know the key.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from blockflow.errors import ConnectionFileError, UnreachableError
from blockflow.net.pipe import Pipe

if TYPE_CHECKING:
    from blockflow.net.connection_file import Connection

CONNECT_SECONDS = 10.0
"""How long one address may take to answer."""


def dial(connection: Connection) -> Pipe:
    """A connection to a run. Each address is tried in turn.

    Raises:
        ConnectionFileError: The connection file holds no key.
        UnreachableError: Nobody answers, or not with this run's key; the message tells what happened at each address.
            Its cause is a ConnectionRefusedError where nobody listens on this very machine.
    """
    return _dial_here(connection) if connection.socket else _dial_network(connection)


def _dial_here(connection: Connection) -> Pipe:
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.settimeout(CONNECT_SECONDS)
    try:
        # By way of the directory, because the path of a socket must be short.
        directory = os.open(os.path.dirname(connection.socket), os.O_PATH)
        try:
            stream.connect(f"/proc/self/fd/{directory}/{os.path.basename(connection.socket)}")
        finally:
            os.close(directory)
    except OSError as error:
        stream.close()
        gone = isinstance(error, ConnectionRefusedError | FileNotFoundError)
        raise UnreachableError(
            f"the driver of run {connection.run} does not answer at {connection.socket} ({error}): it was stopped or "
            "killed, or runs on another machine: then pass host= to run_blockwise"
        ) from (ConnectionRefusedError(str(error)) if gone else error)
    return Pipe(stream)


def _dial_network(connection: Connection) -> Pipe:
    import ssl  # here, because workers of a local run need no 5 ms for it

    from blockflow.net.tls import client_context, server_name

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
            stream = context.wrap_socket(plain, server_hostname=server_name(connection.run))
        except ssl.SSLError as error:
            tried.append(f"{host}:{port} answers, but not with the key of run {connection.run} ({error.reason})")
        except OSError as error:
            tried.append(f"{host}:{port} ({error})")
            if isinstance(error, ConnectionRefusedError) and host in ("127.0.0.1", "::1", "localhost"):
                refused = error
        else:
            return Pipe(stream, reads=(ssl.SSLWantReadError,), writes=(ssl.SSLWantWriteError,))
    raise UnreachableError(
        f"the driver of run {connection.run} cannot be reached: {'; '.join(tried)}. It was stopped or killed, or this "
        "machine cannot reach that address: then pass host= to run_blockwise"
    ) from refused
