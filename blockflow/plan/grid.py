"""The grid of a task: where does each block read and write, and how is it called?

A grid is a product of axes. One axis is cut into consecutive write intervals; the read interval of a position is
its write interval grown by the context. Blocks are numbered in C order (`index`), or by their n-D `position`, or
by their `number` (see :mod:`blockflow.plan.ids`). Every answer is integer arithmetic on one block; nothing is
proportional to the number of blocks. This module imports no numpy: workers use it, and start faster without.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar, get_args

from blockflow.errors import GeometryError
from blockflow.plan.ids import pair, unpair

if TYPE_CHECKING:
    from blockflow.geometry import Box
    from blockflow.plan.slices import Indices

PositionT = TypeVar("PositionT", int, "Indices")
"""One position, or an array of positions."""

Fit: TypeAlias = Literal["valid", "overhang", "shrink"]
"""What happens to blocks that do not fit: dropped, kept whole, or cut."""

FITS: tuple[Fit, ...] = get_args(Fit)

_MOST_BLOCKS = 2**63 - 1
"""Indices are 64-bit integers in numpy, which would wrap silently."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegularAxis:
    """One axis cut into write intervals of equal extent, in world units; the last may be shorter."""

    first: int
    """Where the write interval of position 0 begins."""
    step: int
    """Extent of a whole write interval."""
    count: int
    """Number of positions."""
    before: int
    """Context in front of a write interval."""
    after: int
    """Context behind a write interval."""
    overshoot: int = 0
    """How much the last write interval is shorter than the others."""
    shift: int = 0
    """Position 0 is number `shift` where block ids are computed: whole write intervals in front of it."""

    def write_begin(self, position: PositionT) -> PositionT:
        """Where the write interval begins."""
        return self.first + position * self.step

    def write_end(self, position: PositionT) -> PositionT:
        """Where the write interval ends (not included)."""
        last = position == self.count - 1
        end: PositionT = self.first + (position + 1) * self.step - last * self.overshoot
        return end

    def read_begin(self, position: PositionT) -> PositionT:
        """Where the read interval begins."""
        return self.write_begin(position) - self.before

    def read_end(self, position: PositionT) -> PositionT:
        """Where the read interval ends (not included)."""
        return self.write_end(position) + self.after

    @property
    def conflict_distance(self) -> int:
        """Smallest distance at which two positions can no longer conflict.

        The write interval of position i + d begins at d * step behind that of i, and meets the read interval of
        i while d * step < step + after; the same holds to the left with `before`.
        """
        return 1 + -(-max(self.before, self.after) // self.step)


@dataclass(frozen=True, slots=True)
class Grid:
    """The blocks of one task, as a lazy n-D array of read and write boxes.

    >>> grid = tile(total=((0, 10), (0, 10)), read=((0, 4), (0, 4)), write=((1, 3), (1, 3)), fit="valid")
    >>> grid.shape, grid.size
    ((4, 4), 16)
    >>> grid.write_box(5), grid.read_box(5)
    (((3, 5), (3, 5)), ((2, 6), (2, 6)))
    >>> grid.position(5), grid.number(5), grid.index_of_number(4)
    ((1, 1), 4, 5)
    """

    axes: tuple[RegularAxis, ...]
    shape: tuple[int, ...] = field(init=False)
    """Number of positions per axis."""
    size: int = field(init=False)
    """Number of blocks."""

    def __post_init__(self) -> None:
        shape = tuple(axis.count for axis in self.axes)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "size", prod(shape))

    def position(self, index: int) -> tuple[int, ...]:
        """The n-D position of a block, from its C-order index.

        Raises:
            GeometryError: No block of this grid has that index.
        """
        if not 0 <= index < self.size:
            raise GeometryError(f"a grid of {self.size} blocks has no index {index}")
        position = []
        for extent in reversed(self.shape):
            index, here = divmod(index, extent)
            position.append(here)
        return tuple(reversed(position))

    def index(self, position: tuple[int, ...]) -> int:
        """The C-order index of a block, from its position.

        Raises:
            GeometryError: No block of this grid stands there.
        """
        index = 0
        for extent, here in zip(self.shape, position, strict=True):
            if not 0 <= here < extent:
                raise GeometryError(f"a grid of {self.shape} has no position {position}")
            index = index * extent + here
        return index

    def number(self, index: int) -> int:
        """The number of a block: the second half of its block id."""
        position = self.position(index)
        return pair([axis.shift + here for axis, here in zip(self.axes, position, strict=True)])

    def index_of_number(self, number: int) -> int:
        """The C-order index of the block with a number.

        Raises:
            GeometryError: No block of this grid has that number.
        """
        absolute = unpair(number, len(self.axes))
        position = tuple(here - axis.shift for axis, here in zip(self.axes, absolute, strict=True))
        if any(not 0 <= here < extent for here, extent in zip(position, self.shape, strict=True)):
            raise GeometryError(
                f"no block has number {number}: it would stand at position {position} of a grid of {self.shape}"
            )
        return self.index(position)

    def write_box(self, index: int) -> Box:
        """Where a block writes, in world units."""
        position = self.position(index)
        return tuple(
            (axis.write_begin(here), axis.write_end(here)) for axis, here in zip(self.axes, position, strict=True)
        )

    def read_box(self, index: int) -> Box:
        """Where a block reads, in world units."""
        position = self.position(index)
        return tuple(
            (axis.read_begin(here), axis.read_end(here)) for axis, here in zip(self.axes, position, strict=True)
        )


def tile(*, total: Box, read: Box, write: Box, fit: Fit) -> Grid:
    """Tile a total region with a block.

    The template is shifted so that its read box begins where the total region does; its write box then moves in
    steps of its own extent through the region that can be written, which is `total` without the context.

    Args:
        total: The region that the read boxes tile, context included; world units, half-open.
        read: Read box of the template; only its place relative to `write` matters.
        write: Write box of the template; must lie in `read`.
        fit: ``"valid"`` drops the blocks that do not fit, ``"overhang"`` keeps whole every block that begins to
            write inside, ``"shrink"`` cuts those blocks at the end.

    Raises:
        GeometryError: The boxes contradict one another, `fit` is unknown, or there are 2**63 blocks or more.
    """
    if fit not in FITS:
        raise GeometryError(f"fit must be one of {', '.join(map(repr, FITS))}, got {fit!r}")
    if not len(total) == len(read) == len(write):
        raise GeometryError(
            "total_roi, read_roi and write_roi must have the same number of axes, "
            f"got {len(total)}, {len(read)} and {len(write)}"
        )
    axes = []
    for whole, writes, (before, after) in zip(total, write, contexts_of(read, write), strict=True):
        step = writes[1] - writes[0]
        first, end = whole[0] + before, whole[1] - after
        room = max(0, end - first)
        count = room // step if fit == "valid" else -(-room // step)
        overshoot = count * step - room if fit == "shrink" else 0
        axes.append(
            RegularAxis(
                first=first,
                step=step,
                count=count,
                before=before,
                after=after,
                overshoot=overshoot,
                shift=before // step,
            )
        )
    grid = Grid(tuple(axes))
    if grid.size > _MOST_BLOCKS:
        raise GeometryError(
            f"no more than 2**63 - 1 blocks can be numbered, got {grid.size} in a grid of {grid.shape}; "
            "use larger blocks"
        )
    return grid


def contexts_of(read: Box, write: Box) -> list[tuple[int, int]]:
    """How far a read box reaches beyond its write box, per axis: in front of it, and behind it.

    Raises:
        GeometryError: It does not contain the write box.

    >>> contexts_of(((0, 10), (0, 5)), ((1, 8), (0, 5)))
    [(1, 2), (0, 0)]
    """
    contexts = []
    for axis, (reads, writes) in enumerate(zip(read, write, strict=True)):
        if not reads[0] <= writes[0] < writes[1] <= reads[1]:
            raise GeometryError(
                f"read_roi must contain write_roi: axis {axis} writes [{writes[0]}, {writes[1]}) "
                f"and reads only [{reads[0]}, {reads[1]})"
            )
        contexts.append((writes[0] - reads[0], reads[1] - writes[1]))
    return contexts
