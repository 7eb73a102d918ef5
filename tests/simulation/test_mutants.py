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
    # TABLE#
}
"""By bug: a profile that finds it soon, and the seed to begin with."""


def _bugs() -> dict[str, Callable[[pytest.MonkeyPatch], None]]:
    functions = inspect.getmembers(mutants, inspect.isfunction)
    return {name: bug for name, bug in functions if bug.__module__ == mutants.__name__ and not name.startswith("_")}


def test_every_bug_is_looked_for() -> None:
    assert _bugs().keys() == FASTEST.keys()
    assert len(FASTEST) >= 25


@pytest.mark.parametrize("bug", FASTEST)
def test_a_bug_is_found_out(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    profile, seed = FASTEST[bug]
    _bugs()[bug](monkeypatch)
    assert any(report.violations for report in schedules(MOST, profile, seed=seed))
