"""Does an array that is sent to another process read and write the same voxels there?"""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore, MemoryStore, ZipStore

import blockflow
from blockflow.arrays import Array, open_ds, prepare_ds
from blockflow.arrays.handles import MemmapHandle, portable
from blockflow.arrays.window import writable
from blockflow.errors import ArrayError, ArrayNotFoundError, MetadataError
from blockflow.geometry import Roi

PACKAGE = str(Path(blockflow.__file__).parents[1])


def sent(payload: Any, code: str, cwd: Path) -> str:
    """What another process, started anew and elsewhere, prints about ``x``."""
    done = subprocess.run(
        [sys.executable, "-c", f"import pickle, sys; x = pickle.load(sys.stdin.buffer); {code}"],
        input=pickle.dumps(payload),
        capture_output=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": PACKAGE},
        check=True,
    )
    return done.stdout.decode().strip()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_open_array_reads_and_writes_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zarr_format: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare_ds("x.zarr", "raw", Roi((40, 0), (8, 8)), (2, 2), "uint8", zarr_format=zarr_format)
    array = open_ds("x.zarr", "raw", "a", units=("nm", "nm"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = "x[x.roi] = 7; part = x[x.roi]; part[part.roi] = 9; print(x, x.units, x.to_ndarray().sum())"
    assert sent(array, code, elsewhere) == f"{array} ('nm', 'nm') {9 * 16}"
    assert (array.to_ndarray() == 9).all()
    assert len(pickle.dumps(array)) < 1000


class OtherStore(LocalStore):
    """A store of the user's own kind."""


def test_a_store_of_another_kind_stays_one(tmp_path: Path) -> None:
    array = zarr.create_array(OtherStore(tmp_path / "x.zarr"), shape=(4,), dtype="u1")
    assert type(pickle.loads(pickle.dumps(portable(array))).open().store) is OtherStore


def test_a_zarr_array_that_was_opened_by_relative_path_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    zarr.open_group("x.zarr").create_array("raw", shape=(3,), dtype="uint8", fill_value=7)
    array = Array(zarr.open_array("x.zarr", path="raw", mode="r"), (5,))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert sent(array, "print(x.roi, x.to_ndarray())", elsewhere) == "[5:8] (3) [7 7 7]"


def test_a_part_is_sent_as_a_part_and_read_only_stays_read_only(tmp_path: Path) -> None:
    prepare_ds(tmp_path / "x.zarr", "raw", Roi((0,), (8,)), (2,), "uint8")
    part = open_ds(tmp_path / "x.zarr", "raw")[Roi((2,), (4,))]
    assert sent(part, "print(x.roi, x.data.read_only, x.to_ndarray())", tmp_path) == "[2:6] (4) True [0 0]"
    assert pickle.loads(pickle.dumps(part)).roi == part.roi


def test_an_array_in_memory_carries_its_voxels_and_no_others(tmp_path: Path) -> None:
    whole = Array(np.arange(10**6), (5,), (1,))
    part = whole[Roi((7,), (3,))]
    assert sent(part, "print(x.roi, x.to_ndarray())", tmp_path) == "[7:10] (3) [2 3 4]"
    assert len(pickle.dumps(part)) < 1000


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_memmap_is_opened_again(tmp_path: Path, order: Any) -> None:
    data = np.memmap(tmp_path / "raw.bin", "uint16", "w+", offset=64, shape=(3, 4), order=order)
    data[...] = np.arange(12).reshape(3, 4)
    array = Array(data, (10, 0))
    part = array[Roi((11, 1), (2, 2))]
    assert (
        sent(array, "x[x.roi] = x.to_ndarray() + 1; x.data.flush(); print(type(x.data).__name__)", tmp_path) == "memmap"
    )
    np.testing.assert_array_equal(data, np.arange(12).reshape(3, 4) + 1)
    assert sent(part, "print(x.to_ndarray().tolist())", tmp_path) == "[[6, 7], [10, 11]]"
    assert pickle.loads(pickle.dumps(array)).to_ndarray().tolist() == data.tolist()
    frozen = np.memmap(tmp_path / "raw.bin", "uint16", "r", offset=64, shape=(3, 4), order=order)
    assert sent(Array(frozen), "print(x.data.flags.writeable)", tmp_path) == "False"


def test_what_no_file_has_travels_itself(tmp_path: Path) -> None:
    np.arange(12, dtype="uint8").tofile(tmp_path / "raw.bin")
    private = np.memmap(tmp_path / "raw.bin", "uint8", "c")
    private[0] = 99
    part = np.memmap(tmp_path / "raw.bin", "uint8", "r")[4:6]
    for data, expected in [(private, [99, *range(1, 12)]), (part, [4, 5])]:
        assert sent(Array(data), "print(x.to_ndarray().tolist())", tmp_path) == str(expected)


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_view_of_a_memmap_is_opened_again(tmp_path: Path, order: Any) -> None:
    data = np.memmap(tmp_path / "raw.bin", "uint16", "w+", offset=6, shape=(4, 5, 6), order=order)
    data[...] = np.arange(120).reshape(4, 5, 6)
    for view in (data[1], data[:, ::2, 1], data[::-1, :, ::-1], np.asarray(data)[2:, 1]):
        handle = portable(view)
        assert isinstance(handle, MemmapHandle)
        again = handle.open()
        np.testing.assert_array_equal(again, view)
        begin, end = handle.span
        assert handle.open().flags.writeable
        assert 6 <= begin < end <= 6 + data.nbytes
        assert portable(again) == handle
    sent(Array(data[1]), "x[x.roi] = 7", tmp_path)
    assert (data[1] == 7).all()
    assert (data[0] != 7).any()


def test_a_memmap_whose_file_has_changed(tmp_path: Path) -> None:
    np.arange(12, dtype="uint8").tofile(tmp_path / "raw.bin")
    payload = pickle.dumps(Array(np.memmap(tmp_path / "raw.bin", "uint8", "r")[3:]))
    (tmp_path / "raw.bin").write_bytes(b"1234")
    with pytest.raises(MetadataError, match=r"raw.bin has changed since this handle was made"):
        pickle.loads(payload)
    (tmp_path / "raw.bin").unlink()
    with pytest.raises(ArrayNotFoundError, match="no file at"):
        pickle.loads(payload)


def test_an_hdf5_dataset_is_opened_again(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="needs the extra 'hdf5'")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a/raw"] = np.arange(6)
        with pytest.raises(ArrayError, match="must be in a file opened with mode 'r' to be read by other processes"):
            pickle.dumps(Array(file["a/raw"]))
        assert writable(file["a/raw"])
    with h5py.File(tmp_path / "x.h5", "r") as file:
        assert not writable(file["a/raw"])
        assert sent(Array(file["a/raw"], (5,)), "print(x.roi, x.to_ndarray())", tmp_path) == "[5:11] (6) [0 1 2 3 4 5]"
        payload = pickle.dumps(Array(file["a/raw"]))
    (tmp_path / "x.h5").unlink()
    with pytest.raises(ArrayNotFoundError, match="there is no file"):
        pickle.loads(payload)


class Ones:
    shape = (3,)
    dtype = np.dtype("uint8")

    def __getitem__(self, key: Any) -> np.ndarray[Any, Any]:
        part: np.ndarray[Any, Any] = np.ones(3, "uint8")[key]
        return part


def test_other_array_likes_travel_as_pickle_sends_them() -> None:
    array = pickle.loads(cloudpickle.dumps(Array(Ones(), (5,))))
    assert (array.roi, array.to_ndarray().tolist()) == (Roi((5,), (3,)), [1, 1, 1])


def test_other_stores_travel_as_zarr_sends_them(tmp_path: Path) -> None:
    with ZipStore(tmp_path / "x.zip", mode="w") as store:
        prepare_ds(store, "raw", Roi((40,), (8,)), (2,), "uint8", fill_value=5)
    with ZipStore(tmp_path / "x.zip", mode="r") as store:
        assert sent(open_ds(store, "raw"), "print(x.roi, x.to_ndarray())", tmp_path) == "[40:48] (8) [5 5 5 5]"


def test_zarr_in_memory_is_refused() -> None:
    data = zarr.create_array(MemoryStore(), shape=(4,), dtype="uint8")
    for array in (Array(data), Array(data)[Roi((0,), (2,))]):
        with pytest.raises(ArrayError) as info:
            pickle.dumps(array)
        assert str(info.value) == (
            "a zarr array in memory cannot be sent to another process; "
            "make it with prepare_ds on a path, or send a numpy array"
        )


def test_a_process_that_does_not_see_the_store_says_so_at_once(tmp_path: Path) -> None:
    """Reading through a handle that was merely unpickled would answer with the fill value."""
    array = prepare_ds(tmp_path / "x.zarr", "raw", Roi((0,), (8,)), dtype="uint8")
    payload = pickle.dumps(array)
    (tmp_path / "x.zarr").rename(tmp_path / "gone")
    with pytest.raises(ArrayNotFoundError) as info:
        pickle.loads(payload)
    assert str(info.value) == (
        f"no array at {tmp_path}/x.zarr/raw: nothing is at {tmp_path}/x.zarr: there is no 'x.zarr' in {tmp_path}"
    )
    assert not (tmp_path / "x.zarr").exists()


def test_a_handle_to_an_array_that_was_made_anew_is_refused(tmp_path: Path) -> None:
    payload = pickle.dumps(prepare_ds(tmp_path / "x.zarr", "raw", Roi((0,), (8,)), dtype="uint8"))
    prepare_ds(tmp_path / "x.zarr", "raw", Roi((0,), (9,)), dtype="uint8", overwrite=True)
    with pytest.raises(MetadataError) as info:
        pickle.loads(payload)
    assert str(info.value) == (
        f"{tmp_path}/x.zarr/raw has changed since this handle was made: "
        "shape and dtype were (8,), uint8 and are (9,), uint8"
    )


def test_copies_share_the_data_on_disk(tmp_path: Path) -> None:
    array = prepare_ds(tmp_path / "x.zarr", "raw", Roi((0,), (8,)), dtype="uint8")
    copy.copy(array)[array.roi] = 3
    assert array.to_ndarray().tolist() == [3] * 8
