"""When is a task given up because its first blocks all fail for the same reason?"""

from __future__ import annotations

from typing import Any

import pytest

from blockflow.result import result_of
from blockflow.scheduler import events as ev
from blockflow.scheduler.retry_policy import BREAKER_BLOCKS, CircuitBreaker
from tests.scheduler.desk import Desk, dismissed, granted, started
from tests.scheduler.plans import line, never

BEFORE, AFTER = ev.CheckPhase.BEFORE, ev.CheckPhase.AFTER
CHECKED_BEFORE, CHECKED_AFTER = (never, None), (None, never)

MANY = 3 * BREAKER_BLOCKS


def failure(index: int, error: str = "ValueError: no", where: str = "a.py:1") -> ev.BlockFailure:
    return ev.BlockFailure(index=index, error=error, where=where, traceback="Traceback of it")


def fail(
    desk: Desk, grant: ev.GrantLease, error: str = "ValueError: no", where: str = "a.py:1"
) -> list[ev.Instruction]:
    (index,) = grant.indices.tolist()
    report = ev.BlocksReported(
        worker=grant.worker, lease=grant.lease, upto=1, seconds=1.0, failures=(failure(index, error, where),)
    )
    return desk.tell(report)


def fail_first(desk: Desk, count: int = BREAKER_BLOCKS) -> None:
    for _ in range(count):
        fail(desk, desk.ask(1))


def desk_of(**more: Any) -> Desk:
    desk = Desk(line(blocks=MANY, max_retries=0, num_workers=2, **more))
    desk.join(1)
    return desk


def test_a_task_whose_first_blocks_all_fail_is_given_up() -> None:
    desk = desk_of()
    fail_first(desk)
    assert desk.book.given_up
    assert dismissed(desk.tell(ev.BlocksAsked(worker=1))) == [1]
    assert desk.finished()
    assert desk.scheduler.task_states["t"].failed_count == BREAKER_BLOCKS
    assert started(desk.tell(ev.ProcessEnded(process=0, task=0, clean=False))) == []
    result = result_of(desk.scheduler)
    assert not result
    assert result.causes[0].traceback == "Traceback of it"
    assert result.problems == [
        f"task 't' was stopped early: its first {BREAKER_BLOCKS} blocks all failed with ValueError: no at a.py:1, and "
        f"none was done; {MANY - BREAKER_BLOCKS} blocks were not tried. If others may succeed, "
        "Task(..., stop_if_all_fail=False) tries them all"
    ]


def test_the_user_may_want_all_of_them_tried() -> None:
    desk = desk_of(stop_if_all_fail=False)
    fail_first(desk, MANY)
    assert desk.finished()
    assert desk.scheduler.task_states["t"].failed_count == MANY


@pytest.mark.parametrize("place", range(BREAKER_BLOCKS))
@pytest.mark.parametrize("other", [("KeyError: 'a'", "a.py:1"), ("ValueError: no", "a.py:2")])
def test_two_causes_are_no_reason(place: int, other: tuple[str, str]) -> None:
    desk = desk_of()
    for number in range(MANY):
        fail(desk, desk.ask(1), *(other if number == place else ()))
    assert desk.scheduler.task_states["t"].failed_count == MANY


@pytest.mark.parametrize("message", ["ValueError: block 7", "ValueError"])
def test_messages_may_differ(message: str) -> None:
    desk = desk_of()
    fail(desk, desk.ask(1), message)
    fail_first(desk, BREAKER_BLOCKS - 1)
    assert desk.book.given_up


def test_a_block_that_is_done_speaks_against_it_for_ever() -> None:
    desk = desk_of()
    desk.report(desk.ask(1))
    fail_first(desk, MANY - 1)
    assert desk.scheduler.task_states["t"].failed_count == MANY - 1


def test_a_block_under_way_may_still_prove_the_opposite() -> None:
    desk = desk_of()
    desk.join(2)
    slow = desk.ask(2)
    fail_first(desk)
    desk.ask_in_vain(1)
    assert not desk.finished(), "one is under way"
    assert granted(desk.report(slow)) == [(1, [BREAKER_BLOCKS + 1])]
    assert not desk.book.given_up


def test_a_block_that_is_being_verified_may_as_well() -> None:
    desk = desk_of(check_function=CHECKED_AFTER)
    desk.join(2)
    desk.report(desk.ask(2))
    fail_first(desk)
    assert not desk.book.given_up
    desk.answer(AFTER, refused=[0])
    assert not desk.book.given_up, "that is another cause"


def test_blocks_that_the_post_check_refuses_are_alike() -> None:
    desk = desk_of(check_function=CHECKED_AFTER)
    for index in range(BREAKER_BLOCKS):
        desk.report(desk.ask(1))
        desk.answer(AFTER, refused=[index])
    assert desk.book.given_up


def test_what_a_pre_check_found_done_was_done_by_the_same_code() -> None:
    desk = desk_of(check_function=CHECKED_BEFORE)
    desk.answer(BEFORE, passed=[0])
    assert desk.book.has_succeeded
    assert desk.scheduler.task_states["t"].skipped_count == 1


def test_what_is_not_started_is_wanted_back() -> None:
    desk = Desk(line(blocks=20 * MANY, max_retries=0), largest_lease=64)
    desk.join(1, 2)
    grant = desk.ask(1)
    told = fail_all(desk, grant)
    held = desk.ask(2)
    assert len(held.indices) > 1, "leases grow with what was measured, also of failures"
    while not desk.book.given_up:
        told = fail_all(desk, desk.ask(1))
    assert [recall for recall in told if isinstance(recall, ev.RecallLease)] == [
        ev.RecallLease(worker=2, lease=held.lease)
    ]
    assert desk.tell(ev.BlocksAsked(worker=1)) == [], "it is not asked for twice"
    desk.give_back(held, kept=1)
    assert not desk.finished()
    fail_all(desk, held, 1)
    assert desk.finished()
    assert desk.scheduler.task_states["t"].ready_count > MANY


def fail_all(desk: Desk, grant: ev.GrantLease, upto: int | None = None) -> list[ev.Instruction]:
    failures = tuple(failure(index) for index in grant.indices.tolist()[:upto])
    report = ev.BlocksReported(
        worker=grant.worker, lease=grant.lease, upto=len(failures), seconds=1e-6, failures=failures
    )
    return desk.tell(report)


def test_blocks_with_many_retries_need_not_use_them_all() -> None:
    desk = Desk(line(blocks=MANY, max_retries=100))
    desk.join(1)
    desk.wait(1000.0)  # by now blocks wait before they run again, and others come first
    while not desk.book.given_up:
        desk.wait(1.0)
        fail(desk, desk.ask(1))
        assert desk.now < 2000.0
    assert desk.scheduler.task_states["t"].failed_count == 0
    assert dismissed(desk.tell(ev.BlocksAsked(worker=1))) == [1]
    (problem,) = result_of(desk.scheduler).problems
    assert problem.endswith("tries them all\nTraceback of it"), "no block failed for good, so nothing else tells it"


def test_blocks_that_kill_their_workers_are_alike() -> None:
    desk = Desk(line(blocks=MANY, max_retries=0))
    worker = 0
    while not desk.book.given_up:
        worker += 1
        desk.join(worker)
        desk.wait(31.0)
        desk.ask(worker)
        desk.leave(worker, crashed=True)
        assert worker < 1000
    assert desk.finished()
    assert desk.scheduler.task_states["t"].failed_count == BREAKER_BLOCKS
    assert (
        "5 workers ended while they ran this block: the last ended, and none was done"
        in result_of(desk.scheduler).problems[0]
    )


def test_what_waits_for_such_a_task_is_over_as_well() -> None:
    above = line("above", MANY, max_retries=0)
    desk = Desk(above, line("below", MANY, upstream=[above]))
    desk.join(1)
    fail_first(desk)
    assert desk.finished()
    assert desk.scheduler.task_states["below"].orphaned_count == BREAKER_BLOCKS


def test_the_memory_of_it_is_small() -> None:
    first = CircuitBreaker()
    for index in range(10_000):
        first.failed(failure(index), times=1, final=True)
    assert len(first) == BREAKER_BLOCKS
