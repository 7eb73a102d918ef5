"""One axis of a grid: which intervals does the block at a position read and write?

A grid is a product of axes, so everything about blocks is asked one axis at a time. Three things ask:
merging, ownership of points, and planning. They need no more than these protocols, and do not care how an
axis was cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["AxisLike", "GridLike"]


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
