"""One cut axis: where do its blocks begin and end, and which of them meet an interval?

An axis of any plan is given by its write cuts, n + 1 increasing integers, and by what each of its n blocks
reads. Kept as three tuples, it answers for a position by indexing and for an interval by bisection, because
cuts and both ends of the reads never decrease. :func:`regular_axis` cuts into equal blocks,
:func:`~blockflow.plan.balance.balanced_axis` into nearly equal ones of bounded size.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from operator import ge, index, le, lt
from typing import TYPE_CHECKING, NamedTuple

from blockflow.errors import GeometryError
from blockflow.plan.grid import FITS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from blockflow.plan.grid import Fit

__all__ = ["CutAxis", "Span", "regular_axis", "whole_numbers"]


class Span(NamedTuple):
    """What one block reads and writes along one axis; half-open integers."""

    read_begin: int
    write_begin: int
    write_end: int
    read_end: int


@dataclass(frozen=True, slots=True)
class CutAxis:
    """Blocks along one axis, cut anywhere; a sequence of :class:`Span`.

    Raises:
        GeometryError: The cuts do not increase; a read interval does not contain its write interval, or moves
            back from one block to the next.

    >>> axis = CutAxis.grown((0, 4, 7, 10), before=2, after=1, bounds=(0, 10))
    >>> axis.count, axis[1]
    (3, Span(read_begin=2, write_begin=4, write_end=7, read_end=8))
    >>> axis.writing(3, 5), axis.reading(3, 5)
    (range(0, 2), range(0, 2))
    """

    write_cuts: tuple[int, ...]
    """Block i writes from cut i to cut i + 1; increasing."""
    read_begins: tuple[int, ...]
    """One for each block; non-decreasing."""
    read_ends: tuple[int, ...]
    """One for each block; non-decreasing."""

    def __post_init__(self) -> None:
        cuts, begins, ends = self.write_cuts, self.read_begins, self.read_ends
        if not len(cuts) - 1 == len(begins) == len(ends) > 0:
            raise GeometryError(
                "n > 0 blocks have n + 1 cuts, n begins and n ends of reads, "
                f"got {len(cuts)}, {len(begins)} and {len(ends)}"
            )
        _check("write cuts must increase", lt, cuts, cuts[1:])
        _check("a read must begin at or before its write", le, begins, cuts)
        _check("a read must end at or after its write", ge, ends, cuts[1:])
        _check("a read must not begin after the next one", le, begins, begins[1:])
        _check("a read must not end after the next one", le, ends, ends[1:])

    @classmethod
    def grown(
        cls, write_cuts: Iterable[int], *, before: int, after: int, bounds: tuple[int, int] | None = None
    ) -> CutAxis:
        """Blocks that read a fixed context around what they write.

        Args:
            write_cuts: n + 1 increasing integers.
            before: Context below the write interval, at least 0.
            after: Context above it, at least 0.
            bounds: Half-open interval that reads are clipped to, but never below what is written.

        Raises:
            GeometryError: The cuts do not increase, or a context is negative.

        >>> list(CutAxis.grown((0, 5, 10), before=1, after=0))
        [Span(read_begin=-1, write_begin=0, write_end=5, read_end=5),
         Span(read_begin=4, write_begin=5, write_end=10, read_end=10)]
        """
        cuts = tuple(write_cuts)
        begins = [cut - before for cut in cuts[:-1]]
        ends = [cut + after for cut in cuts[1:]]
        if bounds is not None:
            lower, upper = min(bounds[0], cuts[0]), max(bounds[1], cuts[-1])
            begins = [max(lower, begin) for begin in begins]
            ends = [min(upper, end) for end in ends]
        return cls(cuts, tuple(begins), tuple(ends))

    @property
    def count(self) -> int:
        """Number of blocks."""
        return len(self.read_begins)

    def write_begin(self, position: int, /) -> int:
        """Where the block at a position begins to write; ``IndexError`` outside [0, count)."""
        return self.write_cuts[self._checked(position)]

    def write_end(self, position: int, /) -> int:
        """Where the block at a position ends to write; ``IndexError`` outside [0, count)."""
        return self.write_cuts[self._checked(position) + 1]

    def read_begin(self, position: int, /) -> int:
        """Where the block at a position begins to read; ``IndexError`` outside [0, count)."""
        return self.read_begins[self._checked(position)]

    def read_end(self, position: int, /) -> int:
        """Where the block at a position ends to read; ``IndexError`` outside [0, count)."""
        return self.read_ends[self._checked(position)]

    def writing(self, begin: int, end: int) -> range:
        """Positions whose write interval meets [begin, end); O(log n), none for an empty interval.

        >>> CutAxis.grown((0, 4, 8), before=1, after=1).writing(4, 100)
        range(1, 2)
        """
        first = bisect_right(self.write_cuts, begin, lo=1) - 1
        return range(first, bisect_left(self.write_cuts, end, hi=self.count) if begin < end else first)

    def reading(self, begin: int, end: int) -> range:
        """Positions whose read interval meets [begin, end); O(log n), none for an empty interval.

        >>> CutAxis.grown((0, 4, 8), before=1, after=1).reading(4, 100)
        range(0, 2)
        """
        first = bisect_right(self.read_ends, begin)
        return range(first, bisect_left(self.read_begins, end) if begin < end else first)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, position: int) -> Span:
        i = self._checked(position)
        return Span(self.read_begins[i], self.write_cuts[i], self.write_cuts[i + 1], self.read_ends[i])

    def __iter__(self) -> Iterator[Span]:
        return map(Span, self.read_begins, self.write_cuts, self.write_cuts[1:], self.read_ends)

    def _checked(self, position: int) -> int:
        if not 0 <= position < self.count:
            raise IndexError(f"position must lie in [0, {self.count}), got {position}")
        return position


def regular_axis(
    size: int,
    block: int,
    *,
    before: int = 0,
    after: int = 0,
    fit: Fit = "shrink",
    clip: bool = True,
    multiple_of: int = 1,
) -> CutAxis:
    """Blocks of equal size from 0 on, each reading a fixed context around what it writes.

    Args:
        size: Extent of the axis.
        block: What one block writes. With ``multiple_of`` it is the largest such extent allowed.
        before: Context read below the write interval.
        after: Context read above it.
        fit: "shrink" cuts the last block at the end of the axis, "valid" drops one that is not whole,
            "overhang" lets it reach beyond the end.
        clip: Whether context ends at the borders of the axis. Without, the first and last blocks read beyond
            them, to be filled or padded by whoever reads.
        multiple_of: Every cut but the end of the axis is a multiple of this (the chunks or shards of an
            output); rounds ``block`` down.

    Raises:
        GeometryError: An argument is out of range, ``block`` is less than ``multiple_of``, or no block fits.

    >>> list(regular_axis(10, 4, after=1))
    [Span(read_begin=0, write_begin=0, write_end=4, read_end=5),
     Span(read_begin=4, write_begin=4, write_end=8, read_end=9),
     Span(read_begin=8, write_begin=8, write_end=10, read_end=10)]
    >>> regular_axis(10, 4, fit="valid").write_cuts, regular_axis(10, 4, fit="overhang").write_cuts
    ((0, 4, 8), (0, 4, 8, 12))
    """
    size, block, multiple_of = whole_numbers(1, size=size, block=block, multiple_of=multiple_of)
    before, after = whole_numbers(0, before=before, after=after)
    if fit not in FITS:
        raise GeometryError(f"fit must be one of {', '.join(FITS)}, got {fit!r}")
    if block < multiple_of:
        raise GeometryError(f"cuts at multiples of {multiple_of} need a block of at least that, got {block}")
    step = block - block % multiple_of
    count = size // step if fit == "valid" else -(-size // step)
    if count == 0:
        raise GeometryError(f"no whole block fits: fit is 'valid', size is {size}, block is {step}")
    end = size if fit == "shrink" else count * step
    cuts = [*range(0, count * step, step), end]
    return CutAxis.grown(cuts, before=before, after=after, bounds=(0, size) if clip else None)


def whole_numbers(least: int, **values: int) -> list[int]:
    """The values as plain integers.

    Raises:
        GeometryError: One of them is not a whole number or is less than ``least``; names it.

    >>> whole_numbers(1, size=8, block=4)
    [8, 4]
    """
    for name, value in values.items():
        if not hasattr(type(value), "__index__") or value < least:
            raise GeometryError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return [index(value) for value in values.values()]


def _check(rule: str, holds: Callable[[int, int], bool], these: Sequence[int], those: Sequence[int]) -> None:
    """Refuse unless the rule holds for every pair; the longer sequence may have a rest."""
    if not all(map(holds, these, those)):
        position = next(i for i, pair in enumerate(zip(these, those, strict=False)) if not holds(*pair))
        raise GeometryError(f"{rule}: block {position} has {these[position]} against {those[position]}")
