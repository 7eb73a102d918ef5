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
    "acknowledges_before_it_is_durable": ("fast-restart", 9),
    "an_end_that_was_announced_counts_as_a_crash": ("preempt storm", 23),
    "believes_frames_with_holes": ("fast-restart", 28),
    "believes_torn_frames": ("pause-heavy", 1),
    "counts_losses_as_failures": ("preempt storm", 1),
    "counts_stale_reports": ("tiny lease", 9),
    "does_not_renew": ("pause-heavy", 1),
    "driver_does_not_answer_heartbeats": ("calm", 0),
    "driver_has_no_patience": ("pause-heavy", 29),
    "fails_one_retry_too_early": ("lossy", 1),
    "failures_count_as_success": ("lossy", 1),
    "forgets_blocks_of_lost_workers": ("preempt storm", 0),
    "forgets_blocks_that_are_given_back": ("lossy", 1),
    "forgets_conflicts": ("calm", 0),
    "forgets_orphans": ("preempt storm", 1),
    "forgets_to_record_what_is_done": ("pause-heavy", 0),
    "forgets_to_release": ("calm", 0),
    "forgets_who_was_to_blame_for_an_end": ("pause-heavy", 7),
    "frees_blocks_of_a_process_that_is_about_to_end": ("many small tasks", 0),
    "frees_blocks_when_a_connection_is_lost": ("disk trouble", 6),
    "gives_blocks_to_workers_that_were_sent_home": ("calm", 0),
    "gives_up_after_two_lost_workers": ("preempt storm", 1),
    "goes_on_after_a_stop": ("calm", 5),
    "goodbye_claims_the_block_under_way": ("preempt storm", 0),
    "grants_before_all_inputs_are_done": ("calm", 0),
    "keeps_blocks_of_processes_that_are_stopped": ("pause-heavy", 229),
    "keeps_connections_for_ever": ("calm", 0),
    "leaves_half_a_frame_when_the_disk_is_full": ("disk trouble", 28),
    "lets_anybody_keep_anything": ("disk trouble", 1),
    "looks_at_timeouts_before_leases": ("pause-heavy", 599),
    "loses_the_rest_of_a_frame": ("calm", 0),
    "never_finds_the_block_that_kills": ("calm", 8),
    "never_gives_a_block_up": ("lossy", 1),
    "never_sends_anybody_home": ("calm", 0),
    "never_syncs_the_journal": ("disk trouble", 2),
    "never_takes_a_lease_back": ("preempt storm", 0),
    "releases_what_waits_before_the_post_check": ("lossy", 1),
    "runs_what_waits_for_a_failed_block": ("preempt storm", 2),
    "sends_workers_home_while_their_task_waits": ("calm", 0),
    "skips_blocks_whose_check_raised": ("fast-restart", 1),
    "takes_a_broken_connection_for_the_end_of_a_process": ("preempt storm", 597),
    "takes_a_frozen_process_for_dead": ("pause-heavy", 10),
    "takes_a_lease_back_too_early": ("pause-heavy", 29),
    "takes_a_torn_tail_for_damage": ("pause-heavy", 1),
    "uses_attempt_numbers_again": ("calm", 0),
    "uses_numbers_of_an_earlier_life_again": ("pause-heavy", 0),
    "waits_for_nobody_after_a_restart": ("disk trouble", 1),
    "waits_too_short_after_a_restart": ("tiny lease", 36),
    "worker_claims_nothing_when_it_is_back": ("lossy", 1),
    "worker_counts_its_deadline_from_the_answer": ("tiny lease", 47),
    "worker_does_not_repeat_what_was_not_heard": ("fast-restart", 0),
    "worker_goes_on_with_what_it_gave_back": ("preempt storm", 230),
    "worker_never_fences_itself": ("pause-heavy", 8),
    "worker_reports_what_it_has_only_begun": ("lossy", 4),
    "worker_sends_no_heartbeats": ("preempt storm", 1),
    "writes_behind_the_head_of_a_journal_twice": ("calm", 0),
}
"""By bug: a profile that finds it soon, and the seed to begin with."""


HARD: set[str] = {
    "forgets_absent_workers_that_lose_their_connection",
    "goes_on_with_workers_whose_leases_have_run_out",
    "worker_forgets_its_deadline_when_it_begins_a_block",
}
"""Bugs that one of several thousand schedules finds: several faults have to meet, as another line of defence stands
in front (a worker that is not answered looks for a new connection after half a lease). They are tested where they would
be made: in tests/test_switchboard.py, tests/scheduler/test_restoring.py and tests/wire/test_session.py."""


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
