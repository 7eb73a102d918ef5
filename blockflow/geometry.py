"""The only door to funlib.geometry: which boxes do users and the integer core exchange?

Users speak of :class:`Roi` and :class:`Coordinate` (world units, half-open, integers). The core computes with
:data:`Box`, a plain tuple of ``(begin, end)`` pairs, because one operation on a ``Roi`` costs 10 to 50 µs.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from funlib.geometry import Coordinate, Roi

from blockflow.errors import GeometryError

__all__ = ["Box", "Coordinate", "Roi", "box_of", "coordinate_of", "roi_of"]

Box: TypeAlias = tuple[tuple[int, int], ...]
"""``(begin, end)`` per axis, half-open, in the units of the ROI it came from."""

FARTHEST = 2**53
"""World units from the origin (9000 km in nm): sums of a few such numbers stay in 64 bits, where numpy would wrap
silently, and funlib.geometry divides by way of floats, which are exact up to here."""


def box_of(roi: Any, what: str) -> Box:
    """The integer box of a bounded ROI.

    Args:
        roi: A :class:`Roi` with an offset and a shape on every axis.
        what: The name of the ROI, for messages.

    Raises:
        GeometryError: Not a ROI, or unbounded, or without any extent on an axis, or absurdly far from the origin.

    >>> box_of(Roi((0, 5), (10, 2)), "total_roi")
    ((0, 10), (5, 7))
    """
    if not isinstance(roi, Roi):
        raise GeometryError(f"{what} must be a Roi, got {type(roi).__name__}: {roi!r}")
    if not roi.dims:
        raise GeometryError(f"{what} must have at least one axis, got none")
    box = []
    for axis, (begin, extent) in enumerate(zip(roi.offset, roi.shape, strict=True)):
        place = f"axis {axis} begins at {begin} and measures {extent}"
        if extent is None or (begin is None and extent > 0):
            raise GeometryError(f"{what} must be bounded on every axis: {place}")
        if extent <= 0:
            raise GeometryError(f"{what} must have a positive shape: {place}")
        if begin < -FARTHEST or begin + extent > FARTHEST:
            raise GeometryError(f"{what} must lie within [-2**53, 2**53]: axis {axis} is [{begin}, {begin + extent})")
        box.append((begin, begin + extent))
    return tuple(box)


def roi_of(box: Box) -> Roi:
    """The ROI of an integer box.

    >>> roi_of(((0, 10), (5, 7)))
    [0:10, 5:7] (10, 2)
    """
    return Roi([begin for begin, _ in box], [end - begin for begin, end in box])


def coordinate_of(values: Any, what: str) -> Coordinate:
    """A coordinate from any sequence of integers.

    Raises:
        GeometryError: Not a sequence of whole numbers.

    >>> coordinate_of([4, 40, 40], "voxel_size")
    (4, 40, 40)
    """
    try:
        numbers = list(values)
    except TypeError:
        raise GeometryError(f"{what} must be a sequence of integers, got {values!r}") from None
    for axis, number in enumerate(numbers):
        try:
            whole = not isinstance(number, bool) and int(number) == number
        except (TypeError, ValueError, OverflowError):
            whole = False
        if not whole:
            raise GeometryError(f"{what} must hold whole numbers: axis {axis} has {number!r}")
    return Coordinate(int(number) for number in numbers)
