"""Is a window of an array the same as a view of it?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from blockflow.arrays.window import Window, writable
from blockflow.errors import ArrayError


@given(st.data(), hnp.array_shapes(min_dims=1, max_dims=3, max_side=6))
def test_indexing_equals_indexing_a_view(data: st.DataObject, shape: tuple[int, ...]) -> None:
    source = np.arange(np.prod(shape)).reshape(shape)
    cut = tuple(slice(begin := data.draw(st.integers(0, n - 1)), data.draw(st.integers(begin + 1, n))) for n in shape)
    window = Window(source, tuple(range(s.start, s.stop) for s in cut))
    view = source[cut]
    assert (window.shape, window.dtype) == (view.shape, view.dtype)
    key = data.draw(hnp.basic_indices(view.shape, allow_newaxis=False))
    steps = [item.step for item in (key if isinstance(key, tuple) else (key,)) if isinstance(item, slice)]
    if any(step is not None and step < 0 for step in steps):
        with pytest.raises(ArrayError, match=r"^slices must have a positive step, got -\d+$"):
            window[key]
        return
    np.testing.assert_array_equal(window[key], view[key])
    expected = source.copy()
    expected[cut][key] = -1
    window[key] = -1
    np.testing.assert_array_equal(source, expected)


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        (
            np.array([1]),
            ArrayError,
            "a part of an array on disk takes integers, slices and '...' as an index, got ndarray; "
            "read it with to_ndarray() first",
        ),
        (
            None,
            ArrayError,
            "a part of an array on disk takes integers, slices and '...' as an index, got NoneType; "
            "read it with to_ndarray() first",
        ),
        ((0, 0, 0), IndexError, "too many indices: the array has 2 axes, got 3"),
        (7, IndexError, "range object index out of range"),
    ],
)
def test_other_indices_are_refused(key: Any, error: type[Exception], message: str) -> None:
    window = Window(np.zeros((4, 4)), (range(1, 3), range(4)))
    with pytest.raises(error) as info:
        window[key]
    assert str(info.value) == message


def test_a_window_takes_writes_if_its_source_does() -> None:
    data = np.zeros(4)
    assert writable(Window(data, (range(2),)))
    data.flags.writeable = False
    assert not writable(Window(data, (range(2),)))
