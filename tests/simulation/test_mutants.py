"""Would the simulation notice bugs in the product? Each is put in, and found out within a few schedules."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pytest

from blockflow.testing.simulation import schedules
from tests.simulation import mutants

if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 2_000
"""Schedules that it may take."""

FASTEST: dict[str, tuple[str, int]] = {
    "a_goodbye_counts_as_a_crash": ("many small tasks", 7),
    "acknowledges_before_it_is_durable": ("fast-restart", 0),
    "counts_losses_as_failures": ("fast-restart", 1),
    "counts_stale_reports": ("lossy", 13),
    "does_not_renew": ("fast-restart", 2),
    "driver_does_not_answer_heartbeats": ("fast-restart", 3),
    "driver_has_no_patience": ("pause-heavy", 0),
    "fails_one_retry_too_early": ("fast-restart", 1),
    "failures_count_as_success": ("fast-restart", 1),
    "forgets_blocks_of_lost_workers": ("fast-restart", 1),
    "forgets_blocks_that_are_given_back": ("disk trouble", 5),
    "forgets_conflicts": ("fast-restart", 0),
    "forgets_orphans": ("fast-restart", 1),
    "forgets_to_record_what_is_done": ("fast-restart", 0),
    "forgets_to_release": ("fast-restart", 0),
    "frees_blocks_when_a_connection_is_lost": ("fast-restart", 8),
    "gives_blocks_to_workers_that_were_sent_home": ("fast-restart", 0),
    "gives_up_after_two_lost_workers": ("fast-restart", 1),
    "goes_on_after_a_stop": ("preempt storm", 2),
    "goodbye_claims_the_block_under_way": ("preempt storm", 2),
    "grants_before_all_inputs_are_done": ("fast-restart", 0),
    "keeps_connections_for_ever": ("fast-restart", 0),
    "leaves_half_a_frame_when_the_disk_is_full": ("disk trouble", 5),
    "lets_anybody_keep_anything": ("fast-restart", 1),
    "loses_the_rest_of_a_frame": ("fast-restart", 0),
    "never_finds_the_block_that_kills": ("fast-restart", 1),
    "never_gives_a_block_up": ("disk trouble", 8),
    "never_sends_anybody_home": ("fast-restart", 0),
    "never_syncs_the_journal": ("fast-restart", 0),
    "never_takes_a_lease_back": ("fast-restart", 1),
    "releases_what_waits_before_the_post_check": ("disk trouble", 8),
    "runs_what_waits_for_a_failed_block": ("disk trouble", 8),
    "sends_workers_home_while_their_task_waits": ("fast-restart", 1),
    "skips_blocks_whose_check_raised": ("preempt storm", 10),
    "takes_a_frozen_process_for_dead": ("fast-restart", 39),
    "takes_a_lease_back_too_early": ("pause-heavy", 11),
    "uses_attempt_numbers_again": ("fast-restart", 0),
    "uses_numbers_of_an_earlier_life_again": ("fast-restart", 1),
    "waits_for_nobody_after_a_restart": ("fast-restart", 1),
    "waits_too_short_after_a_restart": ("pause-heavy", 0),
    "worker_claims_nothing_when_it_is_back": ("fast-restart", 1),
    "worker_does_not_repeat_what_was_not_heard": ("fast-restart", 8),
    "worker_never_fences_itself": ("fast-restart", 28),
    "worker_reports_what_it_has_only_begun": ("fast-restart", 10),
    "worker_sends_no_heartbeats": ("fast-restart", 11),
    "writes_behind_the_head_of_a_journal_twice": ("fast-restart", 0),
}
"""By bug: a profile that finds it soon, and the seed to begin with."""


HARD = {
    "worker_counts_its_deadline_from_the_answer",
    "worker_forgets_its_deadline_when_it_begins_a_block",
    "worker_goes_on_with_what_it_gave_back",
}
"""Bugs for which no profile that finds them soon is known yet."""


def _bugs() -> dict[str, Callable[[pytest.MonkeyPatch], None]]:
    functions = inspect.getmembers(mutants, inspect.isfunction)
    return {name: bug for name, bug in functions if bug.__module__ == mutants.__name__ and not name.startswith("_")}


def test_every_bug_is_looked_for() -> None:
    assert _bugs().keys() == FASTEST.keys() | HARD
    assert len(FASTEST) >= 25


@pytest.mark.parametrize("bug", FASTEST)
def test_a_bug_is_found_out(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    profile, seed = FASTEST[bug]
    _bugs()[bug](monkeypatch)
    assert any(report.violations for report in schedules(MOST, profile, seed=seed))
