"""Are two names of one array found, and are arrays that only look alike told apart?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.storage import FsspecStore, LocalStore, LoggingStore, MemoryStore

from blockflow.arrays import Array, open_ds, prepare_ds
from blockflow.arrays.overlap import _seen_in, future_file, overlap
from blockflow.arrays.shared import SharedArray
from blockflow.geometry import Roi

if TYPE_CHECKING:
    from pathlib import Path

SLICES = st.builds(
    lambda begin, extent, step: slice(begin, begin + extent, step),
    st.integers(0, 8),
    st.integers(1, 6),
    st.integers(1, 3),
)


@given(one=st.tuples(SLICES, SLICES), other=st.tuples(SLICES, SLICES))
def test_views_of_memory_overlap_if_they_have_an_element_in_common(one: Any, other: Any) -> None:
    image, marks = np.zeros((9, 9)), np.zeros((9, 9), int)
    marks[one] += 1
    marks[other] += 1
    assert overlap(image[one], image[other]) == (marks == 2).any()
    assert overlap(Array(image)[Array(image).roi], image)
    assert not overlap(image.copy(), image)


@given(one=SLICES, other=SLICES)
def test_views_of_memory_maps_do_as_well(tmp_path_factory: pytest.TempPathFactory, one: Any, other: Any) -> None:
    path = tmp_path_factory.mktemp("maps") / "x.npy"
    np.save(path, np.zeros((9, 9)))
    link = path.with_name("link.npy")
    link.symlink_to(path)
    hard = path.with_name("hard.npy")
    os.link(path, hard)
    marks = np.zeros((9, 9), int)
    marks[:, one] += 1
    marks[:, other] += 1
    for name in (path, link, hard):
        first, second = (np.load(each, mmap_mode="r+") for each in (path, name))
        assert overlap(first[:, one], second[:, other]) == (marks == 2).any()
    assert not overlap(np.load(path, mmap_mode="r"), np.load(path))


def test_shared_arrays() -> None:
    one, other = SharedArray.from_array(np.zeros(4)), SharedArray.from_array(np.zeros(4))
    assert overlap(one, one)
    assert overlap(one, one.view(read_only=True))
    assert overlap(Array(one.view()[2:]), one)
    assert not overlap(one, other)
    assert not overlap(one, np.zeros(4))


def test_zarr_arrays_by_links_and_stores(tmp_path: Path) -> None:
    one = prepare_ds(tmp_path / "a.zarr", "x", Roi((0,), (8,)), dtype="u1")
    prepare_ds(tmp_path / "a.zarr", "y", Roi((0,), (8,)), dtype="u1")
    (tmp_path / "link.zarr").symlink_to("a.zarr")
    (tmp_path / "inner").symlink_to("a.zarr/x")
    (tmp_path / "hard.zarr").mkdir()
    os.link(tmp_path / "a.zarr/x/zarr.json", tmp_path / "hard.zarr/zarr.json")
    logged = LoggingStore(LocalStore(tmp_path / "a.zarr"), log_level="ERROR")
    same = [
        one[Roi((2,), (3,))],
        open_ds(tmp_path / "link.zarr" / "x"),
        open_ds(tmp_path / "inner"),
        zarr.open_array(f"{tmp_path}/b/../a.zarr/x"),
        zarr.open_array(logged, path="x"),
    ]
    if pytest.importorskip("fsspec"):
        same.append(zarr.open_array(FsspecStore.from_url(f"file://{tmp_path}/link.zarr"), path="x"))
    for other in same:
        assert overlap(one, other)
        assert overlap(other, one)
        assert not overlap(other, open_ds(tmp_path / "a.zarr", "y"))


def test_zarr_arrays_in_memory() -> None:
    store = MemoryStore()
    one, other = (zarr.create_array(store, name=name, shape=(4,), dtype="u1") for name in "ab")
    assert overlap(one, zarr.open_array(store, path="a"))
    assert overlap(one, zarr.open_array(LoggingStore(store, log_level="ERROR"), path="a"))
    assert not overlap(one, other)
    assert not overlap(one, zarr.create_array(MemoryStore(), name="a", shape=(4,), dtype="u1"))


def test_a_key_tells_whether_two_mounts_are_one(tmp_path: Path) -> None:
    one = prepare_ds(tmp_path / "a.zarr", "x", Roi((0,), (8,)), dtype="u1")
    copy = prepare_ds(tmp_path / "b.zarr", "x", Roi((0,), (8,)), dtype="u1")
    (tmp_path / "mount").symlink_to(tmp_path / "a.zarr")
    again = zarr.open_array(LocalStore(tmp_path / "mount"), path="x")
    read_only = open_ds(tmp_path / "a.zarr", "x")
    assert _seen_in(one.data, again)
    assert _seen_in(read_only.data, again)
    assert not _seen_in(one.data, copy.data)
    assert not _seen_in(read_only.data, read_only.data), "nothing is written that is open to be read"
    assert {path.name for path in (tmp_path / "a.zarr" / "x").iterdir()} == {"zarr.json"}


def test_datasets_of_hdf5_files(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["y"] = np.zeros(3), np.zeros(3)
        file["z"] = file["x"]
        assert overlap(file["x"], file["x"])
        assert overlap(file["x"], file["z"])
        assert not overlap(file["x"], file["y"])
    (tmp_path / "link.h5").symlink_to("a.h5")
    with h5py.File(tmp_path / "a.h5", "r") as one, h5py.File(tmp_path / "link.h5", "r") as other:
        assert overlap(one["x"], other["x"])


def test_a_map_of_a_plane_of_a_tiff_stack(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    from blockflow.arrays.tiff_stack import TiffStack

    for name in ("z0.tif", "z1.tif", "other.tiff"):
        tifffile.imwrite(tmp_path / name, np.zeros((4, 4), "u1"))
    (tmp_path / "other.tiff").rename(tmp_path / "elsewhere")
    stack = TiffStack(tmp_path)
    assert overlap(stack, tifffile.memmap(tmp_path / "z1.tif"))
    assert not overlap(tifffile.memmap(tmp_path / "elsewhere"), stack)


def test_files_that_are_not_there_yet(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    assert future_file(tmp_path / "data" / "a" / "b.npy") == future_file(tmp_path / "link" / "x" / ".." / "a" / "b.npy")
    assert future_file(tmp_path / "data" / "a") != future_file(tmp_path / "data" / "b")
