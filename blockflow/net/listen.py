"""Where does a driver listen? On a socket in the file system, or at an address of the network."""

from __future__ import annotations

import datetime
import errno
import os
import socket
from typing import TYPE_CHECKING

from blockflow.net.addresses import Endpoint
from blockflow.net.connection_file import remove_remains, socket_name, write_connection
from blockflow.secret import Secret
from blockflow.trusted_files import open_folder, path_of_descriptor

if TYPE_CHECKING:
    from pathlib import Path

    from blockflow.net.connection_file import Connection
    from blockflow.trusted_files import Folder

BACKLOG = 512
"""Connections that may wait to be accepted."""


def listen(
    directory: Path, run: str, endpoint: Endpoint | None, listening: socket.socket | None, *, resumable: bool
) -> tuple[socket.socket, Connection]:
    """Listen, and write down where.

    Args:
        directory: Private directory of the connection file.
        run: Id of the run.
        endpoint: What to tell the workers; None if all are on this machine.
        listening: A socket that listens there; None as well.
        resumable: A driver that was killed may be started again.

    Raises:
        OSError: There is no way to listen.
    """
    with open_folder(directory, private=True) as folder:
        remove_remains(folder, run)
        if listening is None:
            name = socket_name(run)
            try:
                here = bind_here(folder, name)
            except OSError:
                listening = bind("127.0.0.1", 0)  # a file system or a machine without such sockets
            else:
                return here, write_connection(directory, run, (), Secret(""), resumable=resumable, socket=name)
    from blockflow.net.tls import make_certificate

    addresses = (endpoint or Endpoint("127.0.0.1")).addresses(int(listening.getsockname()[1]))
    pem = make_certificate(run, datetime.datetime.now(datetime.UTC))
    return listening, write_connection(directory, run, addresses, pem, resumable=resumable)


def bind_here(folder: Folder, name: str) -> socket.socket:
    """A listening socket in a private directory.

    Raises:
        OSError: The file system has no sockets, or this system has none.
    """
    if not hasattr(os, "O_PATH"):
        raise OSError("this system has no short paths to sockets")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        folder.remove(name)
        listening.bind(f"{path_of_descriptor(folder.descriptor)}/{name}")
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


def bind_first(endpoint: Endpoint) -> socket.socket:
    """A listening socket on the first of an endpoint's ports that is free.

    Raises:
        OSError: The address is not this machine's, or no port is free.
    """
    for port in endpoint.ports:
        try:
            return bind(endpoint.host, port)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES) or port == endpoint.ports[-1]:
                raise
    raise AssertionError("an endpoint has ports")


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Args:
        host: Name or address to listen on; empty for all of this machine's, and ``::`` for those of IPv4 as well.
        port: 0 for any that is free.

    Raises:
        OSError: The address is not this machine's, or the port is taken.
    """
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    both = address[0] == "::" and socket.has_dualstack_ipv6()
    listening = socket.create_server(address[:2], family=family, backlog=BACKLOG, dualstack_ipv6=both)
    listening.setblocking(False)
    return listening
