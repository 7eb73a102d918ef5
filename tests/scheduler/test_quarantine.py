"""What do workers on a host get where everything fails?"""

from __future__ import annotations

from blockflow.scheduler import events as ev
from blockflow.scheduler.retry_policy import FAILURES_ON_HOST, FIRST_QUARANTINE, PATIENCE
from tests.scheduler.desk import Desk, granted
from tests.scheduler.plans import line

BLOCKS = 40
GOOD, BAD, ALSO_BAD = 1, 2, 3


def desk_with_a_bad_host() -> Desk:
    """Five blocks have failed on a host with two workers, while one was done elsewhere; nobody asks."""
    desk = Desk(line(blocks=BLOCKS, max_retries=9))
    for worker, host in ((GOOD, "good"), (BAD, "bad"), (ALSO_BAD, "bad")):
        desk.tell(ev.WorkerJoined(worker=worker, task=0, host=host))
    grants = [desk.ask(BAD) for _ in range(FAILURES_ON_HOST)]
    done = desk.ask(GOOD)
    for grant in grants:
        desk.report(grant, fails=grant.indices.tolist())
        if grant is grants[0]:
            desk.report(done)
    assert desk.book.hosts.is_quarantined("bad")
    return desk


def test_workers_on_a_bad_host_get_nothing_and_then_one_block() -> None:
    desk = desk_with_a_bad_host()
    for worker in (BAD, ALSO_BAD):
        desk.ask_in_vain(worker)
    grant = desk.ask(GOOD)
    assert grant.indices.tolist() == [0], "what failed there runs elsewhere"
    assert granted(desk.wait(FIRST_QUARANTINE - 0.1)) == []
    assert desk.scheduler.next_deadline() == FIRST_QUARANTINE
    ((worker, blocks),) = granted(desk.wait(0.1))
    assert worker == BAD
    assert len(blocks) == 1
    assert blocks[0] > FAILURES_ON_HOST, "one that did not fail there"
    assert granted(desk.wait(1.0)) == [], "no other before that one has ended"


def test_all_is_well_when_the_block_is_done() -> None:
    desk = desk_with_a_bad_host()
    desk.wait(FIRST_QUARANTINE)
    trial = desk.ask(BAD)
    desk.ask_in_vain(ALSO_BAD)
    assert [worker for worker, _ in granted(desk.report(trial))] == [ALSO_BAD]
    assert desk.ask(BAD).indices.size == 1


def test_the_quarantine_is_longer_when_it_fails() -> None:
    desk = desk_with_a_bad_host()
    desk.wait(FIRST_QUARANTINE)
    trial = desk.ask(BAD)
    desk.report(trial, fails=trial.indices.tolist())
    desk.ask_in_vain(BAD)
    assert granted(desk.wait(2 * FIRST_QUARANTINE - 0.1)) == []
    assert [worker for worker, _ in granted(desk.wait(0.1))] == [BAD]


def test_the_only_host_is_never_in_quarantine() -> None:
    desk = desk_with_a_bad_host()
    desk.ask_in_vain(BAD)
    assert [worker for worker, _ in granted(desk.leave(GOOD, crashed=False))] == [BAD]
    assert desk.ask(ALSO_BAD).indices.size == 1


def test_nothing_is_recalled_for_a_worker_that_would_not_get_it() -> None:
    desk = Desk(line(blocks=FAILURES_ON_HOST + 2, max_retries=9))
    for worker, host in ((GOOD, "good"), (BAD, "bad")):
        desk.tell(ev.WorkerJoined(worker=worker, task=0, host=host))
    grants = [desk.ask(BAD) for _ in range(FAILURES_ON_HOST)]
    done = desk.ask(GOOD)
    for grant in grants:
        desk.report(grant, fails=grant.indices.tolist())
        if grant is grants[0]:
            desk.report(done)
    held = [desk.ask(GOOD) for _ in range(FAILURES_ON_HOST + 1)]
    assert desk.book.grantable_count == 0
    desk.ask_in_vain(BAD)
    assert desk.wait(1.0) == [], "nothing to recall for it"
    assert held


def test_a_block_is_left_to_another_host_for_some_time_only() -> None:
    desk = Desk(line(blocks=2, max_retries=9))
    for worker, host in ((GOOD, "good"), (BAD, "bad"), (ALSO_BAD, "bad")):
        desk.tell(ev.WorkerJoined(worker=worker, task=0, host=host))
    failed = desk.ask(BAD)
    desk.ask(GOOD)
    desk.report(failed, fails=[0])
    for worker in (BAD, ALSO_BAD):
        desk.ask_in_vain(worker)
    assert desk.scheduler.next_deadline() == PATIENCE
    desk.wait(PATIENCE - 0.1)
    assert granted(desk.told) == [], "the one on the other host is busy, and may be back"
    desk.tell(ev.HeartbeatReceived(worker=GOOD))
    assert [worker for worker, _ in granted(desk.wait(0.1))] == [BAD], "but not for ever"
