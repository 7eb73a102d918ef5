"""Which plan does a run directory belong to, and is this one the same?

The part of a plan that decides what a block *is*: regions, blocks, what waits for what. Functions, numbers of workers
and retries may change from one call to the next; these may not, because index 7 would be another block then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from blockflow.errors import DamagedLedgerError, GeometryError
from blockflow.geometry import box_of
from blockflow.plan.tiling import contexts_of, tile
from blockflow.wire.messages import AxisLayout, grid_of, layout_of

if TYPE_CHECKING:
    from blockflow.geometry import Box
    from blockflow.plan.grid import Grid
    from blockflow.plan.plan import Plan


class TaskIdentity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One task as plain data; boxes are (begin, end) per axis, world units, half-open."""

    task_id: str
    total_roi: tuple[tuple[int, int], ...]
    read_roi: tuple[tuple[int, int], ...]
    write_roi: tuple[tuple[int, int], ...]
    fit: Literal["valid", "overhang", "shrink"]
    read_write_conflict: bool
    upstream_tasks: tuple[str, ...]
    voxel_size: tuple[int, ...] | None
    axes: tuple[AxisLayout, ...] | None = None
    """The blocks of a task that was given a grid; ROIs do not say where these are cut."""

    @property
    def grid(self) -> Grid:
        """The blocks."""
        if self.axes is not None:
            return grid_of(self.axes)
        return tile(total=self.total_roi, read=self.read_roi, write=self.write_roi, fit=self.fit)

    @property
    def block(self) -> tuple[tuple[int, int, int], ...]:
        """Per axis: what a block writes, and its context in front and behind; wherever the template stands."""
        contexts = contexts_of(self.read_roi, self.write_roi)
        return tuple((end - begin, *context) for (begin, end), context in zip(self.write_roi, contexts, strict=True))


class PlanIdentity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All tasks, in the order of their numbers."""

    tasks: tuple[TaskIdentity, ...]


class PlanFile(PlanIdentity, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The plan of a run, as it is in its run directory."""

    run: str
    """Id of the run."""

    @property
    def plan(self) -> PlanIdentity:
        """The plan alone."""
        return PlanIdentity(tasks=self.tasks)


def identity_of(plan: Plan) -> PlanIdentity:
    """What identifies a plan."""
    return PlanIdentity(
        tasks=tuple(
            TaskIdentity(
                task_id=planned.task_id,
                total_roi=planned.total,
                read_roi=box_of(planned.task.read_roi, "read_roi"),
                write_roi=box_of(planned.task.write_roi, "write_roi"),
                fit=planned.task.fit,
                read_write_conflict=planned.task.read_write_conflict,
                upstream_tasks=tuple(plan.tasks[number].task_id for number, _ in planned.upstream),
                voxel_size=None if planned.task.voxel_size is None else tuple(planned.task.voxel_size),
                axes=None if planned.grid.tiled else layout_of(planned.grid),
            )
            for planned in plan.tasks
        )
    )


def encode_identity(identity: PlanIdentity, run: str) -> bytes:
    """A plan's identity as JSON that people can read.

    Args:
        identity: Of the plan.
        run: Id of the run.
    """
    file = PlanFile(run=run, tasks=identity.tasks)
    return msgspec.json.format(msgspec.json.encode(file), indent=1) + b"\n"


def decode_identity(data: bytes, name: str) -> PlanFile:
    """The inverse of :func:`encode_identity`.

    Args:
        data: JSON.
        name: Of the file, for messages.

    Raises:
        DamagedLedgerError: It is no plan.
    """
    try:
        identity = msgspec.json.decode(data, type=PlanFile)
        for task in identity.tasks:
            _ = task.grid
    except (msgspec.DecodeError, UnicodeDecodeError, GeometryError) as error:
        raise DamagedLedgerError(f"{name} is damaged, it is not a plan: {error}") from None
    return identity


def same_blocks(old: TaskIdentity, new: TaskIdentity) -> bool:
    """Whether two tasks have the same blocks under the same indices."""
    return (old.total_roi, old.block, old.fit, old.axes) == (new.total_roi, new.block, new.fit, new.axes)


def differences(old: PlanIdentity, new: PlanIdentity) -> list[str]:
    """What has changed, in words; nothing if the plans have the same tasks, in whatever order."""
    before = {task.task_id: task for task in old.tasks}
    after = {task.task_id: task for task in new.tasks}
    found = [f"task {name!r} is not there any more" for name in before if name not in after]
    found += [f"task {name!r} is new" for name in after if name not in before]
    for name, task in after.items():
        if name in before:
            found += [f"task {name!r}: {change}" for change in _changes(before[name], task)]
    return found


def _changes(old: TaskIdentity, new: TaskIdentity) -> list[str]:
    found = []
    for name in ("total_roi", "read_roi", "write_roi"):
        if name != "total_roi" and old.block == new.block:
            continue  # the template may stand anywhere
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            found.append(f"{name} was {_shown(before)}, and is {_shown(after)}")
    for name in ("fit", "read_write_conflict", "voxel_size"):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            found.append(f"{name} was {before!r}, and is {after!r}")
    if old.axes != new.axes and not found:
        found.append(f"the grid is cut in another way: it had {old.grid.shape} blocks, and has {new.grid.shape}")
    if set(old.upstream_tasks) != set(new.upstream_tasks):
        found.append(
            f"upstream_tasks were {', '.join(old.upstream_tasks) or 'none'}, "
            f"and are {', '.join(new.upstream_tasks) or 'none'}"
        )
    return found


def _shown(box: Box) -> str:
    return "[" + ", ".join(f"{begin}:{end}" for begin, end in box) + "]"
