"""Calls of a task's check functions on blocks.

A check that raises is a failure of its block that the user sees, never a silent "not done".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from blockflow.errors import PlanError
from blockflow.plan.block import BlockStatus
from blockflow.plan.returns import check_has_run
from blockflow.scheduler.events import BlockFailure, BlocksChecked, CheckPhase, RunChecks
from blockflow.scheduler.state import NOTHING
from blockflow.wire.failures import LONGEST_ERROR, describe

if TYPE_CHECKING:
    from blockflow.plan.plan import TaskPlan
    from blockflow.plan.slices import Indices
    from blockflow.plan.task import Task


def call_checks(plan: TaskPlan, asked: RunChecks) -> BlocksChecked:
    """Call a check function on blocks; the time it took is for the caller to fill in.

    Whatever a check raises is a failure of its block, but for what ends the run: Ctrl-C, ``sys.exit``, and signals.
    """
    check = plan.task.pre_check if asked.phase is CheckPhase.BEFORE else plan.task.post_check
    skipped, left = _in_bulk(plan.task, asked.indices) if asked.phase is CheckPhase.BEFORE else (NOTHING, asked.indices)
    if check is None:
        return _checked(asked, skipped, left, ())
    passed: list[int] = []
    refused: list[int] = []
    failures: list[BlockFailure] = []
    for index in left.tolist():
        block = plan.block(index)
        if asked.phase is CheckPhase.AFTER:
            block.status = BlockStatus.SUCCESS
        try:
            answer = check(block)
            check_has_run(answer, f"the {asked.phase.value}")
            (passed if answer else refused).append(index)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            text = describe(error)
            failures.append(
                BlockFailure(
                    index=index,
                    error=f"{asked.phase.value} raised {text.error}"[:LONGEST_ERROR],
                    traceback=text.traceback,
                    where=text.where,
                    kind=text.kind,
                    disk=text.disk,
                )
            )
    return _checked(
        asked,
        np.concatenate([skipped, np.array(passed, dtype=np.int64)]),
        np.array(refused, dtype=np.int64),
        tuple(failures),
    )


def _in_bulk(task: Task, indices: Indices) -> tuple[Indices, Indices]:
    """Return the blocks that mask and bulk check find done, and those that are left.

    What these raise is not the fault of any block: it ends the run.
    """
    left = indices
    if task.blocks_to_do is not None:
        left = left[task.blocks_to_do.live(left)]
    if task.check_blocks is not None and len(left):
        done = np.asarray(task.check_blocks(left))
        if done.dtype != np.bool_ or done.shape != left.shape:
            raise PlanError(
                f"check_blocks of task {task.task_id!r} must return {len(left)} booleans, one for each index; it "
                f"returned {done.dtype} of shape {done.shape}"
            )
        left = left[~done]
    return np.setdiff1d(indices, left, assume_unique=True), left


def _checked(asked: RunChecks, passed: Indices, refused: Indices, failures: tuple[BlockFailure, ...]) -> BlocksChecked:
    return BlocksChecked(
        task=asked.task, phase=asked.phase, passed=passed, refused=refused, failures=failures, seconds=0.0
    )
