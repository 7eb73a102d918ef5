"""How long may a block take, judged by those before it?"""

from __future__ import annotations

import pytest

from blockflow.scheduler import events as ev
from blockflow.scheduler.leases import (
    ENOUGH_BLOCKS_MEASURED,
    LEAST_TIMEOUT,
    LONGEST_TIMEOUT,
    MEASURED_REPORTS,
    TIMEOUT_FACTOR,
    AutoTimeout,
)
from tests.scheduler.desk import Desk
from tests.scheduler.plans import line


def measured(*seconds: float) -> AutoTimeout:
    limit = AutoTimeout()
    for each in seconds:
        limit.measured(1, each)
    return limit


def test_nothing_is_limited_before_a_handful_was_measured() -> None:
    assert measured(*[1.0] * (ENOUGH_BLOCKS_MEASURED - 1)).seconds() is None
    assert measured(*[1.0] * ENOUGH_BLOCKS_MEASURED).seconds() == LEAST_TIMEOUT


def test_blocks_that_were_reported_together_all_count() -> None:
    limit = AutoTimeout()
    limit.measured(ENOUGH_BLOCKS_MEASURED - 1, 8.0)
    assert limit.seconds() is None
    limit.measured(1, 1.0)
    assert limit.seconds() == TIMEOUT_FACTOR * 8.0


def test_the_longest_of_the_last_counts() -> None:
    limit = measured(100.0, *[1.0] * (MEASURED_REPORTS - 1))
    assert limit.seconds() == TIMEOUT_FACTOR * 100.0
    limit.measured(1, 30.0)
    assert limit.seconds() == TIMEOUT_FACTOR * 30.0


def test_a_block_that_failed_may_take_longer() -> None:
    limit = measured(*[20.0] * ENOUGH_BLOCKS_MEASURED)
    assert [limit.seconds(failures) for failures in range(3)] == [200.0, 800.0, 3200.0]
    assert limit.seconds(10_000) == LONGEST_TIMEOUT, "what fits into a message"


@pytest.mark.parametrize("timeout", [None, 5.0])
def test_only_tasks_that_want_it_have_such_limits(timeout: float | None) -> None:
    desk = Desk(line(blocks=20, timeout=timeout))
    desk.join(1)
    for _ in range(ENOUGH_BLOCKS_MEASURED):
        desk.report(desk.ask(1))
    assert desk.ask(1).timeout is None
    assert desk.book.timeout_of() is None


def test_each_grant_says_how_long_a_block_may_take_by_now() -> None:
    desk = Desk(line(blocks=20, timeout="auto", max_retries=3))
    desk.join(1, 2)
    for _ in range(ENOUGH_BLOCKS_MEASURED):
        grant = desk.ask(1)
        assert grant.timeout is None
        desk.report(grant, seconds=20.0)
    grant = desk.ask(1)
    assert grant.timeout == 200.0
    assert desk.book.timeout_of() == 200.0
    desk.report(grant, fails=grant.indices.tolist(), seconds=200.0)
    again = desk.ask(2)
    assert again.indices.tolist() == grant.indices.tolist()
    assert again.timeout == 800.0, "it may only be unlike the others; and failures do not count as measured"
    desk.report(again, seconds=700.0)
    assert desk.ask(2).timeout == 7000.0
    assert all(isinstance(told, ev.AcknowledgeReport | ev.GrantLease) for told in desk.told)
