"""Arguments of grids: what does one number mean that stands for several axes, and which axes are meant?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockflow.errors import GeometryError
from blockflow.plan.axis import is_number, whole_numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def per_axis(name: str, value: Any, dims: int) -> list[Any]:
    """One value for each axis, from one for all of them or from a sequence.

    Raises:
        GeometryError: The sequence has another length.

    >>> per_axis("block", 8, dims=3), per_axis("block", (8, None), dims=2)
    ([8, 8, 8], [8, None])
    """
    if value is None or is_number(value) or not hasattr(value, "__len__"):
        return [value] * dims
    values = list(value)
    if len(values) != dims:
        raise GeometryError(f"{name} must be one value, or one for each of {dims} axes, got {len(values)}: {value!r}")
    return values


def contexts_per_axis(context: Any, dims: int) -> list[tuple[int, int]]:
    """``(before, after)`` for each axis.

    Raises:
        GeometryError: Neither a number nor a pair stands for an axis.

    >>> contexts_per_axis((1, (0, 2)), dims=2)
    [(1, 1), (0, 2)]
    """
    pairs = []
    for axis, both in enumerate(per_axis("context", context, dims)):
        sides = [both, both] if is_number(both) or not hasattr(both, "__len__") else list(both)
        if len(sides) != 2:
            raise GeometryError(f"context of an axis is one number or (before, after): axis {axis} has {both!r}")
        before, after = whole_numbers(
            0, **{f"context of axis {axis}": sides[0], f"context behind axis {axis}": sides[1]}
        )
        pairs.append((before, after))
    return pairs


def cut_axes(axes: Sequence[int] | int | None, dims: int) -> list[int]:
    """The axes to cut, in the order given.

    Raises:
        GeometryError: An axis that is not there, or is there twice.

    >>> cut_axes(None, dims=3), cut_axes([2, 1], dims=3), cut_axes(0, dims=3)
    ([0, 1, 2], [2, 1], [0])
    """
    if axes is None:
        return list(range(dims))
    given: list[Any] = [axes] if is_number(axes) else list(axes)  # type: ignore[arg-type]
    for axis in given:
        if not hasattr(type(axis), "__index__") or not 0 <= axis < dims or given.count(axis) > 1:
            raise GeometryError(f"axes must be different numbers from 0 to {dims - 1}, got {axes!r}")
    return [int(axis) for axis in given]


def shape_of(
    shape: Iterable[int], offset: Iterable[int] | None, voxel_size: Iterable[int] | None
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Shape in voxels, offset and voxel size in world units, as plain integers.

    Raises:
        GeometryError: Not whole numbers, or not equally many; an axis without extent, or without voxels.

    >>> shape_of((10, 20), None, (4, 1))
    ((10, 20), (0, 0), (4, 1))
    """
    from blockflow.geometry import FARTHEST, coordinate_of  # workers use grids, and do not need ROIs for that

    extents = tuple(coordinate_of(shape, "shape"))
    if not extents:
        raise GeometryError("shape must have at least one axis, got none")
    found = [extents]
    for name, values, default in (("offset", offset, 0), ("voxel_size", voxel_size, 1)):
        numbers = (default,) * len(extents) if values is None else tuple(coordinate_of(values, name))
        if len(numbers) != len(extents):
            raise GeometryError(f"{name} must have one number for each of {len(extents)} axes, got {numbers}")
        found.append(numbers)
    for name, numbers in (("shape", found[0]), ("voxel_size", found[2])):
        for axis, number in enumerate(numbers):
            if number < 1:
                raise GeometryError(f"{name} must be positive: axis {axis} has {number}")
    for axis, (extent, begin, size) in enumerate(zip(*found, strict=True)):
        if begin < -FARTHEST or begin + extent * size > FARTHEST:
            raise GeometryError(
                f"the array must lie within [-2**53, 2**53]: axis {axis} is [{begin}, {begin + extent * size})"
            )
    return found[0], found[1], found[2]
