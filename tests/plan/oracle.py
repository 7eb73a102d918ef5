"""What must the plan layer answer, by literal definition and at any cost?

Nothing here knows of levels, slices or arithmetic: blocks are listed by shifting the template, and relations are
found by comparing boxes. It shares no code with the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blockflow.geometry import Roi
    from blockflow.plan.task import Task

Interval: TypeAlias = tuple[int, int]
Box: TypeAlias = tuple[Interval, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where one block stands, reads and writes."""

    position: tuple[int, ...]
    read: Box
    write: Box


def box(roi: Roi) -> Box:
    return tuple(zip(roi.begin, roi.end, strict=True))


def places(task: Task) -> list[Place]:
    """All blocks of a task, in C order of their positions."""
    axes = [
        list(_places_on_axis(total, read, write, task.fit))
        for total, read, write in zip(box(task.total_roi), box(task.read_roi), box(task.write_roi), strict=True)
    ]
    return [
        Place(
            position=tuple(position for position, _, _ in block),
            read=tuple(read for _, read, _ in block),
            write=tuple(write for _, _, write in block),
        )
        for block in product(*axes)
    ]


def _places_on_axis(
    total: Interval, read: Interval, write: Interval, fit: str
) -> Iterator[tuple[int, Interval, Interval]]:
    """Position, read and write interval of all blocks on one axis."""
    after = read[1] - write[1]
    for position in range(total[1] - total[0]):  # a block writes at least one voxel: there cannot be more
        shift = total[0] - read[0] + position * (write[1] - write[0])
        reads, writes = (read[0] + shift, read[1] + shift), (write[0] + shift, write[1] + shift)
        begins_inside = writes[0] < total[1] - after
        if reads[1] <= total[1] or (begins_inside and fit == "overhang"):
            yield position, reads, writes
        elif begins_inside and fit == "shrink":
            yield position, (reads[0], total[1]), (writes[0], total[1] - after)


def meet(one: Box, other: Box) -> bool:
    """Whether two boxes have a voxel in common."""
    return all(max(a, b) < min(c, d) for (a, c), (b, d) in zip(one, other, strict=True))


def conflict(one: Place, other: Place) -> bool:
    """Whether one of two blocks reads where the other writes."""
    return meet(one.read, other.write) or meet(other.read, one.write)


def volume(extents: Box) -> int:
    result = 1
    for begin, end in extents:
        result *= max(0, end - begin)
    return result


def writable(task: Task) -> Box:
    """The total region without the context."""
    return tuple(
        (total[0] + write[0] - read[0], total[1] - (read[1] - write[1]))
        for total, read, write in zip(box(task.total_roi), box(task.read_roi), box(task.write_roi), strict=True)
    )


def upstream_across(upstream: Task, downstream: Task) -> list[list[int]]:
    """For each block of a task, the indices of the upstream task's blocks that write where it reads."""
    above = places(upstream)
    return [[index for index, place in enumerate(above) if meet(place.write, b.read)] for b in places(downstream)]


def inverse(relation: Sequence[Sequence[int]], size: int) -> list[list[int]]:
    """Who points to each of `size` blocks."""
    found: list[list[int]] = [[] for _ in range(size)]
    for source, targets in enumerate(relation):
        for target in targets:
            found[target].append(source)
    return found


def ancestors(upstream: Sequence[Sequence[int]]) -> list[set[int]]:
    """For each block all blocks that are done before it starts: the transitive closure of `upstream`."""
    known: dict[int, set[int]] = {}
    waiting = list(range(len(upstream)))
    while waiting:
        left = []
        for block in waiting:
            if all(above in known for above in upstream[block]):
                known[block] = set(upstream[block]).union(*(known[above] for above in upstream[block]))
            else:
                left.append(block)
        assert len(left) < len(waiting), "blocks wait for one another in a circle"
        waiting = left
    return [known[block] for block in range(len(upstream))]


def number_by_rank(position: Sequence[int]) -> int:
    """The pairing number by its meaning: how many positions come earlier.

    Positions are ordered by the sum of all coordinates, then by the sum of all but the last, and so on.
    """
    return sum(1 for other in product(range(sum(position) + 1), repeat=len(position)) if _sums(other) < _sums(position))


def _sums(position: Sequence[int]) -> tuple[int, ...]:
    return tuple(sum(position[:end]) for end in range(len(position), 0, -1))
