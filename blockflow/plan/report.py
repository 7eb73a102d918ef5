"""Reports: what would running a task mean, before anything runs?

How many blocks and of how many levels, how many of them at once, what is left out, how many bytes move and how many
of these are moved in vain, what one worker needs, and whether blocks would write into one chunk at once. Nothing here
looks at every block: a sum over all blocks is a product of one sum for each axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Literal

from blockflow.plan.alignment import Verdict, advice, verdict_on
from blockflow.plan.storage import lengths

if TYPE_CHECKING:
    from blockflow.plan.conflicts import Levels
    from blockflow.plan.storage import Stored, Unit
    from blockflow.plan.task import Task

__all__ = ["ArrayReport", "TaskReport", "report_on"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayReport:
    """What the blocks of a task do with one array; bytes are uncompressed."""

    name: str
    what: Literal["read", "write"]
    unit: Unit
    """What is moved as a whole."""
    asked_bytes: int
    """What all blocks ask for; where reads overlap it counts for each."""
    moved_bytes: int
    """The same in whole units, as far as they lie in the array: what a block takes in part is moved as a whole."""
    block_bytes: int
    """What the largest block asks for."""
    verdict: Verdict
    """Whether two blocks write into one unit: never, one after the other, or at once. Reads are "aligned" always."""
    advice: str = ""
    """Which blocks would be safe, if these are not."""

    @property
    def amplification(self) -> float:
        """How many times more is moved than is asked for; 1 if nothing is."""
        return self.moved_bytes / self.asked_bytes if self.asked_bytes else 1.0

    @property
    def account(self) -> str:
        """Verdict and amplification in words."""
        times = f"x {self.amplification:.2f}"
        if self.what == "read":
            return f"{times} by parts of {self.unit}s" if self.amplification > 1 else "aligned"
        return {
            "aligned": f"aligned: no two blocks share a {self.unit}",
            "in turn": f"{times}: blocks that share a {self.unit} run one after the other",
            "shared": f"REFUSED, blocks would write into one {self.unit} at once: {self.advice}",
        }[self.verdict]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReport:
    """What running a task would mean; ``str`` of it is a table."""

    task_id: str
    blocks: int
    shape: tuple[int, ...]
    """Blocks along each axis."""
    levels: int
    """Blocks of one level never conflict."""
    parallelism: int
    """No more blocks can run at once, however many workers there are."""
    num_workers: int
    dropped_voxels: int
    """Voxels (world units without a voxel size) that no block writes."""
    arrays: tuple[ArrayReport, ...]
    """Inputs, then outputs."""

    @property
    def bytes_read(self) -> int:
        """Bytes of inputs that move, uncompressed."""
        return sum(array.moved_bytes for array in self.arrays if array.what == "read")

    @property
    def bytes_written(self) -> int:
        """Bytes of outputs that move, uncompressed; what is read to complete a unit comes on top."""
        return sum(array.moved_bytes for array in self.arrays if array.what == "write")

    @property
    def worker_bytes(self) -> int:
        """What a worker holds of inputs and outputs for the largest block; its own computing comes on top."""
        return sum(array.block_bytes for array in self.arrays)

    @property
    def is_runnable(self) -> bool:
        """Whether there is any block, and no two would write into one chunk or shard at once."""
        return self.blocks > 0 and all(array.verdict != "shared" for array in self.arrays)

    def __str__(self) -> str:
        rows = [
            ("blocks", f"{self.blocks} = {' x '.join(map(str, self.shape))}"),
            (
                "levels",
                f"{self.levels}: at most {self.parallelism} blocks at once, num_workers={self.num_workers}",
            ),
            ("dropped voxels", str(self.dropped_voxels)),
        ]
        if self.arrays:
            rows += [
                ("bytes read", _bytes(self.bytes_read)),
                ("bytes written", _bytes(self.bytes_written)),
                ("memory", f"{_bytes(self.worker_bytes)} of arrays per worker"),
            ]
        rows += [(array.what, f"{array.name}: {_bytes(array.moved_bytes)}, {array.account}") for array in self.arrays]
        return "\n".join([f"task {self.task_id}", *(f"  {name:<17}{text}" for name, text in rows)])


def report_on(task: Task) -> TaskReport:
    """The report on a task."""
    grid, levels = task.grid, task.levels()
    arrays = [_report(task, levels, array, "read") for array in task.stored_inputs]
    arrays += [_report(task, levels, array, "write") for array in task.stored_outputs]
    return TaskReport(
        task_id=task.task_id,
        blocks=grid.size,
        shape=grid.shape,
        levels=levels.count if grid.size else 0,
        # Of blocks closer than the moduli no two run at once, and those of level 0 stand just that far apart.
        parallelism=prod(-(-extent // modulus) for extent, modulus in zip(levels.shape, levels.moduli, strict=True)),
        num_workers=task.num_workers,
        dropped_voxels=task.dropped_voxels(),
        arrays=tuple(arrays),
    )


def _report(task: Task, levels: Levels, array: Stored, what: Literal["read", "write"]) -> ArrayReport:
    read = what == "read"
    along = lengths(task.grid, array, read=read)
    verdict: Verdict = "aligned" if read else verdict_on(task.grid, levels, array)
    return ArrayReport(
        name=array.name.replace(f" of task {task.task_id!r}", ""),
        what=what,
        unit="chunk" if read and array.kind == "shard" else array.kind,
        asked_bytes=array.voxel_bytes * prod(axis.asked for axis in along),
        moved_bytes=array.voxel_bytes * prod(axis.moved for axis in along),
        block_bytes=array.voxel_bytes * prod(axis.longest for axis in along),
        verdict=verdict,
        advice=advice(task.grid, task.stored_outputs) if verdict == "shared" else "",
    )


def _bytes(count: int) -> str:
    """A number of bytes for people.

    >>> _bytes(999), _bytes(2**20 * 3 // 2)
    ('999 B', '1.5 MiB')
    """
    size, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.3g} {units[0]}"
