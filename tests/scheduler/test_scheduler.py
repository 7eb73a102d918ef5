"""What does the scheduler do about one event, in situations that are easily got wrong?"""

from __future__ import annotations

import numpy as np
import pytest

from blockflow.errors import InvalidTransition, RemoteProtocolError
from blockflow.plan.plan import compile_plan
from blockflow.scheduler import events as ev
from blockflow.scheduler.block_states import BlockState, BlockTrigger
from blockflow.scheduler.completion import MOST_LOSSES
from blockflow.scheduler.scheduler import LEASE_SECONDS, Scheduler
from tests.scheduler.desk import Desk, checks, dismissed, failures, granted, stale, started
from tests.scheduler.plans import line, never

BEFORE, AFTER = ev.CheckPhase.BEFORE, ev.CheckPhase.AFTER
EXPIRED = LEASE_SECONDS * 1.06
CHECKED_BEFORE = (never, None)
CHECKED_AFTER = (None, never)


# ------------------------------------------------------------------------------------------- questions and answers


def test_tasks_or_a_plan() -> None:
    tasks = [line("a"), line("b")]
    assert Scheduler(tasks).task_states.keys() == {"a", "b"}
    assert Scheduler(compile_plan(tasks)).task_states == Scheduler(tasks).task_states


def test_upstream_tasks_are_run_too() -> None:
    scheduler = Scheduler([line("below", upstream=[line("above")])])
    assert list(scheduler.task_states) == ["above", "below"]
    assert [task.task_id for task in scheduler.get_ready_tasks()] == ["above"]
    assert scheduler.dependency_graph.num_blocks("below") == 4


def test_a_task_without_blocks_has_finished() -> None:
    desk = Desk(line(blocks=0, context=1))
    assert desk.finished()
    assert desk.scheduler.task_states["t"].is_done()
    desk.join(1)
    assert dismissed(desk.tell(ev.BlocksAsked(worker=1))) == [1]


def test_nothing_is_finished_before_anything_happened() -> None:
    assert not Scheduler([line()]).finished


# ------------------------------------------------------------------------------------------------ who may speak


@pytest.mark.parametrize(
    "event",
    [
        ev.BlocksAsked(worker=1),
        ev.HeartbeatReceived(worker=1),
        ev.BlocksReported(worker=1, lease=1, upto=1, seconds=1.0),
        ev.BlocksReturned(worker=1, lease=1, kept=0),
    ],
)
@pytest.mark.parametrize("past", ["never joined", "left", "lost its connection", "lost its connection with a lease"])
def test_only_workers_that_are_there_may_speak(event: ev.Event, past: str) -> None:
    desk = Desk(line())
    if past != "never joined":
        desk.join(1)
    if past == "left":
        desk.leave(1, crashed=False)
    if past.endswith("lease"):
        desk.ask(1)
    if past.startswith("lost"):
        desk.tell(ev.ConnectionLost(worker=1))
    with pytest.raises(RemoteProtocolError, match="worker 1 sent a message before it joined"):
        desk.tell(event)


def test_news_of_unknown_workers_and_processes_change_nothing() -> None:
    desk = Desk(line())
    assert desk.tell(ev.WorkerLeft(worker=1, crashed=True)) == []
    assert desk.tell(ev.ConnectionLost(worker=1)) == []
    assert started(desk.tell(ev.ProcessEnded(process=77, task=0, clean=False))) == []


def test_a_worker_belongs_to_one_task() -> None:
    desk = Desk(line("a"), line("b"))
    desk.join(1, task=0)
    with pytest.raises(RemoteProtocolError, match="worker 1 of task 0 joins again for task 1"):
        desk.join(1, task=1)


def test_a_worker_that_is_back_keeps_its_blocks() -> None:
    desk = Desk(line())
    desk.join(1)
    grant = desk.ask(1)
    desk.tell(ev.ConnectionLost(worker=1))
    desk.join(1)
    assert desk.claim(grant)
    assert not stale(desk.report(grant))
    assert granted(desk.tell(ev.BlocksAsked(worker=1))) == [(1, [1])]


def test_what_a_worker_that_is_back_does_not_claim_has_never_reached_it() -> None:
    desk = Desk(line())
    desk.join(1)
    desk.ask(1)
    desk.tell(ev.ConnectionLost(worker=1))
    desk.join(1)
    desk.tell(ev.HeartbeatReceived(worker=1))
    assert desk.ask(1).indices.tolist() == [0]


def test_a_worker_that_the_driver_sees_has_said_nothing_yet() -> None:
    desk = Desk(line())
    desk.join(1)
    grant = desk.ask(1)
    desk.tell(ev.ConnectionLost(worker=1))
    desk.join(1)
    desk.now += EXPIRED - 1.0
    desk.tell(ev.HeartbeatReceived(worker=1, seen=True))
    desk.now += EXPIRED - 1.0
    desk.tell(ev.Ticked())
    assert desk.claim(grant), "its lease goes on, and it may still claim it"


def test_what_has_run_out_before_a_worker_could_claim_it_is_gone() -> None:
    desk = Desk(line())
    desk.join(1)
    desk.ask(1)
    desk.tell(ev.ConnectionLost(worker=1))
    desk.join(1)
    desk.now += EXPIRED
    desk.tell(ev.Ticked())
    desk.tell(ev.HeartbeatReceived(worker=1))
    assert desk.ask(1).indices.tolist() == [0]


def test_nothing_can_be_claimed_later() -> None:
    desk = Desk(line())
    desk.join(1)
    grant = desk.ask(1)
    with pytest.raises(RemoteProtocolError, match="worker 1 claims lease 1 too late"):
        desk.claim(grant)
    with pytest.raises(RemoteProtocolError, match="worker 2 claims lease 1 too late"):
        desk.scheduler.handle(ev.LeaseClaimed(worker=2, lease=1, attempt=1, indices=grant.indices), desk.now)


def test_a_lease_that_has_run_out_cannot_be_claimed() -> None:
    desk = Desk(line())
    desk.join(1)
    grant = desk.ask(1)
    desk.tell(ev.ConnectionLost(worker=1))
    desk.now += EXPIRED
    desk.tell(ev.Ticked())
    desk.join(1)
    assert not desk.claim(grant)


def test_a_worker_that_is_back_has_not_asked() -> None:
    desk = Desk(line(blocks=1))
    desk.join(1, 2)
    first = desk.ask(1)
    desk.ask_in_vain(2)
    desk.join(2)
    assert granted(desk.give_back(first)) == []


# ----------------------------------------------------------------------------------------------------- reports


def test_a_report_of_a_part_leaves_the_rest() -> None:
    desk = Desk(line(blocks=100), largest_lease=5)
    desk.join(1)
    desk.report(desk.ask(1), seconds=0.0)
    grant = desk.ask(1)
    assert grant.indices.tolist() == [1, 2, 3, 4, 5]
    desk.report(grant, 3, seconds=0.0)
    assert desk.scheduler.task_states["t"].completed_count == 4
    assert desk.scheduler.task_states["t"].processing_count == 2
    desk.report(grant, 5, seconds=0.0)
    assert desk.scheduler.task_states["t"].processing_count == 0


def wide_grant(desk: Desk, worker: int = 1) -> ev.GrantLease:
    """A lease of three blocks, the first of them reported."""
    desk.join(worker)
    desk.report(desk.ask(worker), seconds=0.0)
    grant = desk.ask(worker)
    desk.report(grant, 1, seconds=0.0)
    assert grant.indices.tolist() == [1, 2, 3]
    return grant


@pytest.mark.parametrize(
    ("upto", "fails", "message"),
    [
        (4, (), "worker 1 reports 4 blocks of lease 2, which has 3"),
        (0, (), "worker 1 reports 0 blocks of lease 2"),
        (-1, (), "worker 1 reports -1 blocks of lease 2"),
        (3, (1,), r"reports failures of blocks \[1\] that its report does not cover"),
        (2, (3,), r"reports failures of blocks \[3\] that"),
        (3, (4, 9), r"reports failures of blocks \[4, 9\] that"),
        (3, (2, 2), r"reports two failures of one block: \[2, 2\]"),
    ],
)
def test_a_report_that_cannot_be_is_refused(upto: int, fails: tuple[int, ...], message: str) -> None:
    desk = Desk(line(blocks=100), largest_lease=3)
    grant = wide_grant(desk)
    with pytest.raises(RemoteProtocolError, match=message):
        desk.report(grant, upto, fails=fails)
    assert desk.scheduler.task_states["t"].completed_count == 2
    assert not stale(desk.report(grant, 3))


@pytest.mark.parametrize("kept", [0, 4, -1])
def test_a_return_that_cannot_be_is_refused(kept: int) -> None:
    desk = Desk(line(blocks=100), largest_lease=3)
    grant = wide_grant(desk)
    with pytest.raises(RemoteProtocolError, match=f"returns all but {kept} blocks of lease 2, which has 3, 1 of them"):
        desk.give_back(grant, kept)
    assert not stale(desk.report(grant, 3))


def test_a_report_that_comes_twice_counts_once() -> None:
    desk = Desk(line(blocks=100, max_retries=0), largest_lease=3)
    grant = wide_grant(desk)
    for _ in range(3):
        assert not stale(desk.report(grant, 2, fails=[2]))
    assert desk.scheduler.task_states["t"].failed_count == 1
    assert failures(desk.told) == []


def test_a_report_for_the_lease_of_another_is_stale() -> None:
    desk = Desk(line())
    desk.join(1, 2)
    grant = desk.ask(1)
    answer = desk.tell(ev.BlocksReported(worker=2, lease=grant.lease, upto=1, seconds=1.0))
    assert stale(answer)
    assert desk.scheduler.task_states["t"].completed_count == 0


def test_returned_blocks_go_to_somebody_else() -> None:
    desk = Desk(line(blocks=100), largest_lease=3)
    grant = wide_grant(desk)
    desk.give_back(grant, 2)
    assert stale(desk.report(grant, 2)) is False
    desk.join(2)
    assert desk.ask(2).indices.tolist()[0] == 3
    assert stale(desk.give_back(grant, 2) or desk.report(grant, 2)), "the lease is over"


def test_returning_nothing_changes_nothing() -> None:
    desk = Desk(line(blocks=100), largest_lease=3)
    grant = wide_grant(desk)
    desk.give_back(grant, 3)
    assert not stale(desk.report(grant, 3))


# ------------------------------------------------------------------------------------ workers that are lost


def test_a_goodbye_costs_nothing() -> None:
    desk = Desk(line(blocks=1, max_retries=0))
    for worker in range(3 * MOST_LOSSES):
        desk.join(worker)
        desk.ask(worker)
        desk.leave(worker, crashed=False)
    assert not desk.book.histories
    assert desk.book.ready_count == 1


def test_a_block_that_kills_its_workers_is_found() -> None:
    desk = Desk(line(blocks=1))
    for worker in range(MOST_LOSSES):
        assert not desk.book.ended
        desk.join(worker)
        desk.ask(worker)
        desk.leave(worker, crashed=True)
    assert failures(desk.told) == [(0, True)]
    assert desk.book.final_failures[0].error == "5 workers ended while they ran this block: the last ended"
    assert desk.scheduler.task_states["t"].failed_count == 1
    assert desk.finished()


def test_losses_and_failures_are_counted_apart() -> None:
    desk = Desk(line(blocks=1, max_retries=2))
    for worker in range(MOST_LOSSES - 1):
        desk.join(worker)
        desk.ask(worker)
        desk.leave(worker, crashed=True)
    desk.join(77)
    for _ in range(2):
        assert failures(desk.report(desk.ask(77), fails=[0])) == [(0, False)]
    desk.report(desk.ask(77))
    assert desk.scheduler.task_states["t"].completed_count == 1


def test_blocks_lost_together_run_again_alone_and_none_is_blamed() -> None:
    desk = Desk(line(blocks=100), largest_lease=3)
    wide_grant(desk)
    desk.leave(1, crashed=True)
    desk.join(2)
    assert desk.ask(2).indices.tolist() == [2]
    assert desk.ask(2).indices.tolist() == [3]
    assert len(desk.ask(2).indices) == 3
    assert sum(mishaps.losses for mishaps in desk.book.histories.values()) == 0


def test_the_last_block_of_a_lost_lease_is_blamed() -> None:
    desk = Desk(line(blocks=100), largest_lease=3)
    grant = wide_grant(desk)
    desk.report(grant, 2)
    desk.leave(1, crashed=True)
    assert desk.book.histories[3].losses == 1


def test_only_the_oldest_lease_of_a_lost_worker_is_suspicious() -> None:
    """What it had fetched ahead it cannot have begun."""
    desk = Desk(line(blocks=3))
    for worker in range(MOST_LOSSES - 1):
        desk.join(worker)
        assert [desk.ask(worker).indices.tolist(), desk.ask(worker).indices.tolist()] == [[0], [1]]
        desk.leave(worker, crashed=True)
    assert desk.book.histories[0].losses == MOST_LOSSES - 1
    assert 1 not in desk.book.histories


def test_both_leases_of_a_silent_worker_end_at_once() -> None:
    desk = Desk(line(blocks=3))
    desk.join(1)
    first = desk.ask(1)
    desk.wait(30.0)
    second = desk.ask(1)
    desk.wait(EXPIRED - 30.0)
    assert desk.book.blocks.count(BlockState.RUNNING) == 2, "it was heard when it asked"
    desk.wait(30.0)
    assert desk.book.blocks.count(BlockState.RUNNING) == 0
    assert desk.book.histories.keys() == {0}
    assert stale(desk.report(first))
    assert stale(desk.report(second))


def test_a_connected_worker_may_go_on_after_its_lease_has_ended() -> None:
    desk = Desk(line(blocks=2))
    desk.join(1)
    grant = desk.ask(1)
    desk.wait(EXPIRED)
    assert stale(desk.report(grant))
    again = desk.ask(1)
    assert again.indices.tolist() == [0]
    assert again.attempt > grant.attempt
    assert not stale(desk.report(again))


def test_a_late_report_does_not_touch_the_lease_of_the_next() -> None:
    desk = Desk(line(blocks=1))
    desk.join(1, 2)
    late = desk.ask(1)
    desk.wait(EXPIRED)
    grant = desk.ask(2)
    assert stale(desk.report(late, fails=[0]))
    assert desk.scheduler.task_states["t"].processing_count == 1
    assert not stale(desk.report(grant))
    assert desk.scheduler.task_states["t"].completed_count == 1


@pytest.mark.parametrize("sign", ["heartbeat", "ask", "report", "late report", "return"])
def test_every_message_is_a_sign_of_life(sign: str) -> None:
    """A worker counts on it: its own deadline moves with every message that is answered."""
    desk = Desk(line(blocks=9))
    desk.join(1)
    grant, other = desk.ask(1), desk.ask(1)
    late = ev.BlocksReported(worker=1, lease=99, upto=1, seconds=1.0)
    desk.wait(50.0)
    match sign:
        case "heartbeat":
            desk.tell(ev.HeartbeatReceived(worker=1))
        case "ask":
            desk.ask(1)
        case "report":
            desk.report(other)
        case "late report":
            desk.tell(late)
        case _:
            desk.give_back(other)
    desk.wait(50.0)
    assert not stale(desk.report(grant))


def test_the_server_waits_longer_than_the_lease() -> None:
    desk = Desk(line(), lease_seconds=100.0)
    desk.join(1)
    assert desk.scheduler.next_deadline() is None
    grant = desk.ask(1)
    assert desk.scheduler.next_deadline() == 105.0
    desk.wait(104.9)
    assert not stale(desk.report(grant))
    assert desk.scheduler.next_deadline() is None


def test_nobody_is_woken_for_a_block_that_waits_for_a_worker() -> None:
    """A deadline in the past would make a coordinator spin."""
    desk = Desk(line(blocks=1))
    desk.join(1)
    desk.report(desk.ask(1), fails=[0])
    assert desk.scheduler.next_deadline() is None


def test_a_lost_connection_keeps_the_blocks_until_the_lease_ends() -> None:
    desk = Desk(line(blocks=1))
    desk.join(1, 2)
    desk.ask(1)
    desk.ask_in_vain(2)
    assert desk.tell(ev.ConnectionLost(worker=1)) == []
    assert desk.wait(LEASE_SECONDS) == []
    assert granted(desk.wait(EXPIRED - LEASE_SECONDS)) == [(2, [0])]


def test_a_lost_connection_and_then_a_dead_process() -> None:
    desk = Desk(line(blocks=1))
    desk.join(1, 2)
    desk.ask(1)
    desk.ask_in_vain(2)
    desk.tell(ev.ConnectionLost(worker=1))
    assert granted(desk.leave(1, crashed=True)) == [(2, [0])]
    assert desk.leave(1, crashed=True) == []
    assert desk.book.histories[0].losses == 1


def test_a_connection_lost_without_blocks_is_forgotten() -> None:
    desk = Desk(line(blocks=1))
    desk.join(1)
    desk.tell(ev.ConnectionLost(worker=1))
    assert desk.book.active_workers == set()
    desk.join(2)
    desk.ask(2)
    assert desk.leave(1, crashed=True) == []


# -------------------------------------------------------------------------------- failures, and who tries again


def test_a_block_fails_after_all_its_retries() -> None:
    desk = Desk(line(blocks=1, max_retries=2))
    desk.join(1)
    for final in (False, False, True):
        assert failures(desk.report(desk.ask(1), fails=[0])) == [(0, final)]
    assert desk.book.final_failures[0].error == "ValueError: no"
    assert desk.finished()
    assert not desk.book.histories


def test_a_success_after_failures_forgets_them() -> None:
    desk = Desk(line(blocks=1))
    desk.join(1)
    desk.report(desk.ask(1), fails=[0])
    desk.report(desk.ask(1))
    assert not desk.book.histories
    assert not desk.book.final_failures


def test_a_retry_goes_to_another_worker() -> None:
    desk = Desk(line(blocks=2, max_retries=9))
    desk.join(1, 2)
    first, second = desk.ask(1), desk.ask(2)
    desk.report(first, fails=[0])
    desk.ask_in_vain(1)
    assert granted(desk.report(second)) == []
    assert granted(desk.tell(ev.BlocksAsked(worker=2))) == [(2, [0])]


def test_a_retry_goes_to_another_that_waits_already() -> None:
    desk = Desk(line(blocks=1, max_retries=9))
    desk.join(1, 2)
    first = desk.ask(1)
    desk.ask_in_vain(1)
    desk.ask_in_vain(2)
    assert granted(desk.report(first, fails=[0])) == [(2, [0])]


@pytest.mark.parametrize(
    "how", ["leaves", "crashes", "loses its connection", "stays away", "gives back and stays away"]
)
def test_a_retry_does_not_wait_for_a_worker_that_will_not_come(how: str) -> None:
    desk = Desk(line(blocks=2, max_retries=9))
    desk.join(1, 2, 3)
    first, second = desk.ask(1), desk.ask(2)
    desk.report(first, fails=[0])
    desk.ask_in_vain(1)
    match how:
        case "leaves" | "crashes":
            desk.leave(2, crashed=how == "crashes")
        case "loses its connection":
            desk.tell(ev.ConnectionLost(worker=2))
        case "stays away":
            assert granted(desk.report(second)) == [], "it may ask next"
            desk.tell(ev.HeartbeatReceived(worker=2))
        case _:
            desk.give_back(second)
    assert granted(desk.told) == [(1, [0])]


def test_a_retry_does_not_wait_for_a_dismissed_worker() -> None:
    desk = Desk(line(blocks=4, max_retries=9))
    desk.join(1)
    desk.join(2, process=0)
    desk.report(desk.ask(1), fails=[0])
    fetched = [desk.ask(2) for _ in range(3)]
    assert [grant.indices.tolist() for grant in fetched] == [[0], [1], [2]]
    desk.report(fetched[1], fails=[1])
    desk.report(desk.ask(1))
    desk.report(fetched[0], fails=[0])
    desk.report(desk.ask(1))
    desk.report(desk.ask(1), fails=[3])
    desk.ask_in_vain(1)
    told = desk.report(fetched[2], fails=[2])
    assert dismissed(told) == [2]
    assert granted(told) == [(1, [3])]


def test_a_retry_avoids_all_that_failed_or_were_lost_with_it() -> None:
    desk = Desk(line(blocks=2, max_retries=9))
    desk.join(1, 2, 3)
    desk.ask(3)
    desk.report(desk.ask(1), fails=[1])
    grant = desk.ask(2)
    assert grant.indices.tolist() == [1]
    desk.wait(EXPIRED / 2)
    desk.tell(ev.HeartbeatReceived(worker=3))
    desk.wait(EXPIRED / 2)
    desk.ask_in_vain(1)
    desk.ask_in_vain(2)
    desk.wait(5.0)
    assert granted(desk.told) == [], "it may run again, but the third will be back"
    assert granted(desk.tell(ev.BlocksAsked(worker=3))) == [(3, [1])]


def failing_worker(desk: Desk, worker: int, *, process: int | None) -> None:
    """Two different blocks have failed on a worker that holds a third and a fourth."""
    desk.join(worker, process=process)
    grants = [desk.ask(worker) for _ in range(4)]
    desk.report(grants[0], fails=grants[0].indices.tolist())
    assert dismissed(desk.report(grants[1], fails=grants[1].indices.tolist())) == []


def third_and_fourth(desk: Desk, worker: int) -> tuple[ev.GrantLease, ev.GrantLease]:
    three, four = desk.scheduler._state.leases.of_worker(worker)
    grants = [
        ev.GrantLease(worker=worker, task=0, lease=lease.number, attempt=lease.attempt, indices=lease.indices)
        for lease in (three, four)
    ]
    return grants[0], grants[1]


def test_a_worker_is_replaced_after_different_blocks_failed_on_it_in_a_row() -> None:
    desk = Desk(line(blocks=9, max_retries=9, num_workers=2))
    failing_worker(desk, 1, process=0)
    third, fourth = third_and_fourth(desk, 1)
    told = desk.report(third, fails=[2])
    assert dismissed(told) == [1]
    assert desk.tell(ev.BlocksAsked(worker=1)) == [], "it has been told"
    assert dismissed(desk.report(fourth, fails=[3])) == [], "only once"
    assert failures(desk.told) == [(3, False)], "but what it held still counts"


def test_a_dismissed_worker_gives_back_what_it_holds_when_it_leaves() -> None:
    desk = Desk(line(blocks=9, max_retries=9))
    failing_worker(desk, 1, process=0)
    third, _ = third_and_fourth(desk, 1)
    desk.report(third, fails=[2])
    assert desk.scheduler.task_states["t"].processing_count == 1
    desk.leave(1, crashed=False)
    assert desk.scheduler.task_states["t"].processing_count == 0
    assert started(desk.tell(ev.ProcessEnded(process=0, task=0, clean=True))) == [1], "it worked, so it is replaced"


def test_workers_from_elsewhere_are_never_replaced() -> None:
    """Nobody would start another one."""
    desk = Desk(line(blocks=9, max_retries=9))
    failing_worker(desk, 1, process=None)
    third, _ = third_and_fourth(desk, 1)
    assert dismissed(desk.report(third, fails=[2])) == []


def test_a_success_ends_a_row_of_failures() -> None:
    desk = Desk(line(blocks=9, max_retries=9))
    failing_worker(desk, 1, process=0)
    third, fourth = third_and_fourth(desk, 1)
    desk.report(third)
    assert dismissed(desk.report(fourth, fails=[3])) == []


def test_one_block_that_fails_again_and_again_is_not_the_worker_s_fault() -> None:
    desk = Desk(line(blocks=1, max_retries=9))
    desk.join(1, process=0)
    for _ in range(9):
        assert dismissed(desk.report(desk.ask(1), fails=[0])) == []


# ---------------------------------------------------------------------------------------------------- orphans


def test_what_waits_for_a_failed_block_is_orphaned() -> None:
    """Block i of c waits for block i of b, that for i of a and, as a neighbour, for the last of b."""
    a = line("a", 2, max_retries=0)
    b = line("b", 2, upstream=[a], context=(0, 5))
    desk = Desk(a, b, line("c", 2, upstream=[b]))
    desk.join(1)
    desk.report(desk.ask(1))
    desk.report(desk.ask(1), fails=[1])
    states = desk.scheduler.task_states
    assert (states["a"].completed_count, states["a"].failed_count) == (1, 1)
    assert states["b"].orphaned_count == 2
    assert states["c"].orphaned_count == 2
    assert desk.finished()


def test_a_block_below_two_failures_is_orphaned_once() -> None:
    above = line("above", 4, max_retries=0)
    desk = Desk(above, line("below", 1, step=40, upstream=[above]))
    desk.join(1)
    for index in range(4):
        desk.report(desk.ask(1), fails=[index])
    assert desk.scheduler.task_states["below"].orphaned_count == 1


# ------------------------------------------------------------------------------------------------- pre-checks


def test_nothing_runs_before_its_pre_check() -> None:
    desk = Desk(line(check_function=CHECKED_BEFORE))
    assert checks(desk.told) == [(BEFORE, [0])]
    assert started(desk.told) == [], "it may turn out that there is nothing to do"
    desk.join(1)
    desk.ask_in_vain(1)
    told = desk.answer(BEFORE, refused=[0])
    assert granted(told) == [(1, [0])]
    assert started(told) == [0]
    assert len(checks(told)) == 1, "the next are checked ahead"


def test_blocks_that_are_done_already_are_skipped() -> None:
    above = line("above", 2, check_function=CHECKED_BEFORE)
    desk = Desk(above, line("below", 2, upstream=[above]))
    desk.answer(BEFORE, passed=[0])
    desk.answer(BEFORE, passed=[1])
    state = desk.scheduler.task_states["above"]
    assert (state.skipped_count, state.completed_count, state.is_done()) == (2, 2, True)
    assert desk.scheduler.task_states["below"].ready_count == 2
    assert not desk.finished()


def test_a_pre_check_that_raises_is_a_failure_and_is_called_again() -> None:
    desk = Desk(line(blocks=1, max_retries=2, check_function=CHECKED_BEFORE))
    desk.join(1)
    desk.ask_in_vain(1)
    for final in (False, False, True):
        told = desk.answer(BEFORE, raised=[0])
        assert failures(told) == [(0, final)]
        assert granted(told) == [], "it may be done already"
        assert checks(told) == ([] if final else [(BEFORE, [0])])
    assert desk.scheduler.task_states["t"].failed_count == 1
    assert dismissed(desk.told) == [1]


def test_a_pre_check_that_raised_once_may_say_yes() -> None:
    desk = Desk(line(blocks=1, check_function=CHECKED_BEFORE))
    desk.answer(BEFORE, raised=[0])
    desk.answer(BEFORE, passed=[0])
    assert desk.scheduler.task_states["t"].skipped_count == 1
    assert not desk.book.histories


def test_failures_of_the_pre_check_and_of_the_block_count_together() -> None:
    desk = Desk(line(blocks=1, max_retries=1, check_function=CHECKED_BEFORE))
    desk.answer(BEFORE, raised=[0])
    desk.answer(BEFORE, refused=[0])
    desk.join(1)
    assert failures(desk.report(desk.ask(1), fails=[0])) == [(0, True)]


def cleared(desk: Desk, blocks: int) -> None:
    """The pre-checks say that all blocks have to run; they come in growing batches."""
    while wanted := checks(desk.told):
        desk.answer(BEFORE, refused=wanted[0][1])
    assert len(desk.book.cleared) == blocks


@pytest.mark.parametrize("how", ["fails", "is lost", "is given back", "its worker leaves"])
def test_a_block_is_not_checked_again_before_its_next_attempt(how: str) -> None:
    desk = Desk(line(blocks=2, check_function=CHECKED_BEFORE))
    cleared(desk, 2)
    desk.join(1)
    grant = desk.ask(1)
    match how:
        case "fails":
            desk.report(grant, fails=[0])
        case "is lost":
            desk.leave(1, crashed=True)
        case "is given back":
            desk.give_back(grant)
        case _:
            desk.leave(1, crashed=False)
    assert checks(desk.told) == []
    desk.join(2)
    assert desk.ask(2).indices.tolist() == [0]


def test_blocks_of_a_lease_are_sorted_in_whatever_order_they_were_checked() -> None:
    """The wire relies on it."""
    desk = Desk(line(blocks=8, num_workers=4, check_function=CHECKED_BEFORE), largest_lease=3)
    cleared(desk, 8)
    desk.join(1)
    desk.report(desk.ask(1), seconds=0.0)
    grant = desk.ask(1)
    assert grant.indices.tolist() == [1, 2, 3]
    desk.give_back(grant, 1)
    desk.report(grant, 1, seconds=0.0)
    assert desk.ask(1).indices.tolist() == [2, 3, 4]


# ------------------------------------------------------------------------------------------------ post-checks


def test_a_block_is_done_when_its_post_check_agrees() -> None:
    desk = Desk(line(blocks=1, check_function=CHECKED_AFTER))
    desk.join(1, 2)
    assert checks(desk.report(desk.ask(1))) == [(AFTER, [0])]
    assert desk.scheduler.task_states["t"].processing_count == 1
    desk.ask_in_vain(1)
    desk.ask_in_vain(2)
    told = desk.answer(AFTER, passed=[0])
    assert desk.scheduler.task_states["t"].completed_count == 1
    assert dismissed(told) == [1, 2]


@pytest.mark.parametrize(
    ("refused", "raised", "error"),
    [([0], [], "refused by the post-check"), ([], [0], "ValueError: cannot look")],
)
def test_a_post_check_that_does_not_agree_is_a_failure(refused: list[int], raised: list[int], error: str) -> None:
    desk = Desk(line(blocks=1, max_retries=1, check_function=CHECKED_AFTER))
    desk.join(1, 2)
    desk.report(desk.ask(1))
    desk.ask_in_vain(1)
    desk.ask_in_vain(2)
    told = desk.answer(AFTER, refused=refused, raised=raised)
    assert failures(told) == [(0, False)]
    assert granted(told) == [(2, [0])], "on another worker"
    desk.tell(
        ev.BlocksReported(worker=2, lease=2, upto=1, seconds=1.0),
    )
    assert failures(desk.answer(AFTER, refused=refused, raised=raised)) == [(0, True)]
    assert desk.book.final_failures[0].error == error


def test_neighbours_wait_for_the_post_check() -> None:
    desk = Desk(line(blocks=2, context=1, check_function=CHECKED_AFTER))
    desk.join(1)
    grant = desk.ask(1)
    assert grant.indices.tolist() == [1]
    desk.report(grant)
    desk.ask_in_vain(1)
    assert granted(desk.answer(AFTER, passed=[1])) == [(1, [0])]


def test_a_post_check_is_heard_after_its_worker_has_left() -> None:
    desk = Desk(line(blocks=2, check_function=CHECKED_AFTER))
    desk.join(1)
    for grant in (desk.ask(1), desk.ask(1)):
        desk.report(grant)
    desk.leave(1, crashed=True)
    desk.answer(AFTER, passed=[0], refused=[1])
    assert desk.scheduler.task_states["t"].completed_count == 1
    assert desk.scheduler.task_states["t"].ready_count == 1


def test_only_good_blocks_are_verified() -> None:
    desk = Desk(line(blocks=100, check_function=CHECKED_AFTER), largest_lease=3)
    desk.join(1)
    desk.report(desk.ask(1), seconds=0.0)
    told = desk.report(desk.ask(1), fails=[2])
    assert checks(told) == [(AFTER, [1, 3])]
    told = desk.report(desk.ask(1), fails=[2])
    assert checks(told) == []


# ------------------------------------------------------------------------------------------------------- stop


def test_after_a_stop_nothing_is_granted_and_all_are_dismissed() -> None:
    desk = Desk(line(blocks=5), largest_lease=5)
    desk.join(1, 2, 3)
    grant = desk.ask(1)
    desk.ask(2)
    desk.tell(ev.ConnectionLost(worker=2))
    assert desk.tell(ev.StopAsked()) == [ev.DismissWorker(worker=1)]
    assert dismissed(desk.tell(ev.BlocksAsked(worker=3))) == [3]
    assert not desk.finished()
    desk.report(grant)
    assert desk.tell(ev.BlocksAsked(worker=1)) == [], "it was told already"
    desk.leave(2, crashed=True)
    assert desk.finished()
    state = desk.scheduler.task_states["t"]
    assert (state.completed_count, state.ready_count) == (1, 4)


def test_a_second_stop_changes_nothing() -> None:
    desk = Desk(line())
    desk.join(1)
    desk.ask(1)
    desk.tell(ev.StopAsked())
    assert desk.tell(ev.StopAsked()) == []


def test_a_stop_dismisses_those_who_wait() -> None:
    desk = Desk(line(blocks=1), line("other", 1))
    desk.join(1, 2)
    desk.join(3, 4, task=1)
    for worker in (1, 3):
        desk.ask(worker)
    for worker in (2, 4):
        desk.ask_in_vain(worker)
    assert dismissed(desk.tell(ev.StopAsked())) == [1, 3, 2, 4]


def test_a_stop_does_not_wait_for_pre_checks_but_hears_them() -> None:
    desk = Desk(line(blocks=3, check_function=CHECKED_BEFORE))
    assert checks(desk.told) == [(BEFORE, [0])]
    desk.tell(ev.StopAsked())
    assert desk.finished()
    assert desk.answer(BEFORE, passed=[0]) == []
    assert desk.scheduler.task_states["t"].skipped_count == 1


def test_a_stop_waits_for_post_checks() -> None:
    desk = Desk(line(blocks=3, check_function=CHECKED_AFTER))
    desk.join(1)
    desk.report(desk.ask(1))
    desk.tell(ev.StopAsked())
    assert not desk.finished()
    assert desk.answer(AFTER, passed=[0]) == []
    assert desk.finished()


def test_no_process_is_started_after_a_stop() -> None:
    desk = Desk(line(num_workers=4))
    assert started(desk.told) == [0, 1, 2, 3]
    desk.tell(ev.StopAsked())
    assert desk.tell(ev.ProcessEnded(process=0, task=0, clean=False)) == []


# ------------------------------------------------------------------------------------------------------- over


def test_workers_are_dismissed_when_their_task_is_done() -> None:
    a, b = line("a", 1), line("b", 1)
    desk = Desk(a, b)
    desk.join(1, 2)
    desk.join(3, task=1)
    grant = desk.ask(1)
    desk.ask_in_vain(2)
    assert dismissed(desk.report(grant)) == [2]
    assert not desk.finished()
    assert dismissed(desk.tell(ev.BlocksAsked(worker=1))) == [1]
    desk.report(desk.ask(3))
    assert desk.finished()


def test_workers_that_come_too_late_are_dismissed() -> None:
    desk = Desk(line(blocks=1))
    desk.join(1)
    desk.report(desk.ask(1))
    desk.join(2)
    assert dismissed(desk.tell(ev.BlocksAsked(worker=2))) == [2]


def decline(desk: Desk, task: int = 0) -> None:
    """Every process of a task ends without asking for a block."""
    for process in list(desk.scheduler.task(task).pool.alive):
        desk.tell(ev.ProcessEnded(process=process, task=task, clean=True))


def test_a_run_ends_when_no_process_wants_to_work() -> None:
    desk = Desk(line(num_workers=2))
    decline(desk)
    assert desk.finished()
    assert not desk.scheduler.task_states["t"].is_done()
    assert desk.book.pool.gave_up is None


def test_a_run_goes_on_while_anybody_works() -> None:
    desk = Desk(line(blocks=2, num_workers=2))
    desk.join(1)
    decline(desk)
    assert not desk.finished()
    grant = desk.ask(1)
    desk.leave(1, crashed=False)
    assert desk.finished()
    desk.join(2)
    assert not desk.finished(), "somebody came after all"
    assert desk.ask(2).indices.tolist() == grant.indices.tolist()


def test_the_blocks_of_a_lost_connection_are_waited_for() -> None:
    desk = Desk(line(blocks=2))
    desk.join(1)
    desk.ask(1)
    decline(desk)
    desk.tell(ev.ConnectionLost(worker=1))
    assert not desk.finished()
    desk.wait(EXPIRED)
    assert desk.finished()


def test_what_waits_for_a_task_without_hope_is_over() -> None:
    """And is not any more when hope comes back."""
    above = line("above", 2)
    middle = line("middle", 2, upstream=[above])
    desk = Desk(above, middle, line("below", 2, upstream=[middle]), line("other", 1))
    desk.join(1, task=1)
    desk.join(2, task=2)
    desk.ask_in_vain(1)
    desk.ask_in_vain(2)
    decline(desk)
    assert dismissed(desk.told) == [1, 2]
    assert not desk.finished(), "the other task"
    desk.join(3)
    desk.ask_in_vain(2)
    desk.ask_in_vain(1)
    assert granted(desk.report(desk.ask(3))) == [(1, [0])]


def test_blocks_that_can_still_run_are_waited_for_when_others_cannot() -> None:
    above = line("above", 2)
    desk = Desk(above, line("below", 4, upstream=[above]))
    decline(desk)
    assert not desk.finished()
    desk.join(1, task=1)
    for index in (2, 3):
        grant = desk.ask(1)
        assert grant.indices.tolist() == [index]
        desk.report(grant)
    assert desk.finished()
    assert desk.scheduler.task_states["below"].pending_count == 2


# --------------------------------------------------------------------------------------------- a bug in blockflow


def test_what_cannot_be_is_not_passed_over() -> None:
    desk = Desk(line(blocks=1))
    desk.book.blocks.states[0] = BlockState.DONE
    desk.scheduler.handle(ev.WorkerJoined(worker=1, task=0), 0.0)
    with pytest.raises(InvalidTransition):
        desk.scheduler.handle(ev.BlocksAsked(worker=1), 0.0)


def tampered(wrong: str) -> Scheduler:
    desk = Desk(line(blocks=3, max_retries=0))
    desk.join(1)
    desk.report(desk.ask(1), fails=[0])
    grant = desk.ask(1)
    scheduler, book = desk.scheduler, desk.book
    match wrong:
        case "held twice":
            book.verifying[1] = 1, 1
        case "running and not held":
            book.blocks.move(np.array([2]), BlockTrigger.INPUTS_DONE, 0.0)
            book.blocks.move(np.array([2]), BlockTrigger.GRANTED, 0.0)
        case "ready and not waiting":
            book.blocks.move(np.array([2]), BlockTrigger.INPUTS_DONE, 0.0)
        case "a worker of nobody":
            book.active_workers.add(9)
        case "a stranger asks":
            book.waiting_workers[9] = 0.0
        case "the past of a block that has ended":
            book.histories[0].failures = 1
        case "a failure without a failed block":
            book.final_failures[2] = ev.BlockFailure(index=2, error="ValueError: no")
        case "a lease of nobody":
            del scheduler._state.workers[grant.worker]
            book.active_workers.clear()
        case _:
            scheduler._state.leases.grant(1, 0, np.empty(0, dtype=np.int64), 0.0)
    return scheduler


@pytest.mark.parametrize(
    "wrong",
    [
        "held twice",
        "running and not held",
        "ready and not waiting",
        "a worker of nobody",
        "a stranger asks",
        "the past of a block that has ended",
        "a failure without a failed block",
        "a lease of nobody",
        "a lease of nothing",
    ],
)
def test_validate_finds_what_is_wrong(wrong: str) -> None:
    with pytest.raises(AssertionError):
        tampered(wrong).validate()
