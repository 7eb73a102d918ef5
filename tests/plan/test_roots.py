"""Are the roots exactly the blocks that wait for nothing, each handed out once, however they are asked for?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from blockflow.geometry import Roi
from blockflow.plan.conflicts import Levels
from blockflow.plan.plan import Plan, TaskPlan, compile_plan
from blockflow.plan.roots import Roots
from blockflow.plan.task import Task
from blockflow.testing.strategies import plans
from tests.plan.oracle import upstream_across

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

PLANS = plans(allow_empty=True)
REQUESTS = st.lists(st.tuples(st.integers(0, 6), st.none() | st.integers(-1, 70)))


def waits_for_nothing(planned: TaskPlan, plan: Plan) -> list[int]:
    """Indices by brute force, except for the levels, which have an oracle of their own."""
    free = set(np.flatnonzero(planned.levels.level(planned.positions(np.arange(planned.grid.size))) == 0).tolist())
    for other, _ in planned.upstream:
        above = upstream_across(plan.tasks[other].task, planned.task)
        free -= {index for index, them in enumerate(above) if them}
    return sorted(free)


def drain(roots: Roots, at_most: int = 4096) -> list[int]:
    taken: list[int] = []
    while roots.left:
        batch = roots.take(at_most).tolist()
        assert batch, "as long as there are some left, some are handed out"
        taken += batch
    return taken


@given(PLANS, st.integers(1, 9))
def test_roots_are_the_blocks_that_wait_for_nothing(plan: Plan, at_most: int) -> None:
    for planned in plan.tasks:
        expected = waits_for_nothing(planned, plan)
        roots = planned.roots()
        assert roots.count == roots.left == len(expected)
        taken = drain(roots, at_most)
        assert sorted(taken) == expected
        fan_in = planned.fan_in(np.arange(planned.grid.size))
        assert np.flatnonzero(fan_in == 0).tolist() == expected


@given(PLANS, REQUESTS)
def test_any_sequence_of_requests_hands_out_each_root_once(
    plan: Plan, requests: Iterable[tuple[int, int | None]]
) -> None:
    for planned in plan.tasks:
        roots = planned.roots()
        everything = drain(planned.roots())
        taken: list[int] = []
        for at_most, below in requests:
            upcoming = roots.next
            batch = roots.take(at_most, below=below).tolist()
            assert len(batch) <= at_most
            assert batch == sorted(batch), "the smallest first within each box"
            assert below is None or all(index < below for index in batch)
            if batch:
                assert batch[0] == upcoming
            elif at_most and upcoming is not None:
                assert below is not None
                assert upcoming >= below
            taken += batch
            assert roots.left == roots.count - len(taken)
            assert roots.left == roots.count - len(taken)
            assert roots.next == (everything[len(taken)] if roots.left else None)
        assert taken + drain(roots) == everything
        assert roots.next is None
        assert roots.take(5).tolist() == []


@given(PLANS)
def test_the_order_does_not_depend_on_the_batches(plan: Plan) -> None:
    for planned in plan.tasks:
        assert drain(planned.roots(), 1) == drain(planned.roots(), 3) == drain(planned.roots())


def test_a_task_without_upstream_tasks_hands_out_by_index() -> None:
    levels = Levels((4, 4), (2, 2))
    assert drain(Roots(levels, ())) == [5, 7, 13, 15]


def test_boxes_come_in_the_order_of_their_first_blocks() -> None:
    roots = Roots(Levels((4, 4), (1, 1)), [((1, 3), (1, 3))])
    assert drain(roots) == [0, 1, 2, 3, 4, 8, 7, 11, 12, 13, 14, 15]


def test_a_task_below_one_without_blocks_waits_for_nothing() -> None:
    above = Task("above", Roi((0,), (6,)), Roi((0,), (20,)), Roi((3,), (14,)))
    below = Task("below", Roi((0,), (8,)), Roi((0,), (4,)), Roi((1,), (2,)), read_write_conflict=False)
    below.upstream_tasks.append(above)
    planned = compile_plan([below]).tasks[1]
    assert drain(planned.roots()) == [0, 1, 2]


def test_boxes_around_several_upstream_tasks_are_cut_out() -> None:
    levels = Levels((6, 6), (1, 1))
    holes = [((0, 3), (0, 3)), ((2, 5), (1, 9)), ((0, 6), (5, 5)), ((7, 9), (0, 6))]
    expected = [
        6 * y + x for y in range(6) for x in range(6) if not any(a <= y < b and c <= x < d for (a, b), (c, d) in holes)
    ]
    assert sorted(drain(Roots(levels, holes))) == expected
    assert drain(Roots(levels, [((0, 6), (0, 6))])) == []


@given(PLANS, st.randoms(use_true_random=False))
def test_roots_that_have_left_their_first_state_are_passed_over(plan: Plan, random: Random) -> None:
    """At the beginning, as after a restart, and while they wait to be drawn."""
    for planned in plan.tasks:
        roots = planned.roots()
        states = np.zeros(planned.grid.size, dtype=np.uint8)
        expected = waits_for_nothing(planned, plan)
        states[[index for index in range(planned.grid.size) if random.random() < 0.4]] = 3
        left = {index for index in expected if not states[index]}
        roots.pass_over(states)
        while True:
            assert roots.left == len(left)
            assert (roots.next is None) == (not left)
            assert roots.next is None or roots.next in left
            if not left:
                break
            if random.random() < 0.3:
                claimed = np.array(random.sample(sorted(left), random.randint(1, len(left))), dtype=np.int64)
                states[claimed] = 2
                roots.claimed(claimed)
                left.difference_update(claimed.tolist())
            else:
                taken = roots.take(random.randint(1, 4)).tolist()
                assert taken
                assert left.issuperset(taken)
                left.difference_update(taken)
                states[taken] = 1


def test_many_roots_that_are_passed_over_are_looked_through_in_pieces() -> None:
    task = Task("t", Roi((0,), (100_000,)), Roi((0,), (1,)), Roi((0,), (1,)))
    planned = compile_plan([task]).tasks[0]
    states = np.full(100_000, 3, dtype=np.uint8)
    states[[5, 99_998]] = 0
    roots = planned.roots()
    roots.pass_over(states)
    assert roots.take(1).tolist() == [5]
    assert roots.take(9).tolist() == [99_998]
    assert roots.next is None


def test_nothing_below_the_first_root_that_is_left() -> None:
    roots = compile_plan([Task("t", Roi((0,), (9,)), Roi((0,), (1,)), Roi((0,), (1,)))]).tasks[0].roots()
    states = np.zeros(9, dtype=np.uint8)
    states[:3] = 1
    roots.pass_over(states)
    assert roots.take(5, below=3).tolist() == []
    assert roots.take(5, below=5).tolist() == [3, 4]
