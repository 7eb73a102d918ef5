"""Places: which store, and which path in it, does the user mean?

1. A zarr group, array or store given by the user is taken as it is; the name counts from there.
2. On disk, the last folder that ends in ``.zarr`` is the root of the store; the rest is the path in it.
3. Without such a folder, the path is the root and the name the path in it; but while the folder above is a
   zarr group itself, the root moves up, as its metadata (OME-Zarr) may speak of the array.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr
from zarr.abc.store import Store
from zarr.storage import LocalStore

from blockflow.arrays.fresh_store import with_fresh_reads
from blockflow.errors import ArrayError
from blockflow.freshness import refresh_file
from blockflow.paths import is_path, local_path


@dataclass(frozen=True, slots=True)
class Place:
    """A path in a zarr store; nothing need be there."""

    store: Store
    path: str
    """Without slashes at its ends; empty for the root."""

    def __str__(self) -> str:
        root = self.store.root if isinstance(self.store, LocalStore) else self.store
        return f"{root}/{self.path}" if self.path else str(root)

    @property
    def ancestors(self) -> tuple[Place, ...]:
        """The places above, nearest first, down to the root of the store."""
        parts = self.path.split("/") if self.path else []
        return tuple(Place(self.store, "/".join(parts[:n])) for n in range(len(parts) - 1, -1, -1))

    @property
    def missing(self) -> bool:
        """Whether there is no such store at all. A writable store on disk makes its folder when looked at."""
        if not isinstance(self.store, LocalStore):
            return False
        refresh_file(self.store.root)
        return not self.store.root.is_dir()


def place_of(path: Any, name: str | None, *, read_only: bool) -> Place:
    """The place of an array. Touches no disk but to see which folders are zarr groups.

    Args:
        path: A path (str or ``os.PathLike``), or a zarr group, array or store.
        name: A path below it, or None.
        read_only: For stores made here; one that is given keeps its own.

    Raises:
        ArrayError: Not one of those, or a URL, or a name with ``..``.

    >>> place = place_of("/data/sample.zarr/raw", "s0", read_only=True)
    >>> place.store.root.name, place.path
    ('sample.zarr', 'raw/s0')
    """
    parts = [part for part in (name or "").split("/") if part]
    if {".", ".."} & set(parts):
        raise ArrayError(f"name must be a path in the store without '.' and '..', got {name!r}")
    if isinstance(path, zarr.Group | zarr.Array):
        return Place(with_fresh_reads(path.store), "/".join([path.path, *parts] if path.path else parts))
    if isinstance(path, Store):
        return Place(with_fresh_reads(path), "/".join(parts))
    if not is_path(path):
        raise ArrayError(f"path must be a path or a zarr group, array or store, got {type(path).__name__}")
    root, inside = _split(Path(os.path.abspath(local_path(path, "path"))), parts)
    return Place(with_fresh_reads(LocalStore(root, read_only=read_only)), "/".join(inside))


def _split(root: Path, inside: list[str]) -> tuple[Path, list[str]]:
    parts = [*root.parts, *inside]
    for end in range(len(parts), 0, -1):
        if parts[end - 1].endswith(".zarr"):
            return Path(*parts[:end]), parts[end:]
    while any((root.parent / document).is_file() for document in ("zarr.json", ".zgroup")):
        inside = [root.name, *inside]
        root = root.parent
    return root, inside
