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
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeAlias

import msgspec

from blockflow.errors import ConnectionFileError, UntrustedFileError
from blockflow.freshness import refresh_now
from blockflow.secret import Secret
from blockflow.trusted_files import DRAFT, PRIVATE, folder_of, open_folder, read_file

if TYPE_CHECKING:
    from pathlib import Path

    from blockflow.trusted_files import Folder

VERSION = 1

_KEPT_SECONDS = 7 * 24 * 3600
"""How long the file of a finished run is kept for workers that come too late."""

_SUFFIX = ".connection"
_SOCKET = ".socket"

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
    """Return a directory that only this user can read; it is made if it is not there.

    Raises:
        ConnectionFileError: Somebody else could read it or change it, or it cannot be made.
    """
    try:
        with open_folder(directory, make=PRIVATE, private=True):
            return directory
    except UntrustedFileError as error:
        raise ConnectionFileError(str(error)) from error
    except OSError as error:
        raise ConnectionFileError(f"no private directory can be made at {directory}: {error}") from error


def socket_name(run: str) -> str:
    """Name of the socket of this driver of a run."""
    return f"{run}.{os.getpid()}{_SOCKET}"


def write_connection(
    directory: Path,
    run: str,
    addresses: tuple[tuple[str, int], ...],
    pem: Secret,
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
    with open_folder(directory, private=True) as folder:
        folder.write(path.name, f"{first}\n{pem.reveal()}".encode())
    return Connection(
        run=run, addresses=addresses, path=str(path), resumable=resumable, socket=_beside(str(path), socket)
    )


def remove_remains(folder: Folder, run: str) -> None:
    """Remove what drivers of a run have left that were killed; to be called by the one that has taken it over.

    Their sockets are of no use, and a draft may hold a key.

    Args:
        folder: The directory of the connection file.
        run: Id of the run.
    """
    for name in folder.names():
        socket = name.startswith(f"{run}.") and name.endswith(_SOCKET)
        if socket or (name.startswith(f".{run}.") and name.endswith(DRAFT)):
            folder.remove(name)


def close_connection(connection: Connection) -> None:
    """Say that a run is over, and forget its key; also removes what runs of long ago have left."""
    from pathlib import Path

    try:
        folder, name = folder_of(connection.path, private=True)
    except OSError:
        return  # the directory is gone, and the key with it
    with folder, contextlib.suppress(OSError):
        if connection.socket:
            folder.remove(os.path.basename(connection.socket))
        with contextlib.suppress(ConnectionFileError):
            if read_connection(connection.path) != connection:
                return  # another driver has taken over the run, and listens elsewhere
        try:
            write_connection(Path(folder.path), connection.run, (), Secret(""))
        except OSError:  # the disk is full: then at least the key goes
            folder.remove(name)
        _remove_old(folder)


def _remove_old(folder: Folder) -> None:
    """Remove the files of runs that ended long ago."""
    for name in folder.names():
        if not name.endswith(_SUFFIX):
            continue
        with contextlib.suppress(OSError, ConnectionFileError):  # another process removes it too, or it is not ours
            status = folder.status(name)
            old = status is not None and time.time() - status.st_mtime > _KEPT_SECONDS
            if old and read_connection(os.path.join(folder.path, name)).finished:
                folder.remove(name)


def keep_connection(text: str) -> str:
    """Keep the text of a connection file for this process, where nothing is left of it; returns the path."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("blockflow", os.MFD_CLOEXEC)
        path = f"/proc/self/fd/{descriptor}"  # stays open as long as the process lives
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, text.encode())
        return path
    import atexit
    import shutil
    import tempfile

    directory = tempfile.mkdtemp(prefix="blockflow-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    with open_folder(directory, private=True) as folder:
        folder.write("connection", text.encode())
    return os.path.join(directory, "connection")


def read_connection(path: str) -> Connection:
    """Where a run listens.

    Raises:
        ConnectionFileError: The file is missing, is not private, or is not a connection file.
    """
    refresh_now(path)
    try:
        first = read_file(path, _LONGEST_LINE, private=True).partition(b"\n")[0]
    except FileNotFoundError:
        raise ConnectionFileError(
            f"there is no connection file {path}: this context belongs to a run that is long over or never was, "
            "or the file cannot be seen from this machine"
        ) from None
    except UntrustedFileError as error:
        raise ConnectionFileError(f"connection file not used: {error}") from error
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
