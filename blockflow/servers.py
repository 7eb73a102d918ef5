"""The servers that daisy users know: the same runs, started through an object.

:func:`blockflow.run_blockwise` does the same with more to choose from, and returns a richer result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockflow.driving import run_here, run_in_processes
from blockflow.monitor.progress import make_display
from blockflow.net.addresses import Endpoint
from blockflow.plan.plan import check_runnable, compile_plan
from blockflow.run import warn_of_dropped_voxels
from blockflow.visibility import check_visible

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable

    from blockflow.plan.task import Task
    from blockflow.scheduler.scheduler import Scheduler
    from blockflow.scheduler.state import TaskState


class Server:
    """Runs tasks in worker processes; may be used more than once.

    Args:
        stop_event: Setting it, from another thread, stops the run.
        host: Address to listen on; only this machine can connect if not given.
    """

    def __init__(self, stop_event: threading.Event | None = None, host: str | None = None) -> None:
        self.stop_event = stop_event
        self.hostname = host or "127.0.0.1"
        self.port = 0
        """Port of the last run; 0 before the first."""

    def run_blockwise(self, tasks: Iterable[Task], scheduler: Scheduler | None = None) -> dict[str, TaskState]:
        """Run tasks over all their blocks.

        Args:
            tasks: What to do.
            scheduler: A scheduler made for these tasks; made here if not given.

        Raises:
            PlanError: The tasks cannot be run.
        """
        plan = compile_plan(tasks) if scheduler is None else scheduler.plan
        check_runnable(plan)
        check_visible(plan)
        warn_of_dropped_voxels(plan, stacklevel=3)
        scheduler, connection = run_in_processes(
            plan,
            make_display(progress=False),
            endpoint=Endpoint(self.hostname),
            scheduler=scheduler,
            stop_event=self.stop_event,
        )
        if connection is not None:
            self.port = connection.addresses[0][1]
        return scheduler.task_states


class SerialServer:
    """Runs tasks in this process; the first exception of a process function is raised."""

    def run_blockwise(self, tasks: Iterable[Task], scheduler: Scheduler | None = None) -> dict[str, TaskState]:
        """Run tasks over all their blocks.

        Args:
            tasks: What to do.
            scheduler: A scheduler made for these tasks; made here if not given.

        Raises:
            PlanError: The tasks cannot be run.
        """
        plan = compile_plan(tasks) if scheduler is None else scheduler.plan
        check_runnable(plan)
        warn_of_dropped_voxels(plan, stacklevel=3)
        return run_here(plan, make_display(progress=False), scheduler).task_states
