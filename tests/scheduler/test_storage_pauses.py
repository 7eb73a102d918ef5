"""What does a task do while its storage fails?"""

from __future__ import annotations

import pytest

from blockflow import Roi, Task
from blockflow.scheduler import events as ev
from blockflow.scheduler.events import RecordFailure
from blockflow.scheduler.scheduler import FAILURES_IN_A_ROW, Scheduler
from blockflow.scheduler.storage_pauses import PATIENCE, REMIND_SECONDS
from blockflow.wire.storage_errors import FailureKind
from tests.scheduler.desk import Desk, checks, dismissed, failures, granted

FULL, STORAGE, CODE = FailureKind.FULL, FailureKind.STORAGE, FailureKind.CODE
FIRST = PATIENCE[FULL].first


def desk(blocks: int = 10, *, retries: int = 0, largest_lease: int = 1, **options: object) -> Desk:
    one = Roi((0,), (1,))
    task = Task("t", Roi((0,), (blocks,)), one, one, read_write_conflict=False, max_retries=retries, **options)  # type: ignore[arg-type]
    return Desk(scheduler=Scheduler([task], largest_lease=largest_lease, recording=True))


def join(desk: Desk, worker: int, host: str = "here") -> None:
    desk.tell(ev.WorkerJoined(worker=worker, task=0, host=host, process=worker))


def fail(
    desk: Desk, grant: ev.GrantLease, kind: FailureKind = FULL, *, at: int = 0, disk: str = "/data"
) -> list[ev.Instruction]:
    """A block of a lease fails; those before it are done."""
    failure = ev.BlockFailure(index=int(grant.indices[at]), error="OSError: no", kind=kind, disk=disk)
    return desk.tell(
        ev.BlocksReported(worker=grant.worker, lease=grant.lease, upto=at + 1, seconds=1.0, failures=(failure,))
    )


def told(instructions: list[ev.Instruction]) -> list[tuple[str, bool]]:
    """Disk, and whether it is over, of every line about a pause."""
    return [(say.disk, not say.error) for say in instructions if isinstance(say, ev.TellPause)]


def test_full_disk_costs_no_attempt_and_pauses_the_host() -> None:
    d = desk(2)
    join(d, 1)
    said = fail(d, d.ask(1))
    assert told(said) == [("/data", False)]
    assert failures(said) == []
    assert d.book.state.failed_count == 0
    d.ask_in_vain(1)
    assert granted(d.wait(0.9 * FIRST)) == []
    assert granted(d.wait(0.2 * FIRST)) == [(1, [0])]


def test_next_deadline_is_the_end_of_the_pause() -> None:
    d = desk(2)
    join(d, 1)
    fail(d, d.ask(1))
    d.ask_in_vain(1)
    assert d.scheduler.next_deadline() == pytest.approx(FIRST)


def test_goes_on_when_there_is_space() -> None:
    d = desk(100, largest_lease=8)
    join(d, 1)
    fail(d, d.ask(1))
    d.ask_in_vain(1)
    d.now += FIRST
    d.tell(ev.Ticked())
    grant = next(each for each in d.told if isinstance(each, ev.GrantLease))
    assert len(grant.indices) == 1
    assert told(d.report(grant, seconds=0.001)) == [("/data", True)]
    for _ in range(6):
        d.report(d.ask(1), seconds=0.001)
    assert len(d.ask(1).indices) > 1


def test_wait_is_doubled_and_bounded() -> None:
    d = desk(2)
    join(d, 1)
    fail(d, d.ask(1))
    waits = []
    for _ in range(8):
        d.ask_in_vain(1)
        due = d.scheduler.next_deadline()
        assert due is not None
        waits.append(due - d.now)
        d.now = due
        d.tell(ev.Ticked())
        fail(d, next(each for each in d.told if isinstance(each, ev.GrantLease)))
    assert waits == sorted(waits)
    assert waits[1] == pytest.approx(2 * waits[0])
    assert waits[-1] == PATIENCE[FULL].longest


def test_only_one_block_tries() -> None:
    d = desk(5)
    join(d, 1)
    join(d, 2)
    one, other = d.ask(1), d.ask(2)
    fail(d, one)
    fail(d, other)
    d.ask_in_vain(1)
    d.ask_in_vain(2)
    assert granted(d.wait(FIRST)) == [(1, [0])]


def test_block_that_was_under_way_does_not_end_the_pause() -> None:
    d = desk(5)
    join(d, 1)
    join(d, 2)
    one, other = d.ask(1), d.ask(2)
    fail(d, one)
    assert told(d.report(other)) == []
    d.ask_in_vain(2)


def test_other_hosts_go_on() -> None:
    d = desk(5)
    join(d, 1, "full")
    join(d, 2, "other")
    fail(d, d.ask(1))
    d.ask_in_vain(1)
    assert d.ask(2).indices.tolist() == [0]


def test_what_is_not_started_is_called_back() -> None:
    d = desk(1000, largest_lease=8)
    join(d, 1)
    d.report(d.ask(1), seconds=0.001)
    grant = d.ask(1)
    assert len(grant.indices) > 2
    said = fail(d, grant)
    assert [each.lease for each in said if isinstance(each, ev.RecallLease)] == [grant.lease]
    fail(d, grant, at=1)
    d.give_back(grant, kept=2)
    assert d.book.state.processing_count == 0


def test_people_are_told_once_for_each_disk_and_again_after_a_while() -> None:
    d = desk(9)
    for worker, host in enumerate(("a", "b", "c")):
        join(d, worker, host)
    assert told(fail(d, d.ask(0))) == [("/data", False)]
    assert told(fail(d, d.ask(1))) == []
    assert told(fail(d, d.ask(2), disk="/scratch")) == [("/scratch", False)]
    d.now += REMIND_SECONDS
    d.ask(0)
    d.tell(ev.HeartbeatReceived(worker=1))
    assert told(fail(d, d.ask(1))) == [("/data", False)]


def test_over_when_the_last_host_goes_on() -> None:
    d = desk(9)
    join(d, 1, "a")
    join(d, 2, "b")
    fail(d, d.ask(1))
    fail(d, d.ask(2))
    d.now += FIRST
    assert told(d.report(d.ask(1))) == []
    assert told(d.report(d.ask(2))) == [("/data", True)]


def test_workers_are_not_replaced_and_hosts_not_blamed() -> None:
    d = desk(9)
    join(d, 1, "a")
    join(d, 2, "b")
    d.report(d.ask(2))
    for _ in range(2 * FAILURES_IN_A_ROW):
        d.now += 100.0
        d.tell(ev.HeartbeatReceived(worker=2))
        assert dismissed(fail(d, d.ask(1))) == []
    assert not d.book.hosts.is_quarantined("a")


@pytest.mark.parametrize("kind", [FULL, STORAGE])
def test_an_error_that_does_not_pass_counts_in_the_end(kind: FailureKind) -> None:
    d = desk(9, retries=1)
    join(d, 1, "a")
    join(d, 2, "b")
    bad, good = d.ask(1), d.ask(2)
    fail(d, bad, kind)
    d.report(good)
    final = []
    for _ in range(500):
        d.now += 31.0
        d.tell(ev.HeartbeatReceived(worker=2))
        for grant in [each for each in d.tell(ev.BlocksAsked(worker=1)) if isinstance(each, ev.GrantLease)]:
            if grant.indices.tolist() == [0]:
                final += failures(fail(d, grant, kind))
            else:
                d.report(grant)
        if d.now < PATIENCE[kind].free:
            assert final == []
        if final and final[-1][1]:
            break
    assert final == [(0, False), (0, True)]


def test_a_disk_that_is_full_for_everybody_is_waited_for() -> None:
    d = desk(3)
    join(d, 1)
    fail(d, d.ask(1))
    for _ in range(300):
        d.now += PATIENCE[FULL].longest
        assert failures(fail(d, d.ask(1))) == []
    assert d.now > 2 * PATIENCE[FULL].free


def test_recorded_as_spared() -> None:
    d = desk(3)
    join(d, 1)
    grant = d.ask(1)
    d.scheduler.take_records()
    fail(d, grant)
    (record,) = d.scheduler.take_records()
    assert isinstance(record, RecordFailure)
    assert (record.spared, record.final, record.attempt) == (True, False, grant.attempt)


def test_check_of_the_driver_holds_back_the_task() -> None:
    d = desk(3, check_function=lambda block: False)
    join(d, 1)
    d.tell(ev.BlocksAsked(worker=1))
    failure = ev.BlockFailure(index=0, error="OSError: no", kind=STORAGE, disk="/data")
    asked = d.book.being_checked
    said = d.tell(
        ev.BlocksChecked(
            task=0,
            phase=ev.CheckPhase.BEFORE,
            passed=asked[:0],
            refused=asked[:0],
            failures=(failure,),
            seconds=0.1,
        )
    )
    assert told(said) == [("/data", False)]
    assert checks(said) == []
    assert d.scheduler.next_deadline() == pytest.approx(PATIENCE[STORAGE].first)
    assert checks(d.wait(PATIENCE[STORAGE].first)) == [(ev.CheckPhase.BEFORE, [0])]
    assert told(d.answer(ev.CheckPhase.BEFORE, refused=[0])) == [("/data", True)]
    assert d.book.state.processing_count == 1
