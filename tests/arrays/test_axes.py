"""Are attributes read for what they say, and refused when they say nothing usable?"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow.arrays.axes import Axes, attributes_of, with_attributes
from blockflow.errors import ArrayError, MetadataError
from blockflow.geometry import coordinate_of


@given(
    st.none() | st.lists(st.integers(), min_size=2, max_size=2),
    st.none() | st.lists(st.integers(), min_size=2, max_size=2),
    st.none() | st.lists(st.text(), min_size=2, max_size=2),
    st.none() | st.lists(st.text(), min_size=2, max_size=2),
)
def test_what_is_written_is_read(offset: Any, voxel_size: Any, names: Any, units: Any) -> None:
    axes = Axes(
        offset=None if offset is None else coordinate_of(offset, "offset"),
        voxel_size=None if voxel_size is None else coordinate_of(voxel_size, "voxel_size"),
        axis_names=None if names is None else tuple(names),
        units=None if units is None else tuple(units),
    )
    assert with_attributes(Axes(), attributes_of(axes), "x.zarr") == axes


@pytest.mark.parametrize("key", ["voxel_size", "resolution"])
def test_both_names_of_the_voxel_size_are_read(key: str) -> None:
    axes = with_attributes(Axes(), {key: [4.0, 40]}, "x.zarr")
    assert axes == Axes(voxel_size=coordinate_of((4, 40), key))
    assert not axes.located


def test_what_is_known_is_not_looked_at() -> None:
    place = coordinate_of((1, 1), "place")
    known = Axes(offset=place, voxel_size=place, axis_names=("y", "x"), units=("nm", "nm"))
    assert known.located
    attributes = {"offset": None, "voxel_size": [2], "resolution": [3], "axis_names": 1, "units": 2}
    assert with_attributes(known, attributes, "x.zarr") == known


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (
            {"voxel_size": [4, 4], "resolution": [8, 8]},
            "x.zarr/raw: attributes voxel_size (4, 4) and resolution (8, 8) must be the same; "
            "correct one of them or pass voxel_size=",
        ),
        (
            {"resolution": [0.4, 0.4]},
            "x.zarr/raw: attribute resolution must hold whole numbers: axis 0 has 0.4; "
            "pass voxel_size= in whole world units",
        ),
        (
            {"offset": None},
            "x.zarr/raw: attribute offset must be a sequence of integers, got None; pass offset= in whole world units",
        ),
        (
            {"units": "nm"},
            "x.zarr/raw: attribute units must be a list of strings, got 'nm'; pass units=",
        ),
        (
            {"axis_names": ["y", 3]},
            "x.zarr/raw: attribute axis_names must be a list of strings, got ['y', 3]; pass axis_names=",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(MetadataError) as info:
        with_attributes(Axes(), attributes, "x.zarr/raw")
    assert str(info.value) == message
    assert isinstance(info.value, ArrayError)
    assert isinstance(info.value, ValueError)
