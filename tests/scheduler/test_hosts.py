"""When is a host left alone, and when is it tried again?"""

from __future__ import annotations

from blockflow.scheduler.retry_policy import FAILURES_ON_HOST, FIRST_QUARANTINE, LONGEST_QUARANTINE, HostQuarantine


def fail(hosts: HostQuarantine, count: int, host: str = "bad", now: float = 0.0, first: int = 0) -> None:
    for index in range(first, first + count):
        hosts.failed(host, index, now)


def quarantined(now: float = 0.0) -> HostQuarantine:
    hosts = HostQuarantine()
    fail(hosts, 1, now=now)
    hosts.succeeded("good")
    fail(hosts, FAILURES_ON_HOST - 1, now=now, first=1)
    assert hosts.is_quarantined("bad")
    assert hosts.quarantined == 1
    assert hosts.until("bad") == now + FIRST_QUARANTINE
    return hosts


def test_a_host_where_all_fails_is_quarantined_while_others_succeed() -> None:
    hosts = quarantined()
    assert not hosts.is_quarantined("good")
    assert not hosts.is_quarantined("unknown")


def test_where_nothing_succeeds_elsewhere_it_is_not_the_host_s_fault() -> None:
    hosts = HostQuarantine()
    hosts.succeeded("good")
    fail(hosts, 100)
    assert not hosts.is_quarantined("bad")
    hosts.succeeded("good")
    fail(hosts, 1)
    assert hosts.is_quarantined("bad"), "now it is"


def test_one_block_that_fails_again_and_again_is_not_the_host_s_fault() -> None:
    hosts = HostQuarantine()
    for _ in range(100):
        hosts.failed("bad", 7, 0.0)
        hosts.succeeded("good")
    assert not hosts.is_quarantined("bad")


def test_a_success_ends_a_row() -> None:
    hosts = HostQuarantine()
    for _ in range(100):
        fail(hosts, FAILURES_ON_HOST - 1)
        hosts.succeeded("good")
        hosts.succeeded("bad")
    assert not hosts.is_quarantined("bad")


def test_a_success_ends_a_quarantine() -> None:
    hosts = quarantined()
    hosts.succeeded("bad")
    assert not hosts.is_quarantined("bad")
    assert hosts.quarantined == 0


def test_every_block_that_is_tried_and_fails_doubles_the_time() -> None:
    hosts, now = quarantined(), 0.0
    for seconds in (120.0, 240.0, 480.0, LONGEST_QUARANTINE, LONGEST_QUARANTINE):
        now = hosts.until("bad")
        hosts.tries("bad", now)
        fail(hosts, 1, now=now + 5.0)
        assert hosts.until("bad") == now + 5.0 + seconds


def test_what_was_under_way_does_not_make_it_longer() -> None:
    hosts = quarantined()
    fail(hosts, 50, now=10.0)
    assert hosts.until("bad") == FIRST_QUARANTINE


def test_while_nothing_is_heard_of_a_block_no_other_is_tried_for_the_same_time() -> None:
    hosts = quarantined()
    hosts.tries("bad", 100.0)
    assert hosts.until("bad") == 100.0 + FIRST_QUARANTINE


def test_workers_of_unknown_hosts_are_never_in_quarantine() -> None:
    hosts = HostQuarantine()
    for index in range(100):
        hosts.failed("", index, 0.0)
        hosts.succeeded("good")
    assert not hosts.is_quarantined("")
    assert hosts.quarantined == 0
