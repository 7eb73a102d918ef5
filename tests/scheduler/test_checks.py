"""What does a check function get to see, and what becomes of its answer?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from blockflow.plan.block import Block, BlockStatus
from blockflow.plan.plan import compile_plan
from blockflow.scheduler.checks import call_checks
from blockflow.scheduler.events import BlocksChecked, CheckPhase, RunChecks
from tests.scheduler.plans import line

if TYPE_CHECKING:
    from collections.abc import Callable


def answers(check: Callable[[Block], bool], phase: CheckPhase, indices: list[int]) -> BlocksChecked:
    checks = (check, None) if phase is CheckPhase.BEFORE else (None, check)
    plan = compile_plan([line(blocks=8, check_function=checks)]).tasks[0]
    return call_checks(plan, RunChecks(task=0, phase=phase, indices=np.array(indices, dtype=np.int64)))


@pytest.mark.parametrize(
    ("phase", "status"), [(CheckPhase.BEFORE, BlockStatus.CREATED), (CheckPhase.AFTER, BlockStatus.SUCCESS)]
)
def test_the_function_gets_blocks(phase: CheckPhase, status: BlockStatus) -> None:
    seen: list[tuple[str | None, int | None, BlockStatus, int]] = []

    def check(block: Block) -> bool:
        seen.append((block.task_id, block.index, block.status, block.write_roi.offset[0]))
        return True

    checked = answers(check, phase, [2, 5])
    assert seen == [("t", 2, status, 20), ("t", 5, status, 50)]
    assert checked.passed.tolist() == [2, 5]
    assert checked.refused.tolist() == []
    assert checked.failures == ()
    assert (checked.task, checked.phase, checked.seconds) == (0, phase, 0.0)


def test_true_false_and_what_python_takes_for_them() -> None:
    values: dict[int, object] = {0: True, 1: False, 2: 1, 3: 0, 4: None, 5: "yes", 6: np.True_, 7: []}
    checked = answers(lambda block: values[block.index or 0], CheckPhase.BEFORE, list(range(8)))  # type: ignore[arg-type,return-value]
    assert checked.passed.tolist() == [0, 2, 5, 6]
    assert checked.refused.tolist() == [1, 3, 4, 7]
    assert checked.passed.dtype == checked.refused.dtype == np.int64


@pytest.mark.parametrize("phase", list(CheckPhase))
def test_a_function_that_raises_is_a_failure_of_its_block_alone(phase: CheckPhase) -> None:
    def check(block: Block) -> bool:
        if block.index == 3:
            raise FileNotFoundError("out.zarr")
        return bool(np.array([True, False]) if block.index == 4 else True)

    checked = answers(check, phase, [2, 3, 4, 5])
    assert checked.passed.tolist() == [2, 5]
    first, second = checked.failures
    assert (first.index, second.index) == (3, 4)
    assert first.error == f"{phase.value} raised FileNotFoundError: out.zarr"
    assert first.where.startswith("test_checks.py:")
    assert "FileNotFoundError: out.zarr" in first.traceback
    assert second.error.startswith(f"{phase.value} raised ValueError: The truth value of an array")


def test_a_stop_is_not_taken_for_an_answer() -> None:
    def check(_: Block) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answers(check, CheckPhase.BEFORE, [0])
