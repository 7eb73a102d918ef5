"""Another number of workers while a run goes on: more are started, and those that are too many are let go gently."""

from __future__ import annotations

from blockflow import Roi, Slurm, Task
from blockflow.scheduler import events as ev
from tests.scheduler.desk import Desk, dismissed, granted, started
from tests.scheduler.plans import line


def task_of(blocks: int, workers: int, **more: object) -> Task:
    roi = Roi((0,), (10,))
    return Task("t", Roi((0,), (10 * blocks,)), roi, roi, print, num_workers=workers, **more)  # type: ignore[arg-type]


def desk_of(blocks: int, workers: int, **more: object) -> Desk:
    """All processes have joined, each as the worker of its number."""
    desk = Desk(task_of(blocks, workers, **more))
    for process in started(desk.told):
        desk.join(process, process=process)
    return desk


def wants(desk: Desk, workers: int) -> list[ev.Instruction]:
    return desk.tell(ev.WorkersWanted(task=0, workers=workers))


def ends(desk: Desk, process: int) -> list[ev.Instruction]:
    return desk.tell(ev.ProcessEnded(process=process, task=0, clean=True))


def test_more_are_started_as_far_as_there_are_blocks() -> None:
    desk = desk_of(5, 2)
    assert started(wants(desk, 4)) == [2, 3]
    assert started(wants(desk, 100)) == [4]


def test_those_that_are_too_many_finish_what_they_have() -> None:
    desk = desk_of(20, 4)
    grants = [desk.ask(worker) for worker in range(4)]
    assert dismissed(wants(desk, 2)) == [3, 2], "the newest go"
    assert granted(desk.report(grants[3])) == []
    desk.leave(3, crashed=False)
    assert started(ends(desk, 3)) == []
    desk.leave(2, crashed=False)
    assert started(ends(desk, 2)) == []
    (again,) = [told for told in desk.report(grants[0]) if isinstance(told, ev.AcknowledgeReport)]
    assert not again.stale
    assert desk.ask(0).indices.tolist() == [2], "the block that was given back"


def test_those_that_wait_go_first() -> None:
    desk = desk_of(3, 3)
    for worker in (1, 2):
        desk.ask(worker)
    desk.report(desk.ask(0))
    desk.ask_in_vain(0)
    assert dismissed(wants(desk, 2)) == [0]


def test_one_that_has_not_asked_yet_is_dismissed_when_it_does() -> None:
    desk = desk_of(20, 2)
    desk.ask(1)
    assert dismissed(wants(desk, 0)) == [1]
    assert dismissed(desk.tell(ev.BlocksAsked(worker=0))) == [0]


def test_one_that_comes_too_late_is_dismissed() -> None:
    desk = Desk(task_of(20, 2))
    desk.join(0, process=0)
    desk.ask(0)
    assert dismissed(wants(desk, 1)) == []
    desk.join(1, process=1)
    assert dismissed(desk.tell(ev.BlocksAsked(worker=1))) == [1]


def test_several_clients_of_one_process_count_once() -> None:
    desk = Desk(task_of(20, 2))
    desk.join(0, 1, process=0)
    desk.join(2, 3, process=1)
    for worker in range(4):
        desk.ask(worker)
    assert sorted(dismissed(wants(desk, 1))) == [2, 3]


def test_workers_by_hand_stay() -> None:
    desk = desk_of(20, 1)
    desk.join(7, 8)
    for worker in (0, 7):
        desk.ask(worker)
    assert dismissed(wants(desk, 0)) == [0]
    desk.ask(8)


def test_a_task_with_no_worker_waits_until_it_has_some() -> None:
    desk = desk_of(3, 1)
    desk.report(desk.ask(0))
    wants(desk, 0)
    assert dismissed(desk.tell(ev.BlocksAsked(worker=0))) == [0]
    desk.leave(0, crashed=False)
    assert started(ends(desk, 0)) == []
    assert not desk.finished()
    assert started(wants(desk, 2)) == [1, 2]


def test_processes_that_did_not_want_to_work_get_another_chance() -> None:
    desk = Desk(task_of(9, 3))
    for process in (0, 1):
        assert started(ends(desk, process)) == []
    assert started(wants(desk, 3)) == [3, 4]


# ------------------------------------------------------------------------------- jobs that wait, though nothing is left


def test_jobs_that_wait_beyond_the_blocks_left_are_let_go() -> None:
    desk = desk_of(4, 4, launcher=Slurm(4))
    grants = [desk.ask(worker) for worker in range(4)]
    desk.report(grants[0])
    assert dismissed(desk.tell(ev.BlocksAsked(worker=0))) == [0], "three blocks are left, which others have"
    desk.leave(0, crashed=False)
    assert started(ends(desk, 0)) == []
    desk.leave(1, crashed=True)
    assert started(desk.tell(ev.ProcessEnded(process=1, task=0, clean=False))) == [4], "its block needs somebody"


def test_processes_of_this_machine_may_wait() -> None:
    desk = desk_of(4, 4)
    grants = [desk.ask(worker) for worker in range(4)]
    desk.report(grants[0])
    desk.ask_in_vain(0)


def test_jobs_wait_for_what_is_upstream() -> None:
    first = task_of(2, 1)
    roi = Roi((0,), (10,))
    second = Task("u", Roi((0,), (20,)), roi, roi, print, upstream_tasks=[first], launcher=Slurm(2))
    desk = Desk(second)
    for worker in (5, 6):
        desk.join(worker, task=1, process=worker)
        desk.ask_in_vain(worker)


# ----------------------------------------------------------------------------------------------------- lost machines


def test_machines_that_are_lost_before_a_block_is_asked_for_are_no_bad_starts() -> None:
    desk = Desk(task_of(9, 1, launcher=Slurm(1)))
    for process in range(30):
        told = desk.tell(ev.ProcessEnded(process=process, task=0, clean=False, how="NODE_FAIL", lost=True))
        assert started(told) == [process + 1]
    for process in range(30, 33):
        desk.tell(ev.ProcessEnded(process=process, task=0, clean=False, how="FAILED"))
    assert desk.book.pool.gave_up is not None


def test_the_blocks_of_a_frozen_process_run_in_a_new_one_where_there_is_no_other() -> None:
    """It lives, so it was taken for the one worker that the last block needs, and nobody ran the block."""
    desk = Desk(line(blocks=1, num_workers=1), lease_seconds=60.0)
    assert started(desk.told) == [0]
    desk.join(0, process=0)
    desk.ask(0)
    desk.now = 100.0
    desk.tell(ev.Ticked())
    due = desk.scheduler.next_deadline()
    if due is not None and not started(desk.told):
        desk.now = due
        desk.tell(ev.Ticked())
    assert started(desk.told) == [1]
