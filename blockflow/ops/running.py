"""Running: how does somebody look on while a map runs?

:func:`~blockflow.run.run_blockwise` comes back when a run has ended. Here the same run is an iterator that stops for
a moment whenever there may be something new: after each block in this process, some times a second for workers. When
the iterator is closed, the run is stopped.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING

from blockflow.driving import run_in_processes, scheduler_here, steps_here
from blockflow.monitor.progress import make_display
from blockflow.net.addresses import endpoint_of
from blockflow.plan.launcher import is_local
from blockflow.plan.plan import check_runnable, compile_plan
from blockflow.result import result_of
from blockflow.run import warn_of_changed_code
from blockflow.visibility import check_visible

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    from blockflow.ledger.run_ledger import RunLedger
    from blockflow.plan.plan import Plan
    from blockflow.plan.task import Task
    from blockflow.result import RunResult

__all__ = ["beside", "running_here", "running_in_workers"]

LOOK_SECONDS = 0.02
"""How often somebody may look for something new."""


def running_here(
    task: Task, run_dir: str | os.PathLike[str] | None, *, progress: bool, **options: bool
) -> Generator[None]:
    """Run a task in this process.

    Args:
        task: What to run.
        run_dir: As for :func:`~blockflow.run.run_blockwise`.
        options: Of the run directory: see :func:`~blockflow.binding.open_ledger`.
        progress: As for :func:`~blockflow.run.run_blockwise`.

    Raises:
        Exception: What a process function raised.
    """
    plan = compile_plan([task])
    check_runnable(plan)
    with _ledger(run_dir, plan, options) as ledger:
        display = make_display(progress=progress, logs=None if ledger is None else ledger.logs)
        yield from steps_here(scheduler_here(plan, ledger=ledger), display, ledger)
    yield


def running_in_workers(
    task: Task,
    run_dir: str | os.PathLike[str] | None,
    *,
    progress: bool,
    host: str | None,
    ended: list[RunResult],
    **options: bool,
) -> Generator[None]:
    """Run a task in worker processes.

    Args:
        task: What to run.
        run_dir: As for :func:`~blockflow.run.run_blockwise`.
        progress: As for :func:`~blockflow.run.run_blockwise`.
        host: As for :func:`~blockflow.run.run_blockwise`.
        ended: Gets the result.
        options: Of the run directory: see :func:`~blockflow.binding.open_ledger`.

    Raises:
        RunError: The run could not be started, or not be carried on.
    """
    plan = compile_plan([task])
    check_runnable(plan)
    check_visible(plan)
    endpoint = endpoint_of(host, environment=os.environ, elsewhere=not is_local(task.launchers))
    stop = threading.Event()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            with _ledger(run_dir, plan, options) as ledger:
                display = make_display(progress=progress, logs=None if ledger is None else ledger.logs)
                scheduler, _ = run_in_processes(plan, display, endpoint=endpoint, stop_event=stop, ledger=ledger)
            ended.append(result_of(scheduler))
        except BaseException as error:
            errors.append(error)

    with beside(run, stop.set) as thread:
        while thread.is_alive():
            thread.join(LOOK_SECONDS)
            yield
    if errors:
        raise errors[0]
    yield


@contextmanager
def beside(run: Callable[[], None], stop: Callable[[], None]) -> Iterator[threading.Thread]:
    """Do something in a thread of its own, for as long as the context; also if it is the whole process that ends.

    Whoever leaves an iterator half-way and keeps it does not close it. A thread that the process waits for would then
    go on to the end of the run.

    Args:
        run: What to do.
        stop: Makes it come to an end soon, in an orderly way.
    """
    thread = threading.Thread(target=run, name="blockflow-map", daemon=True)
    # What is called at exit runs newest first. Finalizers free shared memory, so they have to come after the end of the
    # run: making one now sees to it that they are the older ones.
    weakref.finalize(thread, int).detach()

    def end() -> None:
        stop()
        thread.join()

    atexit.register(end)
    thread.start()
    try:
        yield thread
    finally:
        end()
        atexit.unregister(end)


@contextmanager
def _ledger(
    run_dir: str | os.PathLike[str] | None, plan: Plan, options: Mapping[str, bool]
) -> Iterator[RunLedger | None]:
    """The ledger of a run directory, if there is one."""
    if run_dir is None:
        yield None
        return
    from blockflow.binding import open_ledger

    ledger = open_ledger(run_dir, plan, **options)
    haste = True
    try:
        warn_of_changed_code(ledger, stacklevel=4)
        yield ledger
        haste = False
    finally:
        ledger.close_in_background(haste=haste)
