"""Who holds which blocks until when, and how many should one get?"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow.scheduler.leases import (
    GROWTH,
    LARGEST_LEASE,
    SERVER_PATIENCE,
    TARGET_SECONDS,
    DurationEstimate,
    Lease,
    Leases,
)

SECONDS = 60.0
PATIENCE = SECONDS * SERVER_PATIENCE


def blocks(count: int = 1) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.arange(count, dtype=np.int64)


def test_attempts_and_numbers_increase() -> None:
    leases = Leases(SECONDS)
    made = [leases.grant(worker, 0, blocks(size), 0.0) for worker, size in enumerate((3, 1, 5, 1))]
    for one, next_one in pairwise(made):
        assert next_one.attempt == one.attempt + len(one.indices)
        assert next_one.number > one.number
    assert made[0].attempt > 0, "0 is no attempt"
    assert made[0].number > 0, "0 is no lease on the wire"


def test_a_lease_is_held_by_one_worker_until_it_ends() -> None:
    leases = Leases(SECONDS)
    lease = leases.grant(1, 0, blocks(4), 0.0)
    assert leases.held(lease.number, 1) is lease
    assert leases.held(lease.number, 2) is None
    assert leases.held(lease.number + 1, 1) is None
    lease.reported = 1
    assert lease.outstanding.tolist() == [1, 2, 3]
    leases.end(lease)
    assert leases.held(lease.number, 1) is None
    assert leases.of_worker(1) == []
    assert leases.next_deadline is None


def test_the_leases_of_a_worker_end_together() -> None:
    leases = Leases(SECONDS)
    first = leases.grant(1, 0, blocks(), 0.0)
    second = leases.grant(1, 0, blocks(), 10.0)
    assert leases.of_worker(1) == [first, second]
    assert leases.expired(PATIENCE) == []
    assert leases.expired(10.0 + PATIENCE) == [1]
    leases.end(first)
    assert leases.next_deadline == 10.0 + PATIENCE


def test_the_server_waits_longer_than_the_worker() -> None:
    leases = Leases(SECONDS)
    leases.grant(1, 0, blocks(), 0.0)
    assert leases.expired(SECONDS) == []
    assert leases.next_deadline == PATIENCE > SECONDS


def test_who_holds_nothing_has_no_deadline() -> None:
    leases = Leases(SECONDS)
    leases.renew(1, 0.0)
    assert leases.next_deadline is None
    assert leases.expired(1e9) == []


@given(st.lists(st.tuples(st.sampled_from(["grant", "renew", "end", "wait"]), st.integers(0, 3), st.integers(0, 9))))
def test_deadlines_against_a_plain_model(steps: list[tuple[str, int, int]]) -> None:
    leases, now = Leases(SECONDS), 0.0
    held: dict[int, list[Lease]] = {}
    deadlines: dict[int, float] = {}
    for what, worker, number in steps:
        mine = held.setdefault(worker, [])
        if what == "wait":
            now += number
        elif what == "grant":
            mine.append(leases.grant(worker, 0, blocks(), now))
            deadlines[worker] = now + PATIENCE
        elif mine and what == "renew":
            leases.renew(worker, now)
            deadlines[worker] = now + PATIENCE
        elif mine and what == "end":
            leases.end(mine.pop(number % len(mine)))
        due = {worker: deadline for worker, deadline in deadlines.items() if held[worker]}
        assert leases.next_deadline == min(due.values(), default=None)
        for later in (now, now + PATIENCE - 5, now + PATIENCE):
            assert set(leases.expired(later)) == {worker for worker, deadline in due.items() if deadline <= later}
        assert {lease.number for lease in leases} == {lease.number for mine in held.values() for lease in mine}
        assert leases.of_worker(worker) == mine


# ------------------------------------------------------------------------------------------------------------ pace


def paced(items: int, seconds_each: float) -> DurationEstimate:
    pace = DurationEstimate()
    pace.measured(items, items * seconds_each)
    return pace


def test_the_first_item_comes_alone() -> None:
    assert DurationEstimate().batch(waiting=1_000_000, takers=1) == 1


@pytest.mark.parametrize(
    ("seconds", "size"), [(1.0, 1), (TARGET_SECONDS, 1), (0.01, 5), (0.001, 50), (0.0, LARGEST_LEASE)]
)
def test_a_batch_takes_about_the_target_time(seconds: float, size: int) -> None:
    assert paced(10_000, seconds).batch(waiting=1_000_000, takers=1) == size


@pytest.mark.parametrize(
    ("waiting", "takers", "size"), [(100, 1, 50), (100, 5, 10), (100, 0, 50), (100, 51, 1), (0, 1, 1)]
)
def test_a_batch_is_at_most_half_of_a_fair_share(waiting: int, takers: int, size: int) -> None:
    assert paced(10_000, 1e-5).batch(waiting=waiting, takers=takers) == size


def test_batches_grow_from_measured_ones() -> None:
    """One short block says little about the next; the measure and the batch grow together."""
    pace, sizes = paced(1, 0.0), []
    for _ in range(6):
        sizes.append(pace.batch(waiting=10**9, takers=1))
        pace.measured(sizes[-1], 0.0)
    assert sizes == [GROWTH, GROWTH**2, GROWTH**3, GROWTH**4, LARGEST_LEASE, LARGEST_LEASE]


def test_the_newest_measure_weighs_half() -> None:
    pace = paced(1, 1.0)
    pace.measured(10, 0.0)
    assert pace.seconds_each == 0.5
    pace.measured(10, 0.0)
    assert pace.seconds_each == 0.25
