from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from blockflow.ops import duplicates
from blockflow.ops.duplicates import first_of_each

Points = np.ndarray[Any, np.dtype[np.float64]]


def brute_force(points: Points, tolerances: Points, blocks: np.ndarray[Any, Any] | None) -> list[int]:
    first: list[int] = []
    for i, point in enumerate(points):
        for j in range(i):
            allowed = blocks is None or blocks[i] != blocks[j]
            if first[j] == j and allowed and (np.abs(point - points[j]) <= tolerances).all():
                first.append(j)
                break
        else:
            first.append(i)
    return first


@st.composite
def cases(draw: st.DrawFn) -> tuple[Points, Points, np.ndarray[Any, Any] | None]:
    axes = draw(st.integers(1, 5))
    rows = draw(st.integers(0, 30))
    values = draw(
        st.sampled_from(
            [
                st.integers(-4, 4).map(float),
                st.floats(-3, 3, width=16),
                st.floats(-(2.0**53), 2.0**53, allow_subnormal=False),
                st.integers(0, 20).map(lambda n: n * 0.1),  # distances that rounding makes more or less than 0.1
            ]
        )
    )
    tolerance = st.sampled_from([0.0, 5e-324, 0.1, 0.5, 1.0, 2.5, 1e18])
    points = draw(hnp.arrays(float, (rows, axes), elements=values))
    tolerances = draw(hnp.arrays(float, (axes,), elements=tolerance))
    blocks = draw(st.none() | hnp.arrays(np.intp, (rows,), elements=st.integers(0, 3)))
    return points, tolerances, blocks


@given(case=cases(), sources=st.sampled_from([1, 3, 2**16]), candidates=st.sampled_from([1, 4, 2**20]))
@example(case=(np.zeros((9, 2)), np.ones(2), None), sources=3, candidates=4)
def test_equals_brute_force_in_batches_of_any_size(case: Any, sources: int, candidates: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "SOURCES", sources)
        patch.setattr(duplicates, "CANDIDATES", candidates)
        assert first_of_each(*case).tolist() == brute_force(*case)


def test_a_crowd_is_dropped_by_its_first() -> None:
    points = np.random.default_rng(0).uniform(0, 1, (50_000, 3))
    first = first_of_each(points, np.ones(3))
    assert not first.any()


def test_more_cells_than_fit_into_a_number() -> None:
    points = np.random.default_rng(0).uniform(0, 2.0**52, (2000, 4))
    points[1000:] = points[:1000]
    expected = np.tile(np.arange(1000), 2)
    np.testing.assert_array_equal(first_of_each(points, np.full(4, 1e-3)), expected)
