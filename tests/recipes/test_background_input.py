"""Input of the background recipe: stacks of every kind, and what is none."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from blockflow.errors import ArrayError, MetadataError, PlanError
from blockflow.recipes.background_input import Stack, open_stack

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FRAMES: NDArray[np.uint16] = np.arange(2 * 3 * 300, dtype=np.uint16).reshape(300, 2, 3)


def read_all(stack: Stack) -> NDArray[Any]:
    count = stack.shape[0]
    return np.concatenate([stack.frames(first, last) for first, last in stack.portions(0, count)])


def rtdc(path: Path, features: dict[str, Any], rate: float | None = None) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, values in features.items():
            file[f"events/{name}"] = values
        if rate is not None:
            file.attrs["imaging:frame rate"] = rate
    return path


def test_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "frames.npy", FRAMES)
    memmap = np.load(tmp_path / "frames.npy", mmap_mode="r")
    stored = zarr.create_array(tmp_path / "frames.zarr", data=FRAMES, chunks=(7, 2, 2))
    for kind in (
        FRAMES,
        FRAMES.astype(">u2"),
        memmap,
        stored,
        tmp_path / "frames.npy",
        str(tmp_path / "frames.zarr"),
    ):
        with open_stack(kind) as stack:
            assert stack.shape == (300, 2, 3)
            assert stack.dtype == np.dtype(np.uint16)
            np.testing.assert_array_equal(read_all(stack), FRAMES)
            np.testing.assert_array_equal(stack.frames(3, 5, slice(0, 1)), FRAMES[3:5, :1])
            assert stack.frames(0, 2).dtype == np.dtype(np.uint16)
            assert (stack.times, stack.numbers, stack.rate, stack.source) == (None, None, None, None)


def test_an_rtdc_file_knows_its_times(tmp_path: Path) -> None:
    path = rtdc(tmp_path / "m.rtdc", {"image": FRAMES, "time": np.arange(300) / 2, "frame": np.arange(300)}, rate=2000)
    with open_stack(path) as stack:
        np.testing.assert_array_equal(read_all(stack), FRAMES)
        assert stack.times is not None
        assert stack.times[2] == 1
        assert stack.numbers is not None
        assert stack.numbers[2] == 2
        assert stack.rate == 2000
        assert stack.source == path.resolve()


def test_an_open_dataset_of_images_is_like_its_file_and_others_are_arrays(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = rtdc(tmp_path / "m.rtdc", {"image": FRAMES, "image_bg": FRAMES, "time": np.arange(300)})
    with h5py.File(path, "r") as file:
        with open_stack(file["events/image"]) as stack:
            assert stack.times is not None
            np.testing.assert_array_equal(read_all(stack), FRAMES)
        with open_stack(file["events/image_bg"]) as stack:
            assert stack.times is None
            assert stack.source is None


def test_portions_end_with_stored_chunks(tmp_path: Path) -> None:
    stored = zarr.create_array(tmp_path / "z", shape=(50, 600, 600), chunks=(3, 600, 600), dtype=np.uint8)
    assert list(Stack(stored).portions(1, 10)) == [(1, 3), (3, 6), (6, 9), (9, 10)]
    many = zarr.create_array(tmp_path / "y", shape=(50, 600, 600), chunks=(1, 600, 600), dtype=np.uint8)
    assert list(Stack(many).portions(1, 6)) == [(1, 2), (2, 4), (4, 6)]
    assert list(Stack(many).portions(4, 4)) == []


@pytest.mark.parametrize(
    ("stack", "message"),
    [
        ([[[1]]], "stack must be an array of frames .* or a path to one, got list"),
        (None, "got NoneType"),
        (np.ma.masked_array(np.zeros((2, 2, 2))), "got MaskedArray"),
        (np.zeros((4, 4), np.uint8), r"must have the axes frames, rows and columns, got shape \(4, 4\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), "must have the axes frames, rows and columns"),
        (np.zeros((0, 4, 4), np.uint8), r"must have at least one frame, got shape \(0, 4, 4\)"),
        (np.zeros((4, 0, 4), np.uint8), "must have at least one row"),
        (np.zeros((4, 4, 0), np.uint8), "must have at least one column"),
        (
            np.zeros((4, 4, 4), np.int16),
            "must have dtype uint8, uint16, float32 or float64, got int16: convert",
        ),
        (np.zeros((4, 4, 4), bool), "got bool"),
        (np.zeros((4, 4, 4), complex), "got complex128"),
        (np.zeros((4, 4, 4), "U1"), "got <U1"),
    ],
)
def test_what_is_no_stack_is_refused(stack: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message), open_stack(stack):
        pass


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named(value: float) -> None:
    frames = np.zeros((9, 2, 2), np.float32)
    frames[6, 1, 0] = value
    stack = Stack(frames)
    assert stack.frames(0, 6).shape == (6, 2, 2)
    with pytest.raises(ArrayError, match="frame 6 has NaN or infinity"):
        stack.frames(4, 9)


def test_a_file_without_images_is_refused(tmp_path: Path) -> None:
    path = rtdc(tmp_path / "m.rtdc", {"deform": np.zeros(3)})
    with (
        pytest.raises(MetadataError, match=r"must have the dataset events/image, it has \['events'\]"),
        open_stack(path),
    ):
        pass
    with pytest.raises(MetadataError, match="it has nothing"), open_stack(rtdc(tmp_path / "empty.rtdc", {})):
        pass


def test_a_rate_that_is_no_number_is_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = rtdc(tmp_path / "m.rtdc", {"image": FRAMES})
    with h5py.File(path, "a") as file:
        file.attrs["imaging:frame rate"] = "fast"
    with pytest.raises(MetadataError, match=r"frame rate must be a number, .* has 'fast'"), open_stack(path):
        pass


@pytest.mark.parametrize("feature", ["time", "frame"])
def test_a_time_axis_of_another_length_is_refused(tmp_path: Path, feature: str) -> None:
    path = rtdc(tmp_path / "m.rtdc", {"image": FRAMES, feature: np.arange(299)})
    with (
        pytest.raises(MetadataError, match=rf"events/{feature} must have one value for each of the 300 images"),
        open_stack(path),
    ):
        pass


def test_unknown_compression_is_named(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "m.rtdc"
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "events/image", (3, 4, 5), np.uint8, chunks=(1, 4, 5), compression=305, allow_unknown_filter=True
        )
    with pytest.raises(ArrayError, match="events/image is compressed with filter 305"), open_stack(path):
        pass


def test_paths_that_are_something_else(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    text = tmp_path / "notes.rtdc"
    text.write_text("not a measurement")
    (tmp_path / "notes.npy").write_text("not an array")
    zarr.create_group(tmp_path / "group.zarr").create_array("images", data=FRAMES)
    (tmp_path / "folder").mkdir()
    for path, error, message in (
        (text, ArrayError, "cannot be opened as an HDF5 file"),
        (tmp_path / "none.rtdc", FileNotFoundError, "there is no file .*none.rtdc"),
        (tmp_path / "notes.npy", ArrayError, "cannot be opened as a .npy file"),
        (tmp_path / "none.npy", FileNotFoundError, "none.npy"),
        (tmp_path / "group.zarr", PlanError, r"is a zarr group: name an array in it, one of \['images'\]"),
        (tmp_path / "folder", ArrayError, "is a directory and must be a zarr array"),
    ):
        with pytest.raises(error, match=message), open_stack(path):
            pass


def test_without_h5py_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ArrayError, match=r"pip install 'blockflow-nd\[hdf5\]'"), open_stack(tmp_path / "m.rtdc"):
        pass
