"""Do chunks divide what blocks write, and are they of a sensible size?"""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow.arrays.chunking import CHUNK_BYTES, INNER_CHUNK_BYTES, chunks_of, shrunk
from blockflow.errors import GeometryError
from blockflow.geometry import coordinate_of


@given(
    st.lists(st.integers(1, 3000), min_size=1, max_size=4),
    st.sampled_from([1, 4, 16]),
    st.integers(16, 10**6),
)
def test_chunks_divide_the_extent_and_stay_under_the_limit(extent: list[int], itemsize: int, limit: int) -> None:
    chunk = shrunk(tuple(extent), itemsize, limit)
    assert all(n % c == 0 for n, c in zip(extent, chunk, strict=True))
    assert math.prod(chunk) * itemsize <= limit
    if math.prod(extent) * itemsize <= limit:
        assert chunk == tuple(extent)


@given(st.lists(st.integers(0, 14), min_size=1, max_size=4), st.integers(4, 24))
def test_chunks_of_powers_of_two_fill_the_limit_by_half(exponents: list[int], limit: int) -> None:
    extent = tuple(2**exponent for exponent in exponents)
    chunk = shrunk(extent, 1, 2**limit)
    assert math.prod(chunk) == min(2**limit, math.prod(extent))


@pytest.mark.parametrize(
    ("shape", "itemsize", "voxel_size", "arguments", "expected"),
    [
        # the tutorial: three channels, blocks of 64 x 64
        ((3, 512, 512), 4, (1, 1), {"write_size": (64, 64)}, ((3, 64, 64), None)),
        # voxels, not world units
        ((512, 512), 4, (4, 8), {"write_size": (64, 64)}, ((16, 8), None)),
        # large blocks are cut: 512^3 bytes into 128 MiB / 16
        ((2048,) * 3, 1, (1,) * 3, {"write_size": (512,) * 3}, ((128, 256, 256), None)),
        # blocks that are larger than the array
        ((10, 10), 1, (1, 1), {"write_size": (64, 64)}, ((64, 64), None)),
        # no blocks: powers of two, or the whole array
        ((5000, 5000), 2, (1, 1), {}, ((2048, 2048), None)),
        ((3, 50, 60), 8, (1, 1), {}, ((3, 50, 60), None)),
        # given chunks need not be what would be chosen
        ((512, 512), 4, (1, 1), {"write_size": (64, 64), "chunks": (32, 16)}, ((32, 16), None)),
        ((512, 512), 4, (1, 1), {"chunks": (100, 16)}, ((100, 16), None)),
        # shards
        (
            (512,) * 3,
            1,
            (1,) * 3,
            {"write_size": (256,) * 3, "shards": (256,) * 3},
            ((64, 128, 128), (256,) * 3),
        ),
        ((8, 8), 1, (1, 1), {"shards": (4, 4), "chunks": (2, 4)}, ((2, 4), (4, 4))),
    ],
)
def test_choices(shape: Any, itemsize: int, voxel_size: Any, arguments: dict[str, Any], expected: Any) -> None:
    assert chunks_of(shape, itemsize, coordinate_of(voxel_size, "voxel_size"), **arguments) == expected


def test_limits_are_those_of_the_documentation() -> None:
    assert (CHUNK_BYTES, INNER_CHUNK_BYTES) == (8 * 1024**2, 1024**2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"write_size": (64, 66)},
            "write_size must be a multiple of the voxel size (4, 4): axis 1 has 66; nearest that fits: 64 or 68",
        ),
        (
            {"write_size": (2, 64)},
            "write_size must be a multiple of the voxel size (4, 4): axis 0 has 2; nearest that fits: 4",
        ),
        ({"write_size": (64,)}, "write_size must have 2 numbers, one for each axis, got (64,)"),
        ({"write_size": (64, 0)}, "write_size must be positive: axis 1 has 0"),
        ({"write_size": 64}, "write_size must be a sequence of integers, got 64"),
        ({"chunks": (16, 16)}, "chunks must have 3 numbers, one for each axis, got (16, 16)"),
        ({"chunks": (1, -16, 16)}, "chunks must be positive: axis 1 has -16"),
        (
            {"write_size": (64, 64), "chunks": (2, 16, 10)},
            "write_size must be a multiple of the chunk, or two blocks share one: axis 1 has 64 and chunks "
            "of 40 world units (10 voxels); nearest that fits: 40 or 80",
        ),
        (
            {"write_size": (96, 64), "shards": (2, 16, 16)},
            "write_size must be a multiple of the shard, or two blocks share one: axis 0 has 96 and shards "
            "of 64 world units (16 voxels); nearest that fits: 64 or 128",
        ),
        (
            {"chunks": (1, 16, 16), "shards": (2, 16, 24)},
            "shards must be multiples of the chunks: axis 2 has 24 and 16",
        ),
    ],
)
def test_what_does_not_divide_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(GeometryError) as info:
        chunks_of((2, 128, 128), 1, coordinate_of((4, 4), "voxel_size"), **arguments)
    assert str(info.value) == message
