"""Identities of arrays: the same array is known again, one that was made later in its place is another."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from blockflow.arrays import Array, open_ds
from blockflow.arrays.identity import identify, mark, same_array, sampled
from blockflow.arrays.shared import SharedArray
from blockflow.errors import ArrayNotFoundError
from blockflow.geometry import Roi


def make_zarr(
    path: Path,
    *,
    zarr_format: Any = 3,
    shards: Any = None,
    dtype: str = "u1",
    chunks: Any = (4, 4),
    name: str | None = None,
) -> Any:
    if name is None:
        return zarr.create_array(
            path, shape=(8, 8), chunks=chunks, shards=shards, dtype=dtype, zarr_format=zarr_format, overwrite=True
        )
    group = zarr.open_group(path, zarr_format=zarr_format, mode="a")
    return group.create_array(name, shape=(8, 8), chunks=chunks, shards=shards, dtype=dtype, overwrite=True)


KINDS: dict[str, Any] = {
    "v2": lambda path: make_zarr(path / "a.zarr", zarr_format=2),
    "v3": lambda path: make_zarr(path / "a.zarr"),
    "shards": lambda path: make_zarr(path / "a.zarr", shards=(8, 8)),
    "group member v2": lambda path: make_zarr(path / "a.zarr", zarr_format=2, name="b/c"),
    "group member v3": lambda path: make_zarr(path / "a.zarr", name="b/c"),
    "npy": lambda path: np.lib.format.open_memmap(path / "a.npy", "w+", "f4", (8, 8)),
    "raw memmap": lambda path: np.memmap(path / "a.raw", "f4", "w+", shape=(8, 8)),
}


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return lambda: KINDS[request.param](tmp_path)


def remove_all(path: Path) -> None:
    for each in path.iterdir():
        shutil.rmtree(each) if each.is_dir() else each.unlink()


def test_a_marked_array_is_known_again(make: Any) -> None:
    array = make()
    marked = mark(array)
    assert identify(array) == mark(array) == marked
    array[:2] = 5
    assert identify(array) == marked


def test_an_array_made_again_in_its_place_is_another_one(make: Any, tmp_path: Path) -> None:
    first = mark(make())
    remove_all(tmp_path)
    second = identify(make())
    assert (second.uid, second.file) != (first.uid, first.file)
    assert second.place == first.place
    assert mark(make()).uid != first.uid or not first.uid


def test_a_file_truncated_and_made_again_is_another_one(tmp_path: Path) -> None:
    first = mark(KINDS["npy"](tmp_path))
    second = identify(KINDS["npy"](tmp_path))  # the same inode
    assert first.uid
    assert not second.uid


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "raw memmap"])
def test_a_copy_has_the_same_uid(kind: str, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    first = mark(KINDS[kind](tmp_path / "one"))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    remove_all(tmp_path / "one")
    os.rename(tmp_path / "two", tmp_path / "three")
    if kind == "npy":
        again = identify(np.load(tmp_path / "three/a.npy", mmap_mode="r"))
    else:
        again = identify(open_ds(tmp_path / "three/a.zarr", "b/c" if "group" in kind else None))
    assert again.uid == first.uid != ""
    assert again.place == first.place.replace("/one/", "/three/")


def test_a_marked_npy_file_is_read_as_before(tmp_path: Path) -> None:
    values = np.arange(12, dtype="i2").reshape(3, 4)
    np.save(tmp_path / "a.npy", values)
    mark(np.load(tmp_path / "a.npy", mmap_mode="r+"))
    assert (np.load(tmp_path / "a.npy") == values).all()
    assert (np.load(tmp_path / "a.npy", mmap_mode="r") == values).all()


def test_an_array_that_was_opened_and_then_deleted_is_gone(tmp_path: Path) -> None:
    array = make_zarr(tmp_path / "a.zarr")
    shutil.rmtree(tmp_path / "a.zarr")
    with pytest.raises(ArrayNotFoundError, match="is gone"):
        identify(array)


def test_consolidated_metadata_does_not_hide_what_is_there_now(tmp_path: Path) -> None:
    make_zarr(tmp_path / "a.zarr", name="b", zarr_format=2)
    zarr.consolidate_metadata(tmp_path / "a.zarr")
    marked = mark(zarr.open_group(tmp_path / "a.zarr", mode="r+")["b"])
    assert identify(zarr.open_group(tmp_path / "a.zarr", mode="r")["b"]).uid == marked.uid != ""


@pytest.mark.parametrize("change", [{"chunks": (2, 4)}, {"dtype": "u2"}, {"shards": (8, 8)}, {"zarr_format": 2}])
def test_another_layout_is_told(change: dict[str, Any], tmp_path: Path) -> None:
    one, other = (identify(make_zarr(tmp_path / "a.zarr", **each)) for each in ({}, change))
    assert (one.shape, one.place) == (other.shape, other.place)
    assert one.layout != other.layout


def test_attributes_of_users_change_nothing(tmp_path: Path) -> None:
    array = make_zarr(tmp_path / "a.zarr")
    marked = mark(array)
    open_ds(tmp_path / "a.zarr", mode="a").data.attrs["note"] = "seen"
    again = identify(open_ds(tmp_path / "a.zarr"))
    assert (again.uid, again.layout, again.place) == (marked.uid, marked.layout, marked.place)


def test_symlinks_are_followed(tmp_path: Path) -> None:
    mark(make_zarr(tmp_path / "a.zarr"))
    (tmp_path / "link.zarr").symlink_to("a.zarr")
    assert identify(open_ds(tmp_path / "link.zarr")).place == identify(open_ds(tmp_path / "a.zarr")).place
    assert same_array(identify(open_ds(tmp_path / "link.zarr")), identify(open_ds(tmp_path / "a.zarr")))


def test_hard_copies_are_not_the_same_array(tmp_path: Path) -> None:
    mark(make_zarr(tmp_path / "a.zarr"))
    shutil.copytree(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert not same_array(identify(open_ds(tmp_path / "a.zarr")), identify(open_ds(tmp_path / "b.zarr")))


def test_what_is_in_memory_is_one_object() -> None:
    line = np.zeros(4)
    assert same_array(identify(line), identify(line[1:]))
    assert not same_array(identify(line), identify(line.copy()))
    with SharedArray.create(4, "u1") as one, SharedArray.create(4, "u1") as other:
        assert same_array(identify(one), identify(one))
        assert not same_array(identify(one), identify(other))
    store: Any = {}
    array = zarr.create_array(store, shape=(4,), dtype="u1")
    assert same_array(identify(array), identify(zarr.open_array(array.store, mode="r")))
    assert not same_array(identify(array), identify(zarr.create_array({}, shape=(4,), dtype="u1")))


def test_a_part_is_a_part_of_the_same_array(tmp_path: Path) -> None:
    array = Array(make_zarr(tmp_path / "a.zarr"))
    part = identify(array[Roi((2, 0), (4, 8))][Roi((3, 0), (2, 8))])
    assert part.part == ((3, 5, 1), (0, 8, 1))
    assert same_array(part, identify(array))


def test_datasets_of_one_file_are_told_apart(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        one, other = (file.create_dataset(name, (8,), "u1") for name in "ab")
        assert not same_array(identify(one), identify(other))
        marked = mark(one)
        assert identify(one) == marked
        assert marked.uid
        del file["a"]
        assert identify(file.create_dataset("a", (8,), "u1")).uid == ""


def test_samples_tell_other_voxels(make: Any) -> None:
    array = make()
    array[...] = 1
    before = sampled(array)
    assert sampled(array) == before
    array[...] = 2
    assert sampled(array).content != before.content


def test_samples_of_large_arrays_are_samples(tmp_path: Path) -> None:
    large = np.zeros((64, 64, 64), "u1")
    assert sampled(large).content.startswith("all:")
    assert sampled(large, most=1000).content.startswith("some:")
    array = zarr.create_array(tmp_path / "a.zarr", shape=(64, 64, 64), chunks=(16, 16, 16), dtype="u1")
    array[...] = 1
    before = sampled(array).content
    assert before.startswith("some:")
    array[...] = 2
    assert sampled(array).content != before


def test_an_array_without_voxels_has_a_sample(tmp_path: Path) -> None:
    assert sampled(np.zeros((0, 3))).content.startswith("all:")
    assert sampled(zarr.create_array(tmp_path / "a.zarr", shape=(0, 3), chunks=(1, 1), dtype="u1")).content


def test_what_cannot_be_written_to_is_left_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3))
    os.chmod(tmp_path / "a.npy", 0o444)
    before = (tmp_path / "a.npy").read_bytes()
    found = mark(np.load(tmp_path / "a.npy", mmap_mode="r"))
    if os.getuid():
        assert (tmp_path / "a.npy").read_bytes() == before
        assert found.uid == ""
    assert found.file[1] == os.stat(tmp_path / "a.npy").st_ino
