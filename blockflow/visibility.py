"""Visibility of outputs: what workers write must be seen by others, or the run is refused before it starts.

1. Known places are decided by what they are (:mod:`blockflow.arrays.stores`): files and shared memory are seen, plain
   memory is not, zip files and uncommitted sessions are not written by several processes.
2. A zarr store of an unknown kind is tried: this process stores a random key, and a worker process reads it.
"""

from __future__ import annotations

import os
import secrets
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from blockflow.driving import run_in_processes
from blockflow.errors import ArrayNotFoundError, NotShippableError, PlanError
from blockflow.monitor.progress import make_display
from blockflow.plan.grid import Grid
from blockflow.plan.launcher import is_local
from blockflow.plan.plan import Plan, compile_plan
from blockflow.plan.task import Task
from blockflow.result import result_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blockflow.plan.block import Block

__all__ = ["check_visible", "try_stores"]

_INSTEAD = (
    "give blocks a zarr array on disk (blockflow.arrays.prepare_ds), a memory map or a SharedArray to write, let "
    "map_blocks do it, or run in this process with multiprocessing=False"
)


def check_visible(plan: Plan) -> None:
    """Refuse a plan whose workers would write where no other process sees it.

    Args:
        plan: What worker processes are to run.

    Raises:
        PlanError: Says which output, and what to use instead; nothing has run.
    """
    outputs = []
    for planned in plan.tasks:
        remote = not is_local(planned.launchers)
        for number, output in enumerate(planned.task.outputs):
            what = f"outputs[{number}] of task {planned.task_id!r}"
            _check_output(output, what, remote=remote)
            outputs.append((what, output))
    try_stores(outputs)


def try_stores(outputs: Iterable[tuple[str, Any]]) -> None:
    """Store a random key in each store of an unknown kind, and have another process read it.

    Args:
        outputs: What is to be written, with a name for messages. Everything but zarr arrays is passed over.

    Raises:
        PlanError: The other process does not find the key.
    """
    from blockflow.arrays.stores import is_zarr, reach_of

    for what, output in outputs:
        data = _base(output)
        if is_zarr(data) and reach_of(data.store).kind == "unknown":
            _try_store(what, data)


def _check_output(output: Any, what: str, *, remote: bool) -> None:
    """Refuse an output that is known not to be seen by others."""
    if isinstance(output, str | os.PathLike):
        return
    from blockflow.arrays.handles import memmap_handle
    from blockflow.arrays.shared import SharedArray
    from blockflow.arrays.stores import is_zarr, reach_of

    data = _base(output)
    if isinstance(data, SharedArray):
        if remote:
            raise PlanError(f"{what} is in shared memory of this machine, and workers are on others; {_INSTEAD}")
    elif isinstance(data, np.ndarray):
        if memmap_handle(data) is None:
            raise PlanError(
                f"{what} is an ndarray in the memory of this process, and workers would fill copies of it; {_INSTEAD}"
            )
    elif is_zarr(data):
        reach = reach_of(data.store)
        if reach.kind == "memory":
            raise PlanError(
                f"{what} is a zarr array in the memory of this process, and workers would fill copies of it; {_INSTEAD}"
            )
        if reach.kind in ("closed", "read only"):
            raise PlanError(f"{what} cannot be written by worker processes, got {data.store}: {reach.why}")
    elif not _is_on_disk(data):
        raise PlanError(
            f"{what} must be an array that other processes see, got {type(data).__module__}.{type(data).__name__}; "
            f"{_INSTEAD}"
        )


def _is_on_disk(data: Any) -> bool:
    """Whether this is a dataset of an HDF5 file; a block opens the file itself."""
    return type(data).__module__.startswith("h5py.") and data.file.driver != "core"


def _base(output: Any) -> Any:
    """What holds the voxels of an array, or of a part of one."""
    data = getattr(output, "data", output) if hasattr(output, "voxel_size") else output
    while hasattr(data, "ranges") and hasattr(data, "source"):
        data = data.source
    return data


def _try_store(what: str, array: Any) -> None:
    """Have a worker process read what this one stores.

    Raises:
        PlanError: It does not find it.
    """
    from zarr.buffer import default_buffer_prototype

    from blockflow.arrays.store_calls import wait_for
    from blockflow.arrays.stores import reach_of

    store, token = array.store, secrets.token_hex(16)
    key = "/".join(part for part in (array.path, f".blockflow-{token}") if part)
    refused = f"{what} is not seen by worker processes ({reach_of(store).why})"
    try:
        wait_for(store.set(key, default_buffer_prototype().buffer.from_bytes(token.encode())))
    except Exception as error:
        raise PlanError(f"{what} cannot be written: {type(error).__name__}: {error}") from error
    try:
        task = Task(
            "store_trial",
            grid=Grid.regular((1,), 1),
            process_function=partial(_find, store, key, token),
            max_retries=0,
        )
        scheduler, _ = run_in_processes(compile_plan([task]), make_display(progress=False), endpoint=None)
        result = result_of(scheduler)
    except NotShippableError as error:
        raise PlanError(f"{refused}: the store cannot be sent to them; {_INSTEAD}") from error
    finally:
        if store.supports_deletes:
            wait_for(store.delete(key))
    if not result:
        reason = result.causes[0].error if result.causes else "; ".join(result.problems)
        raise PlanError(
            f"{refused}: one of them was to find a key that was stored for a trial, and says {reason}; {_INSTEAD}"
        )


def _find(store: Any, key: str, token: str, block: Block) -> None:
    """Find a key that another process has stored."""
    from zarr.buffer import default_buffer_prototype

    from blockflow.arrays.store_calls import wait_for

    found = wait_for(store.get(key, default_buffer_prototype()))
    if found is None or found.to_bytes() != token.encode():
        raise ArrayNotFoundError("the key is not there")
