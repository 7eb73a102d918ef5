"""Where does a driver listen? On a socket in the file system, or at an address of the network."""

from __future__ import annotations

import contextlib
import os
import socket

BACKLOG = 512
"""Connections that may wait to be accepted."""


def bind_here(directory: str, name: str) -> socket.socket:
    """A listening socket in a directory.

    Raises:
        OSError: The file system has no sockets, or this system has none.
    """
    if not hasattr(os, "O_PATH"):
        raise OSError("this system has no short paths to sockets")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        folder = os.open(directory, os.O_PATH)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
            listening.bind(f"/proc/self/fd/{folder}/{name}")
        finally:
            os.close(folder)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Args:
        host: Name or address to listen on; empty for all of this machine's.
        port: 0 for any that is free.

    Raises:
        OSError: The address is not this machine's, or the port is taken.
    """
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    listening = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    listening.setblocking(False)
    return listening
