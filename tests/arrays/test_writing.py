"""Writing: is the same stored as zarr stores by itself?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.buffer import default_buffer_prototype

from blockflow.arrays.store_calls import wait_for
from blockflow.arrays.writing import stops_at_first_difference, write_voxels


def stored(array: Any) -> dict[str, bytes]:
    """What the files of an array hold."""

    async def read() -> dict[str, bytes]:
        prototype = default_buffer_prototype()
        found = {key: await array.store.get(key, prototype) async for key in array.store.list()}
        return {key: buffer.to_bytes() for key, buffer in found.items()}

    return wait_for(read())


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


@pytest.mark.parametrize(
    ("version", "stops"),
    [
        ("3.1.6", 0),
        ("3.4.0", 0),
        ("3.4", 0),
        ("3.4.1", 1),
        ("3.4.1.dev3", 1),
        ("3.10.0", 1),
        ("4.0", 1),
        ("?", 1),
    ],
)
def test_newer_releases_of_zarr_need_no_help(version: str, stops: int) -> None:
    assert stops_at_first_difference(version) is bool(stops)


class Watched:
    """An array of zarr, and what it was told about empty chunks when something was written."""

    def __init__(self) -> None:
        self.array: Any = zarr.create_array({}, shape=(4,), chunks=(2,), dtype="u1")
        self.told: list[bool] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.array, name)

    def with_config(self, config: Any) -> Any:
        self.told.append(config["write_empty_chunks"])
        return self.array.with_config(config)

    def __setitem__(self, key: Any, values: Any) -> None:
        self.array[key] = values


def test_older_releases_are_told_where_every_chunk_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched()
    monkeypatch.setattr(zarr, "__version__", "3.1.6")
    write_voxels(watched, (slice(0, 4),), np.array([1, 2, 0, 3], "u1"))
    assert watched.told == [True]
    write_voxels(watched, (slice(0, 4),), np.array([1, 2, 0, 0], "u1"))
    assert watched.told == [True], "zarr has to look for itself"
    assert watched.array[:].tolist() == [1, 2, 0, 0]
    monkeypatch.setattr(zarr, "__version__", "3.4.2")
    write_voxels(watched, (slice(0, 4),), np.array([1, 2, 0, 3], "u1"))
    assert watched.told == [True]


@pytest.mark.parametrize("version", ["3.1.6", "3.4.2"])
@given(st.lists(st.sampled_from([0, 1]), min_size=6, max_size=6))
def test_whatever_the_release_the_same_is_stored(version: str, voxels: list[int]) -> None:
    ours, plain = two_arrays(shape=(6,), chunks=(2,), dtype="f4")
    values = np.array(voxels, "f4")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zarr, "__version__", version)
        write_voxels(ours, (slice(0, 6),), values)
    plain[:] = values
    assert stored(ours) == stored(plain)
