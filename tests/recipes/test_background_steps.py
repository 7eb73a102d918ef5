"""Steps of the background recipe, each against its formula computed the long way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow.errors import PlanError
from blockflow.recipes.background_steps import (
    brightness,
    brightness_offset,
    clean_images,
    frame_index,
    moments,
    row_ranges,
    time_axis,
    window_starts,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

times_of_frames = st.lists(
    st.one_of(st.sampled_from([0.0, 1e-17, 0.1, 0.5, 1.0, 1e6]), st.floats(0, 10, width=16)),
    min_size=1,
    max_size=30,
).map(lambda values: np.sort(np.array(values)) - min(values))


def test_time_from_times_keeps_their_precision_until_the_zero_is_taken_off() -> None:
    late = np.array([1e7, 1e7 + 1, 1e7 + 3], np.float32)
    assert time_axis(3, times=late).tolist() == [0, 1, 3]
    assert time_axis(3, times=np.array([4, 4, 9], np.uint64)).tolist() == [0, 0, 5]


def test_time_from_numbers_and_rate() -> None:
    assert time_axis(3, numbers=[100, 101, 200], rate=50).tolist() == [0, 101 / 50 - 2, 2]


def test_times_go_before_numbers_and_numbers_before_the_rate_alone() -> None:
    assert time_axis(2, times=[0, 7], numbers=[0, 1], rate=1).tolist() == [0, 7]
    assert time_axis(2, numbers=[0, 1], rate=2).tolist() == [0, 0.5]
    assert time_axis(2, numbers=[0, 1]).tolist() == [0, 2 / 3600 * 1.5]


def test_time_from_a_rate_has_both_ends() -> None:
    np.testing.assert_array_equal(time_axis(7, rate=30), np.linspace(0, 7 / 30 * 1.5, 7))
    np.testing.assert_array_equal(time_axis(7), np.linspace(0, 7 / 3600 * 1.5, 7))
    assert time_axis(1).tolist() == [0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"times": [0, 1]}, r"times must be one value for each of the 3 frames, got shape \(2,\)"),
        ({"times": [[0, 1, 2]]}, r"got shape \(1, 3\)"),
        ({"times": [0, np.nan, 2]}, "times must be finite: frame 1 has nan"),
        ({"times": [0, 1, np.inf]}, "times must be finite: frame 2 has inf"),
        (
            {"times": [0, 2, 1]},
            "times must not decrease: frame 2 has 1 after 2; sort the frames by time first",
        ),
        ({"times": ["a", "b", "c"]}, "times must be numbers, got dtype <U1"),
        ({"times": [0j, 1j, 2j]}, "times must be numbers, got dtype complex128"),
        ({"numbers": [3, 2, 4], "rate": 1.0}, "frame numbers must not decrease: frame 1 has 2 after 3"),
        ({"rate": 0.0}, "frame rate must be a positive number of frames per second, got 0.0"),
        ({"rate": -1.0}, "frame rate must be a positive number"),
        ({"rate": np.nan}, "frame rate must be a positive number"),
        ({"rate": np.inf}, "frame rate must be a positive number"),
    ],
)
def test_a_time_axis_that_cannot_be_right_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        time_axis(3, **arguments)


def test_moments_cover_the_duration_without_its_end() -> None:
    np.testing.assert_array_equal(moments(2.0, 0.5), np.arange(0, 2.0, 0.5))
    assert moments(0.3, 1.0).tolist() == [0]
    assert moments(0.0, 1.0).tolist() == [0]


@given(times_of_frames, st.lists(st.floats(0, 12), min_size=1, max_size=10), st.data())
def test_windows_start_at_the_first_nearest_frame(
    times: NDArray[np.float64], at: list[float], data: st.DataObject
) -> None:
    kernel = data.draw(st.integers(1, len(times)))
    expected = [min(int(np.argmin(np.abs(moment - times))), len(times) - kernel) for moment in at]
    assert window_starts(times, np.array(at), kernel).tolist() == expected


@given(times_of_frames, st.lists(st.floats(0, 12), min_size=1, max_size=10, unique=True), st.floats(1e-3, 3))
def test_each_frame_gets_the_image_whose_turn_it_is(
    times: NDArray[np.float64], at: list[float], split_time: float
) -> None:
    at = sorted(at)
    expected = np.zeros(len(times), int)
    begin = 0
    for number, moment in enumerate(at):
        expected[begin:] = number
        begin = int(np.argmin(np.abs(times - moment - split_time / 2)))
    index = frame_index(times, np.array(at), split_time)
    assert index.dtype == np.int64
    np.testing.assert_array_equal(index, expected)


def clean_the_long_way(
    ranges: NDArray[np.float64], thresh: float, frac: float
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    count, rows = ranges.shape
    spread = max(20, rows // 4)
    profile = []
    for i in range(count):
        unusual = [ranges[i, row] - np.median(ranges[:, row]) for row in range(rows)]
        profile.append(np.mean(unusual[rows // 2 - spread : rows // 2 + spread]))
    mirrored = [profile[::-1], profile] * 10
    line = np.concatenate([*mirrored, profile[::-1]])
    middle = 19 * count
    baseline = [sorted(line[middle + i - 5 : middle + i + 5])[5] for i in range(count)]
    excess = np.array(profile) - baseline
    distance = np.abs(excess - np.median(excess))
    used = distance <= (np.var(distance) * 150 / thresh if thresh else np.quantile(distance, frac))
    if thresh and np.mean(used) < frac:
        used = distance <= np.quantile(distance, frac)
    return used, distance


@pytest.mark.parametrize("rows", [1, 5, 14, 24, 39, 40, 90])
@pytest.mark.parametrize("count", [1, 2, 4, 9, 40])
@pytest.mark.parametrize(("thresh", "frac"), [(0, 0.8), (0, 0.5), (1, 0.5), (500, 0.3), (1e6, 0.8)])
def test_cleansing(rows: int, count: int, thresh: float, frac: float) -> None:
    rng = np.random.default_rng([rows, count])
    ranges = rng.integers(0, 40, (count, rows)).astype(float)
    ranges[count // 2 : count // 2 + 3, rows // 3 :] += 60
    used = clean_images(ranges, thresh, frac)
    expected, distance = clean_the_long_way(ranges, thresh, frac)
    close_to_the_limit = np.abs(distance - distance[expected].max()) < 1e-9
    np.testing.assert_array_equal(used | close_to_the_limit, expected | close_to_the_limit)
    assert used.any()


def test_cleansing_drops_the_image_with_an_object() -> None:
    ranges = np.full((30, 50), 10.0)
    ranges[11, 20:30] = 60
    assert np.flatnonzero(~clean_images(ranges, frac_cleansing=0.95)).tolist() == [11]
    assert np.flatnonzero(~clean_images(ranges, thresh_cleansing=100, frac_cleansing=0.5)).tolist() == [11]


def test_no_cleansing_with_all_wanted() -> None:
    assert clean_images(np.random.default_rng(0).random((9, 50)), 5, 1).all()


def test_a_threshold_that_leaves_too_little_is_not_used_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    ranges = np.random.default_rng(0).random((40, 50)) * 30
    strict = clean_images(ranges, thresh_cleansing=1e9, frac_cleansing=0.8)
    np.testing.assert_array_equal(strict, clean_images(ranges, frac_cleansing=0.8))
    assert "thresh_cleansing 1e+09 would leave" in caplog.text


def test_ranges_of_unsigned_values_do_not_wrap() -> None:
    images = np.array([[[250, 3, 4]], [[0, 255, 9]]], np.uint8)
    assert row_ranges(images).tolist() == [[247], [255]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_brightness_is_the_mean_of_the_top_rows(dtype: type[np.generic]) -> None:
    frames = np.random.default_rng(3).integers(0, 256, (4, 33, 7)).astype(dtype)
    expected = [np.mean(frame[:20].astype(float)) for frame in frames]
    np.testing.assert_allclose(brightness(frames), expected, rtol=1e-15)
    assert brightness(frames[:, :5]).shape == (4,)


def test_offsets_are_relative_to_the_image_of_the_frame() -> None:
    offset = brightness_offset(np.array([5.0, 6.0, 9.0]), np.array([4.0, 10.0]), np.array([0, 0, 1]))
    assert offset.tolist() == [1, 2, -1]
