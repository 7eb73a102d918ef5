"""The grid of a task: where does each block read and write, and how is it called?

A grid is a product of axes. One axis is cut into consecutive write intervals; the read interval of a position is
its write interval grown by the context. Blocks are numbered in C order (`index`), or by their n-D `position`, or
by their `number` (see :mod:`blockflow.plan.ids`). Every answer is integer arithmetic on one block; nothing is
proportional to the number of blocks. This module imports no numpy: workers use it, and start faster without.

Three ways lead to a grid: :meth:`Grid.regular` and :meth:`Grid.balanced` cut an array,
:func:`~blockflow.plan.tiling.tile` shifts the template of a task over its total ROI.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, get_args

from blockflow.errors import GeometryError
from blockflow.plan.balance import Balance, BalancedAxis, balanced_axis
from blockflow.plan.block import Block
from blockflow.plan.flags import checked_flag
from blockflow.plan.ids import pair, unpair
from blockflow.plan.per_axis import contexts_per_axis, cut_axes, per_axis, shape_of
from blockflow.plan.regular import FITS, Fit, RegularAxis, regular_axis

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from blockflow.geometry import Box

__all__ = ["FITS", "Axis", "Balance", "BalancedAxis", "Fit", "Grid", "Reach", "RegularAxis"]

Axis: TypeAlias = RegularAxis | BalancedAxis
"""An axis that can be planned, and that crosses the wire."""

Reach: TypeAlias = Literal["faces", "full"]
"""Which blocks are neighbours: those that share a face, or those that share at least a corner."""

ValueT = TypeVar("ValueT")

_MOST_BLOCKS = 2**63 - 1
"""Indices are 64-bit integers in numpy, which would wrap silently."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The blocks of one task, as a lazy n-D array of :class:`~blockflow.plan.block.Block`.

    A grid is a value: it is made in no time whatever its size, can be compared and pickled, and makes a block
    only when that is asked for, by index, position or id. What blocks write covers the region without gap or
    overlap; what a block reads contains what it writes.

    >>> grid = Grid.regular((10, 10), block=(4, 5), context=1)
    >>> len(grid), grid.shape
    (6, (3, 2))
    >>> grid[0].read_roi, grid[2, 1].write_roi, grid[-1].block_id
    ([0:5, 0:6] (5, 6), [8:10, 5:10] (2, 5), (None, 8))
    >>> [block.position for block in grid.neighbours((1, 0))]
    [(0, 0), (1, 1), (2, 0)]
    """

    axes: tuple[Axis, ...]
    region: Box = ()
    """What is to be written, in world units, half-open; if not given, what the blocks write. With
    ``fit="valid"`` its end may be left out, with "overhang" blocks write beyond it."""
    voxel_size: tuple[int, ...] = ()
    """World units per voxel; if not given, 1."""
    tiled: bool = field(default=False, compare=False, repr=False)
    """Made from the ROIs of a task, which then are what counts if both are given (as `dataclasses.replace` does)."""
    shape: tuple[int, ...] = field(init=False)
    """Number of positions per axis."""
    size: int = field(init=False)
    """Number of blocks."""
    total: Box = field(init=False, compare=False, repr=False)
    """The region and all that is read, in world units."""

    def __post_init__(self) -> None:
        shape = tuple(axis.count for axis in self.axes)
        region = self.region or tuple((axis.begin, axis.end) for axis in self.axes)
        total = region
        if prod(shape):
            total = tuple(
                (min(begin, axis.read_begin(0)), max(end, axis.read_end(axis.count - 1)))
                for (begin, end), axis in zip(region, self.axes, strict=True)
            )
        for name, value in (
            ("shape", shape),
            ("size", prod(shape)),
            ("region", region),
            ("total", total),
            ("voxel_size", self.voxel_size or (1,) * len(shape)),
        ):
            object.__setattr__(self, name, value)
        if self.size > _MOST_BLOCKS:
            raise GeometryError(
                f"no more than 2**63 - 1 blocks can be numbered, got {self.size} in a grid of {shape}; "
                "use larger blocks"
            )

    @classmethod
    def regular(
        cls,
        shape: Iterable[int],
        block: int | Sequence[int | None] | None,
        context: int | Sequence[int | tuple[int, int]] = 0,
        *,
        fit: Fit = "shrink",
        clip: bool | Sequence[bool] = True,
        multiple_of: int | Sequence[int] = 1,
        offset: Iterable[int] | None = None,
        voxel_size: Iterable[int] | None = None,
    ) -> Grid:
        """Blocks of equal size.

        Args:
            shape: Of the array in voxels.
            block: What one block writes, in voxels: one number for all axes, or one for each; None for the whole
                axis. With ``multiple_of`` it is the largest such extent allowed.
            context: How far a block reads beyond what it writes, in voxels: one number, one for each axis, or
                ``(before, after)`` for an axis.
            fit: What happens to blocks at the end of an axis that are not whole: "shrink" cuts them, "valid" drops
                them, "overhang" lets them reach beyond the end.
            clip: Whether context ends at the borders of the array. Without, blocks there read beyond them, which
                is for whoever reads to fill or pad. One flag, or one for each axis.
            multiple_of: Cuts are multiples of this many voxels, which are the chunks or shards of an output;
                rounds ``block`` down. One number, or one for each axis.
            offset: Where the array begins, in world units; 0 if not given.
            voxel_size: World units per voxel, one for each axis; 1 if not given.

        Raises:
            GeometryError: An argument is out of range or of the wrong length, or no block fits; names the axis.

        >>> grid = Grid.regular((100, 512, 512), block=(25, 100, 100), context=(0, 8, (4, 4)), multiple_of=(1, 64, 64))
        >>> grid.shape, grid.write_box(1), grid.read_box(1)
        ((4, 8, 8), ((0, 25), (0, 64), (64, 128)), ((0, 25), (0, 72), (60, 132)))
        """
        extents, origin, voxels = shape_of(shape, offset, voxel_size)
        dims = len(extents)
        blocks = per_axis("block", block, dims)
        units = per_axis("multiple_of", multiple_of, dims)
        clips = [checked_flag("clip", each) for each in per_axis("clip", clip, dims)]
        axes = []
        for axis, (before, after) in enumerate(contexts_per_axis(context, dims)):
            try:
                made = regular_axis(
                    extents[axis],
                    blocks[axis],
                    before=before,
                    after=after,
                    fit=fit,
                    clip=clips[axis],
                    multiple_of=units[axis],
                    offset=origin[axis],
                    voxel_size=voxels[axis],
                )
            except GeometryError as error:
                raise GeometryError(f"axis {axis}: {error}") from None
            axes.append(made)
        return cls(tuple(axes), _region(extents, origin, voxels), voxels)

    @classmethod
    def balanced(
        cls,
        shape: Iterable[int],
        max_size: int | Sequence[int | None] | None,
        *,
        min_size: int | Sequence[int | None] | None = None,
        overlap: int | Sequence[int] = 0,
        axes: Sequence[int] | int | None = None,
        workers: int | Sequence[int] = 1,
        balance: Balance = "more",
        exact: bool | Sequence[bool] = False,
        multiple_of: int | Sequence[int] = 1,
        offset: Iterable[int] | None = None,
        voxel_size: Iterable[int] | None = None,
    ) -> Grid:
        """As few blocks of nearly equal size as a bound allows; what they read overlaps.

        Sizes are of what a block reads, overlap included. Each overlap is cut in its middle, an odd voxel going to
        the lower block. Where one number stands for several axes it holds for each of them; a sequence has one for
        each of `axes`, in their order.

        Args:
            shape: Of the array in voxels.
            max_size: What a block reads at most, in voxels; None for the whole axis.
            min_size: What a block reads at least; narrower ones read more overlap. None is ``overlap + 1``.
            overlap: What neighbours both read, at least.
            axes: The axes to cut; the others stay whole. None for all of them.
            workers: The number of blocks along an axis becomes a multiple of this; 1 leaves it.
            balance: How: "more" blocks, hence smaller ones. "fewer" blocks, hence larger ones, which **may exceed
                max_size**; so may "nearest", the one of the two that changes the number less.
            exact: Every block reads ``max_size`` exactly; the last of an axis is moved down to end with it and
                overlaps its neighbour by more. Excludes ``workers`` and ``min_size``.
            multiple_of: Cuts are multiples of this many voxels: the chunks or shards of an output.
            offset: Where the array begins, in world units; 0 if not given.
            voxel_size: World units per voxel, one for each axis; 1 if not given.

        Raises:
            GeometryError: An argument is out of range or of the wrong length, or they contradict one another;
                names the axis.

        >>> grid = Grid.balanced((5, 10, 20), max_size=6, overlap=2, axes=[1, 2])
        >>> grid.shape, grid.read_box(1), grid.write_box(1)
        ((1, 2, 5), ((0, 5), (0, 6), (3, 9)), ((0, 5), (0, 5), (4, 8)))
        """
        extents, origin, voxels = shape_of(shape, offset, voxel_size)
        cut = cut_axes(axes, len(extents))
        given = {
            name: per_axis(name, value, len(cut))
            for name, value in (
                ("max_size", max_size),
                ("min_size", min_size),
                ("overlap", overlap),
                ("workers", workers),
                ("multiple_of", multiple_of),
                ("exact", exact),
            )
        }
        given["exact"] = [checked_flag("exact", each) for each in given["exact"]]
        made = []
        for axis, extent in enumerate(extents):
            options: dict[str, Any] = {"max_size": None}
            if axis in cut:
                options = {name: values[cut.index(axis)] for name, values in given.items()}
                options["balance"] = balance
            try:
                made.append(balanced_axis(extent, **options, offset=origin[axis], voxel_size=voxels[axis]))
            except GeometryError as error:
                raise GeometryError(f"axis {axis}: {error}") from None
        return cls(tuple(made), _region(extents, origin, voxels), voxels)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key: int | tuple[int, ...]) -> Block:
        """The block with an index, which may count from the end, or at a position.

        Raises:
            IndexError: There is none.
        """
        if isinstance(key, tuple):
            if len(key) != len(self.shape) or not all(
                0 <= here < extent for here, extent in zip(key, self.shape, strict=True)
            ):
                raise IndexError(f"a grid of {self.shape} has no position {key}")
            return self._block(self.index(key))
        if not -self.size <= key < self.size:
            raise IndexError(f"a grid of {self.size} blocks has no index {key}")
        return self._block(int(key) % self.size)

    def __iter__(self) -> Iterator[Block]:
        return map(self._block, range(self.size))

    def by_id(self, block_id: int | tuple[str | None, int]) -> Block:
        """The block with an id, or with the number that is its second half.

        Raises:
            GeometryError: No block of this grid has that id.

        >>> Grid.regular((10, 10), block=5).by_id((None, 4)).position
        (1, 1)
        """
        return self._block(self.index_of_number(block_id[1] if isinstance(block_id, tuple) else block_id))

    def neighbours(self, block: Block | int | tuple[int, ...], reach: Reach = "faces") -> list[Block]:
        """The blocks next to one, in C order.

        Args:
            block: A block of this grid, its index or its position.
            reach: "faces" for those that share a face with it, "full" for those that share at least a corner.

        Raises:
            GeometryError: An unknown reach, or a block made by hand, which has no position.
            IndexError: There is no such block.

        >>> len(Grid.regular((9, 9, 9), block=3).neighbours((1, 1, 1), "full"))
        26
        """
        if reach not in get_args(Reach):
            raise GeometryError(f"reach must be one of {', '.join(map(repr, get_args(Reach)))}, got {reach!r}")
        here = block.position if isinstance(block, Block) else self[block].position
        if here is None:
            raise GeometryError(f"a block made by hand has no neighbours: {block}")
        ranges = [range(max(0, x - 1), min(extent, x + 2)) for x, extent in zip(here, self.shape, strict=True)]
        most = 1 if reach == "faces" else len(here)
        return [
            self[position]
            for position in product(*ranges)
            if 0 < sum(x != y for x, y in zip(here, position, strict=True)) <= most
        ]

    def starts(self, *, read: bool = False) -> Iterator[tuple[int, ...]]:
        """Where all blocks begin to write (or read), in voxels from the begin of the region; in C order.

        >>> list(Grid.regular((4, 5), block=3).starts())
        [(0, 0), (0, 3), (3, 0), (3, 3)]
        """
        return _product([(begin for begin, _ in self._along(number, read)) for number in range(len(self.shape))])

    def slices(self, *, read: bool = False) -> Iterator[tuple[slice, ...]]:
        """What all blocks write (or read), as slices of an array over the region: voxels, in C order.

        Raises:
            GeometryError: A block reads in front of the array, which a slice cannot say.

        >>> list(Grid.regular((7,), block=3, context=1).slices(read=True))
        [(slice(0, 4, None),), (slice(2, 7, None),), (slice(5, 7, None),)]
        """
        for number, (axis, (origin, _)) in enumerate(zip(self.axes, self.region, strict=True)):
            if read and axis.count and axis.read_begin(0) < origin:
                raise GeometryError(
                    f"slices cannot begin in front of an array: axis {number} is read from {axis.read_begin(0)} on, "
                    f"and begins at {origin}; clip the context, or pad the array"
                )
        return _product([(slice(*pair) for pair in self._along(number, read)) for number in range(len(self.shape))])

    def _along(self, number: int, read: bool) -> Iterator[tuple[int, int]]:
        """Begins and ends of what the positions of an axis write (or read), in voxels from the begin of the region."""
        axis, (origin, _), voxel = self.axes[number], self.region[number], self.voxel_size[number]
        begin, end = (axis.read_begin, axis.read_end) if read else (axis.write_begin, axis.write_end)
        return (((begin(i) - origin) // voxel, (end(i) - origin) // voxel) for i in range(axis.count))

    def _block(self, index: int) -> Block:
        return Block.of_grid(self, index, total=self.total, task_id=None)

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
            [(axis.write_begin(here), axis.write_end(here)) for axis, here in zip(self.axes, position, strict=True)]
        )

    def read_box(self, index: int) -> Box:
        """Where a block reads, in world units."""
        position = self.position(index)
        return tuple(
            [(axis.read_begin(here), axis.read_end(here)) for axis, here in zip(self.axes, position, strict=True)]
        )


def _product(axes: list[Iterator[ValueT]]) -> Iterator[tuple[ValueT, ...]]:
    """Every combination, last axis fastest; the first axis is never listed."""
    others = [list(axis) for axis in axes[1:]]
    return ((first, *rest) for first in axes[0] for rest in product(*others))


def _region(shape: tuple[int, ...], offset: tuple[int, ...], voxel_size: tuple[int, ...]) -> Box:
    return tuple((o, o + n * v) for n, o, v in zip(shape, offset, voxel_size, strict=True))
