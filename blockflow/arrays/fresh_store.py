"""A zarr store on a file system that caches, whose reads see what other hosts have written.

Every array that :func:`~blockflow.arrays.open_ds` or :func:`~blockflow.arrays.prepare_ds` opens on NFS, SMB, GlusterFS
or sshfs reads through it, and so does every array that is sent to a worker. On other file systems zarr's own store is
used, and nothing costs anything.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from zarr.storage import LocalStore

from blockflow.freshness import caching_of, refresh_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from zarr.abc.store import ByteRequest, Store
    from zarr.core.buffer import Buffer, BufferPrototype

__all__ = ["FreshStore", "with_fresh_reads"]


class FreshStore(LocalStore):
    """A :class:`~zarr.storage.LocalStore` that refreshes each file before it is read.

    Args:
        root: Directory of the store.
        read_only: Whether it refuses writes.

    >>> import tempfile, zarr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     array = zarr.create_array(FreshStore(folder), shape=(3,), dtype="u1", fill_value=7)
    ...     array[:].tolist()
    [7, 7, 7]
    """

    def __init__(self, root: Path | str, *, read_only: bool = False) -> None:
        super().__init__(root, read_only=read_only)
        self._caching = caching_of(self.root)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LocalStore) and self.root == other.root

    __hash__ = None  # type: ignore[assignment]  # as that of its base

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read a value; see zarr."""
        await asyncio.to_thread(self._refresh, key)
        return await super().get(key, prototype, byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Read parts of values; see zarr."""
        wanted = list(key_ranges)
        for key in dict.fromkeys(key for key, _ in wanted):
            await asyncio.to_thread(self._refresh, key)
        return await super().get_partial_values(prototype, wanted)

    async def exists(self, key: str) -> bool:
        """Look whether there is a value; see zarr."""
        await asyncio.to_thread(self._refresh, key)
        return await super().exists(key)

    def get_sync(self, key: str, **options: Any) -> Buffer | None:
        """Read a value; see zarr."""
        self._refresh(key)
        return super().get_sync(key, **options)

    def _refresh(self, key: str) -> None:
        refresh_file(f"{self.root}/{key}", self._caching)


def with_fresh_reads(store: Store) -> Store:
    """Return a store that sees what other hosts have written, in place of one that may not.

    Args:
        store: Any; it is returned as it is unless it is zarr's own on a file system that caches.
    """
    if type(store) is not LocalStore or caching_of(store.root) == "none":
        return store
    return FreshStore(store.root, read_only=store.read_only)
