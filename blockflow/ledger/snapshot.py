"""How does the history of a run become a zarr group that anybody can open and look at?

``ledger.zarr`` is a plain zarr v3 group. ``tasks/<task>/`` holds three arrays over the grid of blocks: ``state`` (see
:class:`~blockflow.scheduler.block_states.BlockState`), ``attempts`` and ``seconds`` (how long a block took). One block
is one voxel; offset and voxel size in the attributes put it where the block writes. ``notes`` holds what has no place
in such arrays, as records. The attributes of the root say up to which record all of this goes, and for which plan.

The format is written here, byte for byte, because a few JSON files and gzip are all of it, because each step must be
durable before the next, and because drivers start faster without zarr. A new snapshot takes the place of the old one:

1. It is written beside it, the document of its root last: without that it does not count.
2. When all of it is durable, the old one is renamed, then the new one gets its place.
3. What is old is removed. Whoever looks in between finds one of them (:func:`find_snapshot`), and both are true:
   records have numbers, and those that a snapshot holds are not replayed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec
import numpy as np

from blockflow.errors import DamagedLedgerError, LedgerError, LedgerVersionError
from blockflow.ledger.chunks import DTYPES, Chunks, compress, decompress
from blockflow.ledger.identity import PlanIdentity  # noqa: TC001, msgspec reads the annotations
from blockflow.ledger.records import decode_records, encode_records, join_records
from blockflow.scheduler.block_states import BlockState

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from blockflow.ledger.disk import Disk
    from blockflow.ledger.identity import TaskIdentity
    from blockflow.ledger.records import Record

PLACE = "ledger.zarr"
VERSION = 2
"""Of the format of snapshots. The first one, of 0.1.0, did not name its run."""

_NEW = "ledger.zarr.new-"
_OLD = "ledger.zarr.old"
_ROOT = "zarr.json"
_NOTES = "notes"


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotContents:
    """All that is in a snapshot but the blocks."""

    sequence: int
    """Number of the last record in it."""
    run: str
    """Id of the run."""
    plan: PlanIdentity
    notes: list[Record]
    """What :meth:`Changes.notes` says."""


class _Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What the attributes of the root say."""

    version: int
    sequence: int
    """Number of the last record that is in the snapshot."""
    run: str
    """Id of the run."""
    plan: PlanIdentity
    notes: int
    """Bytes of the notes."""
    chunks: dict[str, int]
    """By task: number of chunks of which anything is known."""


class _Version(msgspec.Struct, frozen=True):
    version: int


_Said = TypeVar("_Said")


class _Attributes(msgspec.Struct, Generic[_Said], frozen=True):
    blockflow: _Said


class _Root(msgspec.Struct, Generic[_Said], frozen=True):
    attributes: _Attributes[_Said]


def find_snapshot(disk: Disk) -> Snapshot | None:
    """The snapshot that counts; None if there is none yet.

    Raises:
        DamagedLedgerError: It is damaged.
        LedgerVersionError: Another version of blockflow wrote it.
    """
    folder = _find(disk)
    return None if folder is None else Snapshot(disk, folder, _read_root(disk, f"{folder}/{_ROOT}"))


class Snapshot:
    """A snapshot to be read.

    Args:
        disk: The run directory.
        folder: Of the zarr group.
        contents: What the root says about it.
    """

    def __init__(self, disk: Disk, folder: str, contents: _Contents) -> None:
        self._disk = disk
        self._folder = folder
        self._contents = contents
        self.sequence = contents.sequence
        """Number of the last record that is in the snapshot."""
        self.run = contents.run
        """Id of the run."""
        self.plan = contents.plan

    def notes(self) -> list[Record]:
        """What :meth:`Changes.notes` said when the snapshot was made."""
        if not self._contents.notes:
            return []
        path = f"{self._folder}/{_NOTES}/c.0"
        try:
            return decode_records(decompress(self._disk.read(path), path))
        except LedgerError as error:
            raise DamagedLedgerError(f"{path} is damaged: {error}") from None

    def chunks(self, task: TaskIdentity, chunks: Chunks) -> list[int]:
        """Numbers of the chunks of which anything is known.

        Raises:
            DamagedLedgerError: Some that were written are not there.
        """
        folder = self._path(task, "state")
        there = set(self._disk.names(folder))
        found = [number for number in range(len(chunks.edges)) if chunks.key(number) in there]
        expected = self._contents.chunks.get(task.task_id, 0)
        if len(found) != expected:
            raise DamagedLedgerError(f"{folder} is damaged: {len(found)} chunks are there in place of {expected}")
        return found

    def encoded(self, task: TaskIdentity, name: str, key: str) -> bytes:
        """A chunk as it is in its file."""
        return self._disk.read(f"{self._path(task, name)}/{key}")

    def values(self, task: TaskIdentity, chunks: Chunks, name: str, number: int) -> npt.NDArray[Any]:
        """The values of the blocks in a chunk."""
        key = chunks.key(number)
        return chunks.decode(self.encoded(task, name, key), name, number, f"{self._path(task, name)}/{key}")

    def _path(self, task: TaskIdentity, name: str) -> str:
        return f"{self._folder}/{task_folder(task.task_id)}/{name}"


def draft_snapshot(
    disk: Disk,
    epoch: int,
    contents: SnapshotContents,
    blocks: Iterable[Iterable[tuple[int, dict[str, bytes]]]],
) -> None:
    """Write a snapshot beside the one that counts.

    Args:
        disk: The run directory.
        epoch: Of this driver; the draft is its own.
        contents: All but the blocks.
        blocks: For each task its chunks in any order: their number, and each array as bytes.

    Raises:
        OSError: It could not be written; the one before still counts.
    """
    new = f"{_NEW}{epoch}"
    disk.remove(new)
    written = {}
    for task, chunks in zip(contents.plan.tasks, blocks, strict=True):
        written[task.task_id] = _write_task(disk, new, task, chunks)
    _write_group(disk, f"{new}/tasks", {})
    notes = join_records(encode_records(contents.notes)) if contents.notes else b""
    if notes:
        disk.write(f"{new}/{_NOTES}/c.0", compress(notes))
    _write_array(disk, f"{new}/{_NOTES}", "<u1", (len(notes),), (max(1, len(notes)),), {})
    root = _Contents(
        version=VERSION,
        sequence=contents.sequence,
        run=contents.run,
        plan=contents.plan,
        notes=len(notes),
        chunks=written,
    )
    _write_group(disk, new, {"blockflow": root})
    disk.sync("")


def place_snapshot(disk: Disk, epoch: int) -> None:
    """Put a draft in the place of the snapshot that counts.

    This is for the owner to do, and fails for anybody else: who takes over removes all drafts.

    Raises:
        OSError: There is no such draft, or it could not be renamed.
    """
    if disk.names(PLACE):
        disk.remove(_OLD)
        disk.rename(PLACE, _OLD)
        disk.sync("")
    disk.rename(f"{_NEW}{epoch}", PLACE)
    disk.sync("")
    disk.remove(_OLD)


def settle_snapshot(disk: Disk, epoch: int) -> None:
    """Finish or undo what this driver and those before it have begun.

    Args:
        disk: The run directory.
        epoch: Of this driver; drafts of later ones, who may have taken over meanwhile, are left alone.
    """
    folder = _find(disk)
    if folder not in (None, PLACE) and _epoch_of(folder) <= epoch:
        disk.sync(folder)  # its root may have been written by a driver that was killed just then
        disk.rename(folder, PLACE)
        disk.sync("")
    for name in disk.names(""):
        if name == _OLD or (name.startswith(_NEW) and _epoch_of(name) <= epoch):
            disk.remove(name)


def remove_snapshots(disk: Disk) -> None:
    """Remove all that there are."""
    for name in disk.names(""):
        if name.startswith(_NEW) or name in (_OLD, PLACE):
            disk.remove(name)


def _find(disk: Disk) -> str | None:
    """The folder of the snapshot that counts: drafts count if they are whole, and the place is empty."""
    names = disk.names("")
    if PLACE in names:
        return PLACE
    drafts = sorted((name for name in names if name.startswith(_NEW)), key=_epoch_of)
    for folder in (*reversed(drafts), _OLD):
        if folder in names and _ROOT in disk.names(folder):
            return folder
    return None


def _epoch_of(folder: str) -> int:
    """Epoch of the driver that wrote a draft; 0 for other folders."""
    epoch = folder.removeprefix(_NEW)
    return int(epoch) if epoch.isdecimal() else 0


def task_folder(task_id: str) -> str:
    """Where the arrays of a task are in a snapshot; names that zarr keeps for itself get a sign in front.

    >>> task_folder("smooth"), task_folder("__smooth")
    ('tasks/smooth', 'tasks/%__smooth')
    """
    reserved = task_id.startswith(("__", "%")) or task_id == _ROOT
    return f"tasks/{'%' if reserved else ''}{task_id}"


def _write_task(disk: Disk, new: str, task: TaskIdentity, chunks: Iterable[tuple[int, dict[str, bytes]]]) -> int:
    grid = task.grid
    layout = Chunks(grid.shape)
    # Balanced blocks differ a little: each is drawn as large as the largest.
    voxel_size = [axis.template.write_end - axis.template.write_begin for axis in grid.axes]
    attributes = {"offset": [axis.begin for axis in grid.axes], "voxel_size": voxel_size, "resolution": voxel_size}
    folder = f"{new}/{task_folder(task.task_id)}"
    count = 0
    for number, arrays in chunks:
        count += 1
        for name, data in arrays.items():
            disk.write(f"{folder}/{name}/{layout.key(number)}", data)
    states = {state.name.lower(): int(state) for state in BlockState}
    for name, dtype in DTYPES.items():
        said = {**attributes, "states": states} if name == "state" else attributes
        _write_array(disk, f"{folder}/{name}", dtype, grid.shape, layout.shape, said)
    _write_group(disk, folder, {"task_id": task.task_id})
    return count


def _write_array(
    disk: Disk,
    path: str,
    dtype: str,
    shape: tuple[int, ...],
    chunk: tuple[int, ...],
    attributes: dict[str, Any],
) -> None:
    kind = np.dtype(dtype)
    little = {"configuration": {"endian": "little"}} if kind.itemsize > 1 else {}
    _write_root(
        disk,
        path,
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": shape,
            "data_type": kind.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "fill_value": 0,
            "codecs": [{"name": "bytes", **little}, {"name": "gzip", "configuration": {"level": 1}}],
            "attributes": attributes,
        },
    )


def _write_group(disk: Disk, path: str, attributes: dict[str, Any]) -> None:
    _write_root(disk, path, {"zarr_format": 3, "node_type": "group", "attributes": attributes})


def _write_root(disk: Disk, path: str, document: dict[str, Any]) -> None:
    disk.write(f"{path}/{_ROOT}", msgspec.json.format(msgspec.json.encode(document), indent=1))
    disk.sync(path)


def _read_root(disk: Disk, path: str) -> _Contents:
    try:
        data = disk.read(path)
        version = msgspec.json.decode(data, type=_Root[_Version]).attributes.blockflow.version
        if version != VERSION:
            raise LedgerVersionError(
                f"{path} has format {version}, this blockflow reads {VERSION}: go on with the version that wrote it"
            )
        return msgspec.json.decode(data, type=_Root[_Contents]).attributes.blockflow
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DamagedLedgerError(f"{path} is damaged, it is not what blockflow writes: {error}") from None
