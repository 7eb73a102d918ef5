"""Sliding median: every pixel of every window against a sorted window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from blockflow.errors import ArrayError, PlanError
from blockflow.recipes import sliding_median
from blockflow.recipes.background_input import Stack
from blockflow.recipes.sliding_median import SlidingMedian, compute_images, count_true

if TYPE_CHECKING:
    from numpy.typing import NDArray

DTYPES = [np.uint8, np.uint16, np.float32, np.float64]


def sorted_median(frames: NDArray[Any], start: int, kernel: int) -> NDArray[Any]:
    ordered: NDArray[Any] = np.sort(frames[start : start + kernel], axis=0)
    return np.asarray(ordered[kernel // 2])


@st.composite
def series(draw: st.DrawFn) -> tuple[NDArray[Any], int, list[int]]:
    dtype: np.dtype[Any] = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 3), st.integers(1, 3)))
    if dtype.kind == "u":
        values: st.SearchStrategy[Any] = st.sampled_from([0, 1, 7, 8, 256**dtype.itemsize - 1])
    else:
        values = st.sampled_from([-1.5, -0.0, 0.0, 0.25, 1e30])
    frames = draw(hnp.arrays(dtype, shape, elements=values))
    kernel = draw(st.integers(1, shape[0]))
    starts = draw(st.lists(st.integers(0, shape[0] - kernel), max_size=8))
    return frames, kernel, starts


@given(series())
def test_every_window_in_any_order_is_the_upper_median(case: tuple[NDArray[Any], int, list[int]]) -> None:
    frames, kernel, starts = case
    images = compute_images(Stack(frames), starts, kernel)
    assert images.shape == (len(starts), *frames.shape[1:])
    assert images.dtype == frames.dtype
    for image, start in zip(images, starts, strict=True):
        np.testing.assert_array_equal(image, sorted_median(frames, start, kernel))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stride", [1, 7, 33, 90])
@pytest.mark.parametrize("kernel", [40, 300])
def test_long_windows_in_small_strips(
    monkeypatch: pytest.MonkeyPatch, dtype: type[np.generic], stride: int, kernel: int
) -> None:
    monkeypatch.setattr(sliding_median, "STRIP", 50)
    monkeypatch.setattr(sliding_median, "SCRATCH", 3 * 50)
    monkeypatch.setattr(sliding_median, "COLUMNS", 7 * kernel)
    rng = np.random.default_rng(5)
    frames = (rng.normal(100, 3, (500, 11, 13)) + rng.normal(0, 1, (500, 1, 1))).astype(dtype)
    frames[200:320, 3:6] = frames[200:320, 3:6] // 2 if frames.dtype.kind == "u" else 0
    starts = list(range(0, len(frames) - kernel, stride))
    images = compute_images(Stack(frames), starts, kernel)
    for image, start in zip(images, starts, strict=True):
        np.testing.assert_array_equal(image, sorted_median(frames, start, kernel))


def test_windows_read_every_new_frame_once() -> None:
    class Recorder:
        """Frames that know which of them have been read."""

        def __init__(self, frames: NDArray[Any]) -> None:
            self.frames, self.shape, self.dtype = frames, frames.shape, frames.dtype
            self.read: list[int] = []

        def __getitem__(self, key: tuple[slice, slice]) -> NDArray[Any]:
            self.read += range(*key[0].indices(len(self.frames)))
            return self.frames[key]

    recorder = Recorder(np.random.default_rng(0).integers(0, 9, (50, 2, 2)).astype(np.uint8))
    compute_images(Stack(recorder), [0, 0, 1, 4, 9, 30], kernel=10)
    assert recorder.read == [*range(19), *range(30, 40)]


def test_big_endian_frames_have_native_images() -> None:
    frames = np.array([1, 258, 3], ">u2").reshape(3, 1, 1)
    images = compute_images(Stack(frames), [0], kernel=3)
    assert images.dtype == np.dtype(np.uint16)
    assert images.item() == 3


def test_a_frame_that_cannot_be_used_does_not_spoil_the_next_window() -> None:
    frames = np.arange(12, dtype=np.float64).reshape(12, 1, 1)
    frames[5] = np.nan
    median = SlidingMedian(Stack(frames), kernel=3)
    images = np.full((4, 1, 1), -1.0)
    median.move_to(2, images[0])
    with pytest.raises(ArrayError, match="frame 5 has NaN"):
        median.move_to(3, images[1])
    median.move_to(2, images[2])
    median.move_to(6, images[3])
    assert images[[0, 2, 3]].ravel().tolist() == [3, 3, 7]


@pytest.mark.parametrize("kernel", [0, 4])
def test_a_kernel_that_does_not_fit_is_refused(kernel: int) -> None:
    with pytest.raises(PlanError, match="kernel must be between 1 and the 3 frames"):
        SlidingMedian(Stack(np.zeros((3, 1, 1), np.uint8)), kernel)


@pytest.mark.parametrize("start", [-1, 2])
def test_a_window_outside_the_stack_is_refused(start: int) -> None:
    median = SlidingMedian(Stack(np.zeros((3, 1, 1), np.uint8)), 2)
    with pytest.raises(PlanError, match="a window of 2 frames must lie in the 3 frames"):
        median.move_to(start, np.empty((1, 1), np.uint8))


@pytest.mark.parametrize(
    "out", [np.empty((2, 3), np.uint16), np.empty((3, 2), np.uint8), np.empty((2, 6), np.uint8)[:, ::2]]
)
def test_an_out_of_another_kind_is_refused(out: NDArray[Any]) -> None:
    median = SlidingMedian(Stack(np.zeros((3, 2, 3), np.uint8)), 2)
    with pytest.raises(PlanError, match=r"out must be C-contiguous with shape \(2, 3\) and dtype uint8, got shape"):
        median.move_to(0, out)


@pytest.mark.parametrize(("dtype", "images"), [(np.uint8, 2), (np.uint16, 1), (np.float32, 0.75)])
def test_memory_is_the_window_two_counts_and_a_constant(dtype: type[np.generic], images: float) -> None:
    import tracemalloc

    frames = np.random.default_rng(1).integers(90, 110, (8, 1000, 1500), np.uint8).astype(dtype)
    out = np.empty((3, *frames.shape[1:]), dtype)
    tracemalloc.start()
    try:
        compute_images(Stack(frames), [0, 1, 3], 5, out)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= (5 + images) * frames[0].nbytes + 2**20


def test_counting_more_rows_than_a_byte_holds() -> None:
    rows = np.zeros((1000, 2), np.uint8)
    rows[:, 1] = 1
    found = count_true(np.less, rows, np.ones(2, np.uint8), np.empty(4096, bool), np.dtype(np.uint16))
    assert found.tolist() == [1000, 0]
