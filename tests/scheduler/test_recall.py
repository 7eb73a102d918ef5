"""Recalls: does a worker get blocks that another one holds and has not started?"""

from __future__ import annotations

from blockflow import Roi, Scheduler, Task
from blockflow.scheduler import events as ev
from blockflow.scheduler.dispatch import STEAL_SECONDS


def scheduler_with_one_long_lease() -> tuple[Scheduler, ev.GrantLease]:
    """Worker 0 holds several blocks, because the first one was quick; worker 1 waits."""
    scheduler = Scheduler(
        [Task("t", Roi((0,), (9,)), Roi((0,), (1,)), Roi((0,), (1,)), lambda block: None)], largest_lease=100
    )
    scheduler.handle(ev.WorkerJoined(worker=0, task=0), 0.0)
    (first,) = grants(scheduler.handle(ev.BlocksAsked(worker=0), 0.0))
    scheduler.handle(ev.BlocksReported(worker=0, lease=first.lease, upto=1, seconds=1e-6), 0.0)
    (lease,) = grants(scheduler.handle(ev.BlocksAsked(worker=0), 0.0))
    scheduler.handle(ev.WorkerJoined(worker=1, task=0), 0.0)
    while taken := grants(scheduler.handle(ev.BlocksAsked(worker=1), 0.0)):
        (mine,) = taken
        upto = len(mine.indices)
        scheduler.handle(ev.BlocksReported(worker=1, lease=mine.lease, upto=upto, seconds=1.0), 0.0)
    return scheduler, lease


def grants(instructions: list[ev.Instruction]) -> list[ev.GrantLease]:
    return [done for done in instructions if isinstance(done, ev.GrantLease)]


def recalls(instructions: list[ev.Instruction]) -> list[int]:
    return [done.lease for done in instructions if isinstance(done, ev.RecallLease)]


def test_blocks_that_are_not_started_are_recalled_for_a_worker_that_waits() -> None:
    scheduler, lease = scheduler_with_one_long_lease()
    assert len(lease.indices) > 1
    due = scheduler.next_deadline()
    assert due == STEAL_SECONDS
    assert recalls(scheduler.handle(ev.Ticked(), due / 2)) == []
    assert recalls(scheduler.handle(ev.Ticked(), due)) == [lease.lease]
    (granted,) = grants(scheduler.handle(ev.BlocksReturned(worker=0, lease=lease.lease, kept=1), due))
    assert granted.worker == 1
    assert set(granted.indices.tolist()) <= set(lease.indices[1:].tolist())
    scheduler.validate()


def test_a_lease_is_recalled_once_and_a_single_block_never() -> None:
    scheduler, lease = scheduler_with_one_long_lease()
    assert recalls(scheduler.handle(ev.Ticked(), 1.0)) == [lease.lease]
    assert recalls(scheduler.handle(ev.Ticked(), 2.0)) == []
    later = scheduler.next_deadline()
    assert later is not None
    assert later > 2.0, "a deadline in the past would make the coordinator spin"


def test_nothing_is_recalled_while_blocks_are_ready_or_nobody_waits() -> None:
    scheduler, _ = scheduler_with_one_long_lease()
    scheduler.handle(ev.WorkerLeft(worker=1, crashed=False), 0.0)
    assert recalls(scheduler.handle(ev.Ticked(), 1.0)) == []
