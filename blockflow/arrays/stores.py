"""Reach of zarr stores: which of them other processes can read and write.

A store is asked for everything that is inside it (wrappers, caches, file systems), and the weakest part decides:

1. Memory anywhere inside: only this process sees it.
2. Sessions that collect changes until a commit, and zip files: other processes read what is finished, and write
   nothing.
3. Local folders, object stores, and file systems known to be shared: read and written.
4. Everything else is unknown. It may be read, as workers open it again and find the array or not. Before it is written
   a trial shows whether another process finds what this one stores (:mod:`blockflow.visibility`).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Kind", "Reach", "is_zarr", "reach_of"]

Kind: TypeAlias = Literal["closed", "memory", "read only", "unknown", "shared"]
"""What other processes can do, from nothing to everything; "memory": nothing, unless it is moved to shared memory."""

_WEAKEST_FIRST: tuple[Kind, ...] = ("closed", "memory", "read only", "unknown", "shared")

_SHARED_PROTOCOLS = frozenset(
    (
        "abfs", "abfss", "adl", "az", "file", "gcs", "gs", "hdfs", "hf", "lakefs",
        "local", "oss", "ossfs", "s3", "s3a", "sftp", "smb", "ssh", "webhdfs",
    )
)  # fmt: skip
"""File systems of fsspec that all processes see alike."""

_READ_PROTOCOLS = frozenset(["ftp", "git", "github", "http", "https", "libarchive", "reference", "tar", "zip"])
"""File systems of fsspec that are read, or of which two writers would destroy one another's work."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What other processes can do with a store."""

    kind: Kind
    why: str = ""
    """What limits it and what to use instead, for messages; empty if nothing does."""


_SHARED = Reach("shared")


def reach_of(store: Any) -> Reach:
    """Return what other processes can do with a zarr store.

    Args:
        store: A zarr store. It is neither opened nor read.

    >>> from zarr.storage import LocalStore, LoggingStore, MemoryStore
    >>> reach_of(LocalStore("x.zarr")).kind, reach_of(LoggingStore(MemoryStore())).kind
    ('shared', 'memory')
    """
    from zarr.storage import LocalStore

    from blockflow.arrays.fresh_store import FreshStore

    if type(store) in (LocalStore, FreshStore):  # nearly always
        return _SHARED
    found = list(_reaches(store, set()))
    return min(found, key=lambda reach: _WEAKEST_FIRST.index(reach.kind))


def is_zarr(data: Any) -> bool:
    """Whether this is a zarr array; does not import zarr.

    >>> is_zarr([1, 2])
    False
    """
    zarr = sys.modules.get("zarr")
    return zarr is not None and isinstance(data, getattr(zarr, "Array", ()))


def _reaches(store: Any, seen: set[int]) -> Iterator[Reach]:
    """The reach of a store, and of every store and file system inside it."""
    seen.add(id(store))
    yield _own_reach(store)
    for part in _parts(store):
        if id(part) in seen:
            continue
        inner = list(_reaches(part, seen))
        if _is_cache(store) and part is not getattr(store, "_store", None):
            continue  # what it keeps is a copy
        yield from inner


def _parts(store: Any) -> list[Any]:
    """Stores and file systems that a store has as attributes."""
    if type(store).__module__.startswith(("icechunk", "obstore")):
        return []
    return [part for part in getattr(store, "__dict__", {}).values() if _is_store(part) or _is_file_system(part)]


def _own_reach(store: Any) -> Reach:
    """The reach of a store, whatever is inside it."""
    from zarr.storage import FsspecStore, LocalStore, LoggingStore, MemoryStore, WrapperStore, ZipStore

    if isinstance(store, MemoryStore):
        return Reach("memory", "it is in the memory of this process")
    if _is_file_system(store):
        return _reach_of_file_system(store)
    if type(store).__module__.startswith("icechunk"):
        return _reach_of_session(store)
    if isinstance(store, ZipStore):
        if getattr(store, "_zmode", "r") == "r":
            return Reach("read only", "a zip file is written by one process; write to a folder and pack it afterwards")
        return Reach(
            "closed", "a zip file that is open for writing would be damaged; close it, and open it with mode='r'"
        )
    if type(store).__name__ == "ObjectStore" and type(store).__module__.startswith("zarr."):
        return _reach_of_obstore(store.store)
    if _is_cache(store):
        return Reach(
            "read only", "its cache would go on to answer with what was there before; pass the store beneath it"
        )
    if type(store) in (LocalStore, FsspecStore, LoggingStore, WrapperStore):
        return _SHARED  # or as far as what is inside
    return Reach("unknown", f"it is on a store of a kind that is not known, {type(store).__name__}")


def _reach_of_session(store: Any) -> Reach:
    """An icechunk session: other processes see what is committed."""
    if getattr(getattr(store, "session", None), "read_only", False):
        return Reach("read only", "the icechunk session is read-only")
    return Reach(
        "closed",
        "an icechunk session keeps changes in the process that makes them, until it commits: those of workers would be "
        "lost, in a fork as well. Write to a zarr folder and copy it into the session",
    )


def _reach_of_file_system(file_system: Any) -> Reach:
    protocols = getattr(file_system, "protocol", ())
    names = {protocols} if isinstance(protocols, str) else set(protocols)
    if "memory" in names:
        return Reach("memory", "it is in the memory of this process")
    if names & _READ_PROTOCOLS:
        return Reach("read only", f"a file system of kind {min(names)!r} is not written by several processes")
    if names & _SHARED_PROTOCOLS or type(file_system).__name__ in ("AsyncFileSystemWrapper", "DirFileSystem"):
        return _SHARED  # or as far as what is inside
    kind = min(names, default=type(file_system).__name__)
    return Reach("unknown", f"it is on a file system of a kind that is not known, {kind!r}")


def _reach_of_obstore(store: Any) -> Reach:
    name = type(store).__name__
    if name == "MemoryStore":
        return Reach("memory", "it is in the memory of this process")
    if name == "HTTPStore":
        return Reach("read only", "a web server is not written to")
    if name in ("AzureStore", "GCSStore", "LocalStore", "S3Store"):
        return _SHARED
    return Reach("unknown", f"it is on an object store of a kind that is not known, {name}")


def _is_cache(store: Any) -> bool:
    return type(store).__name__ == "CacheStore" and hasattr(store, "_store")


def _is_store(part: Any) -> bool:
    from zarr.abc.store import Store

    return isinstance(part, Store)


def _is_file_system(part: Any) -> bool:
    fsspec = sys.modules.get("fsspec")
    return fsspec is not None and isinstance(part, fsspec.AbstractFileSystem)
