"""Do real processes run conflicting blocks one after the other, and blocks after all that they wait for?

Each block leaves a file with the times of its begin and its end, on the one clock of the machine. What conflicts and
what waits is worked out here from the ROIs alone.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from blockflow import Roi, Task, run_blockwise

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from blockflow import Block

PAUSE = 0.002
"""Seconds that a block takes, so that others would begin meanwhile if they could."""


def stamp(folder: str, block: Block) -> None:
    """Note when a block ran; the second time is an error."""
    began = time.monotonic_ns()
    time.sleep(PAUSE)
    with open(f"{folder}/{block.task_id} {block.index}", "x") as file:
        file.write(f"{began} {time.monotonic_ns()}")


def chain(folder: Path, *tasks: dict[str, Any]) -> list[Task]:
    """Tasks, each downstream of the one before."""
    made: list[Task] = []
    for number, arguments in enumerate(tasks):
        made.append(
            Task(
                f"task {number}",
                process_function=lambda block: stamp(str(folder), block),
                upstream_tasks=made[-1:],
                max_retries=0,
                **({"num_workers": 3} | arguments),
            )
        )
    return made


def grid(total: tuple[int, ...], block: tuple[int, ...], before: tuple[int, ...], after: tuple[int, ...]) -> Any:
    """ROIs of a task, whose write ROIs lie in `total`, and whose contexts reach beyond it."""
    written = Roi((0,) * len(total), total)
    block_roi = Roi((0,) * len(total), block)
    return {
        "total_roi": written.grow(before, after),
        "read_roi": block_roi.grow(before, after),
        "write_roi": block_roi,
    }


GRIDS = {
    "a row that looks back": [grid((120,), (10,), (4,), (0,))],
    "a row that looks ahead, far": [grid((90,), (10,), (0,), (25,))],
    "a plane": [grid((60, 50), (10, 10), (2, 2), (2, 2))],
    "a plane with a context on one side of one axis": [grid((50, 50), (10, 10), (0, 3), (0, 0))],
    "a volume": [grid((30, 20, 30), (10, 10, 10), (1, 1, 1), (1, 1, 1))],
    "a volume with cut blocks": [grid((35, 20, 25), (10, 10, 10), (2, 0, 1), (0, 0, 3)) | {"fit": "shrink"}],
    "blocks of two sizes": [grid((40, 60), (10, 12), (2, 2), (2, 2)), grid((40, 60), (20, 20), (5, 0), (0, 5))],
    "three tasks, one without conflicts": [
        grid((120,), (10,), (2,), (2,)),
        grid((120,), (15,), (4,), (0,)) | {"read_write_conflict": False},
        grid((120,), (20,), (1,), (1,)) | {"num_workers": 2},
    ],
}


class Place(NamedTuple):
    """One block, as numbers."""

    task: str
    number: int
    read: Roi
    write: Roi


def places_of(task: Task) -> list[Place]:
    return [Place(task.task_id, index, block.read_roi, block.write_roi) for index, block in enumerate(task.grid)]


def conflicts(task: Task) -> Iterator[tuple[Place, Place]]:
    """Blocks that must not run at once."""
    for one, other in itertools.combinations(places_of(task) if task.read_write_conflict else (), 2):
        if one.read.intersects(other.write) or one.write.intersects(other.read):
            yield one, other


def pairs_in_order(upstream: Task, task: Task) -> Iterator[tuple[Place, Place]]:
    """An upstream block, and one that waits for it."""
    for above, below in itertools.product(places_of(upstream), places_of(task)):
        if above.write.intersects(below.read):
            yield above, below


@pytest.mark.parametrize("name", GRIDS)
def test_blocks_run_once_apart_and_in_order(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "seen"
    folder.mkdir()
    tasks = chain(folder, *GRIDS[name])
    assert run_blockwise(tasks, progress=False, summary=False)

    times: dict[tuple[str, int], tuple[int, int]] = {}
    for file in folder.iterdir():
        name_of_task, _, index = file.name.rpartition(" ")
        began, ended = map(int, file.read_text().split())
        times[name_of_task, int(index)] = began, ended
    assert set(times) == {(task.task_id, index) for task in tasks for index in range(task.grid.size)}

    apart = ordered = 0
    for one, other in itertools.chain.from_iterable(conflicts(task) for task in tasks):
        first, second = sorted(times[block.task, block.number] for block in (one, other))
        assert first[1] <= second[0], f"{one} and {other} ran at once"
        apart += 1
    for above, below in itertools.chain.from_iterable(itertools.starmap(pairs_in_order, itertools.pairwise(tasks))):
        assert times[above.task, above.number][1] <= times[below.task, below.number][0], f"{below} did not wait"
        ordered += 1
    assert apart > 0
    assert (ordered > 0) == (len(tasks) > 1)
