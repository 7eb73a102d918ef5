"""How does a worker reach its driver?

A run of one machine listens on a socket in the file system, in a directory that only its user can enter: whoever can
connect could also read the key. On the network it listens with TLS, and both sides prove that they know the key.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, TypeAlias

from blockflow.errors import ConnectionFileError, UnreachableError
from blockflow.net.pipe import Pipe
from blockflow.trusted_files import folder_of, path_of_descriptor

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Iterator

    from blockflow.net.connection_file import Connection

CONNECT_SECONDS = 10.0
"""How long one address may take to answer."""

HASTY_SECONDS = 3.0
"""The same in the first round, if there are others: where packets vanish, nobody says so."""

OUT_OF_TIME = {9: "is not valid yet", 10: "has expired"}
"""By number of an error of OpenSSL's verification: what it says of the time."""


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
        folder, name = folder_of(connection.socket, private=True)
        with folder:
            stream.connect(f"{path_of_descriptor(folder.descriptor)}/{name}")
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
    stream = search.run()
    if stream is not None:
        return Pipe(stream, reads=(ssl.SSLWantReadError,), writes=(ssl.SSLWantWriteError,))
    raise UnreachableError(
        f"the driver of run {connection.run} cannot be reached: {'; '.join(search.failures)}. It was stopped or "
        f"killed, or this machine ({socket.gethostname()}) cannot reach that address: then pass host= or advertise= to "
        "run_blockwise, with an address of the driver's machine that can be reached from here"
    ) from search.refused


_Candidate: TypeAlias = tuple[str, str, int]
"""What was told, an address that it stands for, and a port."""


class _Search:
    """Tries the addresses of a run, and remembers what happened at each."""

    def __init__(self, context: ssl.SSLContext, connection: Connection) -> None:
        self._context = context
        self._addresses = connection.addresses
        self._run = connection.run
        self._failed: dict[_Candidate, tuple[str, OSError]] = {}

    def run(self) -> ssl.SSLSocket | None:
        """Try all in their order; then, with more patience, those that have not answered in time."""
        several = len(self._addresses) > 1
        found = self._first_of(self._candidates(), HASTY_SECONDS if several else CONNECT_SECONDS)
        if found is None and several:
            slow = [each for each, (_, error) in self._failed.items() if isinstance(error, TimeoutError)]
            found = self._first_of(slow, CONNECT_SECONDS)
        return found

    @property
    def failures(self) -> list[str]:
        """What happened at each."""
        return [said for said, _ in self._failed.values()]

    @property
    def refused(self) -> OSError | None:
        """An error that says that nobody listens on this very machine, and that the driver is nowhere else."""
        refused = all(isinstance(error, ConnectionRefusedError) for _, error in self._failed.values())
        here = all(host in ("::1", "localhost") or host.startswith("127.") for host, _ in self._addresses)
        return next((error for _, error in self._failed.values()), None) if refused and here else None

    def _candidates(self) -> Iterator[_Candidate]:
        """Every address that one of those told stands for, once."""
        from blockflow.net.addresses import resolved, shown

        seen = set()
        for name, port in self._addresses:
            try:
                hosts = resolved(name)
            except OSError as error:
                self._failed[name, "", port] = f"{shown(name, port)} ({error.strerror or error})", error
                continue
            for host in hosts:
                if (host, port) not in seen:
                    seen.add((host, port))
                    yield name, host, port

    def _first_of(self, candidates: Iterable[_Candidate], patience: float) -> ssl.SSLSocket | None:
        for candidate in candidates:
            try:
                return self._try(candidate, patience)
            except OSError as error:
                self._failed[candidate] = self._account(candidate, error), error
        return None

    def _try(self, candidate: _Candidate, patience: float) -> ssl.SSLSocket:
        from blockflow.net.tls import server_name

        _, host, port = candidate
        plain = socket.create_connection((host, port), timeout=patience)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = self._context.wrap_socket(plain, server_hostname=server_name(self._run))
        stream.settimeout(CONNECT_SECONDS)  # for what is said next
        return stream

    def _account(self, candidate: _Candidate, error: OSError) -> str:
        import ssl

        from blockflow.net.addresses import shown

        name, host, port = candidate
        where = shown(host, port) if host == name else f"{shown(name, port)} at {host}"
        if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in OUT_OF_TIME:
            now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
            return (
                f"{where} answers, but its certificate {OUT_OF_TIME[error.verify_code]} on this machine, where "
                f"it is {now}: the clocks of the two differ"
            )
        if isinstance(error, ssl.SSLError):
            return f"{where} answers, but not with the key of run {self._run} ({error.reason or error})"
        return f"{where} ({error})"
