"""Is a path taken for the store and the place in it that the user means?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import zarr
from zarr.storage import LocalStore, MemoryStore

from blockflow.arrays.places import Place, place_of
from blockflow.errors import ArrayError


def parts(place: Place) -> tuple[str, str]:
    assert isinstance(place.store, LocalStore)
    return place.store.root.as_posix(), place.path


@pytest.mark.parametrize(
    ("path", "name", "root", "inside"),
    [
        ("/d/x.zarr", "raw", "/d/x.zarr", "raw"),
        ("/d/x.zarr/", "/raw/s0/", "/d/x.zarr", "raw/s0"),
        ("/d/x.zarr/raw", None, "/d/x.zarr", "raw"),
        ("/d/x.zarr/a", "b", "/d/x.zarr", "a/b"),
        ("/d/x.zarr", None, "/d/x.zarr", ""),
        ("/d/x.zarr/y.ome.zarr/0", None, "/d/x.zarr/y.ome.zarr", "0"),
        ("/d/plain", "raw", "/d/plain", "raw"),
        ("/d/plain/raw", None, "/d/plain/raw", ""),
    ],
)
def test_paths(path: str, name: str | None, root: str, inside: str) -> None:
    for given in (path, Path(path)):
        place = place_of(given, name, read_only=True)
        assert parts(place) == (root, inside)
        assert str(place) == (f"{root}/{inside}" if inside else root)
        assert place.store.read_only
        assert place.missing


def test_the_root_moves_up_to_the_topmost_group(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "top" / "inner", mode="w", zarr_format=2)
    zarr.open_group(tmp_path / "top", mode="a", zarr_format=2)
    place = place_of(tmp_path / "top" / "inner", "raw", read_only=False)
    assert parts(place) == ((tmp_path / "top").as_posix(), "inner/raw")
    assert not place.missing


def test_relative_paths_are_those_of_the_opening_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parts(place_of("x.zarr", "raw", read_only=True)) == (os.path.join(tmp_path, "x.zarr"), "raw")


def test_zarr_objects_are_taken_as_they_are() -> None:
    store = MemoryStore()
    group = zarr.open_group(store).create_group("a/b")
    array = group.create_array("raw", shape=(2,), dtype="uint8")
    for given, name, path in [
        (store, "raw", "raw"),
        (store, None, ""),
        (group, "raw", "a/b/raw"),
        (group, None, "a/b"),
        (array, None, "a/b/raw"),
        (zarr.open_group(store), "raw", "raw"),
    ]:
        place = place_of(given, name, read_only=True)
        assert (place.store, place.path) == (store, path)
        assert not place.missing
    assert str(place_of(store, "raw", read_only=True)) == f"memory://{id(store._store_dict)}/raw"


def test_ancestors_are_nearest_first() -> None:
    place = Place(MemoryStore(), "a/b/c")
    assert [above.path for above in place.ancestors] == ["a/b", "a", ""]
    assert Place(MemoryStore(), "").ancestors == ()


@pytest.mark.parametrize(
    ("path", "name", "message"),
    [
        (3, None, "path must be a path or a zarr group, array or store, got int"),
        ("x.zarr", "../y", "name must be a path in the store without '.' and '..', got '../y'"),
        (
            "s3://bucket/x.zarr",
            "raw",
            "path must be a path of a local or mounted file system, got the URL 's3://bucket/x.zarr', and object "
            "stores and servers are not opened by URL yet; mount it or copy it; for arrays, an open zarr group or "
            "array is taken in place of a path",
        ),
    ],
)
def test_what_is_no_place_is_refused(path: Any, name: str | None, message: str) -> None:
    with pytest.raises(ArrayError) as info:
        place_of(path, name, read_only=True)
    assert str(info.value) == message
