"""Are block numbers a bijection, and the one that daisy uses?"""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow.errors import GeometryError
from blockflow.plan.ids import pair, unpair
from tests.plan.oracle import number_by_rank

POSITIONS = st.lists(st.integers(0, 10**9), min_size=1, max_size=6).map(tuple)


@given(POSITIONS)
def test_unpair_inverts_pair(position: tuple[int, ...]) -> None:
    assert unpair(pair(position), len(position)) == position


@given(st.integers(0, 10**30), st.integers(1, 6))
def test_pair_inverts_unpair(number: int, dims: int) -> None:
    assert pair(unpair(number, dims)) == number


@pytest.mark.parametrize(("dims", "sums"), [(1, 30), (2, 12), (3, 6), (4, 4), (5, 3), (6, 2)])
def test_number_is_the_rank_by_sums(dims: int, sums: int) -> None:
    positions = [position for position in product(range(sums + 1), repeat=dims) if sum(position) <= sums]
    numbers = [pair(position) for position in positions]
    assert numbers == [number_by_rank(position) for position in positions]
    assert sorted(numbers) == list(range(len(positions)))
    assert [unpair(number, dims) for number in numbers] == positions


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_two_axes_give_cantors_function(x: int, y: int) -> None:
    assert pair((x, y)) == (x + y) * (x + y + 1) // 2 + x


def test_known_numbers() -> None:
    assert pair((100, 100, 100, 100)) == 1087305400  # as in daisy 1.2.3
    assert pair((0,) * 6) == 0
    assert pair((2**40, 0, 2**40)) > 2**64, "numbers may need more than 64 bits"


def test_negative_positions_and_numbers_are_refused() -> None:
    with pytest.raises(GeometryError, match=r"^a numbered position has no negative coordinates: axis 1 has -2$"):
        pair((3, -2))
    with pytest.raises(GeometryError, match=r"^a block number is not negative, got -1$"):
        unpair(-1, 2)
