"""Does the scheduler keep its promises whatever happens, in whatever order?"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow.scheduler import propagation
from tests.scheduler.moves import be_short_tempered, live

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module", autouse=True)
def _short_tempers() -> Iterator[None]:
    """Plans are small here, so hosts and tasks are given up sooner."""
    with pytest.MonkeyPatch.context() as patch:
        be_short_tempered(patch)
        yield


@given(st.randoms(use_true_random=False))
def test_promises_are_kept(random: Random) -> None:
    """Few lives, but a failing one is made as short as possible."""
    live(random, most_steps=40)


@pytest.mark.parametrize("seed", range(8))
def test_promises_are_kept_in_many_long_lives(seed: int) -> None:
    random = Random(seed)
    for _ in range(30):
        live(random, most_steps=150)


@pytest.mark.parametrize("most", [1, 3])
def test_promises_are_kept_when_few_blocks_are_looked_at_together(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in tasks of millions of blocks that all wait for a few."""
    monkeypatch.setattr(propagation, "_MOST_TARGETS", most)
    random = Random(most)
    for _ in range(20):
        live(random, most_steps=80)
