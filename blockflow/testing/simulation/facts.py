"""What really happened? Ghosts of leases and executions, which trust none of the system's own numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from blockflow.plan.plan import Plan, TaskPlan
    from blockflow.testing.simulation.plans import Key


@dataclass(slots=True, eq=False)
class Grant:
    """The ghost of a lease: it travels beside the message that grants it."""

    number: int
    """No two leases have the same, whatever the system calls them."""
    task: int
    indices: list[int]
    worker: int
    """What the driver calls the worker."""
    lease: int
    """What the driver calls the lease."""
    executions: dict[int, Execution] = field(default_factory=dict)
    """By index: what became of the block under this lease."""

    def __str__(self) -> str:
        return f"ghost lease {self.number} (lease {self.lease} of worker {self.worker})"


@dataclass(slots=True, eq=False)
class Execution:
    """A block that is run on a worker: as long as it lasts it may read and write."""

    key: Key
    grant: Grant
    process: int
    outcome: str | None = None
    """None while it lasts; then "done", "failed", "killed" or "aborted"; after a post-check "verified" or "refused"."""


@dataclass(frozen=True, slots=True)
class Relations:
    """Which blocks have to do with which, found by comparing their boxes one by one."""

    upstream: Mapping[Key, frozenset[Key]]
    """Blocks of other tasks that write where the block reads."""
    conflicts: Mapping[Key, frozenset[Key]]
    """Blocks of the same task that must not run at once with it."""
    apart: Mapping[Key, frozenset[Key]]
    """Blocks that nobody may work on while the block is worked on: itself, and all with which it shares data."""
    before: Mapping[Key, frozenset[Key]]
    """Blocks whose failure leaves the block without its turn: upstream, and the neighbours in the level before."""


def relations_of(plan: Plan) -> Relations:
    """Compare the boxes of all blocks of a small plan."""
    writes = [_boxes([task.grid.write_box(index) for index in range(task.grid.size)]) for task in plan.tasks]
    reads = [_boxes([task.grid.read_box(index) for index in range(task.grid.size)]) for task in plan.tasks]
    upstream: dict[Key, set[Key]] = {}
    conflicts: dict[Key, set[Key]] = {}
    apart: dict[Key, set[Key]] = {}
    before: dict[Key, set[Key]] = {}
    for task in plan.tasks:
        for index in range(task.grid.size):
            key = (task.number, index)
            upstream[key], conflicts[key], apart[key] = set(), set(), {key}
        before |= {(task.number, index): keys for index, keys in _levels_before(task).items()}
        if task.task.read_write_conflict:
            meet = _meet(reads[task.number], writes[task.number])
            meet = meet | meet.T
            np.fill_diagonal(meet, val=False)
            for one, other in np.argwhere(meet).tolist():
                conflicts[task.number, one].add((task.number, other))
                apart[task.number, one].add((task.number, other))
        for above, _ in task.upstream:
            for one, other in np.argwhere(_meet(reads[task.number], writes[above])).tolist():
                upstream[task.number, one].add((above, other))
                before[task.number, one].add((above, other))
                apart[task.number, one].add((above, other))
                apart[above, other].add((task.number, one))
    return Relations(*(_frozen(relation) for relation in (upstream, conflicts, apart, before)))


def _levels_before(task: TaskPlan) -> dict[int, set[Key]]:
    """By index: the neighbours in the level before."""
    found = task.levels.upstream(task.positions(np.arange(task.grid.size, dtype=np.int64)))
    parts = np.split(found.flat(task.grid.shape), np.cumsum(found.sizes())[:-1])
    return {index: {(task.number, other) for other in part.tolist()} for index, part in enumerate(parts)}


def _boxes(boxes: list[tuple[tuple[int, int], ...]]) -> npt.NDArray[np.int64]:
    return np.array(boxes, dtype=np.int64)


def _meet(some: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which of some boxes, arrays of (box, axis, begin or end), meets which of others."""
    begins = np.maximum(some[:, None, :, 0], others[None, :, :, 0])
    ends = np.minimum(some[:, None, :, 1], others[None, :, :, 1])
    return np.asarray((begins < ends).all(axis=2))


def _frozen(relation: dict[Key, set[Key]]) -> dict[Key, frozenset[Key]]:
    return {key: frozenset(keys) for key, keys in relation.items()}
