"""Is a region grown to the smallest set of whole blocks that holds it?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow import Roi, expand_roi_to_grid, expand_write_roi_to_grid
from blockflow.errors import GeometryError


@given(
    begin=st.integers(-30, 30),
    extent=st.integers(1, 30),
    step=st.integers(1, 9),
    context=st.integers(0, 9),
    total=st.integers(-9, 9),
)
def test_the_result_is_the_smallest_run_of_blocks_that_holds_the_region(
    begin: int, extent: int, step: int, context: int, total: int
) -> None:
    region = Roi((begin,), (extent,))
    read, write = Roi((0,), (step + context,)), Roi((context,), (step,))
    grown = expand_roi_to_grid(region, Roi((total,), (100,)), read, write)
    assert grown.contains(region)
    assert (grown.begin[0] - total - context) % step == 0
    assert grown.shape[0] % step == 0
    assert begin - grown.begin[0] < step
    assert grown.end[0] - (begin + extent) < step
    assert expand_write_roi_to_grid(region, write) == expand_roi_to_grid(region, Roi((-context,), (100,)), read, write)


def test_regions_of_other_axes_are_refused() -> None:
    one, two = Roi((0,), (5,)), Roi((0, 0), (5, 5))
    with pytest.raises(GeometryError, match="the region has 2 axes, write_roi has 1"):
        expand_write_roi_to_grid(two, one)
    with pytest.raises(GeometryError, match="must have the same number of axes, got 1, 2 and 1"):
        expand_roi_to_grid(one, one, two, one)
