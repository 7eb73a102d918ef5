from __future__ import annotations

from blockflow.monitor.jobs import EVERY_SECONDS, JobTeller, Workforce


def test_news_are_told_once_and_not_too_often() -> None:
    teller = JobTeller()
    first = {"a": Workforce(waiting=2, running=0, connected=0), "b": Workforce(waiting=0, running=1, connected=1)}
    assert teller.lines({}, 0.0) == []
    assert teller.lines(first, 1.0) == [
        "a: 0 workers connected; 0 jobs run, 2 wait",
        "b: 1 workers connected; 1 jobs run, 0 wait",
    ]
    second = {**first, "a": Workforce(waiting=1, running=1, connected=0, reason="PENDING (Priority)")}
    assert teller.lines(second, 2.0) == []
    assert teller.lines(first, 1.0 + EVERY_SECONDS) == []
    assert teller.lines(second, 2.0 + EVERY_SECONDS) == [
        "a: 0 workers connected; 1 jobs run, 1 wait: PENDING (Priority)"
    ]
