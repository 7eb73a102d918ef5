"""Does a ROI mean the voxels it covers, and nothing when it does not lie on the grid?"""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow.arrays.grid import grid_of, voxels_of
from blockflow.errors import GeometryError
from blockflow.geometry import Coordinate, Roi, coordinate_of


@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.integers(-40, 40), st.integers(-60, 60), st.integers(1, 60)),
        min_size=1,
        max_size=3,
    )
)
def test_voxels_are_those_that_lie_in_the_roi(axes: list[tuple[int, int, int, int]]) -> None:
    sizes, offset, begin, extent = ([axis[i] for axis in axes] for i in range(4))
    roi = Roi(begin, extent)
    candidates = range(-170, 171)
    inside = [
        [i for i in candidates if b <= o + i * s and o + (i + 1) * s <= b + n]
        for s, o, b, n in zip(sizes, offset, begin, extent, strict=True)
    ]
    exact = all(
        len(voxels) * s == n and o + voxels[0] * s == b
        for voxels, s, o, b, n in zip(inside, sizes, offset, begin, extent, strict=True)
        if voxels
    ) and all(inside)
    grid = coordinate_of(offset, "offset"), coordinate_of(sizes, "voxel_size")
    if exact:
        assert voxels_of(roi, *grid) == tuple((voxels[0], voxels[-1] + 1) for voxels in inside)
        return
    with pytest.raises(GeometryError) as info:
        voxels_of(roi, *grid)
    nearest = re.search(r"the nearest ROI around it is \[(.*?)\]", str(info.value))
    assert nearest is not None
    for text, s, o, b, n in zip(nearest[1].split(", "), sizes, offset, begin, extent, strict=True):
        low, high = map(int, text.split(":"))
        assert (low - o) % s == (high - o) % s == 0
        assert low <= b < low + s
        assert high - s < b + n <= high


@pytest.mark.parametrize(
    ("roi", "message"),
    [
        (
            Roi((8, 18), (8, 8)),
            "roi must lie on the voxel grid (offset (0, 20), voxel size (4, 4)): axis 1 has [18, 26); "
            "the nearest ROI around it is [8:16, 16:28] (8, 12)",
        ),
        (Roi((0,), (4,)), "roi must have 2 axes like the array, got 1: [0:4] (4)"),
        (Roi((0, 0), (4, 0)), "roi must have a positive shape, got [empty ROI]"),
        (Roi((None, None), (0, 0)), "roi must have a positive shape, got [empty ROI]"),
        (Roi((None, 0), (None, 4)), "roi must be bounded on every axis: axis 0 begins at None and measures None"),
        ((0, 4), "roi must be a Roi, got tuple: (0, 4)"),
    ],
)
def test_what_is_no_roi_of_voxels_is_refused(roi: Any, message: str) -> None:
    with pytest.raises(GeometryError) as info:
        voxels_of(roi, coordinate_of((0, 20), "offset"), coordinate_of((4, 4), "voxel_size"))
    assert str(info.value) == message


@pytest.mark.parametrize(
    ("offset", "voxel_size", "expected"),
    [
        (None, None, ((0, 0, 0), (1, 1, 1))),
        ((-3, 5), None, ((-3, 5), (1, 1))),
        (None, (4,), ((0,), (4,))),
        ([1.0], [2.0], ((1,), (2,))),
    ],
)
def test_what_is_not_given_is_zero_or_one(offset: Any, voxel_size: Any, expected: Any) -> None:
    grid = grid_of(offset, voxel_size, (2, 3, 4))
    assert grid == expected
    assert all(isinstance(value, Coordinate) for value in grid)


@pytest.mark.parametrize(
    ("offset", "voxel_size", "shape", "message"),
    [
        ((0, 0), (1,), (2, 2), "offset and voxel_size must have as many axes: got (0, 0) and (1,)"),
        (
            None,
            (1,) * 3,
            (2, 2),
            "voxel_size must have one axis or more, at most those of (2, 2): got (1, 1, 1)",
        ),
        (None, (), (2, 2), "voxel_size must have one axis or more, at most those of (2, 2): got ()"),
        (None, None, (), "voxel_size must have one axis or more, at most those of (): got ()"),
        (None, (1, 0), (2, 2), "voxel_size must be positive: axis 1 has 0"),
        (None, (1, -4), (2, 2), "voxel_size must be positive: axis 1 has -4"),
        (None, (0.4, 0.4), (2, 2), "voxel_size must hold whole numbers: axis 0 has 0.4"),
        (5, None, (2, 2), "offset must be a sequence of integers, got 5"),
        (None, (1, 1), (2, 0, 2), "data must have voxels: spatial axis 0 of shape (2, 0, 2) is empty"),
    ],
)
def test_what_does_not_fit_is_refused(offset: Any, voxel_size: Any, shape: Any, message: str) -> None:
    with pytest.raises(GeometryError) as info:
        grid_of(offset, voxel_size, shape)
    assert str(info.value) == message
