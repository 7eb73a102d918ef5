"""The connection file: how does a worker find its run, and what proves that it belongs to it?

One line of JSON (where the driver listens), then, if it listens on the network, the run's key and certificate in PEM.
The file is 0600 in a 0700 directory of the same user; anything else is refused, by ssh's example. Workers are told only
its path: command lines can be read by everybody on a machine. A run of one machine listens on a socket in the same
directory instead, which nobody else can reach. When the run is over the key is removed and the line says so, so that a
worker that comes too late can tell the end of its run from a run that never was.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeAlias

import msgspec

from blockflow.errors import ConnectionFileError

if TYPE_CHECKING:
    from pathlib import Path

VERSION = 1

INVITATION = "invitation"
"""Key of a context that holds the text of a connection file, for who cannot see the file."""

_KEPT_SECONDS = 7 * 24 * 3600
"""How long the file of a finished run is kept for workers that come too late."""

_SUFFIX = ".connection"
_SOCKET = ".socket"
_DRAFT = ".draft"

_LONGEST_LINE = 64 * 1024
"""Bytes; of a longer line, which is none of ours, no more is read."""

_Port: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class _FirstLine(msgspec.Struct, forbid_unknown_fields=True):
    """What the first line says."""

    version: int
    run: str
    addresses: tuple[tuple[str, _Port], ...]
    resumable: bool = False
    socket: str = ""
    """By name: it is in the same directory, whose path may be of an encoding that JSON cannot hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Where a run listens."""

    run: str
    addresses: tuple[tuple[str, int], ...]
    """Host and port, to be tried in this order; none if the run is over, or does not listen on the network."""
    path: str
    """The connection file; absolute."""
    resumable: bool = False
    """A driver that was killed may be started again, and will then listen where this file says."""
    socket: str = ""
    """Path of the socket on which a run of one machine listens; empty if it has none."""

    @property
    def finished(self) -> bool:
        """The run is over."""
        return not self.addresses and not self.socket


def private_directory(directory: Path) -> Path:
    """A directory that only this user can read; made if it is not there.

    Raises:
        ConnectionFileError: Somebody else could read it, or it cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory.chmod(0o700)
        _check_private(str(directory))
    except OSError as error:
        raise ConnectionFileError(f"no private directory can be made at {directory}: {error}") from error
    return directory


def socket_name(run: str) -> str:
    """Name of the socket of this driver of a run."""
    return f"{run}.{os.getpid()}{_SOCKET}"


def write_connection(
    directory: Path,
    run: str,
    addresses: tuple[tuple[str, int], ...],
    pem: str,
    *,
    resumable: bool = False,
    socket: str = "",
) -> Connection:
    """Write the connection file of a run; replaces it atomically if it is there.

    Args:
        directory: A private directory.
        run: Id of the run.
        addresses: Where the driver listens.
        pem: Key and certificate.
        resumable: The run has a ledger, so that its driver can be started again.
        socket: Name of the socket in that directory on which it listens, if it does.
    """
    path = directory.resolve() / f"{run}{_SUFFIX}"
    first = msgspec.json.encode(_FirstLine(VERSION, run, addresses, resumable, socket)).decode()
    draft = directory / f".{run}.{os.getpid()}{_DRAFT}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, 0o600)
        file.write(f"{first}\n{pem}")
    draft.replace(path)
    return Connection(
        run=run, addresses=addresses, path=str(path), resumable=resumable, socket=_beside(str(path), socket)
    )


def remove_remains(directory: Path, run: str) -> None:
    """Remove what drivers of a run have left that were killed; to be called by the one that has taken it over.

    Their sockets are of no use, and a draft may hold a key.
    """
    for pattern in (f"{run}.*{_SOCKET}", f".{run}.*{_DRAFT}"):
        for file in directory.glob(pattern):
            file.unlink(missing_ok=True)


def close_connection(connection: Connection) -> None:
    """Say that a run is over, and forget its key; also removes what runs of long ago have left."""
    from pathlib import Path

    directory = Path(connection.path).parent
    if connection.socket:
        Path(connection.socket).unlink(missing_ok=True)
    with contextlib.suppress(ConnectionFileError):
        if read_connection(connection.path) != connection:
            return  # another driver has taken over the run, and listens elsewhere
    try:
        write_connection(directory, connection.run, (), "")
    except OSError:  # the disk is full, or the directory is gone: then at least the key goes
        Path(connection.path).unlink(missing_ok=True)
    for file in directory.glob(f"*{_SUFFIX}"):
        try:
            if time.time() - file.stat().st_mtime > _KEPT_SECONDS and read_connection(str(file)).finished:
                file.unlink()
        except (OSError, ConnectionFileError):
            continue  # somebody else removes it as well, or it is not ours to judge


def keep_connection(text: str) -> str:
    """Keep the text of a connection file for this process, where nothing is left of it; returns the path."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("blockflow", os.MFD_CLOEXEC)
        path = f"/proc/self/fd/{descriptor}"  # stays open as long as the process lives
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, text.encode())
        return path
    import atexit
    import tempfile
    from pathlib import Path

    descriptor, path = tempfile.mkstemp(prefix="blockflow-")
    atexit.register(Path(path).unlink, missing_ok=True)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    return path


def read_connection(path: str) -> Connection:
    """Where a run listens.

    Raises:
        ConnectionFileError: The file is missing, is not private, or is not a connection file.
    """
    try:
        _check_private(path)
        with open(path, "rb") as file:
            first = file.readline(_LONGEST_LINE)
    except FileNotFoundError:
        raise ConnectionFileError(
            f"there is no connection file {path}: this context belongs to a run that is long over or never was, "
            "or the file cannot be seen from this machine"
        ) from None
    except OSError as error:
        raise ConnectionFileError(f"connection file {path} cannot be read: {error}") from error
    try:
        said = msgspec.json.decode(first, type=_FirstLine)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConnectionFileError(f"{path} is not a connection file: {error}") from None
    if said.version != VERSION:
        raise ConnectionFileError(
            f"connection file {path} has version {said.version}, this blockflow reads {VERSION}: use one everywhere"
        )
    return Connection(
        run=said.run,
        addresses=said.addresses,
        path=path,
        resumable=said.resumable,
        socket=_beside(path, said.socket),
    )


def _beside(path: str, name: str) -> str:
    """The path of a file in the directory of another one; empty if it has no name."""
    return os.path.join(os.path.dirname(path), name) if name else ""


def _check_private(path: str) -> None:
    status = os.stat(path)
    if os.name != "posix":
        return
    if status.st_uid != os.getuid():
        raise ConnectionFileError(f"{path} belongs to user {status.st_uid}, not to you ({os.getuid()})")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise ConnectionFileError(
            f"{path} can be read by others (mode {stat.S_IMODE(status.st_mode):04o}); whoever reads it can take part "
            "in the run. Use a directory on a file system that keeps modes, and chmod it to 0700"
        )
