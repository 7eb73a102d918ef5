"""The crew: which processes work for a run, and what is each of them told?

Joins the launcher with what a task's processes need: the packed function, the context, and a place for their output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockflow.launch.local import Exit, LocalLauncher
from blockflow.launch.payload import pack_function, payload_for
from blockflow.logging import get_log_basedir, get_worker_log_basename
from blockflow.net.context import Context

if TYPE_CHECKING:
    from blockflow.net.connection_file import Connection
    from blockflow.plan.plan import Plan


class Crew:
    """The worker processes of a run.

    Args:
        plan: The tasks that they work for.

    Raises:
        NotShippableError: A process function cannot be sent to a process.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._functions = [pack_function(task.task) for task in plan.tasks]
        self._launcher = LocalLauncher()
        self._connection: Connection | None = None
        self._begun: set[int] = set()
        """Tasks whose init callback was called."""

    def __len__(self) -> int:
        return len(self._launcher)

    def start(self, process: int, task: int) -> None:
        """Start a process for a task; it is told what to do as soon as the run listens."""
        log = get_worker_log_basename(process, self._plan.tasks[task].task_id)
        self._launcher.start(process, task, log)
        self._tell(process, task)

    def open(self, connection: Connection) -> None:
        """Tell all processes, also those to come, where the run listens."""
        self._connection = connection
        for process, task in self._launcher.untold():
            self._tell(process, task)

    def ended(self) -> list[Exit]:
        """The processes that ended since the last call."""
        return self._launcher.ended()

    def is_dead(self, pid: int) -> bool:
        """Whether a process of this machine does not run any more."""
        return self._launcher.is_dead(pid)

    def stop(self, *, grace: float) -> None:
        """End all processes; `grace` seconds lie between asking and killing."""
        self._launcher.stop(grace=grace)

    def context(self, process: int | None, task: int) -> Context:
        """What a process of a task is told about the run."""
        assert self._connection is not None
        host, port = self._connection.addresses[0]
        context = Context(
            hostname=host,
            port=port,
            task_id=self._plan.tasks[task].task_id,
            logdir=get_log_basedir() or "",
            connection=self._connection.path,
        )
        if process is not None:
            context["worker_id"] = process
        return context

    def _tell(self, process: int, task: int) -> None:
        if self._connection is None:
            return
        planned = self._plan.tasks[task].task
        if task not in self._begun:
            self._begun.add(task)
            if planned.init_callback_fn is not None:
                planned.init_callback_fn(self.context(None, task))
        self._launcher.tell(process, payload_for(planned, self._functions[task], self.context(process, task)))
