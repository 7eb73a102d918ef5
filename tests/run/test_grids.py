"""Tasks of grids in worker processes, and outputs whose chunks blocks share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from blockflow import Grid, Server, Task
from blockflow.arrays import Array, prepare_ds
from blockflow.errors import PlanError
from blockflow.geometry import Roi
from tests.run.scene import run

if TYPE_CHECKING:
    from blockflow import Block


def output(folder: Path, chunks: tuple[int, ...], shards: tuple[int, ...] | None = None) -> Array:
    return prepare_ds(
        f"{folder}/out.zarr",
        total_roi=Roi((40, 0), (200, 60)),
        voxel_size=(4, 1),
        dtype="int32",
        chunks=chunks,
        shards=shards,
    )


def balanced() -> Grid:
    return Grid.balanced((50, 60), 13, overlap=3, offset=(40, 0), voxel_size=(4, 1))


def expected(grid: Grid) -> np.ndarray[Any, Any]:
    """The number of the block that writes each voxel."""
    found = np.full((50, 60), -1, dtype=np.int32)
    for number, where in enumerate(grid.slices()):
        assert (found[where] == -1).all()
        found[where] = number
    return found


@pytest.mark.parametrize("multiprocessing", [True, False])
def test_blocks_of_a_balanced_grid_are_those_of_the_driver(tmp_path: Path, multiprocessing: bool) -> None:
    grid = balanced()
    folder = str(tmp_path)

    def note(block: Block) -> None:
        Path(folder, f"{block.index}.txt").write_text(f"{block.position} {block.read_roi} {block.write_roi}")

    task = Task("t", grid=grid, process_function=note, num_workers=2, read_write_conflict=False)
    assert run(task, multiprocessing=multiprocessing)
    said = {file.stem: file.read_text() for file in tmp_path.glob("*.txt")}
    assert said == {str(block.index): f"{block.position} {block.read_roi} {block.write_roi}" for block in grid}


def test_blocks_that_would_share_a_chunk_do_not_start(tmp_path: Path) -> None:
    array = output(tmp_path, chunks=(7, 60))
    task = Task("t", grid=balanced(), process_function=lambda block: None, outputs=[array], read_write_conflict=False)
    refusal = r"two blocks must not write into one chunk at once.*axis 0 has chunks of 7 voxels"
    with pytest.raises(PlanError, match=refusal):
        run(task)
    with pytest.raises(PlanError, match=refusal):
        Server().run_blockwise([task])


@pytest.mark.parametrize(("chunks", "shards"), [((50, 60), None), ((7, 9), None), ((5, 4), (15, 20))])
def test_blocks_that_share_chunks_write_in_turn(
    tmp_path: Path, chunks: tuple[int, ...], shards: tuple[int, ...] | None
) -> None:
    array = output(tmp_path, chunks, shards)

    def write(block: Block) -> None:
        array[block.write_roi] = block.index

    task = Task(
        "t",
        grid=balanced(),
        process_function=write,
        num_workers=3,
        read_write_conflict=False,
        outputs=[array],
        shared_chunks="serialize",
    )
    assert task.levels().count > 1
    assert run(task)
    assert array[:].tolist() == expected(task.grid).tolist()
