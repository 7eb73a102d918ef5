"""A balanced axis: how does one cut into nearly equal blocks that read no more than a given extent?

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
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from blockflow.errors import GeometryError
from blockflow.plan.cuts import CutAxis, whole_numbers

__all__ = ["Balance", "balanced_axis"]

Balance: TypeAlias = Literal["more", "fewer", "nearest"]
"""How the number of blocks becomes a multiple of the number of workers."""


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
) -> CutAxis:
    """As few blocks of nearly equal size as a bound allows, or a number of them that suits the workers.

    Sizes are of what a block reads, overlap included; reads end at the borders of the axis. ``max_size``,
    ``min_size`` and ``overlap`` are first bounded by the axis: one voxel is never asked to overlap by two.

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

    Raises:
        GeometryError: An argument is out of range, or they contradict one another: overlap not less than
            ``max_size`` or ``min_size``, ``min_size`` above ``max_size``, no multiple to cut at.

    >>> [tuple(span) for span in balanced_axis(20, 9, overlap=2)]
    [(0, 0, 7, 8), (6, 7, 13, 14), (12, 13, 20, 20)]
    >>> [tuple(span) for span in balanced_axis(20, 9, overlap=2, workers=2)]
    [(0, 0, 5, 6), (4, 5, 10, 11), (9, 10, 14, 15), (13, 14, 20, 20)]
    >>> [tuple(span) for span in balanced_axis(20, 9, overlap=2, exact=True)]
    [(0, 0, 8, 9), (7, 8, 14, 16), (11, 14, 20, 20)]
    >>> balanced_axis(100, 40, multiple_of=16).write_cuts
    (0, 16, 48, 80, 100)
    """
    size, workers, unit = whole_numbers(1, size=size, workers=workers, multiple_of=multiple_of)
    widest = size if max_size is None else min(size, *whole_numbers(1, max_size=max_size))
    overlap = min(size - 1, *whole_numbers(0, overlap=overlap))
    narrowest = overlap + 1 if min_size is None else min(size, *whole_numbers(1, min_size=min_size))
    if balance not in get_args(Balance):
        raise GeometryError(f"balance must be one of {', '.join(get_args(Balance))}, got {balance!r}")
    for name, bound in (("max_size", widest), ("min_size", narrowest)):
        if overlap >= bound:
            raise GeometryError(f"overlap must be less than {name}: {overlap} against {bound}")
    if narrowest > widest:
        raise GeometryError(f"min_size must be at most max_size: {narrowest} against {widest}")
    if exact:
        if workers > 1 or min_size is not None:
            raise GeometryError(f"exact leaves no choice: drop workers={workers} and min_size={min_size}")
        narrowest = widest
    if widest == size:
        return CutAxis((0, size), (0,), (size,))

    after = overlap // 2
    before = overlap - after
    low = before // unit * unit
    units = -((low + after - size) // unit)
    share = (widest - overlap) // unit
    if share == 0:
        raise GeometryError(
            f"cuts at multiples of {unit} need max_size - overlap of at least that: {widest} - {overlap}"
        )
    count = -(-units // share)
    if exact:
        cuts = [low + j * share * unit for j in range(count)]
        # The last two overlap by more; that is cut in its middle too, up to the next multiple.
        overlap_end = max(0, min(cuts[-2] - before, size - widest)) + widest
        middle = -((widest - size - overlap_end) // (2 * unit)) * unit
        cuts[-1] = min(cuts[-1], middle)
    else:
        most = units // -((overlap - narrowest) // unit)
        count = _suited(count, workers, balance, most)
        cuts = [low + j * units // count * unit for j in range(count)]
    cuts[0] = 0
    begins = [max(0, min(cut - before, size - narrowest)) for cut in cuts]
    cuts.append(size)
    ends = [min(size, max(cut + after, begin + narrowest)) for cut, begin in zip(cuts[1:], begins, strict=True)]
    return CutAxis(tuple(cuts), tuple(begins), tuple(ends))


def _suited(count: int, workers: int, balance: Balance, most: int) -> int:
    """A multiple of the workers near a number of blocks; only "fewer" and "nearest" may go below it."""
    rest = count % workers
    if rest == 0:
        return count
    if balance == "fewer" or (balance == "nearest" and 2 * rest < workers):
        return count - rest or count
    return min(count - rest + workers, max(count, most))
