"""Is it known of each store what other processes can do with it?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import zarr
from zarr.experimental.cache_store import CacheStore
from zarr.storage import FsspecStore, LocalStore, LoggingStore, MemoryStore, ObjectStore, WrapperStore, ZipStore

from blockflow.arrays.handles import portable
from blockflow.arrays.stores import is_zarr, reach_of
from blockflow.errors import ArrayError

if TYPE_CHECKING:
    from pathlib import Path


class Own(MemoryStore):
    """Memory of a user's own kind."""


class Elsewhere(LocalStore):
    """A store of a user's own kind, over files."""


class Holder(LocalStore):
    """Looks like files, and has memory inside."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.pending = MemoryStore()


def of_url(url: str) -> FsspecStore:
    pytest.importorskip("fsspec")
    store: FsspecStore = FsspecStore.from_url(url)
    return store


STORES: dict[str, tuple[Any, str]] = {
    "a folder": (LocalStore, "shared"),
    "a folder in a wrapper": (lambda path: WrapperStore(LoggingStore(LocalStore(path))), "shared"),
    "memory": (lambda path: MemoryStore(), "memory"),
    "memory of a derived kind": (lambda path: Own(), "memory"),
    "memory in wrappers": (lambda path: LoggingStore(WrapperStore(MemoryStore())), "memory"),
    "memory in a cache": (lambda path: CacheStore(MemoryStore(), cache_store=MemoryStore()), "memory"),
    "files in a cache": (lambda path: CacheStore(LocalStore(path), cache_store=MemoryStore()), "read only"),
    "memory in a store of another kind": (Holder, "memory"),
    "a store of another kind": (Elsewhere, "unknown"),
    "a store of another kind in a wrapper": (lambda path: WrapperStore(Elsewhere(path)), "unknown"),
    "memory of fsspec": (lambda path: of_url("memory://x"), "memory"),
    "files of fsspec": (lambda path: of_url(f"file://{path}"), "shared"),
    "a zip file": (lambda path: packed(path), "read only"),
    "a zip file being written": (lambda path: ZipStore(path / "x.zip", mode="w"), "closed"),
}


def packed(path: Path) -> ZipStore:
    with ZipStore(path / "x.zip", mode="w") as store:
        zarr.create_array(store, shape=(4,), dtype="u1")
    return ZipStore(path / "x.zip", mode="r")


@pytest.mark.parametrize("name", STORES)
def test_the_weakest_part_decides(tmp_path: Path, name: str) -> None:
    make, expected = STORES[name]
    reach = reach_of(make(tmp_path))
    assert reach.kind == expected
    assert bool(reach.why) == (expected != "shared")


def test_object_stores(tmp_path: Path) -> None:
    stores = pytest.importorskip("obstore.store")
    assert reach_of(ObjectStore(stores.LocalStore(tmp_path))).kind == "shared"
    assert reach_of(ObjectStore(stores.MemoryStore())).kind == "memory"
    assert reach_of(ObjectStore(stores.HTTPStore("http://127.0.0.1"))).kind == "read only"


def test_file_systems_of_fsspec_in_one_another(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    wrapper = pytest.importorskip("fsspec.implementations.asyn_wrapper").AsyncFileSystemWrapper
    folder = pytest.importorskip("fsspec.implementations.dirfs").DirFileSystem
    for inner, expected in (("memory", "memory"), ("file", "shared")):
        inside = folder(path=str(tmp_path), fs=fsspec.filesystem(inner))
        assert reach_of(FsspecStore(wrapper(inside, asynchronous=True), path="x")).kind == expected


def test_sessions_of_icechunk(tmp_path: Path) -> None:
    icechunk = pytest.importorskip("icechunk")
    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path)))
    session = repository.writable_session("main")
    array = zarr.create_array(session.store, name="a", shape=(4,), dtype="u1")
    with pytest.raises(ArrayError, match="icechunk session keeps changes in the process that makes them"):
        portable(array)
    session.commit("made")
    assert reach_of(repository.writable_session("main").fork().store).kind == "closed"
    assert reach_of(WrapperStore(repository.writable_session("main").store)).kind == "closed"
    assert reach_of(repository.readonly_session("main").store).kind == "read only"


def test_what_other_processes_could_not_open_is_not_sent(tmp_path: Path) -> None:
    for store, message in (
        (LoggingStore(MemoryStore()), "a zarr array in memory cannot be sent"),
        (ZipStore(tmp_path / "x.zip", mode="w"), "a zip file that is open for writing would be damaged"),
    ):
        with store, pytest.raises(ArrayError, match=message):
            portable(zarr.create_array(store, name="a", shape=(4,), dtype="u1"))


def test_zarr_arrays_are_known() -> None:
    assert is_zarr(zarr.create_array({}, shape=(4,), dtype="u1"))
    assert not is_zarr(zarr.create_group({}))
