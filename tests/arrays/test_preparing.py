"""Is an array made once, as asked, and never at the cost of data that is there?"""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec
from zarr.storage import LocalStore, MemoryStore

import blockflow
from blockflow.arrays import Array, open_ds, prepare_ds
from blockflow.errors import ArrayError, GeometryError, MetadataError, ValueLossError
from blockflow.geometry import Roi, coordinate_of

PACKAGE = str(Path(blockflow.__file__).parents[1])
ROI = Roi((0, 40), (64, 32))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    f = zarr.open("sample_data.zarr", mode="w")
    assert isinstance(f, zarr.Group)
    total_roi, block_size = Roi((0, 0), (512, 512)), coordinate_of((64, 64), "write_size")
    prepare_ds(
        "sample_data.zarr",
        "smoothed",
        total_roi=total_roi,
        voxel_size=coordinate_of((1, 1), "voxel_size"),
        dtype=np.float32,
        write_size=block_size,
        num_channels=3,
    )
    smoothed = f["smoothed"]
    assert isinstance(smoothed, zarr.Array)
    assert (smoothed.shape, smoothed.chunks) == ((3, 512, 512), (3, 64, 64))
    prepare_ds(
        "sample_data.zarr",
        "blue_objects",
        total_roi=total_roi,
        voxel_size=coordinate_of((1, 1), "voxel_size"),
        dtype=np.uint32,
        write_size=Roi((128, 128), (128, 128)).shape,
    )
    labels = np.ones((128, 128), dtype="int64")
    block = Roi((128, 128), (128, 128))
    open_ds("sample_data.zarr", "blue_objects", "a")[block] = labels
    read = open_ds("sample_data.zarr", "blue_objects").to_ndarray(block.grow(10, 10), fill_value=0)
    assert (read.shape, read.sum()) == ((148, 148), 128 * 128)
    del f["smoothed"]
    assert "smoothed" not in zarr.open_group("sample_data.zarr", mode="r")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_is_prepared_is_opened_with_the_same_layout(data: st.DataObject) -> None:
    dims = data.draw(st.integers(1, 3))

    def axes(low: int, high: int) -> list[int]:
        return data.draw(st.lists(st.integers(low, high), min_size=dims, max_size=dims))

    sizes, offset, blocks, extents = axes(1, 9), axes(-99, 99), axes(1, 12), axes(1, 20)
    roi = Roi(offset, [n * s for n, s in zip(extents, sizes, strict=True)])
    channels = data.draw(st.none() | st.integers(1, 3))
    zarr_format = data.draw(st.sampled_from([2, 3]))
    dtype = np.dtype(data.draw(st.sampled_from(["bool", "uint8", "int64", "float32", "complex64"])))
    arguments: dict[str, Any] = {
        "total_roi": roi,
        "voxel_size": sizes,
        "dtype": dtype,
        "write_size": [n * s for n, s in zip(blocks, sizes, strict=True)],
        "num_channels": channels,
        "zarr_format": zarr_format,
        "fill_value": 1,
    }
    lead = () if channels is None else (channels,)
    if data.draw(st.booleans()) and zarr_format == 3:
        arguments["shards"] = (*lead, *blocks)
    store = MemoryStore()
    made = prepare_ds(store, "a/b", **arguments)
    for array in (made, open_ds(store, "a/b"), prepare_ds(store, "a/b", **arguments)):
        assert (array.roi, array.voxel_size, array.dtype) == (roi, tuple(sizes), dtype)
        assert array.shape == (*lead, *extents)
        assert array.data.metadata.zarr_format == zarr_format
        assert all(n % c == 0 for n, c in zip((*lead, *blocks), array.data.chunks, strict=True))
        assert (array.to_ndarray() == 1).all()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_what_is_written_on_disk(tmp_path: Path, zarr_format: Any) -> None:
    prepare_ds(
        tmp_path / "x.zarr", "a/raw", ROI, (2, 4), "uint8", (16, 16), 2,
        axis_names=["c", "y", "x"], units=["nm", "nm"], zarr_format=zarr_format,
    )  # fmt: skip
    said = {
        "offset": [0, 40],
        "voxel_size": [2, 4],
        "resolution": [2, 4],
        "axis_names": ["c", "y", "x"],
        "units": ["nm", "nm"],
    }
    written = files(tmp_path / "x.zarr")
    if zarr_format == 3:
        assert sorted(written) == ["a/raw/zarr.json", "a/zarr.json", "zarr.json"]
        document = json.loads(written["a/raw/zarr.json"])
        assert (document["attributes"], document["dimension_names"]) == (said, ["c", "y", "x"])
    else:
        assert {"a/raw/.zarray", "a/raw/.zattrs", "a/.zgroup", ".zgroup"} <= set(written)
        assert json.loads(written["a/raw/.zattrs"]) == said | {"_ARRAY_DIMENSIONS": ["c", "y", "x"]}
        assert json.loads(written["a/raw/.zarray"])["dimension_separator"] == "/"


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_the_format_is_that_of_the_group(tmp_path: Path, zarr_format: Any) -> None:
    group = zarr.open_group(tmp_path / "x.zarr", mode="w", zarr_format=zarr_format)
    assert prepare_ds(group, "new/raw", ROI, dtype="uint8").data.metadata.zarr_format == zarr_format
    other = 5 - zarr_format
    with pytest.raises(ArrayError) as info:
        prepare_ds(group, "raw", ROI, dtype="uint8", zarr_format=other)
    assert str(info.value) == (
        f"zarr_format must be {zarr_format} like that of the group {tmp_path}/x.zarr/raw lies in, got {other}"
    )


def test_an_array_may_be_the_root_of_its_store(tmp_path: Path) -> None:
    made = prepare_ds(tmp_path / "x.zarr", None, ROI, dtype="uint8", zarr_format=2)
    made[made.roi] = 1
    assert prepare_ds(tmp_path / "x.zarr", total_roi=ROI, dtype="uint8").to_ndarray().all()
    prepare_ds(tmp_path / "x.zarr", None, ROI, dtype="uint8", zarr_format=3, overwrite=True)
    assert list(files(tmp_path)) == ["x.zarr/zarr.json"]


def test_compressors_are_those_of_zarr(tmp_path: Path) -> None:
    array = prepare_ds(tmp_path / "x.zarr", "raw", ROI, dtype="uint8", compressors=BloscCodec())
    assert [type(codec).__name__ for codec in array.data.compressors] == ["BloscCodec"]
    assert prepare_ds(tmp_path / "x.zarr", "plain", ROI, dtype="uint8", compressors=None).data.compressors == ()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_resuming_keeps_the_data(tmp_path: Path, zarr_format: Any) -> None:
    arguments: dict[str, Any] = {
        "total_roi": ROI,
        "dtype": "float32",
        "fill_value": np.nan,
        "zarr_format": zarr_format,
    }
    made = prepare_ds(tmp_path / "x.zarr", "raw", **arguments)
    made[Roi((0, 40), (4, 4))] = 7
    before = files(tmp_path)
    again = prepare_ds(tmp_path / "x.zarr", "raw", **arguments | {"zarr_format": None})
    assert files(tmp_path) == before
    again[Roi((4, 40), (4, 4))] = 8
    assert np.nansum(made.to_ndarray()) == 16 * (7 + 8)
    fresh = prepare_ds(tmp_path / "x.zarr", "raw", **arguments, overwrite=True)
    assert np.isnan(fresh.to_ndarray()).all()


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"total_roi": Roi((0, 40), (64, 48))}, "shape is (64, 32), not (64, 48)"),
        ({"total_roi": Roi((4, 40), (64, 32))}, "offset is (0, 40), not (4, 40)"),
        (
            {"voxel_size": (1, 2)},
            "shape is (64, 32), not (64, 16), chunks is (16, 16), not (16, 8), voxel_size is (1, 1), not (1, 2)",
        ),
        ({"dtype": "uint16"}, "dtype is uint8, not uint16"),
        ({"chunks": (8, 16)}, "chunks is (16, 16), not (8, 16)"),
        ({"shards": (16, 16)}, "shards is None, not (16, 16)"),
        ({"fill_value": 1}, "fill_value is 0, not 1"),
        ({"zarr_format": 2}, "zarr_format is 3, not 2"),
        ({"num_channels": 1}, "shape is (64, 32), not (1, 64, 32), chunks is (16, 16), not (1, 16, 16)"),
    ],
)
def test_another_layout_is_refused_with_what_differs(tmp_path: Path, change: dict[str, Any], difference: str) -> None:
    arguments: dict[str, Any] = {
        "total_roi": ROI,
        "voxel_size": (1, 1),
        "dtype": "uint8",
        "write_size": (16, 16),
    }
    made = prepare_ds(tmp_path / "x.zarr", **arguments)
    made[ROI] = 7
    before = files(tmp_path)
    with pytest.raises(ArrayError) as info:
        prepare_ds(tmp_path / "x.zarr", **arguments | change)
    assert str(info.value) == (
        f"another array is at {tmp_path}/x.zarr: {difference}; "
        "open it with open_ds, take another name, or pass overwrite=True to delete it"
    )
    assert files(tmp_path) == before
    fresh = prepare_ds(tmp_path / "x.zarr", **arguments | change, overwrite=True)
    assert (fresh.to_ndarray() == change.get("fill_value", 0)).all()


def test_a_group_is_never_deleted(tmp_path: Path) -> None:
    made = prepare_ds(tmp_path / "x.zarr", "a/b", ROI, dtype="uint8")
    for name, message in [
        (None, f"{tmp_path}/x.zarr is a group; pass the name of an array in it"),
        ("a", f"{tmp_path}/x.zarr/a is a group; pass the name of an array in it"),
        (
            "a/b/c/d",
            f"{tmp_path}/x.zarr/a/b/c/d cannot be prepared: {tmp_path}/x.zarr/a/b is an array, "
            "and only groups hold arrays",
        ),
    ]:
        with pytest.raises(ArrayError) as info:
            prepare_ds(tmp_path / "x.zarr", name, ROI, dtype="uint8", overwrite=True)
        assert str(info.value) == message
    assert made.to_ndarray().shape == (64, 32)


def test_a_folder_that_is_no_zarr_store_keeps_its_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    array = prepare_ds(tmp_path, "raw", ROI, dtype="uint8", overwrite=True)
    array[array.roi] = 1
    prepare_ds(tmp_path, "raw", ROI, dtype="uint8", overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_read_only_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArrayError) as info:
        prepare_ds(LocalStore(tmp_path / "x.zarr", read_only=True), "raw", ROI, dtype="uint8")
    assert str(info.value) == f"{tmp_path}/x.zarr/raw cannot be prepared: its store was opened read-only"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"total_roi": None}, GeometryError, "total_roi must be a Roi, got NoneType: None"),
        (
            {"total_roi": Roi((0, 0), (None, 4))},
            GeometryError,
            "total_roi must be bounded on every axis: axis 0 begins at None and measures None",
        ),
        (
            {"total_roi": Roi((0, 0), (0, 4))},
            GeometryError,
            "total_roi must have a positive shape: axis 0 begins at 0 and measures 0",
        ),
        (
            {"voxel_size": (10, 4)},
            GeometryError,
            "roi must lie on the voxel grid (offset (0, 40), voxel size (10, 4)): axis 0 has [0, 64); "
            "the nearest ROI around it is [0:70, 40:72] (70, 32)",
        ),
        ({"voxel_size": (1, -1)}, GeometryError, "voxel_size must be positive: axis 1 has -1"),
        (
            {"voxel_size": (1,)},
            GeometryError,
            "offset and voxel_size must have as many axes: got (0, 40) and (1,)",
        ),
        ({"voxel_size": (0.5, 1)}, GeometryError, "voxel_size must hold whole numbers: axis 0 has 0.5"),
        ({"dtype": None}, ArrayError, "dtype must be boolean, integer, float or complex, got None"),
        ({"dtype": "voxel"}, ArrayError, "dtype must be boolean, integer, float or complex, got 'voxel'"),
        ({"dtype": "U8"}, ArrayError, "dtype must be boolean, integer, float or complex, got 'U8'"),
        (
            {"dtype": object},
            ArrayError,
            "dtype must be boolean, integer, float or complex, got <class 'object'>",
        ),
        ({"num_channels": 0}, GeometryError, "num_channels must be a positive integer or None, got 0"),
        ({"num_channels": 1.5}, GeometryError, "num_channels must be a positive integer or None, got 1.5"),
        (
            {"fill_value": -1},
            ValueLossError,
            "fill_value must be from 0 to 255 to be stored as uint8, got -1 to -1; "
            "use a wider dtype or convert them first",
        ),
        (
            {"fill_value": [0, 0]},
            ValueLossError,
            "fill_value must be a single value, got an array of shape (2,)",
        ),
        ({"zarr_format": 4}, ArrayError, "zarr_format must be 2 or 3, got 4"),
        (
            {"zarr_format": 2, "shards": (32, 32)},
            GeometryError,
            "shards need zarr format 3, got format 2 (asked for, or that of the group)",
        ),
        (
            {"write_size": (24, 32), "shards": (16, 32)},
            GeometryError,
            "write_size must be a multiple of the shard, or two blocks share one: axis 0 has 24 and shards "
            "of 16 world units (16 voxels); nearest that fits: 16 or 32",
        ),
        (
            {"axis_names": "yx"},
            GeometryError,
            "axis_names must be 2 strings, one for each axis they name, got 'yx'",
        ),
        (
            {"units": ["nm"]},
            GeometryError,
            "units must be 2 strings, one for each axis they name, got ['nm']",
        ),
        ({"compressors": "lzma"}, TypeError, None),
    ],
)
def test_arguments_that_cannot_be_right_write_nothing(
    tmp_path: Path, arguments: dict[str, Any], error: type[Exception], message: str | None
) -> None:
    arguments = {"total_roi": ROI, "dtype": "uint8", **arguments}
    with pytest.raises(error) as info:
        prepare_ds(tmp_path / "x.zarr", "raw", **arguments)
    if message is not None:
        assert str(info.value) == message
    assert list(tmp_path.iterdir()) == []


RACE = """
import sys
from blockflow.arrays import prepare_ds
from blockflow.errors import ArrayError
from blockflow.geometry import Roi
path, zarr_format, number, same = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "same"
print("ready", flush=True)
sys.stdin.readline()
size = 64 if same else 64 * (1 + number)
try:
    array = prepare_ds(path, "a/b/raw", Roi((number * 0, 0), (64 * 8, size)), (2, 2), "uint8", (64, 64),
                       zarr_format=zarr_format)
except ArrayError as error:
    print("refused", error)
else:
    array[Roi((64 * number, 0), (64, 64))] = number + 1
    print("made", array.shape)
"""


def race(path: Path, zarr_format: int, same: str) -> list[str]:
    """What each of eight processes says that prepare one array at the same moment."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", RACE, str(path), str(zarr_format), str(number), same],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=PACKAGE,
        )
        for number in range(8)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    outputs = [racer.communicate(timeout=60)[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 8
    return outputs


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_processes_that_prepare_at_the_same_moment_lose_nothing(tmp_path: Path, zarr_format: int) -> None:
    assert race(tmp_path / "x.zarr", zarr_format, "same") == ["made (256, 32)\n"] * 8
    array = open_ds(tmp_path / "x.zarr", "a/b/raw")
    assert array.voxel_size == (2, 2)
    assert [array.to_ndarray(Roi((64 * n, 0), (64, 64))).mean() for n in range(8)] == [*range(1, 9)]
    assert not [name for name in files(tmp_path) if name.endswith(".partial")]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_of_different_layouts_at_the_same_moment_one_wins(tmp_path: Path, zarr_format: int) -> None:
    outputs = race(tmp_path / "x.zarr", zarr_format, "different")
    assert sorted(output.split()[0] for output in outputs) == ["made"] + ["refused"] * 7
    winner = next(number for number, output in enumerate(outputs) if output.startswith("made"))
    array = open_ds(tmp_path / "x.zarr", "a/b/raw")
    assert array.shape == (256, 32 * (1 + winner))
    assert array.to_ndarray().sum() == 32 * 32 * (winner + 1)


def test_a_killed_writer_leaves_whole_chunks(tmp_path: Path) -> None:
    """Each of its writes fills one chunk with one number; whenever it is killed, no chunk holds two."""
    array = prepare_ds(tmp_path / "x.zarr", "raw", Roi((0, 0), (512, 512)), dtype="uint16", write_size=(256, 512))
    code = (
        "import itertools, sys; from blockflow.arrays import open_ds; from blockflow.geometry import Roi\n"
        "array = open_ds(sys.argv[1], 'raw', 'a')\n"
        "for number in itertools.count(1):\n"
        "    array[Roi((256 * (number % 2), 0), (256, 512))] = number % 60000; print(number, flush=True)\n"
    )
    for writes in (1, 2, 5, 9):
        command = [sys.executable, "-c", code, str(tmp_path / "x.zarr")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=PACKAGE) as writer:
            assert writer.stdout is not None
            for _ in range(writes):
                assert writer.stdout.readline()
            writer.kill()
        for begin in (0, 256):
            assert len(np.unique(array.to_ndarray(Roi((begin, 0), (256, 512))))) == 1
        assert array.to_ndarray().any()


def test_a_writer_killed_between_the_documents_left_no_array(tmp_path: Path) -> None:
    """Format v2 has two documents; attributes without array are no array, and are completed or refused."""
    arguments: dict[str, Any] = {"total_roi": ROI, "dtype": "uint8", "zarr_format": 2}
    prepare_ds(tmp_path / "x.zarr", "raw", **arguments)
    (tmp_path / "x.zarr" / "raw" / ".zarray").unlink()
    with pytest.raises(ArrayError, match="no array at"):
        open_ds(tmp_path / "x.zarr", "raw")
    other = arguments | {"total_roi": Roi((4, 40), (64, 32))}
    with pytest.raises(ArrayError, match=r"offset is \(0, 40\), not \(4, 40\)"):
        prepare_ds(tmp_path / "x.zarr", "raw", **other)
    assert prepare_ds(tmp_path / "x.zarr", "raw", **other, overwrite=True).offset == (4, 40)


def test_damaged_metadata_is_not_taken_for_nothing(tmp_path: Path) -> None:
    prepare_ds(tmp_path / "x.zarr", "raw", ROI, dtype="uint8")
    (tmp_path / "x.zarr" / "raw" / "zarr.json").write_text("")
    for overwrite in (False, True):
        with pytest.raises(MetadataError, match=r"x\.zarr/raw has metadata that zarr cannot read"):
            prepare_ds(tmp_path / "x.zarr", "raw", ROI, dtype="uint8", overwrite=overwrite)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_ordinary_dtypes_warn_of_nothing(zarr_format: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for dtype in ("bool", "int8", "uint64", "float16", "float64", "complex64", ">u2"):
            array = prepare_ds(MemoryStore(), "raw", ROI, dtype=dtype, zarr_format=zarr_format)
            assert isinstance(array, Array)
            assert array.dtype == np.dtype(dtype).newbyteorder("=")
