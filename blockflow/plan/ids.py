"""Block numbers: which integer names the block at a position, in every run and every grid?

The number of a position ``(x1, ..., xn)`` is the Cantor pairing function in n dimensions,

    sum over k = 1..n of C(k - 1 + x1 + ... + xk, k)

(a bijection between n-tuples of naturals and naturals; Cantor 1878, the n-dimensional form is the
combinatorial number system, Knuth TAOCP 4A, 7.2.1.3). It does not depend on the size of the grid, so a block
keeps its number when the total region grows at its far end. daisy numbers blocks in the same way, so databases
of finished blocks stay valid.
"""

from __future__ import annotations

from math import comb
from typing import TYPE_CHECKING

from blockflow.errors import GeometryError

if TYPE_CHECKING:
    from collections.abc import Sequence


def pair(position: Sequence[int]) -> int:
    """The number of a position.

    Args:
        position: One natural number per axis.

    Raises:
        GeometryError: A coordinate is negative.

    >>> [pair((0, 0)), pair((0, 1)), pair((1, 0)), pair((1, 1))]
    [0, 1, 2, 4]
    """
    number = total = 0
    for k, x in enumerate(position, 1):
        if x < 0:
            raise GeometryError(f"a numbered position has no negative coordinates: axis {k - 1} has {x}")
        total += x
        number += comb(k - 1 + total, k)
    return number


def unpair(number: int, dims: int) -> tuple[int, ...]:
    """The position that has a number: the inverse of :func:`pair`.

    Raises:
        GeometryError: The number is negative.

    >>> unpair(4, dims=2)
    (1, 1)
    """
    if number < 0:
        raise GeometryError(f"a block number is not negative, got {number}")
    totals = []
    for k in range(dims, 0, -1):
        total = _largest_total(number, k)
        number -= comb(k - 1 + total, k)
        totals.append(total)
    totals.append(0)
    return tuple(total - below for total, below in zip(reversed(totals[:-1]), reversed(totals[1:]), strict=True))


def _largest_total(number: int, k: int) -> int:
    """The largest s with C(k - 1 + s, k) <= number, by bisection between powers of two."""
    high = 1
    while comb(k - 1 + high, k) <= number:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        if comb(k - 1 + middle, k) <= number:
            low = middle
        else:
            high = middle
    return low
