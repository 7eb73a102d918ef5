"""Do a billion blocks or a thousand workers cost no more than what is done with them?

Nothing here is timed: memory is measured, and work is counted in calls of functions.
"""

from __future__ import annotations

import resource
import sys
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest

from blockflow.geometry import Roi
from blockflow.plan.task import Task
from blockflow.scheduler import events as ev
from blockflow.scheduler.scheduler import Scheduler
from tests.scheduler.desk import Desk, granted
from tests.scheduler.plans import line, never

if TYPE_CHECKING:
    from collections.abc import Callable

MB = 1_000_000


def cube(task_id: str, side: int, context: int = 0, **arguments: object) -> Task:
    extent = side * 10 + 2 * context
    return Task(
        task_id,
        Roi((0, 0, 0), (extent,) * 3),
        Roi((0, 0, 0), (10 + 2 * context,) * 3),
        Roi((context,) * 3, (10,) * 3),
        **arguments,  # type: ignore[arg-type]
    )


def python_memory() -> int:
    """What Python objects take: numpy's pages cost only when they are touched, and are counted in :func:`peak`."""
    snapshot = tracemalloc.take_snapshot().filter_traces(
        [tracemalloc.DomainFilter(inclusive=False, domain=np.lib.tracemalloc_domain)]
    )
    return sum(statistic.size for statistic in snapshot.statistics("filename"))


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.parametrize("checked", [False, True])
def test_a_billion_blocks_cost_nothing_before_they_are_touched(checked: bool) -> None:
    before = peak()
    tracemalloc.start()
    smooth = cube("smooth", 1_000, context=5)
    checks = never if checked else None
    segment = cube("segment", 1_000, context=2, upstream_tasks=[smooth], check_function=checks)
    scheduler = Scheduler([segment], largest_lease=4096)
    scheduler.handle(ev.WorkerJoined(worker=1, task=0), 0.0)
    for _ in range(6):
        (grant,) = (told for told in scheduler.handle(ev.BlocksAsked(worker=1), 0.0) if isinstance(told, ev.GrantLease))
        scheduler.handle(
            ev.BlocksReported(worker=1, lease=grant.lease, upto=len(grant.indices), seconds=1e-6 * len(grant.indices)),
            0.0,
        )
    size = python_memory()
    tracemalloc.stop()
    assert scheduler.task_states["smooth"].total_block_count == 10**9
    assert scheduler.task_states["smooth"].completed_count > 4096
    assert size < 5 * MB
    assert peak() - before < 50 * MB


@pytest.mark.parametrize("ok", [True, False])
def test_a_million_blocks_below_one_are_released_or_orphaned_in_pieces(ok: bool) -> None:
    """A block that computes something global, and a task over all blocks below it."""
    blocks = 3_000_000
    above = line("above", 1, step=blocks, max_retries=0)
    below = line("below", blocks, step=1, upstream=[above])
    scheduler = Scheduler([below], largest_lease=4096)
    scheduler.handle(ev.WorkerJoined(worker=1, task=0), 0.0)
    (grant,) = (told for told in scheduler.handle(ev.BlocksAsked(worker=1), 0.0) if isinstance(told, ev.GrantLease))
    failures = () if ok else (ev.BlockFailure(index=0, error="ValueError: no"),)
    tracemalloc.start()
    scheduler.handle(ev.BlocksReported(worker=1, lease=grant.lease, upto=1, seconds=1.0, failures=failures), 0.0)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    state = scheduler.task_states["below"]
    assert (state.ready_count, state.orphaned_count) == ((blocks, 0) if ok else (0, blocks))
    assert most < 8 * blocks * 8, "less than all of them at once would take"


def calls(action: Callable[[], object]) -> int:
    """How many functions are called, in Python and in C."""
    count = 0

    def profile(_: object, what: str, __: object) -> None:
        nonlocal count
        count += what in ("call", "c_call")

    sys.setprofile(profile)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count


def crowd(workers: int, *, tasks: int = 1) -> Desk:
    """Half of the workers hold a block, the others wait for one."""
    made = [line(f"t{number}", workers // 2 if not number else 1, num_workers=workers) for number in range(tasks)]
    desk = Desk(*made)
    for worker in range(workers):
        desk.scheduler.handle(ev.WorkerJoined(worker=worker, task=0), 0.0)
        desk.scheduler.handle(ev.BlocksAsked(worker=worker), 0.0)
    assert desk.scheduler.task_states["t0"].ready_count == 0
    assert len(desk.book.waiting_workers) == workers // 2
    return desk


EVENTS: dict[str, list[ev.Event]] = {
    "heartbeat": [ev.HeartbeatReceived(worker=1)],
    "time passes": [ev.Ticked()],
    "a block fails and its worker asks": [
        ev.BlocksReported(
            worker=1, lease=2, upto=1, seconds=1.0, failures=(ev.BlockFailure(index=1, error="ValueError: no"),)
        ),
        ev.BlocksAsked(worker=1),
    ],
    "a block is given back": [ev.BlocksReturned(worker=1, lease=2, kept=0)],
    "a block is done": [ev.BlocksReported(worker=1, lease=2, upto=1, seconds=1.0), ev.BlocksAsked(worker=1)],
    "a worker crashes": [ev.WorkerLeft(worker=1, crashed=True)],
    "a connection is lost": [ev.ConnectionLost(worker=1)],
    "a worker comes": [ev.WorkerJoined(worker=99_999, task=0), ev.BlocksAsked(worker=99_999)],
    "a process ends": [ev.ProcessEnded(process=1, task=0, clean=False)],
}


@pytest.mark.parametrize("what", list(EVENTS))
def test_an_event_costs_no_more_with_many_workers(what: str) -> None:
    cost = []
    for workers in (20, 2_000):
        scheduler = crowd(workers).scheduler

        def happen(scheduler: Scheduler = scheduler) -> None:
            for event in EVENTS[what]:
                scheduler.handle(event, 1.0)
            scheduler.next_deadline()

        cost.append(calls(happen))
    assert cost[1] <= cost[0] + 20, "calls with 20 and with 2,000 workers"


@pytest.mark.parametrize("what", list(EVENTS))
def test_an_event_costs_no_more_with_many_tasks(what: str) -> None:
    cost = []
    for tasks in (2, 200):
        scheduler = crowd(20, tasks=tasks).scheduler

        def happen(scheduler: Scheduler = scheduler) -> None:
            for event in EVENTS[what]:
                scheduler.handle(event, 1.0)

        cost.append(calls(happen))
    assert cost[1] <= cost[0] + 20, "calls with 2 and with 200 tasks"


def test_a_retry_that_waits_for_another_worker_does_not_look_at_all_of_them() -> None:
    cost = []
    for workers in (20, 2_000):
        desk = Desk(line(blocks=workers, max_retries=9))
        for worker in range(workers):
            desk.scheduler.handle(ev.WorkerJoined(worker=worker, task=0), 0.0)
            desk.scheduler.handle(ev.BlocksAsked(worker=worker), 0.0)
        failure = ev.BlockFailure(index=0, error="ValueError: no")
        desk.scheduler.handle(ev.BlocksReported(worker=0, lease=1, upto=1, seconds=1.0, failures=(failure,)), 0.0)

        def ask(desk: Desk = desk) -> None:
            desk.scheduler.handle(ev.BlocksAsked(worker=0), 0.0)

        cost.append(calls(ask))
        assert desk.book.waiting_workers, "all others are busy"
        assert granted(desk.tell(ev.WorkerLeft(worker=1, crashed=False))) == [(0, [1])]
    assert cost[1] <= cost[0] + 20
