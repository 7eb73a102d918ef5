"""Is every value stored as itself, or refused?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from blockflow.arrays.casting import cast
from blockflow.errors import ArrayError, ValueLossError

NUMBERS = ["bool", "int8", "uint8", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"]


def values_of(dtype: str) -> st.SearchStrategy[np.ndarray[Any, Any]]:
    return hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=2, max_side=3))


@given(st.data(), st.sampled_from(NUMBERS), st.sampled_from(NUMBERS))
def test_integers_stay_equal_or_are_refused(data: st.DataObject, source: str, target: str) -> None:
    values, dtype = data.draw(values_of(source)), np.dtype(target)
    as_python = [value.item() for value in values.ravel()]
    try:
        stored = cast(values, dtype, "values")
    except ValueLossError:
        if dtype.kind == "f":
            largest = float(np.finfo(dtype).max)
            held = [abs(value) <= largest and int(dtype.type(value)) == value for value in as_python]
            assert not all(held)
        else:
            low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
            fits = [value == value and low <= value <= high and value == int(value) for value in as_python]
            assert not all(fits)
        return
    assert stored.dtype == dtype
    assert stored.shape == values.shape
    if dtype.kind in "biu":
        assert [value.item() for value in stored.ravel()] == as_python
    else:
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(stored, values.astype(dtype))
        assert np.array_equal(np.isinf(stored), np.isinf(values.astype("float64")))


def test_values_that_have_the_dtype_are_not_copied() -> None:
    values = np.arange(4)
    assert cast(values, values.dtype, "values") is values


def test_empty_arrays_lose_nothing() -> None:
    assert cast(np.zeros((0, 3)), np.dtype("uint8"), "values").dtype == np.uint8


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [
        (
            [3, -1],
            "uint32",
            "values must be from 0 to 4294967295 to be stored as uint32, got -1 to 3; "
            "use a wider dtype or convert them first",
        ),
        (
            [2],
            "bool",
            "values must be from 0 to 1 to be stored as bool, got 2 to 2; use a wider dtype or convert them first",
        ),
        (
            [np.nan, 1.0],
            "int16",
            "values must be from -32768 to 32767 to be stored as int16, got nan to nan; "
            "use a wider dtype or convert them first",
        ),
        (
            [2.0**63],
            "int64",
            "values must be from -9223372036854775808 to 9223372036854775807 to be stored as int64, "
            "got 9.223372036854776e+18 to 9.223372036854776e+18; use a wider dtype or convert them first",
        ),
        (
            [1.0, 2.5, 3.5],
            "uint8",
            "values must be whole numbers to be stored as uint8, got 2.5; round them first",
        ),
        (
            [1e300],
            "float32",
            "values of dtype float64 are too large to be stored as float32; use a wider dtype or scale them first",
        ),
        (
            [70000],
            "float16",
            "values of dtype int64 are too large to be stored as float16; use a wider dtype or scale them first",
        ),
        ([1j], "float64", "values of dtype complex128 cannot be stored as float64; convert them first"),
        (["a"], "uint8", "values of dtype <U1 cannot be stored as uint8; convert them first"),
        ([None], "uint8", "values of dtype object cannot be stored as uint8; convert them first"),
    ],
)
def test_what_is_lost_is_said(values: list[Any], dtype: str, message: str) -> None:
    with pytest.raises(ValueLossError) as info:
        cast(np.array(values), np.dtype(dtype), "values")
    assert str(info.value) == message
    assert isinstance(info.value, ArrayError)
    assert isinstance(info.value, ValueError)


@pytest.mark.parametrize(("values", "dtype"), [([1e300j], "complex64"), ([1e300], "complex64")])
def test_overflow_of_complex_numbers_is_a_loss(values: list[complex], dtype: str) -> None:
    with pytest.raises(ValueLossError, match="too large"):
        cast(np.array(values), np.dtype(dtype), "values")


def test_rounding_and_infinity_are_no_loss_for_floats() -> None:
    stored = cast(np.array([0.1, np.inf, np.nan, 1e-300]), np.dtype("float32"), "values")
    np.testing.assert_array_equal(stored, np.array([np.float32(0.1), np.inf, np.nan, 0], "float32"))
