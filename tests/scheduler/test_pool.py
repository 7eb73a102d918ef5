"""When is another process started, and when is starting them given up?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow.scheduler.worker_pool import FIRST_DELAY, LEAST_BAD_STARTS, LONGEST_DELAY, START_PATIENCE, WorkerPool


def start(pool: WorkerPool, *processes: int) -> list[float]:
    return [pool.started(process) for process in processes]


@pytest.mark.parametrize(("blocks", "wanted"), [(0, 0), (2, 2), (3, 3), (100, 3)])
def test_no_more_processes_than_workers_or_blocks(blocks: int, wanted: int) -> None:
    assert WorkerPool(3).wanted(blocks) == wanted


def test_living_processes_count() -> None:
    pool = WorkerPool(3)
    start(pool, 0, 1)
    assert pool.wanted(100) == 1
    assert pool.wanted(1) == 0, "never negative"


def test_a_process_that_worked_is_replaced_however_it_ends() -> None:
    pool = WorkerPool(1)
    for process, clean in enumerate((True, False, True, False) * 10):
        assert start(pool, process) == [0.0]
        pool.reached(process)
        pool.ended(process, clean=clean, how="with exit code 1")
        assert pool.wanted(1) == 1
    assert not pool.exhausted


def test_a_process_that_ends_cleanly_without_a_block_is_not_replaced() -> None:
    pool = WorkerPool(2)
    start(pool, 0, 1)
    pool.ended(0, clean=True, how="")
    assert pool.wanted(100) == 0
    assert pool.alive, "one still lives"
    pool.ended(1, clean=True, how="")
    assert pool.wanted(100) == 0
    assert pool.exhausted
    assert pool.gave_up is None


def test_bad_starts_are_delayed_more_and_more_and_then_given_up() -> None:
    pool = WorkerPool(5)
    delays = []
    for process in range(5):
        assert pool.wanted(1) == 1
        delays += start(pool, process)
        pool.ended(process, clean=False, how="with exit code 3")
    assert delays == [0.0, FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY, 8 * FIRST_DELAY]
    assert pool.wanted(1) == 0
    assert pool.exhausted
    assert pool.gave_up == (
        "5 worker processes in a row ended before they asked for a block; the last with exit code 3"
    )


def test_a_single_worker_gets_a_few_starts() -> None:
    pool = WorkerPool(1)
    for process in range(LEAST_BAD_STARTS):
        assert pool.wanted(1) == 1
        start(pool, process)
        pool.ended(process, clean=False, how="by signal 9")
    assert pool.wanted(1) == 0
    assert pool.gave_up is not None


def test_a_block_for_anybody_shows_that_starting_works() -> None:
    pool = WorkerPool(1)
    for process in range(20):
        start(pool, process)
        pool.ended(process, clean=False, how="by signal 9")
        pool.reached(None)
        assert pool.wanted(1) == 1
    assert start(pool, 20) == [0.0]


def test_the_delay_of_very_many_bad_starts_is_bounded() -> None:
    pool = WorkerPool(5_000)
    start(pool, *range(5_000))
    for process in range(4_999):
        pool.ended(process, clean=False, how="by signal 9")
    assert start(pool, 5_000) == [LONGEST_DELAY]


def test_an_unknown_process_changes_nothing() -> None:
    pool = WorkerPool(1)
    pool.ended(7, clean=True, how="")
    pool.ended(8, clean=False, how="")
    assert pool.wanted(1) == 1


def test_a_block_for_a_process_that_has_ended_is_not_remembered() -> None:
    pool = WorkerPool(2)
    start(pool, 0)
    pool.ended(0, clean=True, how="")
    pool.reached(0)
    start(pool, 0)
    pool.ended(0, clean=True, how="")
    assert pool.exhausted


@given(st.integers(1, 5), st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_either_it_wants_a_process_or_somebody_lives_or_it_is_exhausted(
    size: int, ends: list[tuple[bool, bool]]
) -> None:
    """A pool never falls asleep."""
    pool = WorkerPool(size)
    processes = iter(range(10_000))
    for reached, clean in ends:
        for _ in range(pool.wanted(100)):
            pool.started(next(processes))
        assert len(pool.alive) <= size
        if not pool.alive:
            assert pool.exhausted
            break
        process = min(pool.alive)
        if reached:
            pool.reached(process)
        pool.ended(process, clean=clean, how="somehow")
        assert pool.exhausted == (not pool.alive and not pool.wanted(100))


def test_a_process_that_came_but_never_asked_does_not_decline() -> None:
    """It was told to end before it could ask; in a month that happens more often than there are workers."""
    pool = WorkerPool(2)
    for process in range(100):
        start(pool, process)
        pool.joined(process)
        pool.ended(process, clean=True, how="ended with code 0")
        start(pool, 1000 + process)
        pool.reached(1000 + process)
        pool.ended(1000 + process, clean=True, how="")
        assert pool.wanted(2) == 2
    assert not pool.exhausted


def test_bad_starts_do_not_end_a_pool_that_is_at_work() -> None:
    pool = WorkerPool(2)
    start(pool, 0)
    pool.reached(0)
    for process in range(1, 1000):
        assert pool.wanted(2) == 1
        start(pool, process)
        pool.ended(process, clean=False, how="was killed")
    assert pool.gave_up is None
    assert start(pool, 1000) == [LONGEST_DELAY]


def test_where_starting_has_worked_it_is_given_up_late() -> None:
    pool = WorkerPool(1)
    start(pool, 0)
    pool.reached(0)
    pool.ended(0, clean=False, how="was killed")
    waited = 0.0
    for process in range(1, 1 + START_PATIENCE):
        assert pool.wanted(1) == 1
        (delay,) = start(pool, process)
        waited += delay
        pool.ended(process, clean=False, how="was killed")
    assert pool.gave_up is not None
    assert waited > 300.0, "longer than most troubles of a file system"


def test_asking_again_is_no_proof_that_others_can_start() -> None:
    pool = WorkerPool(2)
    start(pool, 0)
    pool.reached(0)
    for process in range(1, 5):
        start(pool, process)
        pool.ended(process, clean=False, how="was killed")
        pool.reached(0)
    assert start(pool, 5) == [8 * FIRST_DELAY]


def test_workers_from_elsewhere_and_processes_that_are_gone_change_little() -> None:
    pool = WorkerPool(1)
    pool.joined(None)
    pool.joined(7)
    pool.reached(7)
    pool.left(None)
    pool.left(7)
    pool.ended(7, clean=True, how="")
    assert pool.wanted(1) == 1


def test_adopted_processes_count_until_their_worker_leaves() -> None:
    pool = WorkerPool(2)
    pool.adopt(3)
    assert pool.wanted(5) == 1
    pool.left(3)
    assert pool.wanted(5) == 2
    pool.left(3)
    assert pool.wanted(5) == 2


def test_a_process_that_is_not_heard_of_does_not_count_until_it_is() -> None:
    pool = WorkerPool(1)
    pool.silent(0)
    assert pool.wanted(5) == 1, "nobody has heard of such a process"
    pool.started(0)
    pool.joined(0)
    assert pool.wanted(5) == 0
    pool.silent(0)
    assert pool.wanted(5) == 1, "it may be frozen for good"
    pool.started(1)
    pool.joined(1)
    assert pool.wanted(5) == 0
    pool.joined(0)
    pool.ended(1, clean=True, how="")
    assert pool.wanted(5) == 0, "it is back"
    pool.silent(0)
    pool.ended(0, clean=False, how="")
    assert pool.wanted(5) == 1


def test_a_pool_that_gives_up_repeats_what_the_last_process_has_said() -> None:
    pool = WorkerPool(1)
    for process in range(LEAST_BAD_STARTS):
        start(pool, process)
        pool.unable(None, "never counted", "")
        pool.unable(process + 100, "never counted", "")
        if process:
            pool.unable(process, f"could not begin: {process}", "Traceback")
        told = pool.ended(process, clean=False, how="ended with code 1", output="words")
        assert told == (None if process else "ended with code 1"), "what it has said itself is known"
    assert pool.gave_up is not None
    assert pool.gave_up.endswith("the last could not begin: 2")
    assert pool.detail == "Traceback"


def test_a_process_that_nobody_knows_or_that_is_lost_is_no_bad_start() -> None:
    pool = WorkerPool(1)
    start(pool, 0)
    assert pool.ended(7, clean=False, how="oddly") is None
    assert pool.ended(0, clean=False, how="oddly", lost=True) is None
