"""Recent chunks: which chunks were read and decoded a moment ago, and need not be again?

Blocks that read more than they write read most chunks several times: with 64 voxels written, 8 of context and chunks of
64, each chunk is decoded 27 times. Who reads block after block keeps what was read last:

1. Boxes of whole chunks are kept, as they were read, the oldest ones go first, and never more bytes than allowed.
2. Of a box that is asked for, the smallest box of chunks is read that holds those which are not kept.
3. The answer is put together from all kept boxes that it meets.

Nobody may write to the array meanwhile.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from blockflow.arrays.window import Window
from blockflow.plan.storage import chunk_shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["RecentChunks", "with_recent_chunks"]

_Box: TypeAlias = tuple[tuple[int, int], ...]
"""Half-open, one interval for each axis."""


def with_recent_chunks(data: Any, most_bytes: int) -> Any:
    """An array that keeps the chunks which were read last; arrays without chunks stay as they are.

    >>> with_recent_chunks(np.arange(3), 100)
    array([0, 1, 2])
    """
    if isinstance(data, Window):
        return Window(with_recent_chunks(data.source, most_bytes), data.ranges)
    return data if chunk_shape(data, "chunks") is None else RecentChunks(data, most_bytes)


class RecentChunks:
    """An array of which whole chunks are read, and kept for a while.

    Args:
        data: Has ``shape``, ``dtype``, ``chunks`` and ``[]``.
        most_bytes: Kept at most, decoded. What would not fit as a whole is read past this.

    >>> import zarr
    >>> image = zarr.create_array({}, shape=(6, 6), chunks=(2, 2), dtype="i4")
    >>> recent = RecentChunks(image, most_bytes=1000)
    >>> recent[1:3, 0:2].tolist(), recent.kept_bytes
    ([[0, 0], [0, 0]], 32)
    """

    def __init__(self, data: Any, most_bytes: int) -> None:
        self._data = data
        self._most_bytes = most_bytes
        self.shape: tuple[int, ...] = tuple(data.shape)
        self.dtype: np.dtype[Any] = np.dtype(data.dtype)
        self._chunks: tuple[int, ...] = tuple(data.chunks)
        self._kept: list[NDArray[Any]] = []
        """Voxels of boxes of chunks, the oldest first."""
        self._boxes = np.empty((0, 2, len(self.shape)), np.int64)
        """For each of them where it begins, and where it ends."""

    @property
    def kept_bytes(self) -> int:
        """How much is kept."""
        return sum(voxels.nbytes for voxels in self._kept)

    def __getitem__(self, key: Any) -> Any:
        """The voxels of a box, as a new array; for any other index, what the array itself says."""
        box = _box(key, self.shape)
        if box is None:
            return self._data[key]
        chunks = tuple((begin // n, -(-end // n)) for (begin, end), n in zip(box, self._chunks, strict=True))
        missing = self._missing(chunks)
        if missing is not None:
            voxels = self._voxels(missing)
            if prod(end - begin for begin, end in voxels) * self.dtype.itemsize > self._most_bytes:
                return self._data[key]
            self._keep(voxels, np.asarray(self._data[tuple(slice(*pair) for pair in voxels)]))
        result = self._gathered(box)
        if missing is not None:
            self._forget()
        return result

    def _missing(self, chunks: _Box) -> _Box | None:
        """The smallest box of chunks that holds all which are not kept; None if all are."""
        lacks = np.ones([end - begin for begin, end in chunks], bool)
        for _, common in self._meeting(self._voxels(chunks)):
            lacks[
                tuple(
                    slice(begin // n - first, -(-end // n) - first)
                    for (begin, end), n, (first, _) in zip(common, self._chunks, chunks, strict=True)
                )
            ] = False
        where = lacks.nonzero()
        if not len(where[0]):
            return None
        return tuple(
            (first + int(at.min()), first + int(at.max()) + 1) for (first, _), at in zip(chunks, where, strict=True)
        )

    def _voxels(self, chunks: _Box) -> _Box:
        """The voxels of a box of chunks; the last chunks of the array may reach beyond it."""
        return tuple(
            (begin * n, min(end * n, extent))
            for (begin, end), n, extent in zip(chunks, self._chunks, self.shape, strict=True)
        )

    def _gathered(self, box: _Box) -> NDArray[Any]:
        """The voxels of a box, all of which are kept."""
        result = np.empty([end - begin for begin, end in box], self.dtype)
        for number, common in self._meeting(box):
            kept = self._boxes[number].T.tolist()
            result[_inside(common, box)] = self._kept[number][_inside(common, kept)]
        return result

    def _meeting(self, box: _Box) -> Iterator[tuple[int, _Box]]:
        """Which kept boxes meet a box, and where."""
        begins, ends = np.array(box).T
        lows, highs = np.maximum(self._boxes[:, 0], begins), np.minimum(self._boxes[:, 1], ends)
        for number in np.flatnonzero((lows < highs).all(axis=1)).tolist():
            yield number, tuple(zip(lows[number].tolist(), highs[number].tolist(), strict=True))

    def _keep(self, box: _Box, voxels: NDArray[Any]) -> None:
        self._kept.append(voxels)
        self._boxes = np.concatenate([self._boxes, np.array(box).T[np.newaxis]])

    def _forget(self) -> None:
        """Forget what was read first, until the rest is allowed."""
        excess, forgotten = self.kept_bytes - self._most_bytes, 0
        while excess > 0:
            excess -= self._kept[forgotten].nbytes
            forgotten += 1
        self._kept, self._boxes = self._kept[forgotten:], self._boxes[forgotten:]


def _box(key: Any, shape: tuple[int, ...]) -> _Box | None:
    """The voxels of an index with one slice for each axis, without steps and not empty; None for any other."""
    if not isinstance(key, tuple) or len(key) != len(shape) or not all(isinstance(part, slice) for part in key):
        return None
    ranges = [range(extent)[part] for part, extent in zip(key, shape, strict=True)]
    if any(part.step != 1 or not part for part in ranges):
        return None
    return tuple((part.start, part.stop) for part in ranges)


def _inside(part: _Box, whole: Iterable[Sequence[int]]) -> tuple[slice, ...]:
    """Where a box lies in another one."""
    return tuple(slice(begin - low, end - low) for (begin, end), (low, _) in zip(part, whole, strict=True))
