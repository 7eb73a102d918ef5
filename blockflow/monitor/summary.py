"""What is said about a run while it goes on and when it is over?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockflow.escaping import escape_line
from blockflow.monitor.progress import clock
from blockflow.scheduler.events import TellRemark

if TYPE_CHECKING:
    from blockflow.plan.plan import Plan
    from blockflow.result import RunResult
    from blockflow.scheduler.events import TellFailure

_SHOWN_BLOCKS = 3
_SHOWN_CAUSES = 5
_SHOWN_LIKE_IT = 3
"""Failures of one cause that are told while the run goes on; the summary counts all."""
_SHOWN_REMARKS = 10
"""Different remarks on one task that are told."""


class FailureTeller:
    """Tells people of failures as they happen, but not of a thousand equal ones."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._told: dict[tuple[int, str, str], int] = {}
        self._remarks: dict[int, int] = {}
        """By task: how many different remarks there were."""

    def line(self, told: TellFailure | TellRemark) -> str | None:
        """What to print about a failure, or something else; None if enough like it were printed."""
        if isinstance(told, TellRemark):
            return self._remark(told)
        failure = told.failure
        kind = (told.task, failure.error.partition(":")[0], failure.where)
        self._told[kind] = self._told.get(kind, 0) + 1
        if self._told[kind] > _SHOWN_LIKE_IT:
            return None
        planned = self._plan.tasks[told.task]
        place = f" ({escape_line(failure.where)})" if failure.where else ""
        fate = "fails for good" if told.final else "failed and is tried again"
        more = "; more like this are only counted" if self._told[kind] == _SHOWN_LIKE_IT else ""
        position = planned.grid.position(failure.index)
        number = planned.block(failure.index).block_id[1]
        return f"{planned.task_id}: block {number} at {position} {fate}: {escape_line(failure.error)}{place}{more}"

    def _remark(self, told: TellRemark) -> str | None:
        kind = (told.task, "", told.text)
        self._told[kind] = self._told.get(kind, 0) + 1
        all_of_task = self._remarks[told.task] = self._remarks.get(told.task, 0) + (self._told[kind] == 1)
        if self._told[kind] > 1 or all_of_task > _SHOWN_REMARKS:
            return None
        more = "; more like this are not shown" if all_of_task == _SHOWN_REMARKS else ""
        return f"{self._plan.tasks[told.task].task_id}: {told.text}{more}"


def summary(result: RunResult, seconds: float, logs: str | None) -> str:
    """The account of a whole run, as text of several lines.

    Args:
        result: How it ended.
        seconds: How long it took.
        logs: Where the output of the workers is.
    """
    name_width = max([len(name) for name in result] + [4])
    header = f"{'task':{name_width}}  {'blocks':>12} {'done':>12} {'skipped':>9} {'failed':>9} {'orphaned':>9}"
    lines = ["", f"Execution summary ({clock(seconds)})", header]
    for name, state in result.items():
        done = state.completed_count - state.skipped_count
        lines.append(
            f"{name:{name_width}}  {state.total_block_count:>12} {done:>12} {state.skipped_count:>9} "
            f"{state.failed_count:>9} {state.orphaned_count:>9}"
        )
    total = sum(state.total_block_count for state in result.values())
    if result:
        skipped = sum(state.skipped_count for state in result.values())
        if skipped == total:
            lines.append("everything was done before: each block was found done, and nothing was run")
        elif skipped:
            lines.append(f"all {total} blocks are done: {total - skipped} were run, {skipped} had been done before")
        else:
            lines.append(f"all {total} blocks are done")
    else:
        ended = sum(state.completed_count for state in result.values())
        lines.append(f"NOT COMPLETE: {total - ended} of {total} blocks are not done")
    for cause in result.causes[:_SHOWN_CAUSES]:
        examples = ", ".join(str(block.block_id[1]) for block in cause.blocks[:_SHOWN_BLOCKS])
        place = f" at {escape_line(cause.where)}" if cause.where else ""
        error = escape_line(cause.error)
        lines.append(f"{cause.task_id}: {len(cause.blocks)} failed: {error}{place} (e.g. block {examples})")
        lines.extend(f"    {line}" for line in cause.traceback.rstrip().splitlines())
    if len(result.causes) > _SHOWN_CAUSES:
        lines.append(f"and {len(result.causes) - _SHOWN_CAUSES} causes more: see result.causes")
    lines.extend(result.problems)
    if not result and logs is not None:
        lines.append(f"what the workers printed: {logs}/<task>/worker_<n>.out and .err")
    return "\n".join(lines)
