"""Would the judge of random lives notice a scheduler that breaks its promises?

Each of these bugs is put into the scheduler, whose own recount is switched off. Lives are lived until one is found out.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from blockflow.plan.conflicts import Levels, levels_of
from blockflow.plan.plan import TaskPlan, single
from blockflow.scheduler import completion, dispatch, scheduler
from blockflow.scheduler import events as ev
from blockflow.scheduler.leases import Lease, Leases
from blockflow.scheduler.ready_queue import IndexSet, ReadyQueue
from blockflow.scheduler.retry_policy import CircuitBreaker, FailureHistory
from blockflow.scheduler.scheduler import HANDLERS, Scheduler
from blockflow.scheduler.worker_pool import WorkerPool
from tests.scheduler.moves import be_short_tempered, live

if TYPE_CHECKING:
    from blockflow.plan.grid import Grid
    from blockflow.plan.slices import Indices
    from blockflow.scheduler.state import SchedulerState, TaskRecord


def grants_before_all_inputs_are_done(patch: pytest.MonkeyPatch) -> None:
    fan_in = TaskPlan.fan_in
    patch.setattr(TaskPlan, "fan_in", lambda task, indices: fan_in(task, indices).clip(max=1))


def forgets_conflicts(patch: pytest.MonkeyPatch) -> None:
    def levels(grid: Grid, *, read_write_conflict: bool, apart: Any) -> Levels:
        return levels_of(grid, read_write_conflict=read_write_conflict and grid.size == 0, apart=apart)

    patch.setattr("blockflow.plan.task.levels_of", levels)


def accepts_reports_of_anybody(patch: pytest.MonkeyPatch) -> None:
    def held(leases: Leases, number: int, _: int) -> Lease | None:
        return next((lease for lease in leases if lease.number == number), None)

    patch.setattr(Leases, "held", held)


def never_takes_a_lease_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Leases, "expired", lambda leases, now: [])


def takes_a_lease_back_too_early(patch: pytest.MonkeyPatch) -> None:
    expired = Leases.expired
    patch.setattr(Leases, "expired", lambda leases, now: expired(leases, now + 20.0))


def counts_the_deadline_from_the_grant(patch: pytest.MonkeyPatch) -> None:
    def renew(leases: Leases, worker: int, now: float) -> None:
        if leases._deadlines.get(worker) == now:
            leases._deadlines[worker] = now + 63.0

    patch.setattr(Leases, "renew", renew)


def uses_attempt_numbers_again(patch: pytest.MonkeyPatch) -> None:
    grant = Leases.grant

    def again(leases: Leases, worker: int, task: int, indices: Indices, now: float) -> Lease:
        leases._next_attempt = 1
        return grant(leases, worker, task, indices, now)

    patch.setattr(Leases, "grant", again)


def counts_losses_as_failures(patch: pytest.MonkeyPatch) -> None:
    def lost(state: SchedulerState, lease: Lease, now: float, **how: str) -> list[ev.Instruction]:
        failures = [ev.BlockFailure(index=index, error="lost") for index in lease.outstanding.tolist()]
        task, attempt = state.tasks[lease.task], lease.attempt
        told = [completion.attempt_failed(state, task, failure, lease.worker, attempt, now) for failure in failures]
        return [each for some in told for each in some]

    patch.setattr(completion, "lease_lost", lost)


def never_finds_the_block_that_kills(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(completion, "MOST_LOSSES", 1_000)


def blames_blocks_that_were_fetched_ahead(patch: pytest.MonkeyPatch) -> None:
    def lose(state: SchedulerState, worker: int, now: float, *, suspicious: bool, **how: str) -> list[ev.Instruction]:
        done: list[ev.Instruction] = []
        for lease in state.leases.of_worker(worker):
            state.leases.end(lease)
            if suspicious:
                done += completion.lease_lost(state, lease, now)
            else:
                completion.blocks_returned(state, state.tasks[lease.task], lease.outstanding, now)
        return done

    patch.setattr(scheduler, "leases_lost", lose)


def blames_blocks_of_workers_that_had_to_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(completion, "ENDS_MID_BLOCK", frozenset())


def keeps_the_blocks_of_workers_that_had_to_end(patch: pytest.MonkeyPatch) -> None:
    disconnected = HANDLERS[ev.ConnectionLost]

    def broken(state: SchedulerState, event: ev.ConnectionLost, now: float) -> list[ev.Instruction]:
        return disconnected(state, ev.ConnectionLost(worker=event.worker, broken=True), now)

    patch.setitem(HANDLERS, ev.ConnectionLost, broken)


def forgets_orphans(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(completion, "orphan", lambda state, task, indices, now: None)


def forgets_to_release(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(completion, "release", lambda state, task, indices, now: None)


def runs_a_block_whose_pre_check_raised(patch: pytest.MonkeyPatch) -> None:
    failed = completion.attempt_failed

    def run(
        state: SchedulerState, task: TaskRecord, failure: ev.BlockFailure, worker: int | None, attempt: int, now: float
    ) -> list[ev.Instruction]:
        if worker is not None or task.histories[failure.index].failures == task.plan.task.max_retries:
            return failed(state, task, failure, worker, attempt, now)
        task.histories[failure.index].failures += 1
        task.cleared.add(single(failure.index))
        return [ev.TellFailure(task=task.plan.number, failure=failure, final=False)]

    patch.setattr(scheduler, "attempt_failed", run)


def goes_on_after_a_stop(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(HANDLERS, ev.StopAsked, lambda state, event, now: [])


def dismisses_workers_while_their_task_waits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(dispatch, "_is_over", lambda state, task: not task.ready_count)


def never_dismisses_anybody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(dispatch, "_is_over", lambda state, task: False)


def mixes_blocks_that_run_again_with_others(patch: pytest.MonkeyPatch) -> None:
    def retry(state: SchedulerState, task: TaskRecord, index: int, worker: int, now: float, *, lost: bool) -> None:
        completion.blocks_returned(state, task, single(index), now)

    patch.setattr(completion, "_retry", retry)


def gives_a_retry_back_to_the_same_worker(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(dispatch, "_better_comes", lambda state, task, history, worker, reporter: False)


def takes_hosts_for_no_reason(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(FailureHistory, "against", lambda history, worker, host: int(worker in history.workers))


def does_not_wait_before_a_retry(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(completion, "delay_before", lambda index, history, others, lasted: 0.0)


def waits_too_long_before_a_retry(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(completion, "delay_before", lambda index, history, others, lasted: 60.0)


def forgets_that_blocks_fall_due(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ReadyQueue, "release_delayed", lambda queue, now: None)


def leaves_blocks_to_a_worker_that_never_comes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("blockflow.scheduler.dispatch.PATIENCE", 1e9)


def quarantines_a_host_too_early(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("blockflow.scheduler.retry_policy.FAILURES_ON_HOST", 1)


def quarantines_the_only_host(patch: pytest.MonkeyPatch) -> None:
    def held_until(state: SchedulerState, task: TaskRecord, worker: int) -> float | None:
        host = state.workers[worker].host
        return task.hosts.until(host) if task.hosts.is_quarantined(host) else None

    patch.setattr(dispatch, "_held_until", held_until)


def burns_what_cannot_work(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CircuitBreaker, "is_open", False)


def gives_up_a_task_that_works(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("blockflow.scheduler.state.TaskRecord.has_succeeded", False)


def gives_up_though_causes_differ(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("blockflow.scheduler.retry_policy.signature", lambda failure: ("", ""))


def grants_blocks_in_no_order(patch: pytest.MonkeyPatch) -> None:
    take = IndexSet.take
    patch.setattr(IndexSet, "take", lambda bag, at_most, below=None: take(bag, at_most, below=below)[::-1])


def grants_too_much(patch: pytest.MonkeyPatch) -> None:
    defaults = {"largest_lease": 1, "lease_seconds": 60.0, "epoch": 0, "recording": False, "resources": None}
    patch.setattr(Scheduler.__init__, "__kwdefaults__", defaults)
    draw = dispatch._draw
    patch.setattr(dispatch, "_draw", lambda task, at_most, now: draw(task, at_most + 1, now))


def starts_too_many_processes(patch: pytest.MonkeyPatch) -> None:
    wanted = WorkerPool.wanted
    patch.setattr(
        WorkerPool, "wanted", lambda pool, blocks: wanted(pool, blocks) + (not pool.gave_up and len(pool.alive) < 5)
    )


def keeps_what_a_lost_connection_left(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(HANDLERS, ev.ConnectionLost, lambda state, event, now: [])


@pytest.mark.parametrize(
    "bug",
    [
        grants_before_all_inputs_are_done,
        forgets_conflicts,
        accepts_reports_of_anybody,
        never_takes_a_lease_back,
        takes_a_lease_back_too_early,
        counts_the_deadline_from_the_grant,
        uses_attempt_numbers_again,
        counts_losses_as_failures,
        never_finds_the_block_that_kills,
        blames_blocks_that_were_fetched_ahead,
        blames_blocks_of_workers_that_had_to_end,
        keeps_the_blocks_of_workers_that_had_to_end,
        forgets_orphans,
        forgets_to_release,
        runs_a_block_whose_pre_check_raised,
        goes_on_after_a_stop,
        dismisses_workers_while_their_task_waits,
        never_dismisses_anybody,
        mixes_blocks_that_run_again_with_others,
        gives_a_retry_back_to_the_same_worker,
        takes_hosts_for_no_reason,
        does_not_wait_before_a_retry,
        waits_too_long_before_a_retry,
        forgets_that_blocks_fall_due,
        leaves_blocks_to_a_worker_that_never_comes,
        quarantines_a_host_too_early,
        quarantines_the_only_host,
        burns_what_cannot_work,
        gives_up_a_task_that_works,
        gives_up_though_causes_differ,
        grants_blocks_in_no_order,
        grants_too_much,
        starts_too_many_processes,
        keeps_what_a_lost_connection_left,
    ],
)
def test_a_bug_is_found_out(bug: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    be_short_tempered(monkeypatch)
    bug(monkeypatch)
    monkeypatch.setattr(Scheduler, "validate", lambda scheduler: None)
    with pytest.raises((AssertionError, KeyError, ValueError, pytest.fail.Exception)):
        live_often(Random(0))


def live_often(random: Random) -> None:
    for _ in range(500):
        live(random, most_steps=150)
