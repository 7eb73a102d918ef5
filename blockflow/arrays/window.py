"""Window: how does a part of an array on disk stay on disk until it is read?

A window holds the source and one ``range`` of its indices per axis. Indexing a window indexes those ranges
(``range`` does the arithmetic, negative indices and clipping included) and asks the source for the result.
"""

from __future__ import annotations

from types import EllipsisType
from typing import Any

import numpy as np

from blockflow.arrays.handles import portable, restore
from blockflow.errors import ArrayError


class Window:
    """A rectangular part of an array-like, not read yet; writes go through to the source.

    Understands integers, slices with a positive step and ``...``.

    >>> window = Window(np.arange(10), (range(2, 8),))
    >>> window.shape, window[-2:]
    ((6,), array([6, 7]))
    """

    __slots__ = ("ranges", "source")

    def __init__(self, source: Any, ranges: tuple[range, ...]) -> None:
        self.source = source
        self.ranges = ranges

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels per axis."""
        return tuple(len(indices) for indices in self.ranges)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the source."""
        dtype: np.dtype[Any] = np.dtype(self.source.dtype)
        return dtype

    @property
    def read_only(self) -> bool:
        """Whether the source refuses writes."""
        return not writable(self.source)

    def __getitem__(self, key: Any) -> Any:
        return self.source[self._in_source(key)]

    def __setitem__(self, key: Any, value: Any) -> None:
        self.source[self._in_source(key)] = value

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_window, (portable(self.source), self.ranges)

    def _in_source(self, key: Any) -> tuple[int | slice, ...]:
        keys = keys_of(key, len(self.ranges), "a part of an array on disk")
        return tuple(_of_range(indices, item) for indices, item in zip(self.ranges, keys, strict=True))


def keys_of(key: Any, ndim: int, what: str) -> list[int | slice]:
    """An index as one integer or slice for each axis.

    Raises:
        ArrayError: It holds anything else.
        IndexError: It is for more axes.

    >>> keys_of((..., 2), 3, "this")
    [slice(None, None, None), slice(None, None, None), 2]
    """
    keys = list(key) if isinstance(key, tuple) else [key]
    for item in keys:
        if not isinstance(item, int | np.integer | slice | EllipsisType):
            raise ArrayError(
                f"{what} takes integers, slices and '...' as an index, got {type(item).__name__}; "
                "read it with to_ndarray() first"
            )
    missing = ndim - sum(item is not Ellipsis for item in keys)
    if missing < 0:
        raise IndexError(f"too many indices: the array has {ndim} axes, got {len(keys)}")
    place = keys.index(Ellipsis) if Ellipsis in keys else len(keys)
    keys[place : place + 1] = [slice(None)] * missing
    return keys


def _of_range(indices: range, item: int | slice) -> int | slice:
    if not isinstance(item, slice):
        return indices[item]
    part = indices[item]
    if part.step < 0:
        raise ArrayError(f"slices must have a positive step, got {item.step}")
    return slice(part.start, part.stop, part.step)


def _restore_window(source: Any, ranges: tuple[range, ...]) -> Window:
    return Window(restore(source), ranges)


def writable(data: Any) -> bool:
    """Whether an array-like takes writes.

    >>> writable(np.zeros(3)), writable(Window((1, 2), (range(2),)))
    (True, False)
    """
    if isinstance(data, np.ndarray):
        return bool(data.flags.writeable)
    if type(data).__module__.startswith("h5py."):
        return bool(data.file.mode != "r")
    return hasattr(data, "__setitem__") and not getattr(data, "read_only", False)
