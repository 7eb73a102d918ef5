"""The front door: run tasks over all their blocks, and say how it went.

1. The tasks are compiled and checked; what cannot be right is refused before anything starts.
2. Processes are started at once, and load their interpreter while the driver prepares to listen.
3. The coordinator runs in a thread; this one shows how far the run is, and listens to Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockflow.errors import ConnectionFileError, PlanError
from blockflow.logging import get_log_basedir
from blockflow.monitor.progress import make_display
from blockflow.plan.launcher import has_local, is_local
from blockflow.plan.plan import check_runnable, compile_plan, dropped_voxels_warning

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable

    from blockflow.coordinator import Coordinator
    from blockflow.launch.local import LocalLauncher
    from blockflow.monitor.progress import Display
    from blockflow.net.connection_file import Connection
    from blockflow.plan.plan import Plan
    from blockflow.plan.task import Task
    from blockflow.result import RunResult
    from blockflow.state.scheduler import Scheduler
    from blockflow.switchboard import Action

HOST_VARIABLE = "DAISY_HOST"
"""Environment variable for the address to listen on."""

_LOOK_SECONDS = 0.1
"""How often the display is renewed."""

_STOP_SECONDS = 20.0
"""How long a run that is stopped may take; about one second if nothing hangs in the operating system."""


class PlanWarning(UserWarning):
    """A plan that will run, but may not do what its author expects."""


def run_blockwise(
    tasks: Iterable[Task] | Task,
    multiprocessing: bool = True,
    *,
    progress: bool = True,
    summary: bool = True,
    host: str | None = None,
    port: int = 0,
    launcher: Any = None,
) -> RunResult:
    """Run tasks over all their blocks.

    >>> from blockflow import Roi, Task, run_blockwise
    >>> seen = []
    >>> def note(block):
    ...     seen.append(block.write_roi)
    >>> task = Task("t", Roi((0,), (30,)), Roi((0,), (10,)), Roi((0,), (10,)), note)
    >>> result = run_blockwise([task], multiprocessing=False, progress=False, summary=False)
    >>> bool(result), result["t"].completed_count, seen[0]
    (True, 3, [0:10] (10))

    Args:
        tasks: What to do. Tasks upstream of them are run as well.
        multiprocessing: Run in worker processes. If false, everything runs in this process, and the first exception
            of a process function is raised, which is good for debugging.
        progress: Show how far the run is.
        summary: Print an account at the end.
        host: Address to listen on and to tell workers, for workers on other machines; by default the value of
            ``DAISY_HOST``, else this machine's own address if a launcher starts workers elsewhere, else only this
            machine can connect (127.0.0.1).
        port: Port to listen on; 0 for any that is free.
        launcher: How workers come to life, for tasks that do not say it themselves: ``Slurm(...)``, ``LSF(...)``,
            ``Command(...)``, ``Dask(...)``, ``Local(n)``, or a list of these; by default processes of this machine.

    Returns:
        A mapping from task ids to states that is true if every block is done or was skipped.

    Raises:
        PlanError: The tasks cannot be run; nothing has started.
        NotShippableError: A process function cannot be sent to a worker; nothing has started.
        RunError: The run could not be started.
        KeyboardInterrupt: Ctrl-C was pressed; all workers were stopped.
    """
    from blockflow.plan.task import Task as TaskClass

    plan = compile_plan([tasks] if isinstance(tasks, TaskClass) else tasks, launcher)
    check_runnable(plan)
    _check_port(port)
    for task in plan.tasks:
        warning = dropped_voxels_warning(task.task)
        if warning is not None:
            warnings.warn(warning, PlanWarning, stacklevel=2)
    began = time.monotonic()
    display = make_display(progress=progress)
    if multiprocessing:
        address = host or os.environ.get(HOST_VARIABLE) or _own_address(plan)
        scheduler, _ = run_in_processes(plan, display, host=address, port=port)
    else:
        scheduler = run_here(plan, display)
    return _account(scheduler, display, time.monotonic() - began, summary=summary)


def run_in_processes(
    plan: Plan,
    display: Display,
    *,
    host: str,
    port: int,
    scheduler: Scheduler | None = None,
    stop_event: threading.Event | None = None,
) -> tuple[Scheduler, Connection | None]:
    """Run a plan to its end with worker processes.

    Args:
        plan: What to run.
        display: Shows how far the run is.
        host: Address to listen on, and to tell workers.
        port: Port to listen on; 0 for any.
        scheduler: Made for the plan, and not used before; made here if not given.
        stop_event: Setting it stops the run.

    Returns:
        The scheduler, and where the run listened.
    """
    from blockflow.launch.local import LocalLauncher

    launcher = LocalLauncher()
    if any(has_local(task.launchers) for task in plan.tasks):
        launcher.prepare()  # it loads what workers need while this process imports all that follows
    try:
        from blockflow.state.leases import LARGEST_LEASE
        from blockflow.state.scheduler import Scheduler

        if scheduler is None:
            scheduler = Scheduler(plan, largest_lease=LARGEST_LEASE)
        coordinator, actions = _coordinator(scheduler, launcher, host, port)
    except BaseException:
        launcher.stop(grace=0.0)
        raise
    coordinator.start(actions)
    _watch(plan, coordinator, display, stop_event)
    if coordinator.error is not None:
        raise coordinator.error
    return scheduler, coordinator.connection


def _coordinator(
    scheduler: Scheduler, launcher: LocalLauncher, host: str, port: int
) -> tuple[Coordinator, list[Action]]:
    """A coordinator for a scheduler, and what it has to do first."""
    from blockflow.coordinator import Coordinator
    from blockflow.launch.crew import Crew
    from blockflow.state.events import Ticked
    from blockflow.state.scheduler import LEASE_SECONDS
    from blockflow.switchboard import Switchboard

    run = os.urandom(8).hex()
    crew = Crew(scheduler.plan, launcher)
    switchboard = Switchboard(scheduler, run=run, lease_seconds=LEASE_SECONDS)
    actions = switchboard.handle(Ticked(), time.monotonic())
    directory = _private_directory()
    return Coordinator(scheduler, switchboard, crew, directory=directory, run=run, host=host, port=port), actions


def _watch(plan: Plan, coordinator: Coordinator, display: Display, stop_event: threading.Event | None) -> None:
    """Show how far the run is until it ends; Ctrl-C stops it."""
    from blockflow.monitor.summary import FailureTeller

    teller = FailureTeller(plan)

    def show() -> None:
        while coordinator.notices:
            line = teller.line(coordinator.notices.popleft())
            if line is not None:
                display.write(line)
        display.update(coordinator.snapshot, time.monotonic())

    try:
        while not coordinator.wait(_LOOK_SECONDS):
            show()
            if stop_event is not None and stop_event.is_set():
                coordinator.stop()
    except KeyboardInterrupt:
        display.write("stopping: workers are asked to end, and are ended in a second")
        raise
    finally:
        _end(coordinator)
        show()
        display.close(coordinator.snapshot, time.monotonic())


def _end(coordinator: Coordinator) -> None:
    """Stop a run, if it has not ended, however often Ctrl-C is pressed meanwhile."""
    coordinator.stop()
    deadline = time.monotonic() + _STOP_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(KeyboardInterrupt):
            if coordinator.wait(deadline - time.monotonic()):
                return


def run_here(plan: Plan, display: Display, scheduler: Scheduler | None = None) -> Scheduler:
    """Run a plan to its end in this process.

    Args:
        plan: What to run.
        display: Shows how far the run is.
        scheduler: Made for the plan, and not used before; made here if not given.
    """
    from blockflow.serial import run_serially
    from blockflow.state.scheduler import Scheduler

    scheduler = scheduler or Scheduler(plan)
    next_look = 0.0
    try:
        for _ in run_serially(scheduler):
            now = time.monotonic()
            if now >= next_look:
                display.update(scheduler.task_states, now)
                next_look = now + _LOOK_SECONDS
    finally:
        display.close(scheduler.task_states, time.monotonic())
    return scheduler


def _account(scheduler: Scheduler, display: Display, seconds: float, *, summary: bool) -> RunResult:
    from blockflow.monitor.summary import summary as account
    from blockflow.result import result_of

    result = result_of(scheduler)
    if summary:
        logs = get_log_basedir()
        display.write(account(result, seconds, None if logs is None else str(logs)))
    return result


def _own_address(plan: Plan) -> str:
    """Where workers can reach this machine: only here, unless a launcher starts some elsewhere."""
    if all(is_local(task.launchers) for task in plan.tasks):
        return "127.0.0.1"
    from blockflow.net.addresses import own_address

    return own_address()


def _check_port(port: int) -> None:
    if not 0 <= port < 65536:
        raise PlanError(f"port must be a whole number from 0 to 65535, got {port!r}")


def _private_directory() -> Path:
    """Where the connection file goes: beside the logs, which nodes of a cluster usually see.

    Where that is impossible, a directory below the system's temporary one has to do.
    """
    from blockflow.net.connection_file import private_directory

    logs = get_log_basedir()
    if logs is not None:
        try:
            return private_directory(logs / ".runs")
        except ConnectionFileError:
            pass  # a file system without modes, as Windows shares are
    import tempfile

    return private_directory(Path(tempfile.gettempdir()) / f"blockflow-{os.getuid()}")
