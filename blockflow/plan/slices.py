"""Sets of blocks as n-D slices: how many blocks does each member of a batch point to, and which?

The blocks of a grid that meet a box, and the neighbours of a block in another level, are products of one range
of positions per axis. A batch of such products is kept as per-axis arrays of first positions and counts and
expanded into C-order indices only when it is needed:

1. the number of blocks of a product is the product of its counts;
2. blocks are numbered within each product from 0, in C order;
3. that number is taken apart into one digit per axis (mixed radix), and the digits are put on the starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Indices: TypeAlias = npt.NDArray[np.int64]
"""C-order indices or positions, one-dimensional."""

Positions: TypeAlias = tuple[Indices, ...]
"""One array of positions per axis, all of the same length."""


def positions_of(indices: Indices, shape: tuple[int, ...]) -> Positions:
    """Positions of C-order indices in a grid."""
    found = []
    for extent in reversed(shape[1:]):
        indices, here = np.divmod(indices, extent)
        found.append(here)
    found.append(indices)
    return tuple(reversed(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    """For each of n blocks, a product of ranges of positions in some grid.

    Range `a` of member `i` is ``starts[a][i] + steps[a] * k`` for ``0 <= k < counts[a][i]``.
    """

    starts: Positions
    counts: Positions
    """May be 0, never negative."""
    steps: tuple[int, ...]

    def sizes(self) -> Indices:
        """Number of blocks in each product."""
        sizes = self.counts[0]
        for count in self.counts[1:]:
            sizes = sizes * count
        return sizes

    def flat(self, shape: tuple[int, ...]) -> Indices:
        """C-order indices of all blocks of all products, member after member.

        Args:
            shape: The grid that the positions refer to.
        """
        sizes = self.sizes()
        ends = np.cumsum(sizes)
        total = int(ends[-1]) if len(ends) else 0
        digits = np.arange(total, dtype=np.int64) - np.repeat(ends - sizes, sizes)
        indices = np.zeros(total, dtype=np.int64)
        stride = 1
        for axis in reversed(range(len(shape))):
            count, step = self.counts[axis], self.steps[axis]
            first = np.repeat(self.starts[axis], sizes)
            if axis:
                digits, digit = np.divmod(digits, np.repeat(count, sizes))
            else:
                digit = digits
            indices += (first + digit * step) * stride
            stride *= shape[axis]
        return indices
