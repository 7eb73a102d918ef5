"""Which ROIs and coordinates come through the door to funlib.geometry, and as what?"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow.errors import GeometryError, PlanError
from blockflow.geometry import Coordinate, Roi, box_of, coordinate_of, roi_of

LIMIT = 2**53

INTERVALS = st.tuples(st.integers(-LIMIT, LIMIT), st.integers(-LIMIT, LIMIT)).filter(lambda ends: ends[0] < ends[1])


@given(st.lists(INTERVALS, min_size=1, max_size=6).map(tuple))
def test_boxes_and_rois_are_one_thing(box: tuple[tuple[int, int], ...]) -> None:
    assert box_of(roi_of(box), "roi") == box
    assert box_of(Roi([a for a, _ in box], [b - a for a, b in box]), "roi") == box


def test_numpy_integers_become_python_integers() -> None:
    box = box_of(Roi(np.array([1, 2], dtype=np.uint8), np.array([3, 4], dtype=np.int16)), "roi")
    assert box == ((1, 4), (2, 6))
    assert {type(end) for ends in box for end in ends} == {int}
    assert [type(number) for number in coordinate_of(np.array([4, 40]), "voxel_size")] == [int, int]


@pytest.mark.parametrize(
    ("roi", "message"),
    [
        (((0, 1), (2, 3)), r"^total_roi must be a Roi, got tuple: \(\(0, 1\), \(2, 3\)\)$"),
        (None, r"^total_roi must be a Roi, got NoneType: None$"),
        (Roi((0, 0), (5, None)), r"^total_roi must be bounded on every axis: axis 1 begins at None and measures None$"),
        (Roi((0, None), (5, 5)), r"^total_roi must be bounded on every axis: axis 1 begins at None and measures 5$"),
        (Roi((), ()), r"^total_roi must have at least one axis, got none$"),
        (Roi((0, 0), (5, 0)), r"^total_roi must have a positive shape: axis 1 begins at 0 and measures 0$"),
        (Roi((0, 3), (5, -2)), r"^total_roi must have a positive shape: axis 1 begins at 3 and measures -2$"),
        (
            Roi((0, 0), (5, 5)).intersect(Roi((9, 9), (5, 5))),
            r"^total_roi must have a positive shape: axis 0 begins at None and measures 0$",
        ),
        (Roi((0,), (LIMIT + 1,)), rf"^total_roi must lie within \[-2\*\*53, 2\*\*53\]: axis 0 is \[0, {LIMIT + 1}\)$"),
        (
            Roi((-LIMIT - 1,), (5,)),
            rf"must lie within \[-2\*\*53, 2\*\*53\]: axis 0 is \[-{LIMIT + 1}, -{LIMIT - 4}\)$",
        ),
    ],
)
def test_rois_that_are_no_box_are_refused(roi: object, message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        box_of(roi, "total_roi")


@pytest.mark.parametrize(
    "values",
    [(4, 40), [4, 40], Coordinate(4, 40), np.array([4.0, 40.0]), (Fraction(4), Decimal(40)), iter((4, 40))],
)
def test_any_sequence_of_whole_numbers_is_a_coordinate(values: object) -> None:
    coordinate = coordinate_of(values, "voxel_size")
    assert coordinate == Coordinate(4, 40)
    assert isinstance(coordinate, Coordinate)


@pytest.mark.parametrize("value", [4, None, 4.5, np.array(4)])
def test_a_single_number_is_no_coordinate(value: object) -> None:
    with pytest.raises(GeometryError, match=r"^voxel_size must be a sequence of integers, got "):
        coordinate_of(value, "voxel_size")


@pytest.mark.parametrize(
    "value",
    [0.5, float("nan"), float("inf"), -float("inf"), "4", None, 4j, True, [4], Decimal("NaN"), Decimal("Infinity")],
    ids=repr,
)
def test_what_is_no_whole_number_is_refused(value: object) -> None:
    with pytest.raises(GeometryError, match=r"^voxel_size must hold whole numbers: axis 1 has "):
        coordinate_of([4, value], "voxel_size")


def test_geometry_errors_are_plan_errors_and_value_errors() -> None:
    assert issubclass(GeometryError, PlanError)
    assert issubclass(GeometryError, ValueError)
