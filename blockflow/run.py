"""The front door: run tasks over all their blocks, and say how it went.

The tasks are compiled and checked, what cannot be right is refused before anything starts, and the rest is
:mod:`blockflow.driving`.
"""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from numbers import Real
from typing import TYPE_CHECKING, Any

from blockflow.driving import listen_at, run_here, run_in_processes
from blockflow.errors import PlanError
from blockflow.logging import get_log_basedir
from blockflow.monitor.progress import make_display
from blockflow.plan.flags import check_flags
from blockflow.plan.launcher import is_local
from blockflow.plan.plan import check_runnable, compile_plan, dropped_voxels_warning
from blockflow.plan.requirements import check_resources, checked_amounts
from blockflow.visibility import check_visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from blockflow.ledger.run_ledger import RunLedger
    from blockflow.monitor.progress import Display
    from blockflow.net.addresses import Endpoint
    from blockflow.plan.plan import Plan
    from blockflow.plan.task import Task
    from blockflow.result import RunResult
    from blockflow.scheduler.scheduler import Scheduler


class PlanWarning(UserWarning):
    """A plan that will run, but may not do what its author expects."""


def warn_of_dropped_voxels(plan: Plan, *, stacklevel: int) -> None:
    """Warn of each task that leaves voxels out."""
    for task in plan.tasks:
        warning = dropped_voxels_warning(task.task)
        if warning is not None:
            warnings.warn(warning, PlanWarning, stacklevel=stacklevel)


def warn_of_changed_code(ledger: RunLedger, *, stacklevel: int) -> None:
    """Warn of each task whose code has changed since blocks of it were done."""
    for line in ledger.code_changes:
        warnings.warn(line, PlanWarning, stacklevel=stacklevel)


def run_blockwise(
    tasks: Iterable[Task] | Task,
    multiprocessing: bool = True,
    *,
    progress: bool = True,
    summary: bool = True,
    return_states: bool = False,
    host: str | None = None,
    port: int | str | range = 0,
    advertise: str | Iterable[str] | None = None,
    launcher: Any = None,
    lease_seconds: float = 60.0,
    resources: Mapping[str, int] | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    reset: bool = False,
    retry_failed: bool = False,
    accept_change: bool = False,
    take_over: bool = False,
    rerun_older: bool = False,
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
        return_states: For scripts of daisy 2. The result is both, true or false and a mapping of states, whatever is
            said here.
        host: Name or address to listen on, for workers on other machines; by default the value of
            ``BLOCKFLOW_HOST`` (or ``DAISY_HOST``). With neither, the run listens on this machine's own address if a
            launcher starts workers elsewhere, and else on a socket in the file system, which only processes of this
            user on this machine can reach. ``"0.0.0.0"`` stands for all addresses of this machine, ``"::"`` for those
            of IPv6 as well.
        port: Port to listen on, with 127.0.0.1 as `host` if none is given; 0 for any that is free. Several, as
            ``"9000-9100"`` or a range: the first that is free. By default that of ``BLOCKFLOW_PORT``, if the run
            listens on the network.
        advertise: What to tell workers instead of `host`, where they see this machine under another address: one or
            several, to be tried in this order, each with a port (``"gateway:9000"``, ``"[2001:db8::7]:9000"``) or
            without. By default the value of ``BLOCKFLOW_ADVERTISE``, with commas between them.
        launcher: How workers come to life, for tasks that do not say it themselves: ``Slurm(...)``, ``LSF(...)``,
            ``Command(...)``, ``Dask(...)``, ``Local(n)``, or a list of these; by default processes of this machine.
        lease_seconds: How long a worker on another machine keeps its blocks without a sign of life. Give more if your
            blocks run C code that holds Python's lock for longer. Workers on this machine keep them while they live.
        resources: How much there is of what tasks require, as ``{"gpu": 4}``: no more workers have blocks at once than
            that is enough for.
        run_dir: Directory of the run: its ledger, logs and connection file. What is done is recorded there before
            anybody hears of it, and a second call with the same directory goes on where the first has ended, however
            it has ended. :class:`blockflow.Ledger` reads it.
        reset: Forget what the run directory says, and start over.
        retry_failed: Try blocks again that have failed for good.
        accept_change: The tasks have other blocks than before: a block is done if its write ROI is covered by blocks
            that were done. Or they read or write other arrays, and what is done is right all the same.
        take_over: The driver that seems to be at work in the run directory, on another machine, is certainly dead.
        rerun_older: Do blocks again that were done by another version of a task's code, and those downstream of them.
            Otherwise they are kept, and a warning says so. :meth:`blockflow.Ledger.versions` tells which these are.

    Returns:
        A mapping from task ids to states that is true if every block is done or was skipped.

    Raises:
        PlanError: The tasks cannot be run; nothing has started.
        NotShippableError: A process function cannot be sent to a worker; nothing has started.
        RunError: The run could not be started.
        LedgerError: The run directory cannot be used; the message says what was found and what can be done.
        KeyboardInterrupt: Ctrl-C was pressed; all workers were stopped. With a run directory, blocks under way may
            end before, for half a minute; a second Ctrl-C stops at once.
        SystemExit: This process was told to end (SIGTERM); all workers were stopped.
    """
    from blockflow.plan.task import Task as TaskClass

    check_flags(
        multiprocessing=multiprocessing,
        progress=progress,
        summary=summary,
        return_states=return_states,
        reset=reset,
        retry_failed=retry_failed,
        accept_change=accept_change,
        take_over=take_over,
        rerun_older=rerun_older,
    )
    plan = compile_plan([tasks] if isinstance(tasks, TaskClass) else tasks, launcher)
    check_runnable(plan)
    endpoint = _endpoint(plan if multiprocessing else None, host, port, advertise)
    _check_lease(lease_seconds)
    amounts = checked_amounts("resources", resources, least=0)
    check_resources([task.task for task in plan.tasks], amounts)
    if multiprocessing:
        check_visible(plan)
    warn_of_dropped_voxels(plan, stacklevel=3)
    began = time.monotonic()
    ledger = functions = listening = None
    if run_dir is not None:
        functions = _checked_functions(plan, multiprocessing=multiprocessing)
        with contextlib.ExitStack() as if_refused:
            if multiprocessing and endpoint is not None:
                listening = if_refused.enter_context(listen_at(endpoint))
            from blockflow.binding import open_ledger

            ledger = open_ledger(
                run_dir,
                plan,
                reset=reset,
                retry_failed=retry_failed,
                accept_change=accept_change,
                take_over=take_over,
                rerun_older=rerun_older,
            )
            if_refused.pop_all()
    elif reset or retry_failed or accept_change or take_over or rerun_older:
        raise PlanError(
            "reset, retry_failed, accept_change, take_over and rerun_older say what to do with a run_dir; there is none"
        )
    display = make_display(progress=progress, logs=None if ledger is None else ledger.logs)
    haste = True
    try:
        if ledger is not None:
            warn_of_changed_code(ledger, stacklevel=3)
        if ledger is not None and (progress or summary):
            for line in ledger.account(plan):
                display.write(line)
        if multiprocessing:
            scheduler, _ = run_in_processes(
                plan,
                display,
                endpoint=endpoint,
                lease_seconds=lease_seconds,
                ledger=ledger,
                resources=amounts,
                functions=functions,
                listening=listening,
            )
        else:
            scheduler = run_here(plan, display, ledger=ledger, resources=amounts)
        haste = False
    finally:
        trouble = None if ledger is None else ledger.close_in_background(haste=haste)
        if trouble is not None:
            display.write(trouble)
    logs = get_log_basedir() if ledger is None else ledger.logs
    return _account(scheduler, display, time.monotonic() - began, logs, summary=summary)


def _checked_functions(plan: Plan, *, multiprocessing: bool) -> list[bytes] | None:
    """Refuse functions that cannot run as they should, before a run directory is made, or forgotten.

    Returns:
        By task: its functions as they are sent to processes; None where they are not.
    """
    if not multiprocessing:
        from blockflow.serial import check_serial

        check_serial(plan)
        return None
    from blockflow.launch.payload import pack_functions

    return [pack_functions(task.task) for task in plan.tasks]


def _account(scheduler: Scheduler, display: Display, seconds: float, logs: Path | None, *, summary: bool) -> RunResult:
    from blockflow.monitor.summary import summary as account
    from blockflow.result import result_of

    result = result_of(scheduler)
    if summary:
        display.write(account(result, seconds, None if logs is None else str(logs)))
    return result


def _endpoint(plan: Plan | None, host: Any, port: Any, advertise: Any) -> Endpoint | None:
    """Where to listen for the workers of a plan; None if all are on this machine, and nobody has asked for more."""
    from blockflow.net.addresses import endpoint_of

    elsewhere = plan is not None and not all(is_local(task.launchers) for task in plan.tasks)
    return endpoint_of(host, port, advertise, environment=os.environ, elsewhere=elsewhere)


def _check_lease(seconds: Any) -> None:
    if isinstance(seconds, bool) or not isinstance(seconds, Real) or not 1 <= float(seconds) <= 86400:
        raise PlanError(f"lease_seconds must be a number from 1 to 86400 (one day), got {seconds!r}")
