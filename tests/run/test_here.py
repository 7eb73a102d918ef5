"""Runs in this process: several blocks at a time are handed out and reported, and nobody notices."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from blockflow import Block, BlockStatus, Grid, Ledger, Roi, Task, run_blockwise
from blockflow.driving import scheduler_here, steps_here
from blockflow.monitor.progress import Silence
from blockflow.plan.plan import compile_plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MANY = 1000


def line(function: Callable[[Block], object], name: str = "line", **more: object) -> Task:
    total = Roi((-1,), (10 * MANY + 2,))
    return Task(name, total, Roi((-1,), (12,)), Roi((0,), (10,)), function, **{"read_write_conflict": False, **more})  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:the function .* has changed")  # it is another one than before
def test_what_was_done_before_an_exception_is_recorded(tmp_path: Path) -> None:
    ran: list[int] = []

    def fail_late(block: Block) -> None:
        assert block.index is not None
        if block.index == 777 and ran.count(777) == 0:
            ran.append(777)
            raise KeyError("late")
        ran.append(block.index)

    options = {"multiprocessing": False, "run_dir": tmp_path / "run", "progress": False, "summary": False}
    with pytest.raises(KeyError, match="late"):
        run_blockwise(line(fail_late), **options)  # type: ignore[arg-type]
    assert Ledger.open(tmp_path / "run").counts("line")["done"] == 777
    assert run_blockwise(line(fail_late), **options)  # type: ignore[arg-type]
    assert ran == [*range(778), *range(777, MANY)]


def test_what_was_done_before_it_was_closed_is_known() -> None:
    ran: list[int | None] = []
    scheduler = scheduler_here(compile_plan([line(lambda block: ran.append(block.index))]))
    steps = steps_here(scheduler, Silence())
    for _ in steps:
        if len(ran) == 500:
            break
    steps.close()
    assert len(ran) == scheduler.task_states["line"].completed_count == 500


def test_blocks_that_fail_among_others_run_again_and_no_other_does() -> None:
    attempts: dict[int, list[int]] = {}

    def fail_twice(block: Block) -> None:
        assert block.index is not None
        seen = attempts.setdefault(block.index, [])
        seen.append(block.attempt)
        if block.index % 300 == 299 and len(seen) < 3:
            block.status = BlockStatus.FAILED

    assert run_blockwise(line(fail_twice), multiprocessing=False, progress=False, summary=False)
    assert {index for index, seen in attempts.items() if len(seen) > 1} == {299, 599, 899}
    assert all(seen == sorted(set(seen)) for seen in attempts.values())
    every = Counter(attempt for seen in attempts.values() for attempt in seen)
    assert set(every.values()) == {1}


def test_blocks_in_conflict_and_blocks_downstream_wait() -> None:
    order: list[tuple[str | None, int | None]] = []

    def note(block: Block) -> None:
        order.append((block.task_id, block.index))

    above = line(note, "above", read_write_conflict=True)
    below = line(note, "below", upstream_tasks=[above])
    assert run_blockwise([above, below], multiprocessing=False, progress=False, summary=False)
    place = {name: number for number, name in enumerate(order)}
    assert len(place) == len(order) == 2 * MANY
    for index in range(MANY):
        around = [other for other in (index - 1, index, index + 1) if 0 <= other < MANY]
        assert all(place["above", other] < place["below", index] for other in around)
    odd_first = {
        place["above", odd] < place["above", other]
        for odd in range(1, MANY, 2)
        for other in (odd - 1, odd + 1 - 2 * (odd == MANY - 1))
    }
    assert len(odd_first) == 1  # one level as a whole before its neighbours in the other


def test_an_iterator_sees_each_result_before_the_next_block_runs() -> None:
    import numpy as np

    from blockflow.ops import iter_blocks

    ran: list[int] = []

    def work(block: Block, source: object) -> int:
        assert block.index is not None
        ran.append(block.index)
        return block.index

    grid = Grid.regular((MANY,), 1)
    for seen, (_, result) in enumerate(
        iter_blocks(work, np.zeros(MANY), grid=grid, call="block", num_workers=0, progress=False)
    ):
        assert result == seen == ran[-1]
        assert len(ran) == seen + 1
