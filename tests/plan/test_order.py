"""In which order are the blocks of a task handed out?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow import Roi, Task
from blockflow.errors import PlanError
from blockflow.plan.order import Ranks, morton_keys, ranks_for
from blockflow.plan.slices import positions_of


def interleaved(position: tuple[int, ...], widths: list[int]) -> int:
    """The bits of all axes, written down by hand."""
    bits = []
    for bit in range(max(widths)):
        for value, width in reversed(list(zip(position, widths, strict=True))):
            if bit < width:
                bits.append(value >> bit & 1)
    return sum(bit << place for place, bit in enumerate(bits))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_morton_keys_interleave_the_bits_of_all_axes(shape: list[int]) -> None:
    positions = positions_of(np.arange(np.prod(shape)), tuple(shape))
    widths = [(extent - 1).bit_length() for extent in shape]
    keys = morton_keys(positions).tolist()
    if max(widths):
        assert keys == [interleaved(p, widths) for p in zip(*(axis.tolist() for axis in positions), strict=True)]
    assert len(set(keys)) == len(keys)


@given(st.lists(st.integers(-5, 5), max_size=30))
def test_ranks_are_a_permutation_that_sorts_the_keys(keys: list[int]) -> None:
    ranks = Ranks(np.array(keys, dtype=np.int64))
    assert sorted(ranks.block_at.tolist()) == list(range(len(keys)))
    assert ranks.of_block[ranks.block_at].tolist() == list(range(len(keys)))
    assert [keys[block] for block in ranks.block_at] == sorted(keys)


def test_the_order_of_indices_costs_nothing() -> None:
    assert ranks_for("index", (10**6, 10**6)) is None


def test_a_grid_that_is_too_large_for_a_curve_is_refused() -> None:
    with pytest.raises(PlanError, match="bits is too large for order='morton'"):
        morton_keys([np.array([2**40]), np.array([2**40])])


def test_a_function_must_return_a_key_for_each_block() -> None:
    with pytest.raises(PlanError, match=r"one key for each of 6 blocks, got an array of shape \(3,\)"):
        ranks_for(lambda indices: indices[:3], (2, 3))


@pytest.mark.parametrize("order", ["random", 3, None])
def test_what_is_no_order_is_refused(order: Any) -> None:
    with pytest.raises(PlanError, match=r"task 't': order must be one of 'index', 'morton', or a function"):
        Task("t", Roi((0,), (3,)), Roi((0,), (1,)), Roi((0,), (1,)), order=order)
