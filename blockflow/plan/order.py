"""In which order are the blocks of a task handed out, where nothing else decides?

By index (C order) unless the task says otherwise: that costs nothing. Any other order is a rank for each block, 16
bytes in all: ``"morton"``, or whatever a key function over block indices sorts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from blockflow.errors import PlanError
from blockflow.plan.slices import Indices, positions_of

if TYPE_CHECKING:
    from collections.abc import Sequence

ORDERS = ("index", "morton")
"""Orders that have a name."""


class Ranks:
    """A permutation of blocks: which comes when, and which comes then.

    >>> import numpy as np
    >>> ranks = Ranks(np.array([30, 10, 20]))
    >>> ranks.of_block.tolist(), ranks.block_at.tolist()
    ([2, 0, 1], [1, 2, 0])
    """

    def __init__(self, keys: Any) -> None:
        self.block_at: Indices = np.argsort(keys, kind="stable").astype(np.int64, copy=False)
        """By rank: the index of a block."""
        self.of_block: Indices = np.empty(len(keys), dtype=np.int64)
        """By index of a block: its rank. Blocks with equal keys come by index."""
        self.of_block[self.block_at] = np.arange(len(keys), dtype=np.int64)


def check_order(order: Any) -> None:
    """Refuse what is no order.

    Raises:
        PlanError: It is neither a name nor a function.
    """
    if order not in ORDERS and not callable(order):
        raise PlanError(
            f"order must be one of {', '.join(map(repr, ORDERS))}, or a function of an array of block indices that "
            f"returns as many keys, got {order!r}"
        )


def ranks_for(order: Any, shape: Sequence[int]) -> Ranks | None:
    """The order of the blocks of a grid; None if it is that of their indices.

    Args:
        order: A name, or a function that is given all indices as int64 and returns as many keys that can be sorted.
        shape: Blocks along each axis.

    Raises:
        PlanError: The function returns something else.
    """
    if order == "index":
        return None
    size = int(np.prod(shape, dtype=np.int64))
    indices = np.arange(size, dtype=np.int64)
    if order == "morton":
        return Ranks(morton_keys(positions_of(indices, tuple(shape))))
    keys = np.asarray(order(indices))
    if keys.shape != (size,):
        raise PlanError(f"order must return one key for each of {size} blocks, got an array of shape {keys.shape}")
    return Ranks(keys)


def morton_keys(positions: Sequence[Indices]) -> Indices:
    """Positions on a Z-order curve: the bits of all axes, interleaved, the last axis fastest (Morton 1966).

    Blocks with near keys are near in space, so neighbours, chunks and shards are finished early and while warm.

    Raises:
        PlanError: The bits of all axes together are more than an index has.

    >>> import numpy as np
    >>> morton_keys([np.array([0, 0, 1, 1, 0]), np.array([0, 1, 0, 1, 2])]).tolist()
    [0, 1, 2, 3, 4]
    """
    widths = [int(position.max(initial=0)).bit_length() for position in positions]
    if sum(widths) > 62:
        raise PlanError(f"a grid whose positions have {sum(widths)} bits is too large for order='morton'")
    keys = np.zeros(len(positions[0]), dtype=np.int64)
    place = 0
    for bit in range(max(widths, default=0)):
        for width, position in reversed(list(zip(widths, positions, strict=True))):
            if bit < width:
                keys |= ((position >> bit) & 1) << place
                place += 1
    return keys
