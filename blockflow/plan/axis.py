"""One axis of a grid: which intervals does the block at a position read and write?

A grid is a product of axes, so everything about blocks is asked one axis at a time. Three things ask:
merging, ownership of points, and planning. The first two need no more than these protocols, and do not care how
an axis was cut. Axes that can be planned are a :class:`~blockflow.plan.regular.RegularAxis` or a
:class:`~blockflow.plan.balance.BalancedAxis`: a few integers each, whatever the number of blocks, and every answer
is arithmetic that works for one position and for an array of them alike. This module imports no numpy: workers use
axes, and start faster without.
"""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from blockflow.errors import GeometryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blockflow.plan.slices import Indices

__all__ = ["AxisLike", "GridLike", "PositionT", "Span", "at_least", "at_most", "whole_numbers"]

PositionT = TypeVar("PositionT", int, "Indices")
"""One position, or an array of positions."""


class AxisLike(Protocol):
    """Blocks along one axis, numbered by position from 0; intervals are half-open integers.

    The write intervals follow one another without gap or overlap. Each read interval contains its write
    interval, and neither end of it moves back from one position to the next.
    """

    @property
    def count(self) -> int:
        """Number of blocks, at least 1."""

    def write_begin(self, position: int, /) -> int:
        """Where the write interval begins."""

    def write_end(self, position: int, /) -> int:
        """Where the write interval ends: the next one's begin."""

    def read_begin(self, position: int, /) -> int:
        """Where the read interval begins, not after the write interval."""

    def read_end(self, position: int, /) -> int:
        """Where the read interval ends, not before the write interval."""


class GridLike(Protocol):
    """Blocks in n dimensions: every combination of positions, in C order (last axis fastest)."""

    @property
    def axes(self) -> Sequence[AxisLike]:
        """One for each dimension, at least one."""


class Span(NamedTuple):
    """What one block reads and writes along one axis; half-open integers."""

    read_begin: int
    write_begin: int
    write_end: int
    read_end: int


def at_least(value: PositionT, bound: PositionT | int) -> PositionT:
    """The larger of both, one by one.

    >>> at_least(3, 5), at_least(7, 5)
    (5, 7)
    """
    larger: PositionT = value + (value < bound) * (bound - value)
    return larger


def at_most(value: PositionT, bound: PositionT | int) -> PositionT:
    """The smaller of both, one by one.

    >>> at_most(3, 5), at_most(7, 5)
    (3, 5)
    """
    smaller: PositionT = value - (value > bound) * (value - bound)
    return smaller


def is_number(value: Any) -> bool:
    """Whether this is one number, rather than several: arrays say that they could be an index, too.

    >>> is_number(3), is_number((3, 4))
    (True, False)
    """
    return hasattr(type(value), "__index__") and not getattr(value, "ndim", 0)


def whole_numbers(least: int, **values: int) -> list[int]:
    """The values as plain integers.

    Raises:
        GeometryError: One of them is not a whole number or is less than ``least``; names it.

    >>> whole_numbers(1, size=8, block=4)
    [8, 4]
    """
    for name, value in values.items():
        if isinstance(value, bool) or not is_number(value) or value < least:
            raise GeometryError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return [index(value) for value in values.values()]
