"""Do all numbers of a scheduler agree? A recount from scratch, for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from blockflow.state.transitions import ENDED, BlockState

if TYPE_CHECKING:
    from blockflow.state.handout import WorkerBook
    from blockflow.state.leases import Leases
    from blockflow.state.task_book import TaskBook


def validate(books: list[TaskBook], leases: Leases, workers: dict[int, WorkerBook]) -> None:
    """Recount everything; costs time and memory for every block.

    Raises:
        AssertionError: Two places disagree.
    """
    for book in books:
        book.blocks.validate()
        held = [lease.outstanding for lease in leases if lease.task == book.plan.number]
        running = np.concatenate([*held, np.array(list(book.verifying), dtype=np.int64)])
        assert len(np.unique(running)) == len(running), "a block is held twice"
        assert (np.sort(running) == book.blocks.all_of(BlockState.RUNNING)).all(), "running blocks and leases"
        waiting = book.frontier.waiting() + book.cleared.members() + book.being_checked.tolist()
        ready = book.blocks.all_of(BlockState.READY)
        assert sorted(waiting) == ready.tolist(), "ready blocks and the places where they wait"
        able = {number for number, worker in workers.items() if worker.task == book.plan.number}
        assert book.workers <= able, "workers of the task"
        assert book.asking.keys() <= book.workers, "a worker asks that may be given nothing"
        assert not np.isin(book.blocks.states[sorted(book.mishaps)], ENDED).any(), "the past of a block that has ended"
        failed = book.blocks.all_of(BlockState.FAILED)
        assert sorted(book.final_failures) == failed.tolist(), "failed blocks and their failures"
    for lease in leases:
        assert lease.worker in workers, "a lease of nobody"
        assert len(lease.outstanding), "a lease of nothing"
