"""Which blocks run when, where, and how many at a time, if all goes well?"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow.scheduler import events as ev
from tests.scheduler.driver import Simulation
from tests.scheduler.plans import line, random_plan, square
from tests.scheduler.world import ghosts

if TYPE_CHECKING:
    from random import Random

    from blockflow.plan.block import Block
    from tests.scheduler.driver import Run


def begins(runs: list[Run], task: str) -> dict[int, float]:
    return {run.index: run.begin for run in runs if run.task == task}


def ends(runs: list[Run], task: str) -> dict[int, float]:
    return {run.index: run.end for run in runs if run.task == task}


# -------------------------------------------------------------------------------------------------------- order


def test_the_order_of_a_square_with_conflicts() -> None:
    """A fact about daisy 1.2.3: what it hands out while nothing is released, level by level."""
    run = Simulation(tasks=[square(context=10)], by_hand=4).run()
    assert run.ids() == [12, 23, 25, 40, 8, 17, 19, 32, 7, 16, 18, 31, 4, 11, 13, 24]


def test_without_conflicts_blocks_come_in_the_order_of_their_indices() -> None:
    run = Simulation(tasks=[square(context=10, read_write_conflict=False)], by_hand=3).run()
    assert run.order() == list(range(16))


@given(st.randoms(use_true_random=False), st.integers(1, 4))
def test_the_smallest_index_that_is_ready_is_next(random: Random, workers: int) -> None:
    plan = random_plan(random, checks=False)
    task = plan.tasks[-1].task
    task.upstream_tasks.clear()
    blocks = ghosts(Simulation(tasks=[task]).plan)
    run = Simulation(tasks=[task], by_hand=workers, seconds=lambda _, index: 1.0 + index % 3).run()
    done_at = ends(run.runs, task.task_id)
    waiting = set(range(plan.tasks[-1].grid.size))
    for granted in run.runs:
        ready = [
            index for index in waiting if all(done_at[above] <= granted.begin for _, above in blocks[0, index].upstream)
        ]
        # Blocks that end at the same moment are reported one after the other.
        assert granted.index in ready
        just_now = {other.index for other in run.runs if other.end == granted.begin}
        surely_ready = [index for index in ready if not just_now & {above for _, above in blocks[0, index].upstream}]
        assert all(granted.index <= index for index in surely_ready)
        waiting.remove(granted.index)
    assert not waiting


def test_a_retried_block_goes_first_and_alone() -> None:
    tried: list[int] = []

    def fails(_: str, index: int, __: int) -> bool:
        tried.append(index)
        return index == 700 and tried.count(700) == 1

    run = Simulation(
        tasks=[line(blocks=2_000, max_retries=1)],
        by_hand=1,
        largest_lease=100,
        seconds=lambda _, __: 0.0001,
        fails=fails,
    ).run()
    first, second = (place for place, granted in enumerate(run.runs) if granted.index == 700)
    assert run.runs[first].size > 1
    assert run.runs[second].size == 1
    assert run.runs[second].begin == max(granted.end for granted in run.runs[first:second]), (
        "right after the lease in which it failed"
    )
    assert all(granted.begin < run.runs[second].begin for granted in run.runs[first:second])


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_a_retried_block_goes_to_another_worker(workers: int) -> None:
    """Worker 0 can do nothing; every block succeeds on its second attempt at the latest."""
    run = Simulation(
        tasks=[line(blocks=20, max_retries=1)],
        by_hand=workers,
        fails=lambda _, __, worker: worker == 0,
        seconds=lambda _, index: 1.0 + index % 4,
    ).run()
    assert run.scheduler.task_states["t"].completed_count == 20
    assert any(not granted.ok for granted in run.runs)


def test_a_single_worker_tries_again_itself() -> None:
    failed: set[int] = set()

    def fails(_: str, index: int, __: int) -> bool:
        return index not in failed and not failed.add(index)  # type: ignore[func-returns-value]

    run = Simulation(tasks=[line(blocks=3)], by_hand=1, fails=fails).run()
    assert run.order() == [0, 1, 0, 1, 2, 2], "not at once if nobody else can"
    assert run.scheduler.task_states["t"].completed_count == 3


# --------------------------------------------------------------------------------------------------- streaming


def test_a_block_runs_as_soon_as_its_own_inputs_are_done() -> None:
    """With a context of one block, block i of b waits for the blocks i - 1 to i + 1 of a."""
    a = line("a", 10)
    b = line("b", 10, context=5, upstream=[a], read_write_conflict=False)
    run = Simulation(tasks=[b], by_hand=1).run()
    done = ends(run.runs, "a")
    assert done == {index: index + 1.0 for index in range(10)}
    assert begins(run.runs, "b") == {index: done[min(index + 1, 9)] + (index == 9) for index in range(10)}


@given(st.randoms(use_true_random=False))
def test_with_enough_workers_nothing_ever_waits_for_one(random: Random) -> None:
    plan = random_plan(random, checks=False)
    blocks = ghosts(plan)
    seconds = {key: random.choice((1.0, 2.0, 5.0)) for key in blocks}
    run = Simulation(
        tasks=[task.task for task in plan.tasks],
        by_hand=max(task.grid.size for task in plan.tasks),
        seconds=lambda task, index: seconds[plan.number_of(task), index],
    ).run()
    numbers = {task.task_id: task.number for task in plan.tasks}
    end = {(numbers[granted.task], granted.index): granted.end for granted in run.runs}
    begin = {(numbers[granted.task], granted.index): granted.begin for granted in run.runs}
    assert begin.keys() == blocks.keys()
    for key, block in blocks.items():
        assert begin[key] == max((end[above] for above in block.upstream), default=0.0)


# ------------------------------------------------------------------------------------------------- lease sizes


@pytest.mark.parametrize("seconds", [0.05, 0.2, 60.0])
def test_long_blocks_go_one_by_one(seconds: float) -> None:
    run = Simulation(tasks=[line(blocks=50)], by_hand=2, largest_lease=4096, seconds=lambda _, __: seconds).run()
    assert set(run.lease_sizes()) == {1}


@pytest.mark.parametrize("workers", [1, 4])
def test_short_blocks_go_together_and_the_last_ones_are_shared(workers: int) -> None:
    run = Simulation(
        tasks=[line(blocks=20_000)], by_hand=workers, largest_lease=4096, seconds=lambda _, __: 0.00009
    ).run()
    sizes = run.lease_sizes()
    assert sizes[0] == 1
    assert max(sizes) == int(0.05 / 0.00009)
    assert sizes[-1] == 1
    assert sorted(run.order()) == list(range(20_000))
    last = [max(granted.end for granted in run.runs if granted.worker == worker) for worker in range(workers)]
    assert max(last) - min(last) < 0.01, "all workers end together"


def test_leases_are_no_larger_than_the_scheduler_was_told() -> None:
    run = Simulation(tasks=[line(blocks=2_000)], by_hand=1, largest_lease=7, seconds=lambda _, __: 0.0).run()
    assert max(run.lease_sizes()) == 7


def test_blocks_that_become_slow_come_in_smaller_leases() -> None:
    run = Simulation(
        tasks=[line(blocks=20_000)],
        by_hand=1,
        largest_lease=4096,
        seconds=lambda _, index: 0.0001 if index < 10_000 else 0.01,
    ).run()
    sizes = [granted.size for granted in run.runs if granted.index > 12_000]
    assert max(sizes) <= 5


# --------------------------------------------------------------------------------------------------- processes


def processes(run: Simulation) -> list[int]:
    return [start.process for start in run.of(ev.StartProcess)]


def test_processes_are_started_where_blocks_can_run_and_sent_home_at_the_end() -> None:
    above = line("above", 4, num_workers=2)
    below = line("below", 4, upstream=[above], num_workers=9)
    run = Simulation(tasks=[below], seconds=lambda task, _: 1.0 if task == "above" else 10.0).run()
    starts = [(time, start) for time, start in run.instructions if isinstance(start, ev.StartProcess)]
    assert [time for time, start in starts if start.task == 0] == [0.0, 0.0]
    assert [time for time, start in starts if start.task == 1] == [1.0, 1.0, 2.0, 2.0]
    assert len(run.of(ev.DismissWorker)) == len(starts)
    assert all(state.is_done() for state in run.scheduler.task_states.values())


def test_no_more_processes_than_blocks() -> None:
    assert len(processes(Simulation(tasks=[line(blocks=3, num_workers=100)]).run())) == 3


def test_processes_that_end_after_each_block_are_replaced() -> None:
    run = Simulation(tasks=[line(blocks=10, num_workers=2)], process=lambda _: "works once").run()
    assert run.scheduler.task_states["t"].completed_count == 10
    assert len({granted.worker for granted in run.runs}) == 10


def test_a_process_that_declines_is_not_replaced_and_the_others_do_the_work() -> None:
    run = Simulation(
        tasks=[line(blocks=10, num_workers=3)], process=lambda number: "declines" if number < 2 else "works"
    ).run()
    assert processes(run) == [0, 1, 2]
    assert run.scheduler.task_states["t"].completed_count == 10


def test_when_all_processes_decline_the_run_ends() -> None:
    run = Simulation(tasks=[line(blocks=10, num_workers=3)], process=lambda _: "declines").run()
    assert processes(run) == [0, 1, 2]
    assert run.runs == []
    assert not run.scheduler.task_states["t"].is_done()


def test_processes_that_crash_at_the_start_are_given_up() -> None:
    below = line("below", 10, upstream=[line("above", 10, num_workers=4)])
    run = Simulation(tasks=[below], process=lambda _: "crashes").run()
    starts = run.of(ev.StartProcess)
    assert len(starts) == 4 + 3
    assert [start.delay for start in starts] == [0, 0, 0, 0, 0.5, 1, 2]
    assert "ended before they asked for a block; the last oddly" in str(run.scheduler.task(0).pool.gave_up)
    assert run.runs == []


def test_a_few_crashes_at_the_start_do_no_harm() -> None:
    run = Simulation(
        tasks=[line(blocks=10, num_workers=1)], process=lambda number: "crashes" if number < 2 else "works"
    ).run()
    assert run.scheduler.task_states["t"].completed_count == 10
    assert run.runs[0].begin == 0.5 + 1.0


def test_a_worker_on_which_everything_fails_is_replaced() -> None:
    """Process 0 runs worker 0; three different blocks fail on it, the next worker can do them."""
    run = Simulation(tasks=[line(blocks=10, max_retries=3)], fails=lambda _, __, worker: worker == 0).run()
    assert processes(run) == [0, 1]
    assert run.scheduler.task_states["t"].failed_count == 2
    assert run.scheduler.task_states["t"].completed_count == 8


# ------------------------------------------------------------------------------------------------------ checks


def test_pre_checks_run_ahead_of_the_workers_but_not_far() -> None:
    """So that what is checked is not stale when it runs, and a run that is stopped has not checked everything."""
    checked: list[int] = []

    def check(block: Block) -> bool:
        checked.append(block.position[0] if block.position else -1)
        return False

    task = line(blocks=100, num_workers=3, check_function=check)
    run = Simulation(tasks=[task], by_hand=3, seconds=lambda _, __: 10.0, check_seconds=0.1)
    run.start()
    ahead = []
    while run.step():
        ahead.append(len(checked) - len(run.runs))
    assert run.order() == checked == list(range(100))
    assert max(ahead) == 2 * 3


def test_what_is_done_already_is_not_run() -> None:
    run = Simulation(tasks=[line(blocks=1_000, check_function=lambda block: bool(block.index % 10))], by_hand=3).run()
    assert run.order() == list(range(0, 1_000, 10))
    state = run.scheduler.task_states["t"]
    assert (state.completed_count, state.skipped_count) == (1_000, 900)


def test_nothing_to_do_needs_no_process() -> None:
    run = Simulation(tasks=[line(blocks=1_000, check_function=lambda _: True, num_workers=8)]).run()
    assert processes(run) == []
    assert run.scheduler.task_states["t"].skipped_count == 1_000


def test_batches_of_fast_pre_checks_grow() -> None:
    run = Simulation(tasks=[line(blocks=10_000, check_function=lambda _: True)]).run()
    sizes = [len(check.indices) for check in run.of(ev.RunChecks)]
    assert sum(sizes) == 10_000
    assert all(later <= 8 * earlier for earlier, later in pairwise(sizes))
    assert len(sizes) < 20


def test_post_checks_decide() -> None:
    seen: list[int] = []

    def good(block: object) -> bool:
        seen.append(1)
        return len(seen) != 3

    run = Simulation(tasks=[line(blocks=5, check_function=(None, good))], by_hand=2).run()
    assert len(run.runs) == 6
    assert run.scheduler.task_states["t"].completed_count == 5


# -------------------------------------------------------------------------------------------------------- stop


@pytest.mark.parametrize("after", range(0, 12, 2))
def test_a_stop_lets_running_blocks_end_and_starts_no_more(after: int) -> None:
    run = Simulation(tasks=[line("below", 10, upstream=[line("above", 10, num_workers=3)])])
    run.later(after + 0.5, ev.StopAsked())
    run.run()
    assert max(granted.begin for granted in run.runs) < after + 0.5
    assert run.now <= after + 1.5
    states = run.scheduler.task_states.values()
    assert sum(state.completed_count for state in states) == len(run.runs)
    assert all(state.processing_count == 0 for state in states)
