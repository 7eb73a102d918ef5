"""Are all that wait reached when consequences are worked off in small pieces?"""

from __future__ import annotations

import numpy as np
import pytest

from blockflow import BlockStatus, Roi, Scheduler, Task
from blockflow.scheduler import propagation


@pytest.mark.parametrize("most", [1, 3, 10**6])
@pytest.mark.parametrize("failing", [False, True])
def test_pieces_of_any_size_reach_every_block_once(most: int, failing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(propagation, "_MOST_TARGETS", most)
    whole = Roi((0, 0), (12, 12))
    coarse = Task("coarse", whole, Roi((0, 0), (6, 6)), Roi((0, 0), (6, 6)), max_retries=0)
    fine = Task("fine", whole, Roi((0, 0), (4, 4)), Roi((1, 1), (2, 2)), upstream_tasks=[coarse], max_retries=0)
    scheduler = Scheduler([fine])
    for name in ("coarse", "fine"):
        while block := scheduler.acquire_block(name):
            failed = failing and name == "coarse" and block.index == 0
            block.status = BlockStatus.FAILED if failed else BlockStatus.SUCCESS
            scheduler.release_block(block)
            scheduler.validate()
    assert scheduler.finished
    graph = scheduler.dependency_graph
    lost = {("coarse", 0)} if failing else set()
    for index in range(25):  # in the order of levels, so that what waits for a lost block is found
        level_first = np.argsort(scheduler.plan.tasks[1].levels.level(scheduler.plan.tasks[1].positions(np.arange(25))))
        block = scheduler.plan.tasks[1].block(int(level_first[index]))
        if any(above.block_id in lost for above in graph.upstream(block)):
            lost.add(block.block_id)  # type: ignore[arg-type]
    assert scheduler.task_states["fine"].orphaned_count == len([name for name, _ in lost if name == "fine"])
