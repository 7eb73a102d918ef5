"""Opening of the ledger of a run, bound to the arrays that its blocks read and write.

A run directory says which blocks are done. That is true of the arrays that these blocks have read and written, and of
no others. So the arrays are identified when a run begins (:mod:`blockflow.arrays.identity`), what is written is marked,
and a run that comes back with other arrays is refused. All of it is done once, at the front door.
"""

from __future__ import annotations

import logging
import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import structs

from blockflow.background import BackgroundCall
from blockflow.errors import PlanChangedError, PlanError
from blockflow.monitor.silence import SilenceTeller

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blockflow.ledger.run_ledger import RunLedger
    from blockflow.ledger.store import TaskCode
    from blockflow.plan.bindings import ArrayIdentity, TaskArrays
    from blockflow.plan.plan import Plan
    from blockflow.plan.task import Task

__all__ = ["check_outputs", "open_ledger"]

_LOGGER = logging.getLogger("blockflow")

LOOK_SECONDS = 1.0
"""How often it is looked whether the disk of a run directory has answered."""

_MASK_BYTES = 2**28
"""Flags of blocks are looked at as a whole."""


def open_ledger(
    run_dir: str | os.PathLike[str],
    plan: Plan,
    *,
    reset: bool = False,
    retry_failed: bool = False,
    accept_change: bool = False,
    take_over: bool = False,
    rerun_older: bool = False,
) -> RunLedger:
    """Open the ledger of a run, and bind its directory to the arrays of the plan.

    Args:
        run_dir: Made if it is not there.
        plan: Of the run.
        reset: As for :func:`blockflow.run_blockwise`, like all that follow.
        retry_failed: Try blocks again that have failed for good.
        accept_change: Keep what is done, although blocks or arrays are others.
        take_over: The driver that seems to be at work there is certainly dead.
        rerun_older: Do blocks again that were done by another version of the code.

    Raises:
        PlanError: Options that contradict one another.
        LedgerError: The run directory cannot be used.
        ArrayNotFoundError: An array is gone.
    """
    from blockflow.ledger.run_ledger import RunLedger
    from blockflow.ledger.rundir import open_run

    if reset and (retry_failed or accept_change):
        raise PlanError("reset forgets everything that happened, so retry_failed and accept_change have no meaning")
    arrays = _arrays_of(plan)
    codes = [_code_of(planned.task) for planned in plan.tasks]

    def open_and_bind() -> RunLedger:
        store = open_run(run_dir, plan, reset=reset, accept_change=accept_change, take_over=take_over, arrays=arrays)
        try:
            store.bind([_marked(planned.task, known) for planned, known in zip(plan.tasks, arrays, strict=True)])
            ledger = RunLedger(store, retry_failed=retry_failed)
            ledger.set_codes(plan, codes, rerun_older=rerun_older)
        except BaseException:
            store.close()
            raise
        return ledger

    return _answered(BackgroundCall(open_and_bind, name="blockflow-open"), os.fspath(run_dir))


def _code_of(task: Task) -> TaskCode:
    """The code of a task, as it is now; of a map, that of its function."""
    from blockflow.ledger.code_digest import code_digest, environment
    from blockflow.ledger.store import TaskCode

    setup: Any = task.setup
    if isinstance(setup, partial):
        jobs = [each for each in setup.args if hasattr(type(each), "__blockflow_code__")]
        setup = jobs or setup  # where a map keeps its results is no code
    digest = code_digest(task.process_function, setup, task.teardown)
    return TaskCode(digest=digest, name=_name_of(task), environment=environment())


def _name_of(task: Task) -> str:
    """The name of the user's function."""
    called: Any = task.process_function
    if isinstance(task.setup, partial):  # of a map, which brings its function in a job
        called = next((each.function for each in task.setup.args if hasattr(each, "function")), called)
    while isinstance(called, partial):
        called = called.func
    return str(getattr(called, "__name__", type(called).__name__))


def _answered(call: BackgroundCall[RunLedger], run_dir: str) -> RunLedger:
    """Wait for the opening of a ledger, and say so if its disk does not answer; Ctrl-C leaves at once."""
    silence = SilenceTeller(("run directory", run_dir))
    began = time.monotonic()
    try:
        while not call.wait(LOOK_SECONDS):
            for line in silence.lines(time.monotonic() - began):
                _LOGGER.warning("%s", line)
    except BaseException:
        call.abandon(lambda ledger: ledger.close())
        raise
    return call.result()


def check_outputs(run_dir: str | os.PathLike[str] | None, outputs: Sequence[Any]) -> None:
    """Refuse outputs that would have to be made anew although their blocks are done, before they are made.

    Args:
        run_dir: Of the run; None if there is none.
        outputs: Arrays, or paths at which one may be.

    Raises:
        PlanChangedError: An output is not there, and blocks are done.
    """
    if run_dir is None or not os.path.isdir(run_dir):
        return
    paths = [Path(each) for each in outputs if isinstance(each, str | os.PathLike)]
    missing = [path for path in paths if not any(each.exists() for each in (path, _file_around(path)))]
    if not missing:
        return
    from blockflow.errors import RunDirectoryError
    from blockflow.ledger.reading import Ledger

    try:
        ledger = Ledger.open(run_dir)
    except RunDirectoryError:
        return  # the run says what is wrong with it
    done = {task: count for task in ledger.task_ids if (count := ledger.counts(task)["done"])}
    for task, count in done.items():
        raise PlanChangedError(
            f"{os.fspath(run_dir)} says that {count} blocks of task {task!r} are done, and their output is not there: "
            f"there is nothing at {missing[0]}. Put it back, or use another run directory, or reset=True to "
            "start over"
        )


def _file_around(path: Path) -> Path:
    """The file that a path leads into, as those of HDF5 datasets do; the path itself if there is none."""
    return next((parent for parent in path.parents if parent.is_file()), path)


def _arrays_of(plan: Plan) -> list[TaskArrays]:
    """The arrays of all tasks."""
    from blockflow.plan.bindings import TaskArrays

    outputs = [tuple(_identity(each.array) for each in planned.task.stored_outputs) for planned in plan.tasks]
    written = [identity for of_task in outputs for identity in of_task]
    return [
        TaskArrays(
            task_id=planned.task_id,
            outputs=of_task,
            inputs=tuple(_input(array, written) for array in _read_by(planned.task)),
            mask=None if planned.task.mask is None else _mask(planned.task.mask, written),
        )
        for planned, of_task in zip(plan.tasks, outputs, strict=True)
    ]


def _read_by(task: Task) -> list[Any]:
    return [*(each.array for each in task.stored_inputs), *task.also_read]


def _identity(array: Any) -> ArrayIdentity:
    from blockflow.arrays.identity import identify

    return identify(array)


def _marked(task: Task, known: TaskArrays) -> TaskArrays:
    """The arrays of a task, when outputs that had no mark have got one."""
    if not known.outputs:
        return known
    from blockflow.arrays.identity import mark

    return structs.replace(known, outputs=tuple(mark(each.array) for each in task.stored_outputs))


def _input(array: Any, written: Sequence[ArrayIdentity]) -> ArrayIdentity:
    """The identity of what is read: with a sample, unless blocks of the same run write it."""
    from blockflow.arrays.identity import identify, same_array, sampled

    found = identify(array)
    return found if any(same_array(found, each) for each in written) else sampled(array)


def _mask(mask: Any, written: Sequence[ArrayIdentity]) -> ArrayIdentity:
    if all(hasattr(mask, name) for name in ("roi", "voxel_size", "to_ndarray")):
        return _input(mask, written)
    import numpy as np

    from blockflow.arrays.identity import sampled

    return sampled(np.asarray(mask), most=_MASK_BYTES)
