"""Background of an image series: whole results, against dcnum's and against the formulae."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from blockflow.errors import ArrayError, PlanError
from blockflow.recipes.background import Background, rolling_median_background, sparse_median_background

if TYPE_CHECKING:
    from numpy.typing import NDArray

ORACLE = Path(__file__).parents[2].parent / "shared" / "oracles" / "dcnum"

needs_oracle = pytest.mark.skipif(not ORACLE.is_dir(), reason=f"no outputs of dcnum in {ORACLE}")


def oracle_input() -> Any:
    spec = importlib.util.spec_from_file_location("synth", ORACLE / "synth.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def oracle_cases() -> list[dict[str, Any]]:
    return list(json.loads((ORACLE / "cases.json").read_text())) if ORACLE.is_dir() else []


def oracle_outputs(file: str, case: str) -> dict[str, NDArray[Any]]:
    with np.load(ORACLE / file) as outputs:
        return {key.split("/")[1]: outputs[key] for key in outputs if key.startswith(f"{case}/")}


def assert_equals_oracle(background: Background, outputs: dict[str, NDArray[Any]]) -> None:
    series = outputs["bg_series"]
    assert background.used.shape == background.times.shape == series.shape[:1]
    np.testing.assert_array_equal(background.images, series[background.used])
    if "step_times" in outputs:
        np.testing.assert_array_equal(background.times, outputs["step_times"])
        kept = outputs["bg_kept"] if len(outputs["bg_kept"]) else series
        np.testing.assert_array_equal(background.images, kept)
    np.testing.assert_array_equal(background.index, outputs["bg_idx"])
    if "bg_off" in outputs:
        assert background.offset is not None
        np.testing.assert_allclose(background.offset, outputs["bg_off"], rtol=0, atol=1e-9)
    else:
        assert background.offset is None


def frames_of(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(90, 120, (count, 24, 20)).astype(np.uint8)


@needs_oracle
@pytest.mark.parametrize("case", oracle_cases(), ids=lambda case: case["name"])
def test_equal_to_dcnum(case: dict[str, Any]) -> None:
    frames = oracle_input().synth(case["seed"], case["n"], tuple(case["shape"]), case["kind"])
    background = sparse_median_background(frames, **case["kwargs"])
    assert_equals_oracle(background, oracle_outputs("outputs.npz", case["name"]))
    assert background.identifier == case["ppid"]
    assert background.images.dtype == np.uint8


@needs_oracle
def test_two_frames_equal_dcnum() -> None:
    background = sparse_median_background(edge_frames()[:2], split_time=0.0001)
    assert_equals_oracle(background, oracle_outputs("edge_outputs.npz", "two_frames"))


@needs_oracle
def test_floats_are_those_of_dcnum_without_its_truncation() -> None:
    """The frames end in .9 and dcnum truncates the images, not the frames from which it takes the offset."""
    background = sparse_median_background(edge_frames() + 0.9, kernel_size=40, split_time=0.02)
    outputs = oracle_outputs("edge_outputs.npz", "float64_input")
    assert background.offset is not None
    np.testing.assert_array_equal(background.images, outputs["bg_series"][background.used] + 0.9)
    np.testing.assert_array_equal(background.index, outputs["bg_idx"])
    np.testing.assert_allclose(background.offset, outputs["bg_off"] - 0.9, rtol=0, atol=1e-9)


@needs_oracle
@pytest.mark.parametrize(
    ("case", "features", "rate", "split_time"),
    [
        ("h5_time", {"time": "time_irregular"}, None, 0.2),
        ("h5_time", {"time": "time_irregular", "frame": "frame"}, 2000.0, 0.2),
        ("h5_frame_rate", {"frame": "frame"}, 2000.0, 0.5),
        ("h5_rate_only", {}, 2000.0, 0.02),
        ("h5_nothing", {}, None, 0.02),
        ("h5_nothing", {"frame": "frame"}, None, 0.02),
        ("h5_inplace", {"time": "time_irregular"}, None, 0.2),
        ("h5_inplace_again", {"time": "time_irregular"}, None, 0.4),
    ],
)
def test_files_equal_dcnum(
    tmp_path: Path, case: str, features: dict[str, str], rate: float | None, split_time: float
) -> None:
    h5py = pytest.importorskip("h5py")
    known = oracle_outputs("edge_outputs.npz", "h5")
    path = tmp_path / "measurement.rtdc"
    with h5py.File(path, "w") as file:
        file["events/image"] = edge_frames()
        for feature, name in features.items():
            file[f"events/{feature}"] = known[name]
        if rate is not None:
            file.attrs["imaging:frame rate"] = rate
    background = sparse_median_background(path, kernel_size=30, split_time=split_time)
    outputs = oracle_outputs("edge_outputs.npz", case)
    if case == "h5_inplace_again":  # dcnum left the mapping of its first run in the file
        del outputs["bg_idx"]
        outputs["bg_idx"] = background.index
    assert_equals_oracle(background, outputs)
    assert background.source == path.resolve()
    background.write_hdf5(path)
    again = sparse_median_background(path, kernel_size=30, split_time=split_time)
    np.testing.assert_array_equal(again.images, background.images)


def edge_frames() -> NDArray[np.uint8]:
    frames: NDArray[np.uint8] = oracle_input().synth(20, 300, (24, 40), "blobs flicker")
    return frames


def the_long_way(
    frames: NDArray[Any], times: NDArray[np.float64], kernel: int, split_time: float
) -> tuple[list[NDArray[Any]], list[int], list[float]]:
    """Without cleansing: images, index, offset."""
    count = len(frames)
    at = [split_time * step for step in range(count * 1000) if split_time * step < times[-1]] or [0.0]
    images = []
    for moment in at:
        start = min(int(np.argmin(np.abs(moment - times))), count - kernel)
        images.append(np.sort(frames[start : start + kernel], axis=0)[kernel // 2])
    index = [0] * count
    begin = 0
    for number, moment in enumerate(at):
        index[begin:] = [number] * (count - begin)
        begin = int(np.argmin(np.abs(times - moment - split_time / 2)))
    offset = [
        float(np.mean(frames[i, :20].astype(float)) - np.mean(images[index[i]][:20].astype(float)))
        for i in range(count)
    ]
    return images, index, offset


@given(
    st.sampled_from([np.uint8, np.uint16, np.float32, np.float64]),
    st.integers(1, 30),
    st.integers(1, 12),
    st.sampled_from([0.25, 1.0, 3.0]),
    st.randoms(use_true_random=False),
)
def test_every_dtype_the_long_way(
    dtype: type[np.generic], count: int, kernel: int, split_time: float, random: Any
) -> None:
    rng = np.random.default_rng(random.getrandbits(32))
    frames = (rng.random((count, 3, 4)) * (60000 if dtype != np.uint8 else 255)).astype(dtype)
    times = np.sort(rng.integers(0, 12, count) / 2.0)
    times -= times[0]
    background = sparse_median_background(frames, kernel, split_time, frac_cleansing=1, times=times + 5)
    images, index, offset = the_long_way(frames, times, min(kernel, count), split_time)
    np.testing.assert_array_equal(background.images, images)
    assert background.images.dtype == dtype
    np.testing.assert_array_equal(background.index, index)
    assert background.offset is not None
    np.testing.assert_allclose(background.offset, offset, rtol=1e-12, atol=1e-9)
    for frame in range(count):
        np.testing.assert_array_equal(background.at(frame), images[index[frame]])


def test_uint16_over_255_does_not_wrap() -> None:
    frames = frames_of(300).astype(np.uint16)
    small = sparse_median_background(frames, 40, 0.02)
    large = sparse_median_background(frames + 30000, 40, 0.02)
    np.testing.assert_array_equal(large.images, small.images + 30000)
    np.testing.assert_array_equal(large.index, small.index)


def test_all_kinds_of_stacks_give_the_same(tmp_path: Path) -> None:
    frames = frames_of(300)
    np.save(tmp_path / "frames.npy", frames)
    stored = zarr.create_array(tmp_path / "frames.zarr", data=frames, chunks=(7, 24, 20))
    expected = sparse_median_background(frames, 40, 0.02)
    assert expected.offset is not None
    for stack in (
        np.load(tmp_path / "frames.npy", mmap_mode="r"),
        tmp_path / "frames.npy",
        stored,
        tmp_path / "frames.zarr",
    ):
        background = sparse_median_background(stack, 40, 0.02)
        assert background.offset is not None
        np.testing.assert_array_equal(background.images, expected.images)
        np.testing.assert_array_equal(background.index, expected.index)
        np.testing.assert_array_equal(background.offset, expected.offset)


def test_flickering_light_is_in_the_offset() -> None:
    frames = np.full((200, 40, 30), 100, np.uint8) + np.arange(30, dtype=np.uint8)
    flicker = np.random.default_rng(0).integers(-9, 10, 200)
    flicker[::2] = 0
    background = sparse_median_background((frames + flicker[:, None, None]).astype(np.uint8), 100, 0.02)
    assert background.offset is not None
    np.testing.assert_allclose(background.offset, flicker, atol=1e-9)
    np.testing.assert_allclose(background.corrected(frames + flicker[:, None, None]), 0, atol=1e-9)


def test_one_frame_is_its_own_background() -> None:
    frames = frames_of(1)
    for background in (sparse_median_background(frames), rolling_median_background(frames)):
        np.testing.assert_array_equal(background.images, frames)
        assert background.index.tolist() == [0]
        assert background.used.tolist() == [True]
        np.testing.assert_array_equal(background.corrected(frames), np.zeros(frames.shape))


def test_frames_of_one_moment_have_one_image() -> None:
    frames = frames_of(50)
    background = sparse_median_background(frames, 50, times=np.full(50, 3.0))
    np.testing.assert_array_equal(background.images, [np.sort(frames, axis=0)[25]])
    assert background.index.tolist() == [0] * 50


def test_a_kernel_larger_than_the_series_uses_all_frames_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    frames = frames_of(30)
    for background in (sparse_median_background(frames, 200), rolling_median_background(frames, 200)):
        np.testing.assert_array_equal(background.images, [np.sort(frames, axis=0)[15]])
        assert "k=200^" in background.identifier
    assert caplog.text.count("kernel_size is 200, the stack has 30 frames") == 2


def test_times_and_rates_from_the_caller(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    frames = frames_of(100)
    times = np.arange(100) / 10
    path = tmp_path / "m.rtdc"
    with h5py.File(path, "w") as file:
        file["events/image"] = frames
        file["events/time"] = times * 7
        file["events/frame"] = np.arange(100)
        file.attrs["imaging:frame rate"] = 3.0
    assert sparse_median_background(path, 9).times[-1] == 69
    assert sparse_median_background(path, 9, times=times).times[-1] == 9
    assert sparse_median_background(path, 9, frame_rate=10).times[-1] == 9
    assert sparse_median_background(frames, 9, frame_rate=10).times[-1] == 14
    assert rolling_median_background(path, 9, times=times).times.tolist() == times[:91].tolist()
    assert rolling_median_background(path, 9).times[1] == pytest.approx(0.7)


@given(st.integers(1, 40), st.integers(1, 45), st.sampled_from([np.uint8, np.uint16, np.float32]))
def test_rolling_median(count: int, kernel: int, dtype: type[np.generic]) -> None:
    frames = np.random.default_rng(count).integers(0, 256, (count, 2, 3)).astype(dtype)
    background = rolling_median_background(frames, kernel)
    kernel = min(kernel, count)
    for frame in range(count):
        start = min(frame, max(count - kernel - 1, 0))
        np.testing.assert_array_equal(
            background.at(frame), np.sort(frames[start : start + kernel], axis=0)[kernel // 2]
        )
    assert background.offset is None
    assert background.used.all()
    assert len(background.images) == len(background.times) == len(background.used)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 0}, "kernel_size must be a whole number, 1 or more, got 0"),
        ({"kernel_size": 2.5}, "kernel_size must be a whole number, 1 or more, got 2.5"),
        ({"kernel_size": True}, "kernel_size must be a whole number"),
        ({"split_time": 0}, "split_time must be positive, got 0"),
        ({"split_time": np.inf}, "split_time must be positive, got inf"),
        ({"split_time": np.nan}, "split_time must be positive, got nan"),
        ({"thresh_cleansing": -1}, "thresh_cleansing must be 0 or more, got -1"),
        ({"frac_cleansing": 0}, "frac_cleansing must be over 0 and at most 1, got 0"),
        ({"frac_cleansing": 1.1}, "frac_cleansing must be over 0 and at most 1, got 1.1"),
        ({"times": [0.0] * 9, "frame_rate": 3}, "times and frame_rate exclude one another"),
        ({"times": [0.0]}, "times must be one value for each of the 9 frames"),
        ({"frame_rate": -2}, "frame rate must be a positive number"),
        ({"num_workers": 0}, "num_workers must be a whole number, 1 or more, got 0"),
        ({"num_workers": None}, "num_workers must be a whole number, 1 or more, got None"),
        ({"run_dir": __file__}, "run_dir must be a directory or a new one, .*test_background.py is a file"),
    ],
)
def test_parameters_that_cannot_be_right_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        sparse_median_background(frames_of(9), **arguments)
    if not arguments.keys() & {"split_time", "thresh_cleansing", "frac_cleansing"}:
        with pytest.raises(PlanError, match=message):
            rolling_median_background(frames_of(9), **arguments)


def test_nan_is_refused_wherever_it_is() -> None:
    for frame in (3, 55):  # in a window, and only in the rows of the brightness
        frames = frames_of(60).astype(np.float32)
        frames[frame, 2, 2] = np.nan
        with pytest.raises(ArrayError, match=f"frame {frame} has NaN"):
            sparse_median_background(frames, 9, 100)


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    frames = frames_of(60)
    shown = sparse_median_background(frames, 9, 0.01, progress=True)
    assert "background: 1/1 done" in capsys.readouterr().err
    np.testing.assert_array_equal(shown.images, sparse_median_background(frames, 9, 0.01).images)
    assert capsys.readouterr().err == ""
