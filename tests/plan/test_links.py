"""Do dependencies between tasks follow geometry, and nothing else?"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given

from blockflow.geometry import Roi
from blockflow.plan.links import Link
from blockflow.plan.slices import Slices, positions_of
from blockflow.plan.task import Task
from blockflow.testing.strategies import pipelines, tasks
from tests.plan.oracle import Interval, inverse, meet, places, upstream_across

if TYPE_CHECKING:
    from blockflow.plan.grid import Grid


def links(made: list[Task]) -> list[tuple[Task, Task]]:
    return [(above, task) for task in made for above in task.upstream_tasks]


def relation(grid: Grid, other: Grid, link: Link, *, upstream: bool) -> list[list[int]]:
    """What every block of `grid` is related to in `other`."""
    positions = positions_of(np.arange(grid.size), grid.shape)
    slices: Slices = link.upstream(positions) if upstream else link.downstream(positions)
    ends = np.cumsum(slices.sizes())[:-1]
    return [part.tolist() for part in np.split(slices.flat(other.shape), ends)] if grid.size else []


PIPELINES = pipelines(max_tasks=3, max_blocks=48, allow_empty=True).filter(links)


@given(PIPELINES)
def test_upstream_is_what_writes_where_a_block_reads(made: list[Task]) -> None:
    for above, below in links(made):
        link = Link(above.grid, below.grid)
        expected = upstream_across(above, below)
        assert relation(below.grid, above.grid, link, upstream=True) == expected
        assert relation(above.grid, below.grid, link, upstream=False) == inverse(expected, above.grid.size)


@given(PIPELINES)
def test_waiting_is_the_box_of_blocks_that_wait_for_anything(made: list[Task]) -> None:
    for above, below in links(made):
        waiting = Link(above.grid, below.grid).waiting()
        found = set(product(*(range(*bounds) for bounds in waiting)))
        expected = upstream_across(above, below)
        assert found == {place.position for place, them in zip(places(below), expected, strict=True) if them}


def test_nothing_waits_for_a_task_without_blocks() -> None:
    above = Task("above", Roi((0,), (6,)), Roi((0,), (20,)), Roi((3,), (14,)))
    below = Task("below", Roi((0,), (8,)), Roi((0,), (4,)), Roi((1,), (2,)), upstream_tasks=[above])
    ((begin, end),) = Link(above.grid, below.grid).waiting()
    assert above.grid.size == 0
    assert begin >= end


@given(tasks(dims=1, max_blocks=12, allow_empty=True))
def test_positions_meeting_an_interval_are_those_that_do(task: Task) -> None:
    (axis,) = task.grid.axes
    blocks = places(task)
    least, greatest = task.total_roi.begin[0] - 12, task.total_roi.end[0] + 12
    intervals: list[Interval] = [(begin, end) for begin in range(least, greatest) for end in (begin + 1, begin + 7)]
    begins, ends = (np.array(side) for side in zip(*intervals, strict=True))
    for meeting, what in ((axis.reading, "read"), (axis.writing, "write")):
        starts, stops = meeting(begins, ends)
        assert (starts <= stops).all()
        found = [list(range(start, stop)) for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
        assert found == [
            [place.position[0] for place in blocks if meet(getattr(place, what), (interval,))] for interval in intervals
        ]


@pytest.mark.parametrize(("conflict", "below_context"), [(True, 3), (False, 0)])
def test_context_on_one_side_only_is_no_reason_to_wait_on_the_other(conflict: bool, below_context: int) -> None:
    """Where daisy's two relations disagree, and its scheduler never finishes."""
    above = Task("above", Roi((0,), (12,)), Roi((0,), (2,)), Roi((0,), (2,)))
    below = Task(
        "below",
        Roi((0,), (12,)),
        Roi((0,), (2 + below_context,)),
        Roi((0,), (2,)),
        read_write_conflict=conflict,
        upstream_tasks=[above],
    )
    link = Link(above.grid, below.grid)
    upstream = relation(below.grid, above.grid, link, upstream=True)
    if below_context:
        assert upstream == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]
    else:
        assert upstream == [[0], [1], [2], [3], [4], [5]]
    assert relation(above.grid, below.grid, link, upstream=False) == inverse(upstream, 6)
