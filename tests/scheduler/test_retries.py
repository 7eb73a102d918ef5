"""When does a block run again, and who had better not get it?"""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow.scheduler.retry_policy import LARGEST_SHARE, WAITS, FailureHistory, delay_before

LONG = 1e6
"""Seconds that a long run has lasted."""


@given(st.integers(0, 2**40), st.integers(0, 5), st.integers(0, 5), st.booleans(), st.floats(0, 1e7))
def test_a_wait_is_never_longer_than_it_should_be(
    index: int, failures: int, losses: int, others: bool, lasted: float
) -> None:
    wait = delay_before(index, FailureHistory(failures=failures, losses=losses), others=others, lasted=lasted)
    place = min(max(failures + losses + (not others), 1), len(WAITS)) - 1
    longest = min(WAITS[place], LARGEST_SHARE * lasted)
    assert longest / 2 <= wait <= longest


@pytest.mark.parametrize(
    ("mishaps", "others", "longest"),
    [
        (FailureHistory(), True, 0.0),
        (FailureHistory(failures=1), True, 0.0),
        (FailureHistory(losses=1), True, 0.0),
        (FailureHistory(failures=1), False, 5.0),
        (FailureHistory(failures=1, losses=1), True, 5.0),
        (FailureHistory(failures=2), False, 30.0),
        (FailureHistory(failures=3), True, 30.0),
        (FailureHistory(failures=40), True, 30.0),
    ],
)
def test_waits_grow_with_failures_and_if_no_other_worker_is_there(
    mishaps: FailureHistory, others: bool, longest: float
) -> None:
    waits = [delay_before(index, mishaps, others=others, lasted=LONG) for index in range(1000)]
    assert all(longest / 2 <= wait <= longest for wait in waits)


def test_blocks_that_failed_together_do_not_come_back_together() -> None:
    waits = sorted(delay_before(index, FailureHistory(failures=2), others=True, lasted=LONG) for index in range(1000))
    gaps = [after - before for before, after in pairwise(waits)]
    assert max(gaps) < 0.05, "spread over all of two and a half seconds"
    again = [delay_before(7, FailureHistory(failures=times), others=True, lasted=LONG) for times in (3, 4, 5)]
    assert len(set(again)) == 3, "and not in the same order the next time"


def test_what_speaks_against_a_worker() -> None:
    mishaps = FailureHistory()
    mishaps.remember(1, "a")
    mishaps.remember(2, "")
    assert [mishaps.against(worker, host) for worker, host in ((1, "a"), (2, ""), (3, "a"), (3, "b"), (3, ""))] == [
        2,
        2,
        1,
        0,
        0,
    ]
