"""What do a task's check functions say about some blocks?

A check that raises is a failure of its block that people get to see, never a silent "not done".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from blockflow.plan.block import BlockStatus
from blockflow.state.events import BlockFailure, BlocksChecked, Phase, RunChecks
from blockflow.wire.failures import describe

if TYPE_CHECKING:
    from blockflow.plan.plan import TaskPlan


def call_checks(plan: TaskPlan, asked: RunChecks) -> BlocksChecked:
    """Call a check function on blocks; the time it took is for the caller to fill in."""
    check = plan.task.pre_check if asked.phase is Phase.BEFORE else plan.task.post_check
    assert check is not None
    passed: list[int] = []
    refused: list[int] = []
    failures: list[BlockFailure] = []
    for index in asked.indices.tolist():
        block = plan.block(index)
        if asked.phase is Phase.AFTER:
            block.status = BlockStatus.SUCCESS
        try:
            (passed if check(block) else refused).append(index)
        except Exception as error:
            text = describe(error)
            failures.append(
                BlockFailure(
                    index=index,
                    error=f"{asked.phase.value} raised {text.error}",
                    traceback=text.traceback,
                    where=text.where,
                )
            )
    return BlocksChecked(
        task=asked.task,
        phase=asked.phase,
        passed=np.array(passed, dtype=np.int64),
        refused=np.array(refused, dtype=np.int64),
        failures=tuple(failures),
        seconds=0.0,
    )
