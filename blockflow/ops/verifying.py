"""Verification of a run: are the chunks there that blocks which are done have stored?

1. The keys of every output are listed; nothing is read.
2. For every block, the chunks (shards, if there are any) that it touches and that are there are counted: with one
   summed-area table over the chunk grid, and 2^n look-ups for each block.
3. A block that has stored more chunks than are there has lost some. Chunks in which every voxel has the fill value are
   not stored at all. So of a block whose chunks were not counted only that can be said: some are not there.
4. Files of no bytes cannot be read; with `read`, every chunk is read.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from blockflow.errors import ArrayError, DamagedLedgerError, PlanChangedError, RunDirectoryError
from blockflow.ledger import layout
from blockflow.ledger import records as rec
from blockflow.ledger.disk import LocalDisk
from blockflow.ledger.reading import Ledger
from blockflow.ledger.rundir import reopen_run
from blockflow.plan.flags import check_flags
from blockflow.scheduler.block_states import BlockState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from blockflow.ledger.bound_arrays import RunArrays
    from blockflow.ledger.identity import TaskIdentity
    from blockflow.ledger.store import RunStore
    from blockflow.plan.bindings import ArrayIdentity
    from blockflow.plan.grid import Grid

__all__ = ["Verification", "VerifiedTask", "verify"]

_SHOWN = 10
"""Blocks that are named of each kind."""

_THREADS = 8
"""Chunks that are read at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedTask:
    """What was found out about the blocks of a task that are done."""

    task_id: str
    done: int
    """How many there are."""
    missing: dict[int, int] = field(default_factory=dict)
    """By index of a block: how many of the chunks that it has stored are not there."""
    unreadable: dict[int, str] = field(default_factory=dict)
    """By index of a block: what is wrong with a chunk that it has stored."""
    uncounted: int = 0
    """Blocks that touch chunks which are not there, and of which nobody knows how many they have stored."""
    unchecked: tuple[str, ...] = ()
    """Outputs that could not be looked at, and why."""

    @property
    def wrong(self) -> list[int]:
        """Indices of the blocks that have to be done again, ascending."""
        return sorted(self.missing.keys() | self.unreadable.keys())


@dataclass(frozen=True, slots=True)
class Verification:
    """What :func:`verify` has found; true if nothing is missing or unreadable."""

    run_dir: str
    tasks: tuple[VerifiedTask, ...]
    requeued: bool

    def __bool__(self) -> bool:
        return not any(task.wrong for task in self.tasks)

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> Iterator[str]:
        """The findings as text: blocks that are wrong, and a table."""
        for task in self.tasks:
            for index in task.wrong[:_SHOWN]:
                found = []
                if index in task.missing:
                    count = task.missing[index]
                    found.append(f"{count} chunk{'s are' if count > 1 else ' is'} missing")
                if index in task.unreadable:
                    found.append(task.unreadable[index])
                yield f"block {index} of task {task.task_id!r}: {'; '.join(found)}"
            if len(task.wrong) > _SHOWN:
                yield f"... and {len(task.wrong) - _SHOWN} more blocks of task {task.task_id!r}"
            for reason in task.unchecked:
                yield f"task {task.task_id!r}: not checked: {reason}"
            if task.uncounted:
                yield (
                    f"task {task.task_id!r}: {task.uncounted} blocks touch chunks that are not there, and nobody has "
                    "counted what they have stored: these may be empty on purpose"
                )
        width = max((len(task.task_id) for task in self.tasks), default=4)
        yield f"{'task':<{width}} {'done':>10} {'missing':>10} {'unreadable':>10} {'uncounted':>10}"
        for task in self.tasks:
            numbers = (task.done, len(task.missing), len(task.unreadable), task.uncounted)
            yield f"{task.task_id:<{width}} {' '.join(f'{number:>10}' for number in numbers)}"
        wrong = sum(len(task.wrong) for task in self.tasks)
        if wrong and self.requeued:
            yield f"{wrong} blocks were put back, and are done again when the run goes on"
        elif wrong:
            yield f"{wrong} blocks are to be done again: requeue=True (blockflow verify --requeue) puts them back"


def verify(
    run_dir: str | os.PathLike[str], *, read: bool = False, requeue: bool = False, take_over: bool = False
) -> Verification:
    """Find out whether the chunks are there that the blocks of a run have stored.

    >>> import tempfile
    >>> import numpy as np
    >>> from blockflow.ops import map_blocks
    >>> folder = tempfile.TemporaryDirectory()
    >>> run, options = f"{folder.name}/run", {"grid": 2, "num_workers": 0, "progress": False}
    >>> _ = map_blocks(np.negative, np.arange(1, 5), out=f"{folder.name}/a.zarr", run_dir=run, **options)
    >>> bool(verify(run))
    True
    >>> os.unlink(f"{folder.name}/a.zarr/c/1")
    >>> verify(run).tasks[0].missing
    {1: 1}
    >>> folder.cleanup()

    Args:
        run_dir: Of the run.
        read: Read every chunk as well; else only keys are listed, and sizes of files looked at.
        requeue: Put blocks back whose chunks are missing or unreadable: the run does them again when it goes on. No
            driver may be at work then.
        take_over: The driver that seems to be at work in the run directory is certainly dead.

    Returns:
        The findings, of each task.

    Raises:
        PlanChangedError: An output is gone, or was made again.
        DriverAliveError: A driver is at work, and blocks are to be put back.
        LedgerError: The run directory cannot be read.
    """
    check_flags(read=read, requeue=requeue, take_over=take_over)
    ledger = Ledger.open(run_dir)
    if not requeue:
        return Verification(os.fspath(run_dir), _verified(run_dir, ledger, read=read), requeued=False)
    store = reopen_run(run_dir, take_over=take_over)
    try:
        tasks = _verified(run_dir, ledger, read=read)
        _put_back(store, tasks)
    finally:
        store.close()
    return Verification(os.fspath(run_dir), tasks, requeued=True)


def _put_back(store: RunStore, tasks: Sequence[VerifiedTask]) -> None:
    records = [
        rec.BlocksRequeued(number, runs)
        for number, task in enumerate(tasks)
        for runs in rec.runs_of(np.array(task.wrong, dtype=np.int64))
    ]
    if records:
        store.append(records)
        store.commit()


def _verified(run_dir: str | os.PathLike[str], ledger: Ledger, *, read: bool) -> tuple[VerifiedTask, ...]:
    disk = LocalDisk(Path(run_dir).absolute())
    plan, arrays = layout.read_plan(disk), layout.read_arrays(disk)
    if plan is None:
        return ()
    if arrays is None:
        raise DamagedLedgerError(f"{os.fspath(run_dir)} does not say which arrays its blocks write")
    known = {task.task_id: task.outputs for task in arrays.tasks}
    return tuple(
        _verified_task(task, ledger, known.get(task.task_id, ()), arrays, os.path.realpath(run_dir), read=read)
        for task in plan.tasks
    )


def _verified_task(
    task: TaskIdentity,
    ledger: Ledger,
    outputs: Sequence[ArrayIdentity],
    arrays: RunArrays,
    here: str,
    *,
    read: bool,
) -> VerifiedTask:
    done = ledger.states(task.task_id).ravel() == BlockState.DONE
    stored = ledger.stored(task.task_id).ravel()
    grid = task.grid
    present, touched, bad = (np.zeros(grid.size, dtype=np.int64) for _ in range(3))
    unchecked, reasons = [], []
    if not outputs:
        unchecked.append("the run was not told which arrays its blocks write (Task(outputs=...))")
    for identity in outputs if done.any() else ():
        if identity.kind != "zarr":
            unchecked.append(f"{identity.place or 'an array in memory'} has no chunks of its own")
            continue
        found = _look_at(identity, _opened(identity, arrays.directory, here), read=read)
        spans = _spans(grid, identity, found.there.shape)
        present += _counted(found.there, spans)
        touched += found.channels * _sizes(spans)
        if found.bad:
            wrong = np.zeros(found.there.shape, dtype=np.int64)
            for unit in found.bad:
                wrong[unit] = 1
            bad += _counted(wrong, spans)
            reasons.append((found.bad, spans))
    lost = np.flatnonzero(done & (stored > present))
    unreadable = {int(index): _reason(int(index), grid, reasons) for index in np.flatnonzero(done & (bad > 0))}
    return VerifiedTask(
        task_id=task.task_id,
        done=int(done.sum()),
        missing=dict(zip(lost.tolist(), (stored - present)[lost].tolist(), strict=True)),
        unreadable=unreadable,
        uncounted=int((done & (stored < 0) & (present < touched)).sum()),
        unchecked=tuple(unchecked),
    )


# -------------------------------------------------------------------------------------------------------------- chunks


class _Found(NamedTuple):
    """The units of an output that are there: shards if it has any, else chunks."""

    there: NDArray[np.int64]
    """Over the spatial axes of the grid of units: how many of all channels are there."""
    channels: int
    """Units along the channel axes."""
    bad: dict[tuple[int, ...], str]
    """By position on the spatial axes: what is wrong with a unit."""


def _opened(identity: ArrayIdentity, directory: str, here: str) -> Any:
    """An output, where it is now.

    Raises:
        PlanChangedError: It is gone, or another array is there.
    """
    import zarr

    from blockflow.arrays.identity import identify

    place = identity.place
    if os.path.isabs(place) and not os.path.isdir(place):  # it may have moved together with the run directory
        place = os.path.normpath(os.path.join(here, os.path.relpath(place, directory)))
    try:
        array = zarr.open_array(place, mode="r")
        now = identify(array)
    except (FileNotFoundError, KeyError) as error:
        raise PlanChangedError(
            f"the output {identity.place} is gone: put it back, or run the same again with reset=True"
        ) from error
    if (now.uid, now.shape, now.layout) != (identity.uid, identity.shape, identity.layout):
        raise PlanChangedError(
            f"the output {place} was deleted and made again, or is another array: put back the one that the blocks "
            "have written, or run the same again with reset=True"
        )
    return array


def _look_at(identity: ArrayIdentity, array: Any, *, read: bool) -> _Found:
    unit = tuple(array.shards or array.chunks)
    counts = tuple(-(-extent // along) for extent, along in zip(array.shape, unit, strict=True))
    dims = array.ndim if identity.voxel_size is None else len(identity.voxel_size)
    spatial = array.ndim - dims
    there = np.zeros(counts, dtype=bool)
    bad: dict[tuple[int, ...], str] = {}
    for position, size in _keys(array):
        if len(position) == len(counts) and all(at < count for at, count in zip(position, counts, strict=True)):
            there[position] = True
            if size == 0:
                bad.setdefault(position[spatial:], f"the file of chunk {_name(array, position)} is empty")
    if read:
        for position, error in _read_all(array, unit, zip(*(axis.tolist() for axis in there.nonzero()), strict=True)):
            bad.setdefault(position[spatial:], f"chunk {_name(array, position)} cannot be read ({error})")
    summed = there.sum(axis=tuple(range(spatial)), dtype=np.int64)
    return _Found(summed, prod(counts[:spatial]), bad)


def _name(array: Any, position: tuple[int, ...]) -> str:
    return f"{array.path}/{array.metadata.encode_chunk_key(position)}".lstrip("/")


def _keys(array: Any) -> Iterator[tuple[tuple[int, ...], int | None]]:
    """The positions of all chunks (shards) that are there, and the sizes of their files if that is known."""
    from zarr.storage import LocalStore

    if isinstance(array.store, LocalStore):
        root = os.path.join(array.store.root, array.path)
        for inside, size in _files_below(root, ""):
            position = _position(inside)
            if position is not None:
                yield position, size
        return
    from zarr.core.sync import sync

    async def listed() -> list[str]:
        return [key async for key in array.store.list_prefix(f"{array.path}/" if array.path else "")]

    for key in sync(listed()):
        position = _position(key.removeprefix(array.path).strip("/"))
        if position is not None:
            yield position, None


def _files_below(folder: str, inside: str) -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=True):
                yield from _files_below(entry.path, f"{inside}{entry.name}/")
            else:
                yield f"{inside}{entry.name}", entry.stat().st_size


def _position(key: str) -> tuple[int, ...] | None:
    """The position that a key means: ``c/1/2``, ``c.1.2``, ``1/2`` or ``1.2``; None for other keys."""
    parts = key.replace("/", ".").split(".")
    if parts[0] == "c":
        del parts[0]
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else None


def _read_all(
    array: Any, unit: tuple[int, ...], positions: Iterable[tuple[int, ...]]
) -> Iterator[tuple[tuple[int, ...], str]]:
    """Read chunks (shards); gives those that cannot be read, and why."""

    def read(position: tuple[int, ...]) -> tuple[tuple[int, ...], str] | None:
        try:
            array[tuple(slice(at * along, (at + 1) * along) for at, along in zip(position, unit, strict=True))]
        except Exception as error:
            return position, f"{type(error).__name__}: {error}".splitlines()[0][:200]
        return None

    with ThreadPoolExecutor(_THREADS) as threads:
        yield from filter(None, threads.map(read, positions))


# -------------------------------------------------------------------------------------------------------------- blocks


def _spans(grid: Grid, identity: ArrayIdentity, counts: tuple[int, ...]) -> list[tuple[Any, Any]]:
    """For each axis, the first unit that the block at each position touches, and the one behind the last."""
    dims = len(grid.axes)
    unit = (identity.shards or identity.chunks or identity.shape)[-dims:]
    voxel_size = identity.voxel_size or (1,) * dims
    offset = identity.offset or (0,) * dims
    begins = [0] * dims if identity.part is None else [part[0] for part in identity.part[-dims:]]
    if len(unit) != dims or len(counts) != dims:
        raise ArrayError(f"the output {identity.place} has not the axes of the blocks")
    spans = []
    for axis, along, size, low, first, count in zip(grid.axes, unit, voxel_size, offset, begins, counts, strict=True):
        positions = np.arange(axis.count, dtype=np.int64)
        origin, extent = low - first * size, along * size
        start = np.clip((axis.write_begin(positions) - origin) // extent, 0, count)
        stop = np.clip(-((origin - axis.write_end(positions)) // extent), 0, count)
        spans.append((start, np.maximum(start, stop)))
    return spans


def _counted(units: NDArray[Any], spans: Sequence[tuple[Any, Any]]) -> NDArray[np.int64]:
    """For each block, the sum over the units that it touches (Crow's summed-area table)."""
    table = np.zeros([extent + 1 for extent in units.shape], dtype=np.int64)
    table[(slice(1, None),) * units.ndim] = units
    for axis in range(units.ndim):
        np.cumsum(table, axis=axis, out=table)
    found = np.zeros([len(start) for start, _ in spans], dtype=np.int64)
    for corner in product((0, 1), repeat=len(spans)):
        sign = (-1) ** (len(corner) - sum(corner))
        found += sign * table[np.ix_(*(ends[at] for ends, at in zip(spans, corner, strict=True)))]
    return found.ravel()


def _sizes(spans: Sequence[tuple[Any, Any]]) -> NDArray[np.int64]:
    """For each block, how many units it touches."""
    sizes = np.ones(1, dtype=np.int64)
    for start, stop in spans:
        sizes = np.multiply.outer(sizes, stop - start).ravel()
    return sizes


def _reason(index: int, grid: Grid, found: Sequence[tuple[dict[tuple[int, ...], str], Sequence[Any]]]) -> str:
    """What is wrong with one of the chunks that a block touches."""
    position = grid.position(index)
    for bad, spans in found:
        for unit, reason in bad.items():
            if all(start[at] <= here < stop[at] for here, at, (start, stop) in zip(unit, position, spans, strict=True)):
                return reason
    raise AssertionError("a block is wrong only if a chunk is")


def runs_below(place: str | os.PathLike[str]) -> list[Path]:
    """The run directory at a place, or those of an operation of several runs in it.

    Raises:
        RunDirectoryError: There is none.
    """
    path = Path(place)
    if (path / layout.FORMAT_FILE).is_file():
        return [path]
    found = sorted(each.parent for each in path.glob(f"*/{layout.FORMAT_FILE}"))
    if not found:
        raise RunDirectoryError(f"there is no run directory {path}")
    return found
