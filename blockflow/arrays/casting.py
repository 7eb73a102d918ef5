"""Casting: can these values be stored in that dtype without changing what they say?

1. A cast that numpy calls safe is done without looking at the values, but for 64-bit integers into floats.
2. Into integers and booleans: every value must be in range, and whole.
3. Into floats: integers must be held exactly, as they may be labels. Floats are rounded to the nearest, which is what
   floats are; overflow to infinity is a loss.
4. Everything else (complex to real, text, objects) is refused.

Steps 2 and 3 look at each value once (minimum, maximum, overflow flag), about the time of the cast itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from blockflow.errors import ValueLossError


def cast(values: np.ndarray[Any, Any], dtype: np.dtype[Any], what: str) -> np.ndarray[Any, Any]:
    """The values in another dtype, refused if any of them would be lost.

    Args:
        values: Any shape. Returned as it is if it has the dtype already.
        dtype: What to store.
        what: The name of the values, for messages.

    Raises:
        ValueLossError: Out of range, a fraction or NaN into integers, or a kind that does not convert.

    >>> cast(np.array([1.0, 2.0]), np.dtype("uint8"), "values")
    array([1, 2], dtype=uint8)
    >>> cast(np.array([1.5]), np.dtype("uint8"), "values")
    Traceback (most recent call last):
    blockflow.errors.ValueLossError: values must be whole numbers to be stored as uint8, got 1.5; ...
    """
    source, target = values.dtype.kind, dtype.kind
    if source in "iu" and target in "fc":
        return _integers_to_floats(values, dtype, what)
    if np.can_cast(values.dtype, dtype, "safe"):
        return values.astype(dtype, copy=False)
    if source in "biuf" and target in "biu":
        return _to_integers(values, dtype, what)
    if (source in "biuf" and target in "fc") or source + target == "cc":
        return _to_floats(values, dtype, what)
    raise ValueLossError(f"{what} of dtype {values.dtype} cannot be stored as {dtype}; convert them first")


def cast_scalar(value: Any, dtype: np.dtype[Any], what: str) -> Any:
    """One value in another dtype, refused if it would be lost.

    Raises:
        ValueLossError: As for :func:`cast`, or more than one value.

    >>> cast_scalar(7.0, np.dtype("uint8"), "fill_value").dtype
    dtype('uint8')
    """
    values = np.asarray(value)
    if values.ndim:
        raise ValueLossError(f"{what} must be a single value, got an array of shape {values.shape}")
    return cast(values, dtype, what)[()]


def _to_integers(values: np.ndarray[Any, Any], dtype: np.dtype[Any], what: str) -> np.ndarray[Any, Any]:
    if values.size == 0:
        return values.astype(dtype)
    low, high = (0, 1) if dtype.kind == "b" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    smallest, largest = values.min().item(), values.max().item()
    if not (low <= smallest and largest <= high):  # not: NaN compares false
        raise ValueLossError(
            f"{what} must be from {low} to {high} to be stored as {dtype}, "
            f"got {smallest} to {largest}; use a wider dtype or convert them first"
        )
    result = values.astype(dtype)
    if values.dtype.kind == "f":
        changed = result != values
        if changed.any():
            raise ValueLossError(
                f"{what} must be whole numbers to be stored as {dtype}, "
                f"got {values[changed][0].item()}; round them first"
            )
    return result


def _integers_to_floats(values: np.ndarray[Any, Any], dtype: np.dtype[Any], what: str) -> np.ndarray[Any, Any]:
    """Integers as floats, each of them exactly."""
    exact = 2 ** (np.finfo(dtype).nmant + 1)
    bounds = np.iinfo(values.dtype)
    if -exact <= bounds.min and bounds.max <= exact:
        return _to_floats(values, dtype, what)
    largest = max(abs(int(values.min())), abs(int(values.max()))) if values.size else 0
    result = _to_floats(values, dtype, what)
    if largest <= exact:
        return result
    back = result.real if dtype.kind == "c" else result
    changed = ~_are(back, values)
    if changed.any():
        value = values[changed][0]
        raise ValueLossError(
            f"{what} of dtype {values.dtype} must be numbers that {dtype} holds exactly, got {value.item()}, which "
            f"would become {int(back[changed][0])}; use an integer dtype, or convert them first"
        )
    return result


def _are(floats: np.ndarray[Any, Any], integers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Whether floats are the integers they were made of; numpy would compare both as floats."""
    whole = np.dtype(np.uint64 if integers.dtype.kind == "u" else np.int64)
    inside = floats.astype(np.float64) < float(int(np.iinfo(whole).max) + 1)  # rounded up, one may be beyond all
    same: np.ndarray[Any, Any] = inside & (np.where(inside, floats, 0).astype(whole) == integers)
    return same


def _to_floats(values: np.ndarray[Any, Any], dtype: np.dtype[Any], what: str) -> np.ndarray[Any, Any]:
    try:
        with np.errstate(over="raise", under="ignore"):
            return values.astype(dtype)
    except FloatingPointError:
        raise ValueLossError(
            f"{what} of dtype {values.dtype} are too large to be stored as {dtype}; "
            "use a wider dtype or scale them first"
        ) from None
