"""Does the product survive what the simulation does to it, and does the simulation do what it says?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from blockflow.geometry import Roi
from blockflow.plan.plan import compile_plan
from blockflow.plan.task import Task
from blockflow.testing.simulation import PROFILES, Profile, Report, schedules, simulate, summary
from blockflow.testing.simulation.__main__ import main
from blockflow.testing.simulation.cluster import Cluster
from blockflow.testing.simulation.judge import BrokenPromise

if TYPE_CHECKING:
    from collections.abc import Callable

SEEDS = json.loads((Path(__file__).parent / "seeds.json").read_text())
"""By profile: seeds with which something was wrong once."""

QUOTA = 250
"""Schedules of each profile in each run of these tests: 2,000 in all."""


@pytest.mark.parametrize("profile", PROFILES)
def test_every_promise_is_kept_whatever_goes_wrong(profile: str) -> None:
    broken = [str(report) for report in schedules(QUOTA, profile, seed=10**6) if report.violations]
    assert not broken, "\n".join(broken[:3])


@pytest.mark.parametrize(("profile", "seed"), [(profile, seed) for profile in SEEDS for seed in SEEDS[profile]])
def test_what_was_wrong_once_stays_right(profile: str, seed: int) -> None:
    report = simulate(seed, profile)
    assert not report.violations, str(report)


@pytest.mark.parametrize("profile", PROFILES)
def test_one_seed_decides_everything(profile: str) -> None:
    first = list(schedules(5, profile, seed=77))
    assert first == list(schedules(5, profile, seed=77))
    assert len({report.event_hash for report in first}) == len(first)


def _kinds_of_faults(profile: str, number: int = 40) -> set[str]:
    return {kind for report in schedules(number, profile, seed=500) for kind in report.faults}


def test_every_kind_of_fault_strikes() -> None:
    struck = set().union(*(_kinds_of_faults(profile) for profile in PROFILES))
    wanted = {kind for profile in PROFILES.values() for kind in profile.weather}
    assert wanted <= struck
    consequences = {"poison", "step crash", "fenced", "driver death", "driver gave up", "disk was full"}
    assert consequences <= struck


def test_a_plan_of_ones_own() -> None:
    task = Task("mine", Roi((0,), (50,)), Roi((0,), (10,)), Roi((0,), (10,)))
    report = simulate(3, Profile(name="fine", trouble=0.0, stops=0.0, resizes=0.0), compile_plan([task]))
    assert (report.blocks, report.executions, report.outcome) == (5, 5, "finished")
    assert not report.faults
    assert str(report).startswith("fine 3: finished after")


def test_a_violation_tells_the_story_of_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    from blockflow.wire.session import WorkerSession

    monkeypatch.setattr(WorkerSession, "heartbeat", lambda session, now: None)
    report = next(report for report in schedules(50, "calm") if report.violations)
    assert report.outcome == "broken"
    assert report.violations[0].promise == "fence"
    assert any("begins under" in line for line in report.violations[0].story)
    assert "nothing was wrong with it" in str(report)


def test_an_error_of_the_product_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    from blockflow.scheduler import events as ev
    from blockflow.scheduler.scheduler import HANDLERS

    def confused(*arguments: Any) -> None:
        raise ZeroDivisionError("confused")

    monkeypatch.setitem(HANDLERS, ev.BlocksReported, confused)
    report = simulate(0, "calm")
    assert report.violations[0].what == "ZeroDivisionError: confused"


def test_the_summary_adds_up() -> None:
    reports = list(schedules(4, "lossy"))
    text = summary(reports)
    assert text.startswith(f"4 schedules, 0 violations, {sum(r.faults.total() for r in reports)} faults")
    assert f"of {sum(report.blocks for report in reports)} blocks" in text


def test_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--profile", "calm", "--schedules", "3", "--seed", "5", "--twice"]) == 0
    said = capsys.readouterr().out
    assert "calm: 3 schedules, 0 violations" in said
    assert "the same when run again: all" in said


def test_the_command_line_shows_what_is_broken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from blockflow.wire.session import WorkerSession

    monkeypatch.setattr(WorkerSession, "heartbeat", lambda session, now: None)
    assert main(["--profile", "calm", "--schedules", "20"]) == 1
    assert "nothing was wrong with it" in capsys.readouterr().out


def _broken(profile: Profile, seeds: range, change: Callable[[Cluster], None]) -> list[BrokenPromise]:
    found = []
    for seed in seeds:
        cluster = Cluster(seed, profile)
        change(cluster)
        try:
            cluster.live()
        except BrokenPromise as broken:
            found.append(broken)
    return found


def test_a_driver_that_stands_still_while_another_takes_over() -> None:
    climate = Profile(
        name="stale",
        weather={"stale driver": 1.0, "slow": 0.2},
        faults=3.0,
        trouble=1.0,
        blocks=60,
        leases=(20.0, 60.0),
    )

    def trusting(cluster: Cluster) -> None:
        cluster.lives.ends_locals = False

    broken = _broken(climate, range(1040, 1045), trusting)
    assert not broken, broken[0]


def test_reports_of_equal_runs_are_equal() -> None:
    assert isinstance(simulate(1), Report)
    assert simulate(1) == simulate(1, PROFILES["calm"])
