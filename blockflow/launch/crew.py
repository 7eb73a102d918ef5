"""The crew: which processes work for a run, and what is each of them told?

Joins the launcher with what a task's processes need: the packed function, the context, and a place for their output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockflow.launch.payload import pack_functions, payload_for
from blockflow.net.context import Context
from blockflow.state.events import ProcessEnded

if TYPE_CHECKING:
    from pathlib import Path

    from blockflow.launch.local import LocalLauncher
    from blockflow.net.connection_file import Connection
    from blockflow.plan.plan import Plan


class Crew:
    """The worker processes of a run.

    Args:
        plan: The tasks that they work for.
        launcher: Starts them.
        logs: Directory of what they print; None for the terminal.

    Raises:
        NotShippableError: A process function cannot be sent to a process.
    """

    def __init__(self, plan: Plan, launcher: LocalLauncher, *, logs: Path | None) -> None:
        self._plan = plan
        self._functions = [pack_functions(task.task) for task in plan.tasks]
        self._launcher = launcher
        self._connection: Connection | None = None
        self._logs = None if logs is None else logs.absolute()
        """Not relative to a directory that user code may change."""
        self._tasks: dict[int, int] = {}
        """By process: the task that it works for."""

    def __len__(self) -> int:
        return len(self._launcher)

    def open(self, connection: Connection) -> None:
        """Take note of where the run listens; nothing can be started before."""
        self._connection = connection

    def begin(self, task: int) -> None:
        """Call the init callback of a task, if it has one; to be done before the first process of the task starts."""
        callback = self._plan.tasks[task].task.init_callback_fn
        if callback is not None:
            callback(self.context(None, task))

    def start(self, process: int, task: int) -> None:
        """Start a process for a task."""
        self._tasks[process] = task
        log = self._log(process)
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
        planned = self._plan.tasks[task].task
        payload = payload_for(planned, self._functions[task], self.context(process, task), log)
        self._launcher.start(process, payload)

    def ended(self) -> list[ProcessEnded]:
        """The processes that ended since the last call."""
        ended = []
        for exit_ in self._launcher.ended():
            log = self._log(exit_.process)
            how = exit_.how if log is None else f"{exit_.how}; see {log}.err"
            task = self._tasks.pop(exit_.process)
            ended.append(ProcessEnded(process=exit_.process, task=task, clean=exit_.code == 0, how=how))
        return ended

    def stop(self, *, grace: float) -> None:
        """End all processes; `grace` seconds lie between asking and killing."""
        self._launcher.stop(grace=grace)

    def context(self, process: int | None, task: int) -> Context:
        """What a process of a task is told about the run."""
        assert self._connection is not None
        host, port = next(iter(self._connection.addresses), ("127.0.0.1", 0))
        context = Context(
            hostname=host,
            port=port,
            task_id=self._plan.tasks[task].task_id,
            logdir=self._logs or "",
            connection=self._connection.path,
        )
        if process is not None:
            context["worker_id"] = process
        return context

    def _log(self, process: int) -> Path | None:
        if self._logs is None:
            return None
        return self._logs / self._plan.tasks[self._tasks[process]].task_id / f"worker_{process}"
