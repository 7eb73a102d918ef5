"""Do reports on tasks say what running them would mean?"""

from __future__ import annotations

import re
from itertools import combinations
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from hypothesis import given

from blockflow.arrays import Array, prepare_ds
from blockflow.errors import PlanError
from blockflow.geometry import Roi
from blockflow.plan.grid import Grid
from blockflow.plan.plan import check_runnable, compile_plan
from blockflow.plan.report import _bytes
from blockflow.plan.task import Task
from blockflow.testing.strategies import tasks
from tests.plan.oracle import conflict, places

if TYPE_CHECKING:
    from pathlib import Path


def nothing(block: Any) -> None: ...


def chunked(chunks: tuple[int, ...], shape: tuple[int, ...] = (100, 100), **more: Any) -> Any:
    return Array(zarr.create_array({}, shape=shape, chunks=chunks, dtype="u2"), **more)


def of_rois(write: tuple[int, ...], **more: Any) -> Task:
    block = Roi((0,) * len(write), write)
    return Task("t", Roi((0,) * len(write), (100,) * len(write)), block, block, nothing, fit="shrink", **more)


def refused(task: Task, message: str) -> None:
    assert not task.plan().is_runnable
    with pytest.raises(PlanError, match=f"^{re.escape(message)}$"):
        check_runnable(compile_plan([task]))


# -- blocks and levels -------------------------------------------------------------------------------------------


@given(tasks(max_blocks=30, allow_empty=True))
def test_no_more_blocks_run_at_once_than_the_report_says(task: Task) -> None:
    report = task.plan()
    assert (report.task_id, report.blocks, report.shape) == ("task", task.grid.size, task.grid.shape)
    assert report.dropped_voxels == task.dropped_voxels()
    assert report.arrays == ()
    assert report.is_runnable == (report.blocks > 0)
    if not report.blocks:
        assert report.levels == report.parallelism == 0
        return
    levels = compile_plan([task]).tasks[0].levels
    assert report.levels == levels.count
    apart = [
        place
        for place in places(task)
        if all(x % modulus == 0 for x, modulus in zip(place.position, levels.moduli, strict=True))
    ]
    assert len(apart) == report.parallelism
    if task.read_write_conflict:
        assert not any(conflict(one, other) for one, other in combinations(apart, 2))


# -- arrays ------------------------------------------------------------------------------------------------------


def test_bytes_memory_and_amplification() -> None:
    source = chunked((64, 64))
    grid = Grid.regular((100, 100), block=(50, 100), context=(10, 0))
    report = Task("t", grid=grid, inputs=[source, np.zeros((100, 100), "u1")], outputs=[chunked((25, 100))]).plan()
    (read, plain, written) = report.arrays
    assert (read.asked_bytes, read.block_bytes) == (2 * 60 * 100 * 2, 60 * 100 * 2)
    assert read.moved_bytes == (64 + 100) * 100 * 2, "the first block reads rows to 60 in one chunk, the other in both"
    assert read.amplification == pytest.approx(164 / 120)
    assert (plain.moved_bytes, plain.amplification, plain.unit) == (2 * 60 * 100, 1.0, "voxel")
    assert (written.moved_bytes, written.amplification, written.verdict) == (100 * 100 * 2, 1.0, "aligned")
    assert report.bytes_read == read.moved_bytes + plain.moved_bytes
    assert report.bytes_written == 20_000
    assert report.worker_bytes == 60 * 100 * 3 + 50 * 100 * 2
    assert report.is_runnable


def test_an_array_that_no_block_touches_costs_nothing() -> None:
    report = of_rois((50, 50), inputs=[chunked((10, 10), offset=(1000, 0))]).plan()
    assert (report.bytes_read, report.arrays[0].amplification) == (0, 1.0)


def test_the_table() -> None:
    task = of_rois(
        (50, 40),
        inputs=[np.zeros((100, 100), "f4"), chunked((64, 100))],
        outputs=[chunked((10, 10)), chunked((10, 16))],
        num_workers=3,
    )
    stores = [array.data.store_path for array in (task.inputs[1], *task.outputs)]
    assert str(task.plan()).splitlines() == [
        "task t",
        "  blocks           6 = 2 x 3",
        "  levels           1: at most 6 blocks at once, num_workers=3",
        "  dropped voxels   0",
        "  bytes read       135 KiB",
        "  bytes written    42.2 KiB",
        "  memory           19.5 KiB of arrays per worker",
        "  read             inputs[0]: 39.1 KiB, aligned",
        f"  read             inputs[1] ({stores[0]}): 96.1 KiB, x 4.92 by parts of chunks",
        f"  write            outputs[0] ({stores[1]}): 19.5 KiB, aligned: no two blocks share a chunk",
        f"  write            outputs[1] ({stores[2]}): 22.7 KiB, REFUSED, blocks would write into one chunk at once: "
        "a write_roi of shape (50, 80) is safe",
    ]


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 B"), (999, "999 B"), (1000, "0.977 KiB"), (2**40, "1 TiB"), (2**60, "1.05e+06 TiB")],
)
def test_bytes_are_said_for_people(count: int, said: str) -> None:
    assert _bytes(count) == said


# -- blocks that share chunks ------------------------------------------------------------------------------------


def test_blocks_that_share_a_chunk_are_refused_before_the_run() -> None:
    output = chunked((64, 100))
    refused(
        of_rois((50, 100), outputs=[output]),
        "task 't': two blocks must not write into one chunk at once, and some of these would in outputs[0] of task 't' "
        f"({output.data.store_path}): axis 0 has chunks of 64 voxels, and blocks that write 50 voxels from 0 on; "
        "a write_roi of shape (64, 100) is safe, or shared_chunks='serialize' runs such blocks one after the other",
    )


def test_shards_count_where_there_are_any(tmp_path: Path) -> None:
    output = prepare_ds(
        f"{tmp_path}/out.zarr",
        total_roi=Roi((0, 0), (400, 100)),
        voxel_size=(4, 1),
        dtype="u1",
        chunks=(5, 10),
        shards=(20, 50),
    )
    grid = Grid.regular((100, 100), block=(30, 50), voxel_size=(4, 1))
    refused(
        Task("t", grid=grid, process_function=nothing, outputs=[output]),
        "task 't': two blocks must not write into one shard at once, and some of these would in outputs[0] of task 't' "
        f"({output.data.store_path}): axis 0 has shards of 20 voxels, and blocks that write 30 voxels from 0 on; "
        "blocks that write (20, 50) or (40, 50) voxels are safe (multiple_of=(20, 50)), "
        "or shared_chunks='serialize' runs such blocks one after the other",
    )
    aligned = Grid.regular((100, 100), block=(30, 50), voxel_size=(4, 1), multiple_of=(20, 50))
    check_runnable(compile_plan([Task("t", grid=aligned, process_function=nothing, outputs=[output])]))
    balanced = Grid.balanced((100, 100), (33, 60), voxel_size=(4, 1), overlap=5, multiple_of=(20, 50))
    check_runnable(compile_plan([Task("t", grid=balanced, process_function=nothing, outputs=[output])]))


def test_blocks_that_begin_off_the_chunks_are_told_where_to_begin() -> None:
    output = chunked((32, 100), offset=(-10, 0))
    report = of_rois((32, 100), outputs=[output]).plan()
    assert report.arrays[0].advice == "a write_roi of shape (32, 100) is safe, if axis 0 begins at -10"
    other = chunked((32, 100), offset=(-20, 0))
    report = of_rois((32, 100), outputs=[output, other]).plan()
    assert report.arrays[1].advice == "a write_roi of shape (100, 100) is safe", "no block fits both"


def test_several_outputs_of_several_voxel_sizes() -> None:
    fine = chunked((16, 16), shape=(128, 128))
    coarse = chunked((12, 12), shape=(64, 64), voxel_size=(2, 2))
    block = Roi((0, 0), (16, 16))
    task = Task("t", Roi((0, 0), (128, 128)), block, block, nothing, outputs=[fine, coarse])
    assert [array.verdict for array in task.plan().arrays] == ["aligned", "shared"]
    assert task.plan().arrays[1].advice == "a write_roi of shape (48, 48) is safe"
    whole = Roi((0, 0), (48, 48))
    assert Task("t", Roi((0, 0), (128, 128)), whole, whole, outputs=[fine, coarse]).plan().is_runnable


def test_edges_of_arrays_are_shared_by_nobody() -> None:
    assert of_rois((64, 64), outputs=[chunked((64, 64))]).plan().is_runnable
    assert of_rois((100, 50), outputs=[chunked((64, 25))]).plan().is_runnable, "one block has the axis for itself"
    part = chunked((64, 100))[Roi((64, 0), (36, 100))]
    assert of_rois((64, 100), outputs=[part]).plan().is_runnable


def test_blocks_that_share_a_chunk_can_run_in_turn() -> None:
    output = chunked((64, 100))
    task = of_rois((20, 50), outputs=[output], shared_chunks="serialize")
    report = task.plan()
    assert (report.arrays[0].verdict, report.levels, report.parallelism) == ("in turn", 4 * 2, 2 * 1)
    assert "blocks that share a chunk run one after the other" in str(report)
    check_runnable(compile_plan([task]))
    assert of_rois((50, 25), outputs=[chunked((50, 25))], shared_chunks="serialize").plan().levels == 1


def test_conflicts_may_keep_blocks_apart_that_share_a_chunk() -> None:
    read, write = Roi((0, 0), (36, 100)), Roi((3, 0), (30, 100))
    task = Task("t", Roi((-3, 0), (106, 100)), read, write, nothing, outputs=[chunked((32, 100))], fit="shrink")
    assert task.plan().arrays[0].verdict == "in turn"
    check_runnable(compile_plan([task]))
    alone = Task("t", Roi((-3, 0), (106, 100)), read, write, outputs=[chunked((32, 100))], read_write_conflict=False)
    assert alone.plan().arrays[0].verdict == "shared"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shared_chunks": "allow"}, "task 't': shared_chunks must be one of 'refuse', 'serialize', got 'allow'"),
        ({"outputs": np.zeros((100, 100))}, "task 't': outputs must be a list of arrays or paths, got ndarray"),
        ({"inputs": "raw.zarr"}, "task 't': inputs must be a list of arrays or paths, got str"),
        ({"inputs": [3]}, "inputs[0] of task 't' must be an array or the path of one, got int: 3"),
    ],
)
def test_what_cannot_be_inputs_or_outputs_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=f"^{re.escape(message)}"):
        of_rois((50, 50), **arguments)


def test_a_plan_of_a_billion_blocks_takes_no_time() -> None:
    array = chunked((64, 64, 64), shape=(10_000,) * 3)
    report = Task("t", grid=Grid.regular((10_000,) * 3, 10, context=1), inputs=[array], outputs=[array]).plan()
    assert report.blocks == 10**9
    assert report.arrays[1].verdict == "shared"
    assert report.arrays[0].asked_bytes == 2 * (10_000 * 12 // 10 - 2) ** 3
    assert prod(report.shape) == report.blocks


def test_without_arrays_the_table_says_nothing_of_bytes() -> None:
    assert str(of_rois((50, 50), num_workers=2).plan()).splitlines()[1:] == [
        "  blocks           4 = 2 x 2",
        "  levels           1: at most 4 blocks at once, num_workers=2",
        "  dropped voxels   0",
    ]
