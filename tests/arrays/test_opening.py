"""Does open_ds find the array, and where it lies in the world?"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore, MemoryStore

from blockflow.arrays import Array, open_ds
from blockflow.errors import ArrayError, ArrayNotFoundError, GeometryError, MetadataError
from blockflow.geometry import Roi, coordinate_of

Format = Literal[2, 3]


def sample(path: Path | MemoryStore, zarr_format: Format, **attributes: Any) -> np.ndarray[Any, Any]:
    """A store with an array 'raw' of three channels; its voxels."""
    voxels = np.arange(3 * 8 * 10, dtype="uint16").reshape(3, 8, 10)
    root = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    raw = root.create_array("raw", shape=voxels.shape, chunks=(3, 4, 5), dtype=voxels.dtype)
    raw[...] = voxels
    raw.attrs.update(attributes)
    return voxels


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_the_tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zarr_format: Format) -> None:
    monkeypatch.chdir(tmp_path)
    voxels = sample(
        Path("sample_data.zarr"),
        zarr_format,
        offset=coordinate_of((0, 0), "offset"),
        resolution=coordinate_of((1, 1), "resolution"),
    )
    raw = open_ds("sample_data.zarr", "raw", "r")
    assert (raw.roi, raw.voxel_size, raw.channel_dims) == (Roi((0, 0), (8, 10)), (1, 1), 1)
    np.testing.assert_array_equal(raw.to_ndarray(Roi((2, 3), (4, 5))), voxels[:, 2:6, 3:8])
    with pytest.raises(ArrayError, match="read-only"):
        raw[raw.roi] = 0
    out = open_ds("sample_data.zarr", "raw", "a")
    out[Roi((0, 0), (1, 1))] = 7
    assert raw.to_ndarray(Roi((0, 0), (1, 1))).ravel().tolist() == [7, 7, 7]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_all_ways_to_say_where(tmp_path: Path, zarr_format: Format) -> None:
    path = tmp_path / "x.zarr"
    sample(path, zarr_format, offset=[40, 80], voxel_size=[4, 8], axis_names=["c", "y", "x"], units=["nm", "nm"])
    store = LocalStore(path)
    group = zarr.open_group(path)
    ways: list[tuple[Any, str | None]] = [
        (str(path), "raw"),
        (path, "raw"),
        (f"{path}/raw", None),
        (group, "raw"),
        (group["raw"], None),
        (store, "raw"),
    ]
    for given, name in ways:
        for mode in ("r", "r+", "a"):
            array = open_ds(given, name, mode)
            assert array.roi == Roi((40, 80), (32, 80))
            assert (array.axis_names, array.units) == (("c", "y", "x"), ("nm", "nm"))
            assert array.data.read_only == (mode == "r")


def test_a_store_without_suffix_has_its_groups_too(tmp_path: Path) -> None:
    """An OME-Zarr image in a plain folder: its metadata lies above the path that is opened."""
    image = zarr.open_group(tmp_path / "image", mode="w", zarr_format=2)
    image.attrs.update(ome_zarr([4, 4], "nanometer"))
    image.create_array("0", shape=(8, 8), dtype="uint8")
    for array in (open_ds(tmp_path / "image" / "0"), open_ds(tmp_path / "image", "0")):
        assert array.voxel_size == (4, 4)


def ome_zarr(scale: list[float], unit: str, path: str = "0") -> dict[str, Any]:
    axes = [{"name": "c", "type": "channel"}] * (len(scale) - 2)
    axes += [{"name": name, "type": "space", "unit": unit} for name in "yx"]
    datasets = [{"path": path, "coordinateTransformations": [{"type": "scale", "scale": scale}]}]
    return {"multiscales": [{"version": "0.4", "axes": axes, "datasets": datasets}]}


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_ome_zarr(tmp_path: Path, zarr_format: Format) -> None:
    """Version 0.4 in zarr format 2, 0.5 in format 3; the nearest group that knows the array counts."""
    path = tmp_path / "cells.zarr"
    root = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    group = root.create_group("A/1")
    described = ome_zarr([1, 0.4, 0.2], "micrometer", "s0/data")
    group.attrs.update(described if zarr_format == 2 else {"ome": described})
    root.attrs.update(ome_zarr([1, 9, 9], "micrometer", "A/1/s0/data"))
    root.create_array("A/1/s0/data", shape=(2, 8, 8), dtype="uint8")
    array = open_ds(path, "A/1/s0/data")
    assert (array.voxel_size, array.roi) == ((400, 200), Roi((0, 0), (3200, 1600)))
    assert (array.axis_names, array.units) == (("c", "y", "x"), ("nanometer", "nanometer"))
    root["A/1/s0/data"].attrs["voxel_size"] = [8, 8]
    assert open_ds(path, "A/1/s0/data").voxel_size == (8, 8)
    assert open_ds(path, "A/1/s0/data", voxel_size=(2, 2), offset=(6, 6)).roi == Roi((6, 6), (16, 16))


def test_fractions_without_unit_get_a_finer_one_unless_overridden(tmp_path: Path) -> None:
    root = zarr.open_group(tmp_path / "x.zarr", mode="w")
    root.attrs["ome"] = ome_zarr([0.4, 0.4], "pixel")
    root.create_array("0", shape=(8, 8), dtype="uint8")
    array = open_ds(tmp_path / "x.zarr", "0")
    assert (array.voxel_size, array.units) == ((4, 4), ("0.1 pixel", "0.1 pixel"))
    assert open_ds(tmp_path / "x.zarr", "0", voxel_size=(400, 400)).roi == Roi((0, 0), (3200, 3200))


def test_names_of_dimensions(tmp_path: Path) -> None:
    """Those that zarr (format v3) and xarray (format v2) write; none if an axis has none, or two have the same."""
    root = zarr.open_group(tmp_path / "x.zarr", mode="w")
    for name, names, found in (("a", ("y", "x"), ("y", "x")), ("b", ("y", None), None), ("c", ("x", "x"), None)):
        root.create_array(name, shape=(8, 8), dtype="uint8", dimension_names=names)
        assert open_ds(root, name).axis_names == found
    older = zarr.open_group(tmp_path / "y.zarr", mode="w", zarr_format=2)
    older.create_array("a", shape=(8, 8), dtype="uint8", attributes={"_ARRAY_DIMENSIONS": ["y", "x"]})
    assert open_ds(older, "a").axis_names == ("y", "x")


def test_missing_metadata() -> None:
    store = MemoryStore()
    sample(store, 3)
    assert open_ds(store, "raw").roi == Roi((0, 0, 0), (3, 8, 10))
    assert open_ds(store, "raw", voxel_size=(4, 4)).roi == Roi((0, 0), (32, 40))
    sample(store, 3, offset=[5, 5])
    assert open_ds(store, "raw").roi == Roi((5, 5), (8, 10))
    assert open_ds(store, "raw", axis_names=("c", "y", "x"), units=("nm", "nm")).units == ("nm", "nm")


def test_an_array_whose_groups_have_no_metadata(tmp_path: Path) -> None:
    zarr.create_array(LocalStore(tmp_path / "x.zarr" / "a" / "b"), shape=(4,), dtype="uint8")
    assert open_ds(tmp_path / "x.zarr", "a/b").roi == Roi((0,), (4,))


def test_interrupted_writers_leave_files_that_disturb_nobody(tmp_path: Path) -> None:
    voxels = sample(tmp_path / "x.zarr", 3, voxel_size=[1, 1])
    for folder in (
        tmp_path / "x.zarr",
        tmp_path / "x.zarr" / "raw",
        tmp_path / "x.zarr" / "raw" / "c" / "0" / "0",
    ):
        (folder / "0.0123456789abcdef.partial").write_bytes(b"half a chunk")
    np.testing.assert_array_equal(open_ds(tmp_path / "x.zarr", "raw").to_ndarray(), voxels)
    with pytest.raises(ArrayNotFoundError, match=r"holds 'raw'$"):
        open_ds(tmp_path / "x.zarr", "missing")


class Late(MemoryStore):
    """A store in which one document is not there yet when it is first looked for."""

    late: str | None = None

    async def get(self, key: str, *args: Any, **kwargs: Any) -> Any:
        if key == self.late:
            self.late = None
            return None
        return await super().get(key, *args, **kwargs)


@pytest.mark.parametrize(("zarr_format", "late"), [(2, "raw/.zattrs"), (3, "raw/zarr.json")])
def test_an_array_that_is_made_while_zarr_looks_is_whole(zarr_format: Format, late: str) -> None:
    store = Late()
    sample(store, zarr_format, voxel_size=[4, 4])
    store.late = late
    assert open_ds(store, "raw", "a").voxel_size == (4, 4)
    assert store.late is None


def test_what_is_not_there_is_said_with_what_is(tmp_path: Path) -> None:
    path = tmp_path / "x.zarr"
    sample(path, 3)
    zarr.open_group(path).create_group("labels").create_group("empty")
    for name, message in [
        ("raws", f"no array at {path}/raws: the group {path} holds 'labels', 'raw'"),
        (None, f"no array at {path}: the group {path} holds 'labels', 'raw'"),
        ("labels/nuclei", f"no array at {path}/labels/nuclei: the group {path}/labels holds 'empty'"),
        ("labels/empty", f"no array at {path}/labels/empty: the group {path}/labels/empty holds nothing"),
        ("lost/nuclei", f"no array at {path}/lost/nuclei: the group {path} holds 'labels', 'raw'"),
    ]:
        for mode in ("r", "a"):
            with pytest.raises(ArrayNotFoundError) as info:
                open_ds(path, name, mode)
            assert str(info.value) == message
            assert isinstance(info.value, ArrayError)
            assert isinstance(info.value, FileNotFoundError)


@pytest.mark.parametrize("mode", ["r", "a"])
def test_opening_what_is_not_there_makes_nothing(tmp_path: Path, mode: Literal["r", "a"]) -> None:
    with pytest.raises(ArrayNotFoundError) as info:
        open_ds(tmp_path / "x.zarr", "raw", mode)
    assert str(info.value) == (
        f"no array at {tmp_path}/x.zarr/raw: nothing is at {tmp_path}/x.zarr: there is no 'x.zarr' in {tmp_path}"
    )
    (tmp_path / "file.zarr").touch()
    with pytest.raises(ArrayNotFoundError):
        open_ds(tmp_path / "file.zarr", "raw", mode)
    assert list(tmp_path.iterdir()) == [tmp_path / "file.zarr"]


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("w", "mode must be 'r', 'r+' or 'a', got 'w'; prepare_ds makes arrays, with overwrite=True anew"),
        ("x", "mode must be 'r', 'r+' or 'a', got 'x'; prepare_ds makes arrays, with overwrite=True anew"),
        (None, "mode must be 'r', 'r+' or 'a', got None"),
    ],
)
def test_modes_that_delete_are_refused(mode: Any, message: str) -> None:
    store = MemoryStore()
    sample(store, 3)
    with pytest.raises(ArrayError) as info:
        open_ds(store, "raw", mode)
    assert str(info.value) == message
    assert open_ds(store, "raw").to_ndarray().any()


def test_a_read_only_store_is_not_opened_to_write(tmp_path: Path) -> None:
    sample(tmp_path / "x.zarr", 3)
    with pytest.raises(ArrayError) as info:
        open_ds(zarr.open_group(tmp_path / "x.zarr", mode="r"), "raw", "a")
    assert str(info.value) == (
        f"{tmp_path}/x.zarr/raw cannot be opened with mode 'r+' or 'a': its store was opened read-only"
    )


@pytest.mark.parametrize(
    "document",
    ["", "[]", '{"zarr_format": 3', '{"zarr_format": 3, "node_type": "array"}', "\0", '{"zarr_format": 7}'],
)
def test_damaged_documents_are_named(tmp_path: Path, document: str) -> None:
    path = tmp_path / "x.zarr"
    sample(path, 3)
    (path / "raw" / "zarr.json").write_text(document)
    with pytest.raises((MetadataError, ArrayNotFoundError), match=r"x\.zarr/raw"):
        open_ds(path, "raw")
    with pytest.raises(ArrayNotFoundError, match=r"x\.zarr/other"):
        open_ds(path, "other")


def test_damaged_groups_are_named(tmp_path: Path) -> None:
    """Only if they are asked: an array that says itself where it lies does not need them."""
    path = tmp_path / "x.zarr"
    sample(path, 3)
    sample(path / "located", 3, voxel_size=[4, 4], offset=[0, 0])
    (path / "zarr.json").write_text("")
    with pytest.raises(MetadataError, match=r"^\S+/x\.zarr has metadata that zarr cannot read \(JSONDecodeError"):
        open_ds(path, "raw")
    assert open_ds(path, "located/raw").voxel_size == (4, 4)


def test_damaged_members_are_not_listed(tmp_path: Path) -> None:
    sample(tmp_path / "x.zarr", 3)
    (tmp_path / "x.zarr" / "raw" / "zarr.json").write_text("")
    with pytest.raises(ArrayNotFoundError, match=r"x\.zarr holds members that zarr cannot read$"):
        open_ds(tmp_path / "x.zarr", "other")


@pytest.mark.parametrize(
    ("attributes", "arguments", "message"),
    [
        (
            {"voxel_size": [1] * 4},
            {},
            "voxel_size must have one axis or more, at most those of (3, 8, 10): got (1, 1, 1, 1)",
        ),
        (
            {"voxel_size": [1, 1], "offset": [1]},
            {},
            "offset and voxel_size must have as many axes: got (1,) and (1, 1)",
        ),
        ({"voxel_size": [0, 1]}, {}, "voxel_size must be positive: axis 0 has 0"),
        (
            {"axis_names": ["y", "x"]},
            {},
            "axis_names must be 3 strings, one for each axis they name, got ('y', 'x')",
        ),
        (
            {"voxel_size": [1, 1]},
            {"units": "nm"},
            "units must be 2 strings, one for each axis they name, got 'nm'",
        ),
    ],
)
def test_metadata_that_does_not_fit_the_array(attributes: Any, arguments: Any, message: str) -> None:
    store = MemoryStore()
    sample(store, 3, **attributes)
    with pytest.raises(MetadataError) as info:
        open_ds(store, "raw", **arguments)
    assert str(info.value).removeprefix(f"{store}/raw: ") == (
        f"{message}; pass voxel_size=, offset=, axis_names= or units="
    )


def test_overrides_are_whole_numbers() -> None:
    store = MemoryStore()
    sample(store, 3)
    with pytest.raises(GeometryError) as info:
        open_ds(store, "raw", voxel_size=(0.4, 0.4))  # type: ignore[arg-type]
    assert str(info.value) == "voxel_size must hold whole numbers: axis 0 has 0.4"


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64", "float16", "float32", "complex64", ">u2"])
def test_ordinary_dtypes_warn_of_nothing(zarr_format: Format, dtype: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = MemoryStore()
        zarr.create_array(store, name="raw", shape=(4,), dtype=np.dtype(dtype), zarr_format=zarr_format)
        array = open_ds(store, "raw", "a")
        array[array.roi] = np.ones(4, dtype)
        assert (open_ds(store, "raw").to_ndarray() == 1).all()


def test_the_array_says_what_it_is_on(tmp_path: Path) -> None:
    sample(tmp_path / "x.zarr", 3, voxel_size=[4, 4])
    array = open_ds(tmp_path / "x.zarr", "raw")
    assert isinstance(array, Array)
    assert repr(array) == (
        "<Array [0:32, 0:40] (32, 40), voxel size (4, 4), shape (3, 8, 10), dtype uint16, on zarr.Array>"
    )
    assert json.loads((tmp_path / "x.zarr" / "raw" / "zarr.json").read_text())["attributes"] == {"voxel_size": [4, 4]}
