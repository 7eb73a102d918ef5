"""Seams: which objects of neighbouring blocks are one?

Each block has numbered its own objects from 1. Two of them are one object if a voxel of one touches a voxel of the
other across the seam, so nothing but the outermost voxels of each block is looked at.

1. For each pair of neighbours (across faces, and across edges and corners if the connectivity goes there) the layers on
   both sides of the seam are laid on one another, for each direction in which voxels touch: pairs of numbers come out.
2. Blocks are put in C order, and each object gets the number `(objects in earlier blocks) + (its own number) - 1`.
3. Connected sets of pairs (scipy's graph routine) get the number of their first member; the numbers of the others are
   taken out, so that those left are consecutive. Only objects at seams take part: memory is bounded by these.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import product
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from blockflow.plan.grid import Grid

__all__ = ["Faces", "Joined", "Seams", "faces_of"]

Faces: TypeAlias = "list[tuple[NDArray[Any], NDArray[Any]]]"
"""For each axis the first and the last layer of a block, without that axis."""

Step: TypeAlias = tuple[int, ...]
"""One of -1, 0 and 1 for each axis."""


def faces_of(labels: NDArray[Any]) -> Faces:
    """The outermost layers of a block.

    >>> faces_of(np.array([[1, 2], [3, 4]]))
    [(array([1, 2]), array([3, 4])), (array([1, 3]), array([2, 4]))]
    """
    return [(labels.take(0, axis), labels.take(-1, axis)) for axis in range(labels.ndim)]


class Seams:
    """Pairs of objects that touch, found while blocks come in, in any order.

    Args:
        grid: The blocks.
        structure: Which of the 3^n voxels around one touch it; symmetric.
    """

    def __init__(self, grid: Grid, structure: NDArray[np.bool_]) -> None:
        self._grid = grid
        self._touching: dict[Step, list[Step]] = {}
        """By the way from a block to its neighbour: all ways in which a voxel of it touches one over there."""
        around = [tuple(int(i) - 1 for i in place) for place in np.argwhere(structure)]
        for way in product((-1, 0, 1), repeat=structure.ndim):
            fitting = [to for to in around if all(step in (0, there) for step, there in zip(way, to, strict=True))]
            if any(way) and fitting:
                self._touching[way] = fitting
        self._counts: NDArray[np.int64] = np.full(grid.size, -1, np.int64)
        self._faces: dict[int, Faces] = {}
        self._pairs: list[tuple[int, int, NDArray[np.int64]]] = []

    def add(self, index: int, count: int, faces: Faces) -> None:
        """Take in a block.

        Args:
            index: Of the block.
            count: How many objects it has.
            faces: Its outermost layers, with the numbers of objects, 0 for none.
        """
        self._counts[index] = count
        self._faces[index] = faces
        for way, other in self._neighbours(index):
            if other in self._faces:
                pairs = _pairs(faces, self._faces[other], way, self._touching[way])
                if len(pairs):
                    self._pairs.append((index, other, pairs))
        for done in (index, *(other for _, other in self._neighbours(index))):
            if done in self._faces and all(self._counts[other] >= 0 for _, other in self._neighbours(done)):
                del self._faces[done]

    def _neighbours(self, index: int) -> Iterator[tuple[Step, int]]:
        here = self._grid.position(index)
        for way in self._touching:
            there = tuple(x + step for x, step in zip(here, way, strict=True))
            if all(0 <= x < extent for x, extent in zip(there, self._grid.shape, strict=True)):
                yield way, self._grid.index(there)

    def joined(self) -> Joined:
        """What all objects are called in the end."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        counts = np.maximum(self._counts, 0)  # blocks that were left out have none
        offsets = np.concatenate([[0], np.cumsum(counts)])
        ends = [np.array([offsets[one], offsets[other]]) + pairs - 1 for one, other, pairs in self._pairs]
        all_pairs = np.concatenate(ends) if ends else np.empty((0, 2), np.int64)
        members, places = np.unique(all_pairs, return_inverse=True)
        one, other = places.reshape(-1, 2).T
        graph = coo_array((np.ones(len(one), bool), (one, other)), shape=(len(members), len(members)))
        sets = connected_components(graph, directed=False)[1] if len(members) else np.empty(0, np.intp)
        firsts = members[np.unique(sets, return_index=True)[1]][sets]
        dropped = members[members != firsts]
        return Joined(offsets, members, firsts - np.searchsorted(dropped, firsts), dropped)


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """The final numbers of the objects of all blocks; numbers count from 0 here."""

    offsets: NDArray[np.int64]
    """Objects in earlier blocks, for each block, and the number of all."""
    members: NDArray[np.int64]
    """Objects that touch others across seams, ascending."""
    finals: NDArray[np.int64]
    """Their final numbers."""
    dropped: NDArray[np.int64]
    """Those of them whose own number is not used any more, ascending."""

    @property
    def count(self) -> int:
        """How many objects there are."""
        return int(self.offsets[-1]) - len(self.dropped)

    def table(self, index: int) -> NDArray[np.int64]:
        """The final label for each number of a block: 0 for 0, consecutive from 1 for the others.

        >>> none = np.empty(0, np.int64)
        >>> Joined(np.array([0, 2, 4]), np.array([1, 2]), np.array([1, 1]), np.array([2])).table(1)
        array([0, 2, 3])
        """
        begin, end = self.offsets[index : index + 2]
        own = np.arange(begin, end)
        labels = own - np.searchsorted(self.dropped, own)
        low, high = np.searchsorted(self.members, [begin, end])
        labels[self.members[low:high] - begin] = self.finals[low:high]
        return np.concatenate([[0], labels + 1])

    def save(self, folder: Path) -> None:
        """Store them in a folder, for other processes."""
        for field in fields(self):
            np.save(folder / f"{field.name}.npy", getattr(self, field.name))

    @classmethod
    def load(cls, folder: Path) -> Joined:
        """What :meth:`save` has stored; mapped, not read."""
        return cls(*(np.load(folder / f"{field.name}.npy", mmap_mode="r") for field in fields(cls)))


def _pairs(one: Faces, other: Faces, way: Step, touching: list[Step]) -> NDArray[np.int64]:
    """Numbers of objects that touch, in a block and in its neighbour that lies this way: two columns, each row once."""
    here, there = _layer(one, way), _layer(other, tuple(-step for step in way))
    along = [axis for axis, step in enumerate(way) if not step]
    found = []
    for to in touching:
        shifts = [to[axis] for axis in along]
        a = here[tuple(slice(max(0, -shift), -shift if shift > 0 else None) for shift in shifts)]
        b = there[tuple(slice(max(0, shift), shift if shift < 0 else None) for shift in shifts)]
        both = (a > 0) & (b > 0)
        found.append(np.stack([a[both], b[both]], axis=1).astype(np.int64))
    pairs = np.concatenate(found)
    if len(pairs) < 2:
        return pairs
    base = int(pairs[:, 1].max()) + 1  # numbers are less than 2**31 each
    return np.stack(np.divmod(np.unique(pairs[:, 0] * base + pairs[:, 1]), base), axis=1)


def _layer(faces: Faces, way: Step) -> NDArray[Any]:
    """The voxels of a block that lie outermost this way; axes along which it is not left remain."""
    first = next(axis for axis, step in enumerate(way) if step)
    face = faces[first][way[first] > 0]
    places: dict[int, int | slice] = {-1: 0, 0: slice(None), 1: -1}
    return face[tuple(places[step] for step in (*way[:first], *way[first + 1 :]))]
