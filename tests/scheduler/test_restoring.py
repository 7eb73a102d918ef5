"""Does a run end as it must, however often its driver dies, and whatever was not durable then?"""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from blockflow.plan.plan import Plan, compile_plan
from blockflow.scheduler import events as ev
from blockflow.scheduler.block_states import BlockState
from blockflow.scheduler.events import Record, RecordFailure, RecordGone, RecordLoss, RecordWorker
from blockflow.scheduler.leases import first_number
from blockflow.scheduler.propagation import RestoredTask
from blockflow.scheduler.retry_policy import FailureHistory
from blockflow.scheduler.scheduler import Scheduler
from tests.scheduler.desk import Desk, granted
from tests.scheduler.lives import LEASE, Life, Nature, absent_after, states_of, times_done
from tests.scheduler.plans import line, random_plan, square


@pytest.mark.parametrize("seed", range(40))
def test_lives_end_as_one_life_does(seed: int) -> None:
    """Half-way, twice, the driver dies; some of what it recorded last may not be durable.

    Of its workers some come back with what they hold, some die, of some nothing is heard again.
    """
    random = Random(seed)
    plan = random_plan(random)
    nature = Nature(plan, random)
    life = Life(plan, random, nature)
    durable: list[Record] = []
    for epoch in (1, 2):
        for _ in range(random.randint(0, 12)):
            if not life.scheduler.finished:
                life.step()
        # What follows from a record is not said before it is durable, so workers know of none that is lost.
        durable += life.records[: len(life.records) - random.choice((0, 0, 1, 3))]
        absent = absent_after(durable)
        before = life
        life = Life(plan, random, nature, epoch)
        life.now = before.now + 1.0
        life.restore(durable, absent)
        gone = [known.worker for known in absent if known.worker not in before.workers]
        for number in gone:
            life.tell(ev.WorkerLeft(worker=number, crashed=False))
        _meet_again(life, [before.workers[known.worker] for known in absent if known.worker in before.workers], random)
    life.finish()
    expected = nature.states(plan)
    assert states_of(life.scheduler) == expected
    durable += life.records
    done = times_done(durable)
    assert set(done.values()) <= {1}
    assert set(done) == {key for key, state in expected.items() if state is BlockState.DONE}


def _meet_again(life: Life, workers: list, random: Random) -> None:  # type: ignore[type-arg]
    for worker in workers:
        match random.choice(("back", "back", "dies", "silent")):
            case "back":
                life.come_back(worker)
            case "dies":
                life.tell(ev.WorkerLeft(worker=worker.number, crashed=True))
            case _:
                pass
    if life.scheduler.awaited_workers:  # some are silent, or what they claimed was refused
        for _ in range(int(LEASE * 1.05) + 4):
            life.now += 1.0
            for worker in life.workers.values():
                life.tell(ev.HeartbeatReceived(worker=worker.number))
            life.tell(ev.Ticked())
    assert not life.scheduler.awaited_workers


# ------------------------------------------------------------------------------------------------- one at a time


def restored(
    plan: Plan,
    states: dict[int, list[BlockState]],
    *,
    absent: tuple[RecordWorker, ...] = (),
    **more: dict[int, FailureHistory],
) -> Desk:
    """A desk whose scheduler goes on after another one."""
    scheduler = Scheduler(plan, largest_lease=4, lease_seconds=LEASE, epoch=1, recording=True)
    histories = [RestoredTask(states=np.zeros(task.grid.size, dtype=np.uint8)) for task in plan.tasks]
    for task, known in states.items():
        histories[task] = RestoredTask(
            states=np.array(known, dtype=np.uint8),
            failures={i: ev.BlockFailure(index=i, error="no") for i, s in enumerate(known) if s is BlockState.FAILED},
            histories=more.get("histories", {}),
        )
    scheduler.restore(histories, absent, 0.0)
    return Desk(scheduler=scheduler)


NONE, DONE, FAILED = BlockState.PENDING, BlockState.DONE, BlockState.FAILED


def known(worker: int, process: int | None = None, task: int = 0) -> RecordWorker:
    return RecordWorker(worker=worker, task=task, process=process, host="host", pid=worker)


def held(worker: int, indices: list[int], attempt: int = 7, lease: int = 3) -> ev.GrantLease:
    return ev.GrantLease(worker=worker, task=0, lease=lease, attempt=attempt, indices=np.array(indices, dtype=np.int64))


def test_what_was_done_is_not_done_again() -> None:
    desk = restored(compile_plan([line(blocks=4)]), {0: [DONE, NONE, DONE, NONE]})
    assert desk.scheduler.task_states["t"].completed_count == 2
    desk.join(1)
    assert desk.ask(1).indices.tolist() == [1]
    assert desk.ask(1).indices.tolist() == [3]


def test_everything_may_have_been_done() -> None:
    desk = restored(compile_plan([line(blocks=3)]), {0: [DONE] * 3})
    assert desk.finished()
    desk.join(1)
    assert desk.tell(ev.BlocksAsked(worker=1)) == [ev.DismissWorker(worker=1)]


def test_what_was_done_releases_what_waits_for_it() -> None:
    above = line("above", 3)
    desk = restored(
        compile_plan([line("below", 3, upstream=[above])]),
        {0: [DONE, NONE, DONE]},
    )
    assert desk.scheduler.plan.tasks[0].task_id == "above"
    desk.join(1, task=1)
    assert [desk.ask(1).indices.tolist() for _ in range(2)] == [[0], [2]]
    desk.ask_in_vain(1)


def test_what_waits_for_failed_blocks_is_orphaned() -> None:
    above = line("above", 3)
    desk = restored(compile_plan([line("below", 3, upstream=[above])]), {0: [FAILED, NONE, DONE]})
    assert desk.scheduler.task_states["below"].orphaned_count == 1
    assert desk.scheduler.task(0).final_failures[0].error == "no"


def test_neighbours_of_done_blocks_need_not_wait_for_them() -> None:
    """In a task with conflicts, levels wait for one another."""
    plan = compile_plan([square(side=4, context=5)])
    level = plan.tasks[0].levels.level(plan.tasks[0].positions(np.arange(16)))
    desk = restored(plan, {0: [DONE if each == 0 else NONE for each in level]})
    assert desk.scheduler.task_states["t"].ready_count == np.count_nonzero(level == 1)


def test_failures_of_an_earlier_life_count() -> None:
    plan = compile_plan([line(blocks=1, max_retries=2)])
    desk = restored(plan, {0: [NONE]}, histories={0: FailureHistory(failures=2, attempt=5)})
    desk.join(1)
    grant = desk.ask(1)
    assert grant.attempt == first_number(1)
    desk.report(grant, fails=[0])
    assert desk.scheduler.task_states["t"].failed_count == 1
    (record,) = [each for each in desk.scheduler.take_records() if isinstance(each, RecordFailure)]
    assert record.final
    assert desk.scheduler.take_records() == [], "each is taken once"


def test_lost_workers_of_an_earlier_life_count() -> None:
    desk = restored(compile_plan([line(blocks=1)]), {0: [NONE]}, histories={0: FailureHistory(losses=4)})
    desk.join(1)
    desk.ask(1)
    desk.leave(1, crashed=True)
    records = desk.scheduler.take_records()
    assert [record.index for record in records if isinstance(record, RecordLoss)] == [0]
    assert desk.scheduler.task_states["t"].failed_count == 1


def test_nothing_is_handed_out_while_workers_are_waited_for() -> None:
    desk = restored(compile_plan([line(blocks=2)]), {}, absent=(known(1), known(2)))
    assert [each.worker for each in desk.scheduler.awaited_workers] == [1, 2]
    desk.join(first_number(1))
    desk.ask_in_vain(first_number(1))
    assert granted(desk.leave(1, crashed=True)) == [], "there is another one"
    assert granted(desk.leave(2, crashed=True)) == [(first_number(1), [0])]
    assert [each.worker for each in desk.scheduler.take_records() if isinstance(each, RecordGone)] == [1, 2]


def test_the_wait_for_workers_ends_with_their_leases() -> None:
    desk = restored(compile_plan([line(blocks=2)]), {}, absent=(known(1),))
    desk.join(first_number(1))
    desk.ask_in_vain(first_number(1))
    until = desk.scheduler.next_deadline()
    assert until is not None
    assert until >= LEASE * 1.05
    assert granted(desk.wait(until - 0.1)) == []
    assert granted(desk.wait(0.1)) == [(first_number(1), [0])]
    assert desk.scheduler.awaited_workers == []


def test_a_worker_that_is_back_keeps_what_it_claims() -> None:
    desk = restored(compile_plan([line(blocks=6)]), {0: [NONE, DONE, NONE, NONE, NONE, NONE]}, absent=(known(1),))
    desk.join(1)
    mine = held(1, [1, 2, 3])
    assert desk.claim(mine), "the first of them is done, which the worker may not have heard"
    assert granted(desk.tell(ev.BlocksAsked(worker=1))) == [(1, [0])], "claimed all, and asks"
    other = first_number(1)
    desk.join(other)
    assert desk.ask(other).indices.tolist() == [4], "what is claimed is nobody else's"
    desk.report(mine, 3)
    assert desk.scheduler.task_states["t"].completed_count == 3


def test_a_lease_of_which_everything_is_known_is_acknowledged() -> None:
    plan = compile_plan([line(blocks=3, max_retries=5)])
    states = {0: [DONE, FAILED, NONE]}
    desk = restored(plan, states, absent=(known(1),), histories={2: FailureHistory(failures=1, attempt=9)})
    desk.join(1)
    assert desk.claim(held(1, [0, 1, 2], attempt=7)), "the attempt at the last one failed, and that was recorded"
    assert desk.scheduler.task_states["t"].processing_count == 0


def test_an_earlier_failure_of_a_block_is_not_that_of_the_claimed_attempt() -> None:
    plan = compile_plan([line(blocks=3, max_retries=5)])
    desk = restored(plan, {0: [NONE] * 3}, absent=(known(1),), histories={2: FailureHistory(failures=1, attempt=4)})
    desk.join(1)
    assert desk.claim(held(1, [2], attempt=9))
    assert desk.scheduler.task_states["t"].processing_count == 1


def test_blocks_that_others_have_cannot_be_claimed() -> None:
    desk = restored(compile_plan([line(blocks=3)]), {}, absent=(known(1), known(2)))
    desk.join(1, 2)
    assert desk.claim(held(1, [0, 1]))
    assert not desk.claim(held(2, [1, 2], attempt=17, lease=4))
    assert granted(desk.tell(ev.BlocksAsked(worker=1))) == [], "the second one may be at work on what it cannot keep"
    desk.leave(2, crashed=True)
    assert granted(desk.told) == [(1, [2])]


def test_a_block_that_waits_for_others_cannot_be_claimed() -> None:
    """What it waited for was not durable, so it is not known to be done."""
    above = line("above", 2)
    plan = compile_plan([line("below", 2, upstream=[above])])
    desk = restored(plan, {}, absent=(known(1, task=1),))
    desk.join(1, task=1)
    claim = ev.LeaseClaimed(worker=1, lease=3, attempt=7, indices=np.array([0]))
    assert desk.tell(claim) == [ev.AcknowledgeReport(worker=1, lease=3, stale=True)]


@pytest.mark.parametrize("number", [1, first_number(1)])
def test_only_leases_of_earlier_lives_can_be_claimed_anew(number: int) -> None:
    desk = restored(compile_plan([line(blocks=3)]), {}, absent=(known(1),))
    desk.join(number)
    attempt = 7 if number != 1 else first_number(1)
    assert not desk.claim(held(number, [0], attempt=attempt))


def test_processes_of_an_earlier_life_are_counted_until_they_end() -> None:
    plan = compile_plan([line(blocks=9, num_workers=2)])
    desk = restored(plan, {}, absent=(known(1, process=4), known(2, process=5)))
    assert desk.told == [], "two are there already"
    told = desk.leave(1, crashed=True)
    assert told == [ev.StartProcess(task=0, process=6, delay=0.0)], "with a number of its own"
    desk.tell(ev.WorkerJoined(worker=2, task=0, process=5))
    told = desk.leave(2, crashed=False)
    assert [each.process for each in told if isinstance(each, ev.StartProcess)] == [7]


def test_a_worker_that_loses_its_connection_before_it_has_claimed_is_waited_for_again() -> None:
    desk = restored(compile_plan([line(blocks=2)]), {}, absent=(known(1),))
    desk.join(1)
    desk.tell(ev.ConnectionLost(worker=1))
    assert [each.worker for each in desk.scheduler.awaited_workers] == [1]
    desk.join(1)
    assert desk.claim(held(1, [0]))


def test_checked_blocks_can_be_claimed_and_given_back() -> None:
    """A block that one worker gives back may be claimed by another one, which had it before."""
    plan = compile_plan([line(blocks=2, check_function=(lambda block: False, None))])
    desk = restored(plan, {}, absent=(known(1), known(2)))
    desk.join(1, 2)
    first = held(1, [0])
    assert desk.claim(first)
    desk.give_back(first)
    assert desk.claim(held(2, [0], attempt=6, lease=2))
    desk.report(held(2, [0], attempt=6, lease=2))
    assert desk.scheduler.task_states["t"].completed_count == 1


def test_blocks_of_a_task_with_an_order_of_its_own_can_be_claimed() -> None:
    desk = restored(compile_plan([line(blocks=4, order=lambda indices: -indices)]), {}, absent=(known(1),))
    desk.join(1)
    mine = held(1, [2, 3])
    assert desk.claim(mine)
    desk.report(mine)
    assert desk.ask(1).indices.tolist() == [1], "the largest that is left"


def test_a_claim_may_be_shorter_than_the_lease() -> None:
    """Blocks that the worker gave back while the driver was away are not among those that it claims."""
    desk = Desk(line(blocks=9), largest_lease=4)
    desk.join(1)
    desk.report(desk.ask(1), seconds=1e-6)
    grant = desk.ask(1)
    assert len(grant.indices) > 1
    desk.tell(ev.ConnectionLost(worker=1))
    desk.join(1)
    assert desk.claim(held(1, grant.indices.tolist()[:1], attempt=grant.attempt, lease=grant.lease))
    assert desk.scheduler.task_states["t"].processing_count == 1


def test_silent_workers_can_be_looked_for() -> None:
    desk = Desk(line(), lease_seconds=LEASE)
    assert desk.scheduler.lease_seconds == LEASE
    desk.join(1)
    desk.ask(1)
    due = desk.scheduler.next_deadline()
    assert due is not None
    assert desk.scheduler.overdue(due - 0.1) == []
    assert desk.scheduler.overdue(due) == [1]
