"""Writing: is the same stored as zarr stores by itself?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from blockflow.arrays.writing import write_voxels


def stored(array: Any) -> dict[str, bytes]:
    """What the files of an array in memory hold."""
    return {name: value.to_bytes() for name, value in array.store._store_dict.items()}


def two_arrays(**options: Any) -> tuple[Any, Any]:
    return zarr.create_array({}, **options), zarr.create_array({}, **options)


@given(st.data())
def test_the_same_is_stored(data: st.DataObject) -> None:
    dims = data.draw(st.integers(1, 3))
    shape = tuple(data.draw(st.integers(1, 7)) for _ in range(dims))
    chunks = tuple(data.draw(st.integers(1, extent)) for extent in shape)
    dtype = data.draw(st.sampled_from(["bool", "u1", "i4", "f4", "c8"]))
    fill = data.draw(st.sampled_from([0, 1] + [np.nan, -0.0] * (dtype == "f4")))
    ours, plain = two_arrays(shape=shape, chunks=chunks, dtype=dtype, fill_value=fill)
    choices = [fill, fill, fill, 0, 1]
    for _ in range(data.draw(st.integers(1, 3))):
        bounds = [sorted(data.draw(st.tuples(*[st.integers(0, extent)] * 2))) for extent in shape]
        key = tuple(slice(low, high) for low, high in bounds)
        size = int(np.prod([high - low for low, high in bounds]))
        voxels = data.draw(st.lists(st.sampled_from(choices), min_size=size, max_size=size))
        values = np.array(voxels, dtype).reshape([high - low for low, high in bounds])
        write_voxels(ours, key, values)
        plain[key] = values
    assert stored(ours) == stored(plain)


@pytest.mark.parametrize("values", [np.uint8(3), np.full((4, 4), 3)])
def test_what_does_not_cover_the_box_as_it_is_goes_the_plain_way(values: Any) -> None:
    ours, plain = two_arrays(shape=(4, 4), chunks=(2, 2), dtype="u1")
    key = (slice(0, 4), slice(0, 4))
    write_voxels(ours, key, np.asarray(values))
    plain[key] = values
    assert stored(ours) == stored(plain)


def test_shards_go_the_plain_way() -> None:
    ours, plain = two_arrays(shape=(8,), chunks=(2,), shards=(4,), dtype="u1")
    key = (slice(0, 6),)
    values = np.array([1, 1, 0, 0, 0, 0], "u1")
    write_voxels(ours, key, values)
    plain[key] = values
    assert stored(ours) == stored(plain)


def test_chunks_that_are_always_stored_stay_so() -> None:
    ours, plain = two_arrays(shape=(4,), chunks=(2,), dtype="u1", config={"write_empty_chunks": True})
    key, values = (slice(0, 4),), np.zeros(4, "u1")
    write_voxels(ours, key, values)
    plain[key] = values
    assert stored(ours) == stored(plain)
    assert ours.nchunks_initialized == 2


def test_arrays_in_memory_are_written_as_ever() -> None:
    line = np.zeros(4, int)
    write_voxels(line, (slice(1, 3),), np.array([5, 6]))
    assert line.tolist() == [0, 5, 6, 0]


def test_zarr_compares_nothing_where_every_chunk_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    array = zarr.create_array({}, shape=(4,), chunks=(2,), dtype="u1")
    compared: list[Any] = []
    monkeypatch.setattr("zarr.core.buffer.core.NDBuffer.all_equal", lambda self, other: compared.append(other))
    write_voxels(array, (slice(0, 4),), np.array([1, 2, 0, 3], "u1"))
    assert not compared
    write_voxels(array, (slice(0, 4),), np.array([1, 2, 0, 0], "u1"))
    assert compared
