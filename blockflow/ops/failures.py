"""Failures: how does what a function raised in a worker process reach the caller?

As itself, if it was kept and is the same after that round trip; what was printed in the worker is then its cause. Else
as text. Exceptions are never rebuilt from text: neither their types nor the arguments of their constructors are in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockflow.errors import BlockError, RunError
from blockflow.ops.results import as_exception

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from blockflow.ops.results import Record
    from blockflow.result import RunResult

__all__ = ["raise_failure"]


def raise_failure(result: RunResult, task_id: str, kept: Mapping[int, Record], logs: Path | None) -> None:
    """Raise what made blocks fail, if any did.

    Args:
        result: Of the run.
        task_id: Of its task.
        kept: Exceptions of this run, by index of the block; of no block is what kept a worker from beginning.
        logs: Where the output of workers is kept; None if nowhere.

    Raises:
        BlockError: A block failed.
        RunError: Blocks were not run for another reason.
        Exception: What the function raised; its cause is the BlockError.
    """
    if result:
        return
    state = result[task_id]
    missing = state.total_block_count - state.completed_count
    where = "" if logs is None else f"; what the workers printed is in {logs / task_id}"
    if not result.causes:
        problem = RunError(
            f"{missing} of {state.total_block_count} blocks are not done: {'; '.join(result.problems)}{where}"
        )
        for record in kept.values():
            raise as_exception(record.load()) from problem
        raise problem
    cause = result.causes[0]
    block = cause.blocks[0]
    others = f", the first of {missing} that are not done," if missing > 1 else ""
    text = f"block {block.index} at {block.position}{others} failed with {cause.error}{where}\n\n{cause.traceback}"
    error = BlockError(text.rstrip())
    for index in cause.blocks.indices.tolist():
        if index in kept:
            raise as_exception(kept[index].load()) from error
    raise error
