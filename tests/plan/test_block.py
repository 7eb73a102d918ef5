"""What does user code see of a block, and what does it cost to make one?"""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given

from blockflow.errors import ArrayError, GeometryError
from blockflow.geometry import Roi
from blockflow.plan.block import Block, BlockStatus
from blockflow.plan.plan import compile_plan
from blockflow.plan.task import Task
from blockflow.testing.strategies import plans, tasks
from tests.plan.oracle import box, places

if TYPE_CHECKING:
    from pathlib import Path

    from blockflow.plan.plan import Plan

TOTAL, READ, WRITE = Roi((0, 0), (100, 100)), Roi((8, 28), (24, 24)), Roi((10, 30), (20, 20))


def planned_block() -> Block:
    task = Task("smooth", TOTAL, Roi((0, 0), (24, 24)), Roi((2, 2), (20, 20)))
    return compile_plan([task]).tasks[0].block(5, attempt=2)


@given(plans())
def test_rois_and_position_are_those_of_the_definition(plan: Plan) -> None:
    for planned in plan.tasks:
        for index, place in enumerate(places(planned.task)):
            block = planned.block(index)
            assert box(block.read_roi) == place.read
            assert box(block.write_roi) == place.write
            assert block.position == place.position
            assert block.total_roi == planned.task.total_roi
            assert block.task_id == planned.task_id


@given(tasks())
def test_a_block_made_by_hand_has_the_number_of_the_planned_one(task: Task) -> None:
    planned = compile_plan([task]).tasks[0]
    for index in range(task.grid.size):
        block = planned.block(index)
        if block.write_roi.shape == task.write_roi.shape:  # a cut block does not tell how large the others are
            by_hand = Block(block.total_roi, block.read_roi, block.write_roi, task_id=block.task_id)
            assert by_hand == block
            assert hash(by_hand) == hash(block)
            assert by_hand.block_id == block.block_id


def test_a_block_made_by_hand_keeps_its_rois_and_has_no_index() -> None:
    block = Block(TOTAL, READ, WRITE, task_id="smooth")
    assert (block.total_roi, block.read_roi, block.write_roi) == (TOTAL, READ, WRITE)
    assert (block.index, block.position, block.attempt) == (None, None, 0)
    assert block.status is BlockStatus.CREATED
    assert block.block_id == ("smooth", 1)


@pytest.mark.parametrize("block_id", [7, np.int64(7), ("smooth", 7), ["smooth", 7], ("smooth", np.uint8(7))])
def test_a_block_id_may_be_a_number_or_a_pair(block_id: Any) -> None:
    block = Block(TOTAL, READ, WRITE, block_id=block_id, task_id="smooth")
    assert block.block_id == ("smooth", 7)
    assert isinstance(block.block_id, tuple)
    assert type(block.block_id[1]) is int


@pytest.mark.parametrize("block_id", ["smooth/7", 7.5, ("smooth",), ("smooth", "7"), ("smooth", 7, 7), True, -1])
def test_what_is_no_block_id_is_refused(block_id: Any) -> None:
    with pytest.raises(GeometryError, match=r"^block_id must be a number >= 0 or \(task_id, number\), got "):
        Block(TOTAL, READ, WRITE, block_id=block_id, task_id="smooth")


def test_blocks_are_equal_by_their_id_and_to_nothing_else() -> None:
    block = planned_block()
    assert block == Block(TOTAL, READ, WRITE, block_id=block.block_id[1], task_id="smooth")
    assert block != Block(TOTAL, READ, WRITE, block_id=block.block_id[1], task_id="other")
    assert block != block.block_id
    assert len({block, block.copy()}) == 1


@pytest.mark.parametrize("block", [planned_block(), Block(TOTAL, READ, WRITE, task_id="smooth")], ids=["plan", "hand"])
def test_copies_and_pickles_have_the_same_place_name_and_status(block: Block) -> None:
    block.status = BlockStatus.FAILED
    for twin in (block.copy(), pickle.loads(pickle.dumps(block))):
        assert twin == block
        for name in ("total_roi", "read_roi", "write_roi", "index", "attempt", "status", "task_id", "position"):
            assert getattr(twin, name) == getattr(block, name)
        twin.status = BlockStatus.SUCCESS
        assert block.status is BlockStatus.FAILED


def test_a_block_has_no_other_attributes() -> None:
    with pytest.raises(AttributeError):
        planned_block().state = "done"  # type: ignore[attr-defined]


def test_repr_names_the_block_and_its_rois() -> None:
    expected = "smooth/4 with read ROI [20:44, 20:44] (24, 24) and write ROI [22:42, 22:42] (20, 20)"
    assert repr(planned_block()) == expected


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (Roi((10,), (20,)), r"^total_roi and write_roi must have the same number of axes, got "),
        (Roi((10, 30), (20, 0)), r"^write_roi must have a positive shape: axis 1 begins at 30 and measures 0$"),
        (Roi((10, 30), (20, None)), r"^write_roi must be bounded on every axis: axis 1 "),
        (Roi((-40, 30), (20, 20)), r"^a numbered position has no negative coordinates: axis 0 has -2$"),
    ],
)
def test_a_place_without_a_number_is_refused_when_it_is_asked_for(write: Roi, message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        _ = Block(TOTAL, READ, write, task_id="smooth").block_id


def test_blocks_and_grids_need_neither_numpy_nor_funlib() -> None:
    """Each worker process imports them; see the docstrings of both modules."""
    code = (
        "import sys; import blockflow.plan.block, blockflow.plan.grid; "
        "sys.exit([name for name in ('numpy', 'funlib', 'tornado', 'zarr') if name in sys.modules] or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_only_arrays_and_paths_can_be_refreshed(tmp_path: Path) -> None:
    block = Block(Roi((0,), (8,)), read_roi=Roi((0,), (4,)), write_roi=Roi((0,), (4,)))
    (tmp_path / "notes.txt").write_text("x")
    block.refresh(tmp_path / "notes.txt", str(tmp_path))
    with pytest.raises(ArrayError):
        block.refresh(object())
