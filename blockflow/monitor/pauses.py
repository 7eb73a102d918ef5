"""Lines about tasks that wait for their storage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockflow.monitor.progress import clock

if TYPE_CHECKING:
    from blockflow.plan.plan import Plan
    from blockflow.scheduler.events import TellPause


def pause_line(plan: Plan, told: TellPause) -> str:
    """Line of the log that says for which disk a task waits, or that it goes on.

    Args:
        plan: The tasks.
        told: What has happened.
    """
    task = plan.tasks[told.task].task_id
    disk = told.disk or "a disk that the error does not name"
    host = told.host.partition("/")[0]
    place = f"{disk} of host {host}" if host else disk
    if not told.error:
        return f"task {task}: {place} works again after {clock(told.seconds)}, the task goes on"
    if told.full:
        return (
            f"task {task}: no space is left on {place} ({told.error}); the task is paused there, and goes on when "
            "there is space. No attempt is counted"
        )
    return (
        f"task {task}: storage fails on {place} ({told.error}); the task is paused there, and tries again in a while. "
        "No attempt is counted in the first ten minutes"
    )
