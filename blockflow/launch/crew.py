"""The crew: which processes work for a run, and what is each of them told?

Joins the launchers with what a task's processes need: the packed function, the context, and a place for their output.
Processes of this machine come from a launcher that begins to load before anything else is known; all others come from
fleets, one for each kind of cluster.
"""

from __future__ import annotations

import logging
import pickle
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockflow.background import BackgroundQueue, run_all
from blockflow.errors import UntrustedFileError
from blockflow.launch.base import JobEnd
from blockflow.launch.last_lines import last_lines
from blockflow.launch.payload import payload_for, payload_for_job
from blockflow.launch.shared import modules_to_import
from blockflow.log_files import make_log_folder
from blockflow.net.context import Context
from blockflow.plan.launcher import has_local
from blockflow.plan.returns import check_has_run
from blockflow.scheduler.events import ProcessEnded
from blockflow.trusted_files import remove_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blockflow.launch.base import Fleet
    from blockflow.launch.local import Exit, LocalLauncher
    from blockflow.monitor.jobs import Workforce
    from blockflow.net.connection_file import Connection
    from blockflow.plan.launcher import Launcher
    from blockflow.plan.plan import Plan

_LONGEST_LINE = 300
"""Characters of the last line that a process printed, in a message of one line."""

_MOST_WORDS = 1000
"""Processes whose last words are kept: older ones give way."""


REMOVAL_SECONDS = 1.0
"""How long the removal of files is waited for; a disk that does not answer holds nothing up."""

_LOGGER = logging.getLogger("blockflow")


@dataclass(slots=True, eq=False)
class _Source:
    """One launcher of one task."""

    launcher: Launcher | None
    """None for processes of this machine."""
    size: int
    """Greatest number of its processes at once, unless people have asked for more: the last one of a task gets them."""
    processes: set[int] = field(default_factory=set)
    """Those that live."""


class Crew:
    """The worker processes of a run.

    Args:
        plan: The tasks that they work for.
        launcher: Starts those of this machine.
        functions: By task: its packed functions.
        logs: Directory of what they print; None for the terminal.
        adds_logs: What earlier lives of the driver have left there stays.
        codes: Digest of the code of each task; empty if nobody needs it.
    """

    def __init__(
        self,
        plan: Plan,
        launcher: LocalLauncher,
        functions: list[bytes],
        *,
        logs: Path | None,
        adds_logs: bool = False,
        codes: Sequence[str] = (),
    ) -> None:
        self._plan = plan
        self._functions = functions
        self._launcher = launcher
        self._connection: Connection | None = None
        self._logs = None if logs is None else logs.absolute()
        """Not relative to a directory that user code may change."""
        self._adds_logs = adds_logs
        self._codes = codes
        self._tasks: dict[int, int] = {}
        """By process: the task that it works for."""
        self._sources = [_sources(task.launchers, task.workers) for task in plan.tasks]
        """By task: where its processes come from."""
        self._fleets: dict[type[Launcher], Fleet] = {}
        self._task_files: list[Path] = []
        """What workers that people start have to be told."""
        self._removals = BackgroundQueue("blockflow-removals")
        self._gone: set[int] = set()
        """Processes of clusters that have certainly ended."""
        self._last_words: dict[int, tuple[str, str]] = {}
        """By process that has ended: how, and the last lines that it printed if it did not end well."""

    def __len__(self) -> int:
        return len(self._launcher) + sum(len(fleet) for fleet in self._fleets.values())

    def load(self) -> None:
        """Hand over what the processes of this machine will run, if there are to be any.

        Raises:
            RunError: No process can be started on this machine.
        """
        here = {task.number: self._functions[task.number] for task in self._plan.tasks if has_local(task.launchers)}
        if here:
            tasks = [self._plan.tasks[number].task for number in here]
            functions = [function for task in tasks for function in (task.process_function, task.setup)]
            self._launcher.load(here, modules_to_import(functions, here.values()))

    def open(self, connection: Connection) -> None:
        """Take note of where the run listens; nothing can be started before."""
        self._connection = connection
        if connection.addresses:
            from blockflow.launch.by_hand import write_tasks

            payloads = [self._payload_by_hand(number) for number in range(len(self._plan.tasks))]
            self._task_files = write_tasks(self._private, self._run, payloads)

    def begin(self, task: int) -> None:
        """Call the init callback of a task, if it has one; to be done before the first process of the task starts."""
        callback = self._plan.tasks[task].task.init_callback_fn
        if callback is not None:
            check_has_run(
                callback(self.context(None, task)), f"init_callback_fn of task {self._plan.tasks[task].task_id!r}"
            )

    def start(self, process: int, task: int) -> None:
        """Start a process for a task."""
        self._tasks[process] = task
        log = self._log(process)
        if self._logs is not None:
            try:
                make_log_folder(self._logs, self._plan.tasks[task].task_id)
            except UntrustedFileError:
                raise
            except OSError as error:  # that costs the log, and not the blocks: the worker prints to the terminal
                _LOGGER.warning("no logs are written for task %s: %s", self._plan.tasks[task].task_id, error)
        planned = self._plan.tasks[task].task
        payload = payload_for(planned, self.context(process, task), log, adds=self._adds_logs)
        sources = self._sources[task]
        source = next((each for each in sources if len(each.processes) < each.size), sources[-1])
        source.processes.add(process)
        if source.launcher is None:
            self._launcher.start(process, task, pickle.dumps(payload))
            return
        from blockflow.launch.base import Order
        from blockflow.launch.fleets import timing_of

        output = str(log.parent.resolve() / "job") if log is not None else f"{self._private / self._run}.job"
        payload = payload_for_job(payload, self._functions[task], timing_of(source.launcher), output=output)
        order = Order(process=process, task=planned.task_id, launcher=source.launcher, payload=payload)
        self._fleet(source.launcher).start(order)

    def ended(self) -> list[ProcessEnded]:
        """The processes that ended since the last call.

        Raises:
            RunError: A cluster takes no jobs, or somebody has cancelled the run.
        """
        ended = [self._note_end(exit_) for exit_ in self._launcher.ended()]
        for fleet in self._fleets.values():
            for end in fleet.ended():
                if end.certain:
                    self._gone.add(end.process)
                ended.append(self._note_end(end))
        return ended

    def is_gone(self, process: int | None) -> bool:
        """Whether a job of a cluster has certainly ended, and all that it started."""
        return process in self._gone

    def is_own(self, process: int) -> bool:
        """Whether a process was started here, and its end is not known yet."""
        return process in self._tasks

    def last_words(self, process: int | None) -> tuple[str, str]:
        """How a process has ended, and the last lines that it printed if it did not end well; empty if not known."""
        if process is None:
            return "", ""
        if process in self._tasks:  # dead, and its cluster has not noticed
            log = self._log(process)
            return "", "" if log is None else last_lines([Path(f"{log}.err"), Path(f"{log}.out")])[1]
        return self._last_words.get(process, ("", ""))

    def look(self) -> None:
        """A worker's connection is lost: look soon what has become of the jobs."""
        for fleet in self._fleets.values():
            fleet.look()

    def has_jobs(self, task: int) -> bool:
        """Whether a task has workers that are no processes of this machine."""
        return any(source.launcher is not None and source.processes for source in self._sources[task])

    def workforce(self, task: str, *, connected: int) -> Workforce:
        """How far a task's workers on clusters have come.

        Args:
            task: Id of the task.
            connected: Its workers that are connected.
        """
        from blockflow.monitor.jobs import Workforce

        known = [standing[task] for fleet in self._fleets.values() if task in (standing := fleet.standing())]
        return Workforce(
            waiting=sum(each.waiting for each in known),
            running=sum(each.running for each in known),
            connected=connected,
            reason=next((each.reason for each in known if each.reason), ""),
        )

    def trim(self, task: int, most: int) -> None:
        """Call off jobs that have not begun and are too many; the newest first.

        Args:
            task: Number of a task.
            most: Workers that it can have a use for.
        """
        sources = self._sources[task]
        surplus = sum(len(source.processes) for source in sources) - most
        for source in reversed(sources):
            if surplus > 0 and source.launcher is not None:
                newest = sorted(source.processes, reverse=True)
                surplus -= self._fleet(source.launcher).release(newest, surplus)

    def dismiss(self) -> None:
        """All work is done: call off what has not begun."""
        for fleet in self._fleets.values():
            fleet.dismiss()

    def stop(self, *, grace: float) -> None:
        """End all processes; `grace` seconds lie between asking and killing.

        Whatever one step raises, the others are made. Processes and jobs come before files, which may be on a disk
        that does not answer.

        Raises:
            Exception: The first error of a step, when all have been made.
        """
        fleets = list(self._fleets.values())
        error = run_all(
            *(fleet.dismiss for fleet in fleets),
            lambda: self._launcher.stop(grace=grace),
            *(partial(fleet.stop, grace=grace) for fleet in fleets),
            self._remove_task_files,
        )
        if error is not None:
            raise error

    def kill(self) -> None:
        """End all processes at once and all jobs by their ids, waiting for no disk; for when :meth:`stop` hangs."""
        run_all(self._launcher.kill, *(fleet.kill for fleet in list(self._fleets.values())))

    def _remove_task_files(self) -> None:
        for file in self._task_files:
            self._removals.call(partial(remove_file, file))
        self._removals.finish(REMOVAL_SECONDS)

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
        if self._codes:
            context["code"] = self._codes[task]
        return context

    @property
    def _private(self) -> Path:
        """The directory of the run's own files."""
        assert self._connection is not None
        return Path(self._connection.path).parent

    @property
    def _run(self) -> str:
        assert self._connection is not None
        return self._connection.run

    def _fleet(self, launcher: Launcher) -> Fleet:
        """The fleet of a launcher's kind."""
        kind = type(launcher)
        if kind not in self._fleets:
            from blockflow.launch.fleets import make_fleet

            self._fleets[kind] = make_fleet(launcher, directory=self._private, run=self._run)
        return self._fleets[kind]

    def _payload_by_hand(self, task: int) -> dict[str, Any]:
        """What a worker is told that somebody starts; it prints to the terminal."""
        from blockflow.launch.fleets import timing_of

        payload = payload_for(self._plan.tasks[task].task, self.context(None, task), None, adds=False)
        return payload_for_job(payload, self._functions[task], timing_of(None), output="")

    def _note_end(self, end: Exit | JobEnd) -> ProcessEnded:
        log = self._log(end.process)
        how, output = end.how, ""
        if end.code != 0:
            files = [] if log is None else [Path(f"{log}.err"), Path(f"{log}.out")]
            if isinstance(end, JobEnd):
                files[1:1] = [Path(end.printed)] if end.printed else []
                output = end.output
            file, said = last_lines(files)
            output = output or said
            if output:
                how += f"; it last printed: {output.splitlines()[-1][:_LONGEST_LINE]}"
            if file is not None:
                how += f" (see {file})"
        self._last_words[end.process] = end.how, output
        if len(self._last_words) > _MOST_WORDS:
            del self._last_words[next(iter(self._last_words))]
        task = self._tasks.pop(end.process)
        for source in self._sources[task]:
            source.processes.discard(end.process)
        return ProcessEnded(process=end.process, task=task, clean=end.code == 0, how=how, output=output, lost=end.lost)

    def _log(self, process: int) -> Path | None:
        if self._logs is None:
            return None
        return self._logs / self._plan.tasks[self._tasks[process]].task_id / f"worker_{process}"


def _sources(launchers: tuple[Launcher, ...], workers: int) -> list[_Source]:
    """Where the processes of a task come from."""
    if not launchers:
        return [_Source(None, workers)]
    return [
        _Source(None if each.local else each, workers if each.workers is None else each.workers) for each in launchers
    ]
