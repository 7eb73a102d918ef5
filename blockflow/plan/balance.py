"""A balanced axis: how is one cut into nearly equal blocks that read no more than a given extent?

Neighbours both read an overlap, which is cut in its middle, rounded up. So a block reads ``before`` = half
the overlap rounded up below what it writes, and ``after`` = the other half above it, and the plan is one
division:

1. Set aside ``before`` at the low end of the axis and ``after`` at its high end, which the first and the
   last block write on top of their share because nobody overlaps them there. Between lies a whole number of
   units of ``multiple_of``: round both ends for that so that less is set aside, never more.
2. A share may be ``(max_size - overlap) // multiple_of`` units. Take as few blocks as that allows, then a
   number that the workers can divide among themselves.
3. Block j gets the units from ``j * units // count`` to ``(j + 1) * units // count``: shares differ by one
   unit at most, in exact integers, and no block is left without one.

So a balanced axis is a handful of integers, and each of its cuts is arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import Literal, TypeAlias, get_args

from blockflow.errors import GeometryError
from blockflow.plan.axis import PositionT, Span, at_least, at_most, whole_numbers

__all__ = ["Balance", "BalancedAxis", "balanced_axis"]

Balance: TypeAlias = Literal["more", "fewer", "nearest"]
"""How the number of blocks becomes a multiple of the number of workers."""

_LARGEST_PRODUCT = 2**62
"""Of blocks and units of an axis: numpy's 64-bit integers would wrap silently."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancedAxis:
    """One axis cut into write intervals that differ by one unit at most, in world units.

    >>> axis = balanced_axis(20, 9, overlap=2)
    >>> axis.write_begin(1), axis.write_end(1), axis.read_begin(1), axis.read_end(1)
    (7, 13, 6, 14)
    >>> axis.writing(7, 14), axis.reading(7, 14)
    ((1, 3), (0, 3))
    """

    begin: int
    """Where the first write interval begins."""
    low: int
    """What the cuts are counted from; the first block writes what is in front of it too."""
    unit: int
    """Cuts are multiples of this, counted from `low`."""
    units: int
    """How many of them the blocks share."""
    count: int
    """Number of positions."""
    last_cut: int
    """Where the last write interval begins; `low` if it is the only one."""
    end: int
    """Where the last write interval ends."""
    before: int
    """Context in front of a write interval."""
    after: int
    """Context behind a write interval."""
    least: int
    """A read interval is at least this long."""

    @property
    def shift(self) -> int:
        """Position 0 is number `shift` where block ids are computed."""
        return 0

    def write_begin(self, position: PositionT) -> PositionT:
        """Where the write interval begins."""
        inner = self.low + position * self.units // self.count * self.unit
        first, last, behind = position == 0, position == self.count - 1, position == self.count
        begin: PositionT = (
            inner + first * (self.begin - self.low) + last * (self.last_cut - inner) + behind * (self.end - inner)
        )
        return begin

    def write_end(self, position: PositionT) -> PositionT:
        """Where the write interval ends (not included)."""
        return self.write_begin(position + 1)

    def read_begin(self, position: PositionT) -> PositionT:
        """Where the read interval begins."""
        return at_least(at_most(self.write_begin(position) - self.before, self.end - self.least), self.begin)

    def read_end(self, position: PositionT) -> PositionT:
        """Where the read interval ends (not included)."""
        return at_most(
            at_least(self.write_end(position) + self.after, self.read_begin(position) + self.least), self.end
        )

    def writing(self, begin: PositionT, end: PositionT) -> tuple[PositionT, PositionT]:
        """First position, and one behind the last, whose write interval meets ``[begin, end)``, which is not empty."""
        start, stop = at_least(self._begun(begin) - 1, 0), self._begun(end - 1)
        nothing = begin >= self.end
        return start, at_least(stop - nothing * (stop - start), start)

    def reading(self, begin: PositionT, end: PositionT) -> tuple[PositionT, PositionT]:
        """First position, and one behind the last, whose read interval meets ``[begin, end)``, which is not empty."""
        # A read ends behind `begin` by its context, or because it is long enough.
        by_context = at_least(self._begun(begin - self.after) - 1, 0)
        by_length = (begin - self.least >= self.begin) * self._begun(begin - self.least + self.before)
        start = at_most(by_context, by_length)
        stop = self._begun(end + self.before - 1)
        stop = stop + (end > self.end - self.least) * (self.count - stop)
        nothing = (begin >= self.end) | (end <= self.begin)
        return start, at_least(stop - nothing * (stop - start), start)

    def _begun(self, place: PositionT) -> PositionT:
        """How many positions begin to write at a place or before it."""
        unit = at_most(at_least((place - self.low) // self.unit, -1), self.units - 1)
        last = at_most(at_least(((unit + 1) * self.count - 1) // self.units, 0), self.count - 1)
        last = last + (place >= self.last_cut) * (self.count - 1 - last)
        begun: PositionT = (last + 1) * (place >= self.begin)
        return begun

    @property
    def conflict_distance(self) -> int:
        """A distance at which two positions can no longer conflict.

        It is the smallest but where `least` makes blocks read more than their context. Between the writes of i and
        i + d lie d - 1 others, which have ``(d - 1) * units // count`` units or more. The first and the last block,
        which write and read more than their share, are looked at one by one.
        """
        if self.count == 1:
            return 1
        share = self.units // self.count * self.unit
        right = max(self.after, self.least - self.before - share)
        left = max(self.before, self.write_begin(max(0, self.count - 2)) - self.end + self.least)
        apart = -(-max(left, right) // self.unit)
        last = self.count - 1
        return 1 + max(
            -(-apart * self.count // self.units),
            self.writing(self.begin, self.read_end(0))[1] - 1,
            last - self.writing(self.read_begin(last), self.end)[0],
            last - self.reading(self.last_cut, self.end)[0],
            self.reading(self.begin, self.write_end(0))[1] - 1,
        )

    @property
    def period(self) -> tuple[int, int]:
        """After so many positions come the same intervals again, so much further on; but for the ends."""
        common = gcd(self.count, self.units)
        return self.count // common, self.units // common * self.unit

    @property
    def template(self) -> Span:
        """A largest block with its whole context, where the first block is."""
        end = self.begin - -self.units // self.count * self.unit
        return Span(self.begin - self.before, self.begin, end, end + self.after)

    @property
    def longest_read(self) -> int:
        """No read interval is longer."""
        span = self.template
        return min(self.end - self.begin, max(span.read_end - span.read_begin, self.least))

    def most_writing(self, extent: int) -> int:
        """No interval of an extent meets more write intervals than this."""
        return min(self.count, -(-extent // (self.units // self.count * self.unit)) + 2)


def balanced_axis(
    size: int,
    max_size: int | None,
    *,
    min_size: int | None = None,
    overlap: int = 0,
    workers: int = 1,
    balance: Balance = "more",
    exact: bool = False,
    multiple_of: int = 1,
    offset: int = 0,
    voxel_size: int = 1,
) -> BalancedAxis:
    """As few blocks of nearly equal size as a bound allows, or a number of them that suits the workers.

    Sizes are of what a block reads in voxels, overlap included; reads end at the borders of the axis.
    ``max_size``, ``min_size`` and ``overlap`` are first bounded by the axis: one voxel is never asked to overlap
    by two.

    Args:
        size: Extent of the axis. One that is no longer than ``max_size`` stays in one block.
        max_size: What a block reads at most; ``None`` for one block.
        min_size: What a block reads at least; narrower ones read more overlap. ``None`` is ``overlap + 1``.
        overlap: What neighbours both read, at least; cut in its middle, an odd voxel going to the lower one.
        workers: The number of blocks becomes a multiple of this; 1 leaves it. Where ``min_size`` or
            ``multiple_of`` forbid so many blocks, it is the largest number they allow.
        balance: How: "more" blocks, hence smaller ones. "fewer" blocks, hence larger ones, which **may
            exceed max_size**; fewer blocks than workers stay as they are. "nearest" is the one of the two
            that changes the number less ("more" when equal), so it may exceed ``max_size`` too.
        exact: Every block reads ``max_size`` exactly; the last is moved down to end with the axis and
            overlaps its neighbour by more. Excludes ``workers`` and ``min_size``.
        multiple_of: Every cut but the end of the axis is a multiple of this (the chunks or shards of an
            output). Rounding may cost a block or two more.
        offset: Where the axis begins, in world units.
        voxel_size: World units per voxel.

    Raises:
        GeometryError: An argument is out of range, or they contradict one another: overlap not less than
            ``max_size`` or ``min_size``, ``min_size`` above ``max_size``, no multiple to cut at.

    >>> def spans(axis):
    ...     return [(axis.read_begin(i), axis.write_begin(i), axis.write_end(i), axis.read_end(i))
    ...             for i in range(axis.count)]
    >>> spans(balanced_axis(20, 9, overlap=2))
    [(0, 0, 7, 8), (6, 7, 13, 14), (12, 13, 20, 20)]
    >>> spans(balanced_axis(20, 9, overlap=2, workers=2))
    [(0, 0, 5, 6), (4, 5, 10, 11), (9, 10, 14, 15), (13, 14, 20, 20)]
    >>> spans(balanced_axis(20, 9, overlap=2, exact=True))
    [(0, 0, 8, 9), (7, 8, 14, 16), (11, 14, 20, 20)]
    >>> axis = balanced_axis(100, 40, multiple_of=16)
    >>> [axis.write_begin(i) for i in range(axis.count)]
    [0, 16, 48, 80]
    """
    size, workers, unit, voxel_size = whole_numbers(
        1, size=size, workers=workers, multiple_of=multiple_of, voxel_size=voxel_size
    )
    widest = size if max_size is None else min(size, *whole_numbers(1, max_size=max_size))
    overlap = min(size - 1, *whole_numbers(0, overlap=overlap))
    narrowest = overlap + 1 if min_size is None else min(size, *whole_numbers(1, min_size=min_size))
    if balance not in get_args(Balance):
        raise GeometryError(f"balance must be one of {', '.join(map(repr, get_args(Balance)))}, got {balance!r}")
    for name, bound in (("max_size", widest), ("min_size", narrowest)):
        if overlap >= bound:
            raise GeometryError(f"overlap must be less than {name}: {overlap} against {bound}")
    if narrowest > widest:
        raise GeometryError(f"min_size must be at most max_size: {narrowest} against {widest}")
    if exact:
        if workers > 1 or min_size is not None:
            raise GeometryError(f"exact leaves no choice: drop workers={workers} and min_size={min_size}")
        narrowest = widest
    after = overlap // 2
    before = overlap - after
    low = before // unit * unit
    units = -((low + after - size) // unit)
    share = (widest - overlap) // unit
    if widest == size:
        low, unit, units, count, last_cut = 0, size, 1, 1, 0
    elif share == 0:
        raise GeometryError(
            f"cuts at multiples of {unit} need max_size - overlap of at least that: {widest} - {overlap}"
        )
    elif exact:
        count = -(-units // share)
        units = count * share
        # The last two overlap by more; that is cut in its middle too, up to the next multiple.
        before_last = low + (count - 2) * share * unit
        overlap_end = max(0, min(before_last - before, size - widest)) + widest
        middle = -((widest - size - overlap_end) // (2 * unit)) * unit
        last_cut = min(before_last + share * unit, middle)
    else:
        count = _suited(-(-units // share), workers, balance, most=units // -((overlap - narrowest) // unit))
        last_cut = low + (count - 1) * units // count * unit
    if count * units > _LARGEST_PRODUCT:
        raise GeometryError(f"too many blocks on one axis: {count} of {size} voxels; use larger blocks")
    return BalancedAxis(
        begin=offset,
        low=offset + low * voxel_size,
        unit=unit * voxel_size,
        units=units,
        count=count,
        last_cut=offset + last_cut * voxel_size,
        end=offset + size * voxel_size,
        before=before * voxel_size,
        after=after * voxel_size,
        least=narrowest * voxel_size,
    )


def _suited(count: int, workers: int, balance: Balance, most: int) -> int:
    """A multiple of the workers near a number of blocks; only "fewer" and "nearest" may go below it."""
    rest = count % workers
    if rest == 0:
        return count
    if balance == "fewer" or (balance == "nearest" and 2 * rest < workers):
        return count - rest or count
    return min(count - rest + workers, max(count, most))
