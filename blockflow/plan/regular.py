"""A regular axis: how is one cut into blocks of equal extent?

Position p writes from ``first + p * step`` on, and reads a fixed context around that. Only the last block may be
shorter, and reads may end at the borders of an array.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from blockflow.errors import GeometryError
from blockflow.plan.axis import PositionT, Span, at_least, at_most, whole_numbers

__all__ = ["FITS", "Fit", "RegularAxis", "regular_axis"]

Fit: TypeAlias = Literal["valid", "overhang", "shrink"]
"""What happens to blocks that do not fit: dropped, kept whole, or cut."""

FITS: tuple[Fit, ...] = get_args(Fit)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegularAxis:
    """One axis cut into write intervals of equal extent, in world units; the last may be shorter.

    >>> axis = RegularAxis(first=0, step=4, count=3, before=1, after=1, overshoot=2, bounds=(0, 10))
    >>> axis.write_begin(2), axis.write_end(2), axis.read_begin(2), axis.read_end(2)
    (8, 10, 7, 10)
    >>> axis.writing(3, 5), axis.reading(3, 4)
    ((0, 2), (0, 2))
    """

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
    bounds: tuple[int, int] | None = None
    """Context ends here, half-open; holds everything that is written. None if it does not end anywhere."""

    @property
    def begin(self) -> int:
        """Where the first write interval begins."""
        return self.first

    @property
    def end(self) -> int:
        """Where the last write interval ends."""
        return self.first + self.count * self.step - self.overshoot

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
        begin = self.write_begin(position) - self.before
        return begin if self.bounds is None else at_least(begin, self.bounds[0])

    def read_end(self, position: PositionT) -> PositionT:
        """Where the read interval ends (not included)."""
        end = self.write_end(position) + self.after
        return end if self.bounds is None else at_most(end, self.bounds[1])

    def writing(self, begin: PositionT, end: PositionT) -> tuple[PositionT, PositionT]:
        """First position, and one behind the last, whose write interval meets ``[begin, end)``, which is not empty."""
        return self._meeting(begin, end, before=0, after=0)

    def reading(self, begin: PositionT, end: PositionT) -> tuple[PositionT, PositionT]:
        """First position, and one behind the last, whose read interval meets ``[begin, end)``, which is not empty."""
        if self.bounds is None:
            return self._meeting(begin, end, before=self.before, after=self.after)
        begin, end = at_least(begin, self.bounds[0]), at_most(end, self.bounds[1])
        start, stop = self._meeting(begin, end, before=self.before, after=self.after)
        return start, stop - (begin >= end) * (stop - start)

    def _meeting(self, begin: PositionT, end: PositionT, *, before: int, after: int) -> tuple[PositionT, PositionT]:
        start = (begin - (self.first + after)) // self.step
        start = start * (start > 0)
        stop = at_most(-((self.first - before - end) // self.step), self.count)
        if self.overshoot:
            stop = stop - (begin >= self.end + after) * (stop - start)
        return start, at_least(stop, start)

    @property
    def conflict_distance(self) -> int:
        """Smallest distance at which two positions can no longer conflict.

        The write interval of position i + d begins at d * step behind that of i, and meets the read interval of
        i while d * step < step + after; the same holds to the left with `before`.
        """
        return 1 + -(-max(self.before, self.after) // self.step)

    @property
    def period(self) -> tuple[int, int]:
        """After so many positions come the same intervals again, so much further on; but for the ends."""
        return 1, self.step

    @property
    def template(self) -> Span:
        """A whole block with its whole context, where the first block is."""
        end = self.first + self.step
        return Span(self.first - self.before, self.first, end, end + self.after)

    @property
    def longest_read(self) -> int:
        """No read interval is longer."""
        return self.before + self.step + self.after

    def most_writing(self, extent: int) -> int:
        """No interval of an extent meets more write intervals than this."""
        return min(self.count, -(-extent // self.step) + 1)


def regular_axis(
    size: int,
    block: int | None,
    *,
    before: int = 0,
    after: int = 0,
    fit: Fit = "shrink",
    clip: bool = True,
    multiple_of: int = 1,
    offset: int = 0,
    voxel_size: int = 1,
) -> RegularAxis:
    """Blocks of equal size along an array, each reading a fixed context around what it writes.

    Args:
        size: Extent of the axis in voxels.
        block: What one block writes, in voxels; None for all of it. With ``multiple_of`` it is the largest such
            extent allowed.
        before: Context read below the write interval, in voxels.
        after: Context read above it.
        fit: "shrink" cuts the last block at the end of the axis, "valid" drops one that is not whole,
            "overhang" lets it reach beyond the end.
        clip: Whether context ends at the borders of the axis. Without, the first and last blocks read beyond
            them, to be filled or padded by whoever reads.
        multiple_of: Every cut but the end of the axis is a multiple of this many voxels (the chunks or shards of
            an output); rounds ``block`` down.
        offset: Where the axis begins, in world units.
        voxel_size: World units per voxel.

    Raises:
        GeometryError: An argument is out of range, ``block`` is less than ``multiple_of``, or no block fits.

    >>> axis = regular_axis(10, 4, after=1)
    >>> [(axis.read_begin(i), axis.read_end(i)) for i in range(axis.count)]
    [(0, 5), (4, 9), (8, 10)]
    >>> regular_axis(10, 4, fit="valid").end, regular_axis(10, 4, fit="overhang").end
    (8, 12)
    """
    size, multiple_of, voxel_size = whole_numbers(1, size=size, multiple_of=multiple_of, voxel_size=voxel_size)
    (block,) = whole_numbers(1, block=size if block is None else block)
    before, after = whole_numbers(0, before=before, after=after)
    if fit not in FITS:
        raise GeometryError(f"fit must be one of {', '.join(map(repr, FITS))}, got {fit!r}")
    step = block if block >= size else block - block % multiple_of  # a single block is not cut anywhere
    if step == 0:
        raise GeometryError(f"cuts at multiples of {multiple_of} need a block of at least that, got {block}")
    count = size // step if fit == "valid" else -(-size // step)
    if count == 0:
        raise GeometryError(f"no whole block fits: fit is 'valid', size is {size}, block is {step}")
    overshoot = count * step - size if fit == "shrink" else 0
    return RegularAxis(
        first=offset,
        step=step * voxel_size,
        count=count,
        before=before * voxel_size,
        after=after * voxel_size,
        overshoot=overshoot * voxel_size,
        shift=0 if clip else before // step,
        bounds=(offset, offset + max(size, count * step - overshoot) * voxel_size) if clip else None,
    )
