"""Driving a run: which parts are needed, and how do they come to life and to an end?

Everything that may be refused is refused before the first process starts. Processes are then started at once, and load
their interpreter while this process imports the rest. The coordinator runs in a thread of its own; the calling thread
shows how far the run is, and listens to Ctrl-C.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from blockflow.errors import RunError
from blockflow.log_files import check_log_folders
from blockflow.logging import get_log_basedir
from blockflow.plan.launcher import has_local
from blockflow.trusted_files import READABLE, open_folder

_LOGGER = logging.getLogger("blockflow")

if TYPE_CHECKING:
    import socket
    from collections.abc import Generator, Iterator, Mapping
    from types import FrameType

    from blockflow.coordinator import Coordinator
    from blockflow.launch.local import LocalLauncher
    from blockflow.ledger.run_ledger import RunLedger
    from blockflow.monitor.progress import Display
    from blockflow.net.addresses import Endpoint
    from blockflow.net.connection_file import Connection
    from blockflow.plan.plan import Plan
    from blockflow.scheduler.scheduler import Scheduler
    from blockflow.switchboard import Action

_LOOK_SECONDS = 0.1
"""How often the display is renewed."""

DRAIN_SECONDS = 30.0
"""How long blocks under way may take to end after the first Ctrl-C, where what is done is recorded."""

_STOP_SECONDS = 20.0
"""How long a run that is stopped may take; about one second if nothing hangs in the operating system."""

_HASTY_SECONDS = 4.0
"""How long it may take after one more Ctrl-C: then workers are ended by force."""

_HANGING_SECONDS = 1.0
"""The same if it hangs, or its disk does not answer."""


def run_in_processes(
    plan: Plan,
    display: Display,
    *,
    endpoint: Endpoint | None,
    scheduler: Scheduler | None = None,
    stop_event: threading.Event | None = None,
    lease_seconds: float = 60.0,
    ledger: RunLedger | None = None,
    resources: Mapping[str, int] | None = None,
    functions: list[bytes] | None = None,
    listening: socket.socket | None = None,
) -> tuple[Scheduler, Connection | None]:
    """Run a plan to its end with worker processes.

    Args:
        plan: What to run.
        display: Shows how far the run is.
        endpoint: Where to listen, and what to tell workers; None if they are all on this machine.
        scheduler: Made for the plan, and not used before; made here if not given.
        stop_event: Setting it stops the run.
        lease_seconds: How long a worker on another machine keeps its blocks without a sign of life.
        ledger: Where everything is recorded.
        resources: How much there is of what tasks require.
        functions: By task: its functions as they are sent to processes, if that was found out already.
        listening: A socket that listens there already, and is closed here; made here if not given.

    Returns:
        The scheduler, and where the run listened.
    """
    from blockflow.launch.local import LocalLauncher

    if listening is None and endpoint is not None:
        listening = listen_at(endpoint)
    here = [task.workers for task in plan.tasks if has_local(task.launchers)]
    launcher = LocalLauncher(sum(here))
    if here:
        launcher.prepare()  # it loads what workers need while this process imports all that follows
    try:
        if scheduler is None:
            scheduler = _scheduler(plan, ledger, resources, lease_seconds)
        coordinator, actions = _coordinator(scheduler, launcher, endpoint, listening, ledger, functions)
    except BaseException:
        launcher.stop(grace=0.0)
        if listening is not None:
            listening.close()
        raise
    with ended_by_signals(None if ledger is None else ledger.logs):
        _watch(plan, coordinator, actions, display, stop_event, drain=0.0 if ledger is None else DRAIN_SECONDS)
    if ledger is not None and coordinator.hangs:
        ledger.hangs = True
    if coordinator.error is not None:
        # Its cause stays; a context would say the same once more.
        coordinator.error.__context__ = None
        raise coordinator.error
    return scheduler, coordinator.connection


def listen_at(endpoint: Endpoint) -> socket.socket:
    """A listening socket, before anything is started, and before a run directory is made or changed.

    Raises:
        RunError: The address is not this machine's, or no port is free.
    """
    from blockflow.net.listen import bind_first

    try:
        return bind_first(endpoint)
    except OSError as error:
        raise RunError(
            f"cannot listen on {endpoint}: {error}; host= must be an address of this machine, and port= one that is "
            "free, or several of which one is (0 for any)"
        ) from error


def _coordinator(
    scheduler: Scheduler,
    launcher: LocalLauncher,
    endpoint: Endpoint | None,
    listening: socket.socket | None,
    ledger: RunLedger | None,
    functions: list[bytes] | None,
) -> tuple[Coordinator, list[Action]]:
    """A coordinator for a scheduler, and what it has to do first."""
    from blockflow.coordinator import Coordinator
    from blockflow.launch.crew import Crew
    from blockflow.launch.payload import pack_functions
    from blockflow.place import this_place
    from blockflow.scheduler.events import Ticked
    from blockflow.switchboard import Switchboard

    run = os.urandom(8).hex() if ledger is None else ledger.run_id
    logs = get_log_basedir() if ledger is None else ledger.logs
    functions = functions or [pack_functions(task.task) for task in scheduler.plan.tasks]
    if logs is not None:
        check_log_folders(logs, [task.task_id for task in scheduler.plan.tasks])
    codes = () if ledger is None else ledger.codes
    crew = Crew(scheduler.plan, launcher, functions, logs=logs, adds_logs=ledger is not None, codes=codes)
    crew.load()  # now, because nobody waits yet
    directory = _private_directory() if ledger is None else ledger.connection_directory
    switchboard = Switchboard(
        scheduler, run=run, lease_seconds=scheduler.lease_seconds, place=this_place(), codes=codes
    )
    if ledger is not None:
        ledger.restore(scheduler, time.monotonic())
    actions = switchboard.handle(Ticked(), time.monotonic())
    coordinator = Coordinator(
        scheduler,
        switchboard,
        crew,
        directory=directory,
        run=run,
        endpoint=endpoint,
        listening=listening,
        ledger=ledger,
    )
    return coordinator, actions


class Terminated(SystemExit):
    """This process was told to end; no function has called ``sys.exit``."""


ENDING = (signal.SIGTERM, signal.SIGHUP)
"""Signals that end a run in order: what batch systems send, and what a terminal sends that is closed."""


@contextlib.contextmanager
def ended_by_signals(logs: Path | None = None) -> Iterator[None]:
    """Let SIGTERM and SIGHUP end this run in an orderly way, unless the program has a use for them.

    In a block of another run, this process is told to end as well. ``nohup`` has SIGHUP ignored, and that stays so.

    Args:
        logs: Folder of the logs, where it is said; the usual one if not given.
    """
    from blockflow.net.signals import Signals

    before = {number: signal.getsignal(number) for number in ENDING}
    taken = {
        number: action
        for number, action in before.items()
        if action == signal.SIG_DFL or isinstance(getattr(action, "__self__", None), Signals)
    }
    if threading.current_thread() is not threading.main_thread() or not taken:
        yield
        return
    told: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        action = before[signal.Signals(number)]
        if callable(action):
            action(number, frame)
        if not told:  # it is on its way already
            told.append(number)
            raise Terminated(128 + number)

    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, action in taken.items():
            signal.signal(number, action)
        if told:
            from blockflow.monitor.guarded import append_line

            append_line(logs or get_log_basedir(), f"{_why(told[0])}; the run was ended in order")


def _why(number: int) -> str:
    """Say what has ended a run."""
    name = signal.Signals(number).name
    return f"this process got {name}" + (": its terminal was closed" if number == signal.SIGHUP else "")


def _watch(
    plan: Plan,
    coordinator: Coordinator,
    actions: list[Action],
    display: Display,
    stop_event: threading.Event | None,
    *,
    drain: float,
) -> None:
    """Start the loop, and show how far the run is until it ends; Ctrl-C stops it.

    Args:
        plan: What is run.
        coordinator: Runs it.
        actions: What it has to do first.
        display: Shows how far it is.
        stop_event: Setting it stops the run.
        drain: Seconds that blocks under way may take to end after the first Ctrl-C; the second one stops at once.
    """
    from blockflow.monitor.jobs import JobTeller
    from blockflow.monitor.silence import SilenceTeller
    from blockflow.monitor.summary import FailureTeller

    teller, jobs = FailureTeller(plan), JobTeller()
    silence = SilenceTeller(coordinator.where)

    def show() -> None:
        while coordinator.notices:
            line = teller.line(coordinator.notices.popleft())
            if line is not None:
                display.write(line)
        for line in silence.lines(coordinator.disk_silence):
            _LOGGER.warning("%s", line)
        for line in jobs.lines(coordinator.workforces, time.monotonic()) if display.talks else ():
            display.write(line)
        display.update(coordinator.snapshot, time.monotonic())

    def watch() -> None:
        while not coordinator.wait(_LOOK_SECONDS):
            show()
            if stop_event is not None and stop_event.is_set():
                coordinator.stop()

    try:
        try:
            coordinator.start(actions)  # in here, as Ctrl-C may come at once
            watch()
        except KeyboardInterrupt:
            if not drain:
                raise
            display.write(f"finishing the blocks under way, for at most {drain:.0f} s; Ctrl-C again stops at once")
            coordinator.stop(drain=drain)
            watch()
            raise
    except KeyboardInterrupt:
        display.write("stopping: workers are asked to end, and are ended in a second")
        raise
    except Terminated as ended:
        display.write(f"{_why(int(str(ended)) - 128)}; workers are asked to end, and are ended in a second")
        raise
    finally:
        _end(coordinator)
        show()
        display.close(coordinator.snapshot, time.monotonic())


def _end(coordinator: Coordinator) -> None:
    """Stop a run, if it has not ended, whatever hangs and however often Ctrl-C is pressed meanwhile."""
    coordinator.stop()
    deadline = time.monotonic() + _STOP_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        try:
            if coordinator.wait(min(left, _LOOK_SECONDS)):
                return
        except (KeyboardInterrupt, Terminated):
            deadline = min(deadline, time.monotonic() + _HASTY_SECONDS)
        if coordinator.hangs:
            deadline = min(deadline, time.monotonic() + _HANGING_SECONDS)
    with contextlib.suppress(KeyboardInterrupt, Terminated):
        coordinator.abandon()


def run_here(
    plan: Plan,
    display: Display,
    scheduler: Scheduler | None = None,
    *,
    ledger: RunLedger | None = None,
    resources: Mapping[str, int] | None = None,
) -> Scheduler:
    """Run a plan to its end in this process.

    Args:
        plan: What to run.
        display: Shows how far the run is.
        scheduler: Made for the plan, and not used before; made here if not given.
        ledger: Where everything is recorded.
        resources: How much there is of what tasks require.
    """
    scheduler = scheduler or scheduler_here(plan, ledger=ledger, resources=resources)
    for _ in steps_here(scheduler, display, ledger):
        pass
    return scheduler


def scheduler_here(
    plan: Plan, *, ledger: RunLedger | None = None, resources: Mapping[str, int] | None = None
) -> Scheduler:
    """A scheduler for a run in this process, which knows what was done before."""
    scheduler = _scheduler(plan, ledger, resources)
    if ledger is not None:
        ledger.restore(scheduler, time.monotonic())
    return scheduler


def _scheduler(
    plan: Plan, ledger: RunLedger | None, resources: Mapping[str, int] | None, lease_seconds: float = 60.0
) -> Scheduler:
    """A scheduler that knows nothing yet, and records if there is a ledger."""
    from blockflow.scheduler.leases import LARGEST_LEASE
    from blockflow.scheduler.scheduler import Scheduler

    return Scheduler(
        plan,
        largest_lease=LARGEST_LEASE,
        lease_seconds=lease_seconds,
        epoch=0 if ledger is None else ledger.epoch,
        recording=ledger is not None,
        resources=resources,
    )


def steps_here(scheduler: Scheduler, display: Display, ledger: RunLedger | None = None) -> Generator[None]:
    """Run everything in this process; an iterator that stops for a moment after each block, and can be closed."""
    from blockflow.serial import run_serially

    next_look = 0.0
    try:
        with contextlib.closing(run_serially(scheduler, ledger)) as steps:
            for remark in steps:
                if remark is not None:
                    display.write(f"{scheduler.plan.tasks[remark.task].task_id}: {remark.text}")
                now = time.monotonic()
                if now >= next_look:
                    display.update(scheduler.task_states, now)
                    next_look = now + _LOOK_SECONDS
                yield
    finally:
        display.close(scheduler.task_states, time.monotonic())


def _private_directory() -> Path:
    """Where the connection file goes: beside the logs, which nodes of a cluster usually see.

    Where that is impossible, a directory below the system's temporary one has to do.
    """
    from blockflow.net.connection_file import private_directory

    logs = get_log_basedir()
    if logs is not None:
        with open_folder(logs, make=READABLE) as folder:
            if folder.keeps_modes:  # shares of Windows do not
                return private_directory(logs / ".runs")
    import tempfile

    return private_directory(Path(tempfile.gettempdir()) / f"blockflow-{os.getuid()}")
