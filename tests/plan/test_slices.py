"""Do batches of n-D slices list the blocks that they stand for?"""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from blockflow.plan.slices import Slices, positions_of

SHAPES = st.lists(st.integers(1, 6), min_size=1, max_size=6).map(tuple)


@st.composite
def members(draw: st.DrawFn, shape: tuple[int, ...], steps: tuple[int, ...]) -> list[tuple[int, int]]:
    """Start and count per axis of one product that lies in a grid; a count may be 0."""
    ranges = []
    for extent, step in zip(shape, steps, strict=True):
        start = draw(st.integers(0, extent - 1))
        ranges.append((start, draw(st.integers(0, 1 + (extent - 1 - start) // step))))
    return ranges


@given(st.data())
def test_flat_equals_the_product_of_ranges(data: st.DataObject) -> None:
    shape = data.draw(SHAPES.filter(lambda shape: prod(shape) <= 2000))
    steps = data.draw(st.tuples(*(st.integers(1, 3) for _ in shape)))
    batch = data.draw(st.lists(members(shape, steps), max_size=5))
    columns = [
        np.array([member[axis] for member in batch], dtype=np.int64).reshape(-1, 2) for axis in range(len(shape))
    ]
    slices = Slices(
        starts=tuple(column[:, 0] for column in columns), counts=tuple(column[:, 1] for column in columns), steps=steps
    )
    expected = [
        [
            int(np.ravel_multi_index(position, shape))
            for position in product(
                *(range(start, start + step * count, step) for (start, count), step in zip(member, steps, strict=True))
            )
        ]
        for member in batch
    ]
    assert slices.sizes().tolist() == [len(indices) for indices in expected]
    assert slices.flat(shape).tolist() == [index for indices in expected for index in indices]
    assert slices.flat(shape).dtype == np.int64


@given(SHAPES, st.data())
def test_positions_are_those_of_numpy(shape: tuple[int, ...], data: st.DataObject) -> None:
    indices = np.array(data.draw(st.lists(st.integers(0, prod(shape) - 1))), dtype=np.int64)
    expected = [list(axis) for axis in np.unravel_index(indices, shape)]
    assert [axis.tolist() for axis in positions_of(indices, shape)] == expected
