"""Do workers of all tasks together never hold more than there is, and is what there is used?"""

from __future__ import annotations

from typing import Any

import pytest

from blockflow import Roi, Scheduler, Task
from blockflow.errors import PlanError
from blockflow.plan.plan import compile_plan
from blockflow.scheduler import events as ev
from tests.scheduler.driver import Run, Simulation


def line(name: str, requires: Any = None, blocks: int = 12, **more: Any) -> Task:
    return Task(name, Roi((0,), (blocks,)), Roi((0,), (1,)), Roi((0,), (1,)), requires=requires, **more)


class Shared(Simulation):
    """With resources."""

    def __post_init__(self) -> None:
        self.plan = compile_plan(self.tasks)
        self.scheduler = Scheduler(self.plan, resources={"gpu": 2, "disk": 3})


def most_at_once(runs: list[Run], weight: dict[str, int]) -> int:
    times = {time for run in runs for time in (run.begin, run.end)}
    return max(sum(weight.get(run.task, 0) for run in runs if run.begin <= time < run.end) for time in times)


def test_no_more_is_held_than_there_is() -> None:
    tasks = [
        line("a", {"gpu": 1}, num_workers=4),
        line("b", {"gpu": 2, "disk": 1}, num_workers=4),
        line("c", num_workers=3),
    ]
    run = Shared(tasks=tasks).run()
    assert most_at_once(run.runs, {"a": 1, "b": 2}) == 2
    assert most_at_once(run.runs, {"c": 1}) == 3, "who needs nothing is not held up"
    assert sorted(run.order("b")) == list(range(12)), "and nobody is forgotten"


def test_no_more_processes_are_started_than_can_be_busy() -> None:
    run = Shared(tasks=[line("a", {"gpu": 1}, num_workers=8)]).run()
    assert len(run.of(ev.StartProcess)) == 2


def test_workers_that_wait_for_resources_are_served_when_others_of_another_task_end() -> None:
    run = Shared(tasks=[line("a", {"gpu": 2}, blocks=3), line("b", {"gpu": 2}, blocks=3)], by_hand=1).run()
    assert most_at_once(run.runs, {"a": 1, "b": 1}) == 1
    assert len(run.runs) == 6


@pytest.mark.parametrize(
    ("requires", "message"),
    [
        ({"gpu": 3}, r"requires 3 of 'gpu', and the resources of this run are gpu: 2"),
        ({"tpu": 1}, r"requires 1 of 'tpu'"),
    ],
)
def test_what_is_not_there_is_refused(requires: dict[str, int], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Scheduler([line("a", requires)], resources={"gpu": 2})


@pytest.mark.parametrize("requires", [{"gpu": 0}, {"gpu": 1.5}, {"gpu": True}, {3: 1}, "gpu", ["gpu"]])
def test_what_is_no_amount_is_refused(requires: Any) -> None:
    with pytest.raises(PlanError, match="task 'a': requires must"):
        line("a", requires)


def test_requires_still_gives_the_upstream_tasks_when_called() -> None:
    above = line("a")
    task = line("b", {"gpu": 1}, upstream_tasks=[above])
    assert task.requires() == [above]
    assert dict(task.requires) == {"gpu": 1}
    assert repr(task.requires) == "{'gpu': 1}"
