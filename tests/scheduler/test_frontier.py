"""Is the smallest block that is ready always the next one?"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow.plan.plan import compile_plan
from blockflow.scheduler.ready_queue import IndexSet, ReadyQueue
from blockflow.scheduler.retry_policy import FailureHistory, PendingRetry
from tests.scheduler.plans import line, square

if TYPE_CHECKING:
    from random import Random


def some(*indices: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(indices, dtype=np.int64)


INDEX = st.integers(0, 99) | st.integers(0, 20_000) | st.sampled_from((4095, 4096, 8191, 8192, 20_000))


@given(st.lists(st.lists(INDEX, max_size=8) | st.tuples(st.integers(0, 8), st.none() | INDEX)))
def test_smallest_first_whatever_comes_in_between(steps: list[list[int] | tuple[int, int | None]]) -> None:
    bag, model = IndexSet(20_001), list[int]()
    for step in steps:
        if isinstance(step, list):
            new = [index for index in dict.fromkeys(step) if index not in model]
            bag.add(some(*new))
            model = sorted(model + new)
        else:
            at_most, below = step
            expected = [index for index in model if below is None or index < below][:at_most]
            assert bag.take(at_most, below=below).tolist() == expected
            model = model[len(expected) :]
        assert len(bag) == len(model)
        assert bag.next == (model[0] if model else None)
        assert sorted(bag.members()) == model


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not tell how much memory is used")
def test_a_set_that_has_become_empty_gives_its_memory_back() -> None:
    size = 2**26
    bag = IndexSet(size)
    before = memory()
    bag.add(np.arange(0, size, 512))
    assert memory() - before > size / 2
    assert len(bag.take(size)) == size // 512
    assert memory() - before < size / 8


def test_a_set_does_without_that_on_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blockflow.scheduler.ready_queue._UNIX", False)
    bag = IndexSet(10_000)
    bag.add(np.arange(10_000))
    assert bag.take(10_000).tolist() == list(range(10_000))


def memory() -> int:
    """Bytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


@given(st.randoms(use_true_random=False))
def test_roots_and_ready_blocks_are_merged(random: Random) -> None:
    """Roots are the blocks with odd positions; the others become ready as it happens."""
    plan = compile_plan([square(side=6, context=1)]).tasks[0]
    roots = [index for index in range(36) if index // 6 % 2 and index % 2]
    others = [index for index in range(36) if index not in roots]
    frontier, model, undrawn = ReadyQueue(plan.roots(), 36), list(roots), len(roots)
    for _ in range(random.randint(0, 20)):
        new = random.sample(others, random.randint(0, len(others)))
        frontier.add(some(*new))
        model = sorted(model + new)
        others = [index for index in others if index not in new]
        at_most = random.randint(0, 7)
        expected = model[:at_most]
        assert frontier.take(at_most).tolist() == expected
        model = model[at_most:]
        undrawn -= len(set(expected) & set(roots))
        assert len(frontier) == len(model)
        assert frontier.undrawn_roots == undrawn
        assert sorted(frontier.waiting()) == [index for index in model if index not in roots]


def test_blocks_that_run_again_are_not_taken_with_the_others() -> None:
    frontier = ReadyQueue(compile_plan([line(blocks=3)]).tasks[0].roots(), 3)
    assert frontier.take(2).tolist() == [0, 1]
    frontier.retry(0, PendingRetry(FailureHistory(), 1.0), 1.0)
    assert frontier.take(9).tolist() == [2]
    assert len(frontier) == 1
    assert frontier.waiting() == [0]


def test_blocks_that_have_to_wait_before_they_run_again() -> None:
    frontier = ReadyQueue(compile_plan([line(blocks=5)]).tasks[0].roots(), 5)
    assert frontier.take(5).tolist() == [0, 1, 2, 3, 4]
    assert not frontier.next_due
    for index, due in ((0, 9.0), (1, 3.0), (2, 6.0), (3, 2.0)):
        frontier.retry(index, PendingRetry(FailureHistory(), due), 2.0)
    assert (list(frontier.retries), frontier.delayed_count, frontier.next_due) == ([3], 3, 3.0)
    assert len(frontier) == 4
    assert sorted(frontier.waiting()) == [0, 1, 2, 3]
    frontier.release_delayed(6.0)
    assert (list(frontier.retries), frontier.delayed_count, frontier.next_due) == ([3, 1, 2], 1, 9.0)
    frontier.claimed(np.array([0, 1]), np.empty(0, dtype=np.int64))
    assert (list(frontier.retries), frontier.delayed_count) == ([3, 2], 0), "somebody has them already"
    frontier.release_delayed(9.0)
    assert list(frontier.retries) == [3, 2]
    assert not frontier.next_due
