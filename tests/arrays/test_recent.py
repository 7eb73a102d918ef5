"""Does an array that keeps recent chunks say what the array says, and read less?"""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from blockflow.arrays.recent import RecentChunks, with_recent_chunks
from blockflow.arrays.window import Window


class Counting:
    """A chunked array in memory that notes what is read of it."""

    def __init__(self, data: Any, chunks: tuple[int, ...]) -> None:
        self.data, self.chunks, self.shape, self.dtype = data, chunks, data.shape, data.dtype
        self.read: list[Any] = []

    def __getitem__(self, key: Any) -> Any:
        self.read.append(key)
        return self.data[key].copy()


def image_of(shape: tuple[int, ...]) -> Any:
    return np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)


@st.composite
def readings(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], list[tuple[slice, ...]], int]:
    shape = tuple(draw(st.lists(st.integers(1, 20), min_size=1, max_size=3)))
    chunks = tuple(draw(st.integers(1, 9)) for _ in shape)
    keys = []
    for _ in range(draw(st.integers(1, 8))):
        begins = [draw(st.integers(0, extent - 1)) for extent in shape]
        keys.append(tuple(slice(b, draw(st.integers(b + 1, n))) for b, n in zip(begins, shape, strict=True)))
    return shape, chunks, keys, draw(st.sampled_from([0, 50, 400, 10**6]))


@given(readings())
def test_reads_are_right_and_memory_is_bounded(reading: Any) -> None:
    shape, chunks, keys, most = reading
    image = image_of(shape)
    recent = RecentChunks(Counting(image, chunks), most)
    for key in keys:
        part = recent[key]
        assert_array_equal(part, image[key])
        assert recent.kept_bytes <= most
        part[...] = 0  # belongs to who has read it
        assert_array_equal(recent[key], image[key])


@given(readings())
def test_what_is_kept_is_not_read_again(reading: Any) -> None:
    shape, chunks, keys, _ = reading
    source = Counting(image_of(shape), chunks)
    recent = RecentChunks(source, 10**6)
    for key in [*keys, *keys]:
        _ = recent[key]
    for key in source.read:
        assert all(part.start % n == 0 for part, n in zip(key, chunks, strict=True))  # whole chunks only
        assert all(part.stop % n == 0 or part.stop == m for part, n, m in zip(key, chunks, shape, strict=True))
    assert len(source.read) <= len(keys)


def test_a_row_of_blocks_reads_each_chunk_once() -> None:
    source = Counting(image_of((8, 64)), (8, 8))
    recent = RecentChunks(source, 8 * 8 * 2 * 4)
    for begin in range(0, 64, 8):
        _ = recent[0:8, max(0, begin - 2) : min(64, begin + 10)]
    assert sum(key[1].stop - key[1].start for key in source.read) == 64


def test_other_indices_are_left_to_the_array() -> None:
    image = image_of((6, 6))
    recent = RecentChunks(Counting(image, (2, 2)), 1000)
    for key in (3, (slice(0, 4, 2), slice(0, 6)), (slice(2, 2), slice(0, 6)), (1, slice(0, 2)), ...):
        assert_array_equal(recent[key], image[key])
    assert recent.kept_bytes == 0
    assert recent[-4:-1, :].tolist() == image[-4:-1].tolist()


def test_parts_of_zarr_arrays_and_arrays_without_chunks() -> None:
    image = image_of((6, 6))
    stored = zarr.create_array({}, shape=(6, 6), chunks=(4, 4), dtype="u2")
    stored[...] = image
    part = with_recent_chunks(Window(stored, (range(1, 5), range(6))), 1000)
    assert_array_equal(part[1:3, 0:6], image[2:4])
    assert with_recent_chunks(image, 1000) is image
