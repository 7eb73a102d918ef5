"""What should a worker do that is told to end, or whose job soon will be ended?"""

from __future__ import annotations

import pytest

from blockflow.errors import PlanError
from blockflow.wire.ending import ECHO_SECONDS, MARGIN, REMEMBERED, Advice, Ending, time_limit


def ending(*blocks: float, limit: float | None = None, signals: tuple[float, ...] = ()) -> Ending:
    made = Ending(None if limit is None else limit + MARGIN)
    for seconds in blocks:
        made.measured(seconds)
    for at in signals:
        made.signalled(at)
    return made


def advice(made: Ending, now: float, began: float | None = None, *, dismissed: bool = False) -> str:
    return made.advice(now, began, dismissed=dismissed).value


GO_ON, FINISH, ABANDON = (each.value for each in Advice)


@pytest.mark.parametrize("began", [None, 0.0])
@pytest.mark.parametrize("dismissed", [False, True])
def test_without_signal_or_limit_it_goes_on(began: float | None, dismissed: bool) -> None:
    assert advice(ending(1.0), 1e9, began, dismissed=dismissed) == GO_ON


@pytest.mark.parametrize("began", [None, 0.0])
def test_after_a_signal_the_block_under_way_is_finished(began: float | None) -> None:
    made = ending(1.0, signals=(5.0,))
    assert [advice(made, now, began) for now in (5.0, 1e6)] == [FINISH, FINISH]


def test_after_a_second_signal_it_is_not() -> None:
    made = ending(signals=(5.0, 9.0))
    assert advice(made, 9.0, 0.0) == ABANDON


def test_an_echo_is_no_second_signal() -> None:
    """The batch system may signal a process, and its group as well."""
    made = ending(signals=(5.0, 5.0, 5.1, 5.1 + 0.9 * ECHO_SECONDS))
    assert advice(made, 6.0, 0.0) == FINISH
    made.signalled(7.0)
    assert advice(made, 7.0, 0.0) == ABANDON


def test_a_signal_after_the_driver_has_said_goodbye_ends_it_at_once() -> None:
    """The driver ends workers of a run that was stopped: these need not finish anything."""
    assert advice(ending(signals=(5.0,)), 5.0, 0.0, dismissed=True) == ABANDON


def test_no_block_is_begun_that_would_not_end_in_time() -> None:
    made = ending(10.0, 30.0, 20.0, limit=100.0)
    assert advice(made, 69.0) == GO_ON
    assert advice(made, 70.0) == FINISH, "one more may take thirty seconds"
    assert advice(made, 30.0, 20.0) == GO_ON
    assert advice(made, 45.0, 40.0) == FINISH, "this one until 70, and another does not fit"
    assert advice(made, 75.0, 20.0) == FINISH, "it takes longer than it should have"


def test_without_measure_it_hopes() -> None:
    made = ending(limit=100.0)
    assert advice(made, 99.0) == GO_ON
    assert advice(made, 99.0, 0.0) == GO_ON
    assert advice(made, 100.0) == FINISH


def test_at_the_limit_a_block_under_way_is_given_back() -> None:
    made = ending(30.0, limit=100.0)
    assert advice(made, 99.9, 60.0) == FINISH, "it may just end"
    assert advice(made, 100.0, 60.0) == ABANDON


def test_after_a_signal_a_block_that_will_not_end_in_time_is_given_back_at_once() -> None:
    made = ending(30.0, limit=100.0, signals=(75.0,))
    assert advice(made, 75.0, 60.0) == FINISH
    assert advice(made, 75.0, 74.0) == ABANDON
    assert advice(made, 75.0) == FINISH


def test_the_grace_of_the_batch_system_is_a_limit() -> None:
    made = ending(30.0)
    made.signalled(10.0, 25.0)
    assert advice(made, 10.0, 0.0) == FINISH
    assert advice(made, 10.0, 9.0) == ABANDON
    assert advice(made, 35.0, 0.0) == ABANDON
    sooner = ending(30.0, limit=20.0)
    sooner.signalled(10.0, 25.0)
    assert advice(sooner, 20.0, 0.0) == ABANDON, "the sooner of both"


def test_old_blocks_are_forgotten() -> None:
    made = ending(1000.0, *[1.0] * REMEMBERED, limit=100.0)
    assert advice(made, 50.0) == GO_ON


@pytest.mark.parametrize(
    ("environment", "limit"),
    [
        ({}, None),
        ({"SLURM_JOB_END_TIME": "1700000000"}, 1.7e9),
        ({"SLURM_JOB_END_TIME": "soon"}, None),
        ({"SLURM_JOB_END_TIME": "9" * 400}, None),
        ({"SLURM_JOB_END_TIME": "1700000000", "BLOCKFLOW_END_TIME": "1600000000"}, 1.6e9),
    ],
)
def test_the_environment_says_when_a_job_ends(environment: dict[str, str], limit: float | None) -> None:
    assert time_limit(environment) == limit


@pytest.mark.parametrize("text", ["", "soon", "12:30", "-5", "1e9", "٣"])
def test_what_the_user_says_must_be_a_time(text: str) -> None:
    with pytest.raises(PlanError, match="BLOCKFLOW_END_TIME must be seconds since 1970"):
        time_limit({"BLOCKFLOW_END_TIME": text})
