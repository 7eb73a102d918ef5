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
    import ssl

    from blockflow.net.connection_file import Connection

CONNECT_SECONDS = 10.0
"""How long one address may take to answer."""

HASTY_SECONDS = 3.0
"""The same in the first round, if there are others: where packets vanish, nobody says so."""


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

    from blockflow.net.tls import client_context

    try:
        context = client_context(connection.path)
    except (OSError, ssl.SSLError) as error:
        raise ConnectionFileError(f"connection file {connection.path} holds no usable key: {error}") from error
    search = _Search(context, connection)
    for patience in (HASTY_SECONDS, CONNECT_SECONDS) if len(connection.addresses) > 1 else (CONNECT_SECONDS,):
        stream = search.once(patience)
        if stream is not None:
            return Pipe(stream, reads=(ssl.SSLWantReadError,), writes=(ssl.SSLWantWriteError,))
        if not search.too_slow:
            break
    tried = "; ".join(search.failures.values())
    raise UnreachableError(
        f"the driver of run {connection.run} cannot be reached: {tried}. It was stopped or killed, or this machine "
        f"({socket.gethostname()}) cannot reach that address: then pass host= or advertise= to run_blockwise, with an "
        "address of the driver's machine that can be reached from here"
    ) from search.refused


class _Search:
    """Tries the addresses of a run, and remembers what happened at each."""

    def __init__(self, context: ssl.SSLContext, connection: Connection) -> None:
        self._context = context
        self._connection = connection
        self._is_here = all(_is_loopback(host) for host, _ in connection.addresses)
        self.failures: dict[tuple[str, str, int], str] = {}
        """By address, and the name it stands for: what happened there last."""
        self.too_slow: set[tuple[str, str, int]] = set()
        """Where nobody has answered in time."""
        self.refused: ConnectionRefusedError | None = None
        """Nobody listens on this very machine, and the driver is nowhere else."""

    def once(self, patience: float) -> ssl.SSLSocket | None:
        """Try all addresses in their order, or only those that were too slow before.

        Args:
            patience: Seconds that each may take.
        """
        slow, self.too_slow = self.too_slow, set()
        seen = set()
        from blockflow.net.addresses import resolved, shown

        for name, port in self._connection.addresses:
            try:
                hosts = resolved(name)
            except OSError as error:
                self.failures[name, "", port] = f"{shown(name, port)} ({error.strerror or error})"
                continue
            for host in hosts:
                if (host, port) in seen or (slow and (name, host, port) not in slow):
                    continue
                seen.add((host, port))
                stream = self._try(name, host, port, patience)
                if stream is not None:
                    return stream
        return None

    def _try(self, name: str, host: str, port: int, patience: float) -> ssl.SSLSocket | None:
        import ssl

        from blockflow.net.addresses import shown
        from blockflow.net.tls import server_name

        run = self._connection.run
        where = shown(host, port) if host == name else f"{shown(name, port)} at {host}"
        try:
            plain = socket.create_connection((host, port), timeout=patience)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return self._context.wrap_socket(plain, server_hostname=server_name(run))
        except ssl.SSLError as error:
            self.failures[name, host, port] = (
                f"{where} answers, but not with the key of run {run} ({error.reason or error})"
            )
        except OSError as error:
            self.failures[name, host, port] = f"{where} ({error})"
            if isinstance(error, TimeoutError):
                self.too_slow.add((name, host, port))
            if isinstance(error, ConnectionRefusedError) and self._is_here:
                self.refused = error
        return None


def _is_loopback(host: str) -> bool:
    """Whether an address is that of the machine where it is used, whichever that is."""
    return host in ("::1", "localhost") or host.startswith("127.")
