"""Voxels: which voxels of an array does one block read, and where do the results go?

A block says boxes in world units. An array whose voxels have another size or begin elsewhere has its own voxels for
them. These classes compute with plain integers and slices, because a block of a run in this process may take less
than a tenth of a millisecond altogether.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from blockflow.arrays.casting import cast
from blockflow.arrays.recent import with_recent_chunks
from blockflow.arrays.writing import write_voxels
from blockflow.errors import ArrayError, GeometryError, ValueLossError
from blockflow.ops.padding import Padding, padded
from blockflow.plan.storage import lengths, stored

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from blockflow.arrays.array import Array
    from blockflow.geometry import Box
    from blockflow.plan.grid import Grid

__all__ = ["Casting", "Reader", "Writer", "chunks_come_again"]

Casting: TypeAlias = Literal["checked", "no", "equiv", "safe", "same_kind", "unsafe"]
"""``"checked"`` takes any values that the dtype can hold; the others are those of :func:`numpy.can_cast`."""


class _Place:
    """Where the voxels of an array are in the world."""

    def __init__(self, array: Array) -> None:
        self.data: Any = array.data
        self.channels = tuple(array.shape[: array.channel_dims])
        self.extents = tuple(array.shape[array.channel_dims :])
        self.scale = tuple(zip(array.offset, array.voxel_size, strict=True))
        self.every_channel = tuple(slice(0, n) for n in self.channels)

    def voxels(self, box: Box) -> list[tuple[int, int]]:
        """The voxels of a box that lies on the voxel grid; they may lie outside the array."""
        return [((b - o) // size, (e - o) // size) for (b, e), (o, size) in zip(box, self.scale, strict=True)]


class Reader(_Place):
    """What blocks read of one array.

    >>> from blockflow.arrays.array import Array
    >>> reader = Reader(Array(np.arange(4)), pad=None)
    >>> reader.read(((-1, 2),)), Reader(Array(np.arange(4)), pad=Padding("edge")).read(((-1, 2),))
    (array([0, 1]), array([0, 0, 1]))
    """

    def __init__(self, array: Array, pad: Padding | None, cache_bytes: int = 0) -> None:
        super().__init__(array)
        self.pad = pad
        self.dtype = array.dtype
        if cache_bytes:
            self.data = with_recent_chunks(array.data, cache_bytes)

    def read(self, box: Box) -> NDArray[Any]:
        """A new array of the voxels of a box; what is outside the array is left out, or padded."""
        wanted = self.voxels(box)
        key, shape = [], list(self.channels)
        outside = False
        for (begin, end), extent in zip(wanted, self.extents, strict=True):
            if begin < 0 or end > extent:
                outside = True
                begin, end = max(begin, 0), min(end, extent)
            key.append(slice(begin, end))
            shape.append(end - begin)
        if outside and self.pad is not None:
            return padded(self.data, len(self.channels), wanted, self.extents, self.pad)
        part = np.asarray(self.data[(*self.every_channel, *key)])
        if part.shape != tuple(shape) or part.dtype != self.dtype:
            self._check_part(part, key)
        # Arrays in memory answer with views of themselves; functions may change what they are given.
        return part if part.base is None and part.flags.writeable else part.copy()

    def _check_part(self, part: NDArray[Any], key: list[slice]) -> None:
        """Refuse what a source gives that is not what it has said: it only looks like an array.

        Raises:
            ArrayError: Another shape or dtype.
        """
        expected = (*self.channels, *(max(0, cut.stop - cut.start) for cut in key))
        if part.shape != expected or part.dtype.newbyteorder("=") != self.dtype.newbyteorder("="):
            kind = type(self.data)
            raise ArrayError(
                f"a source must give arrays of the dtype and shape that its slices have, {self.dtype} and {expected}: "
                f"{kind.__module__}.{kind.__name__} gave {part.dtype} and {part.shape}"
            )


def chunks_come_again(array: Array, grid: Grid) -> bool:
    """Whether blocks of a grid read some chunk of an array more often than once.

    >>> import zarr
    >>> from blockflow.arrays.array import Array
    >>> from blockflow.plan.grid import Grid
    >>> image = Array(zarr.create_array({}, shape=(100,), chunks=(10,), dtype="u1"))
    >>> [chunks_come_again(image, Grid.regular((100,), 20, context=context)) for context in (0, 1)]
    [False, True]
    """
    place = stored(array, "a source", dims=len(grid.shape))
    along = zip(lengths(grid, place, read=True), place.box, place.voxel_size, strict=True)
    return any(each.moved * voxel > end - begin for each, (begin, end), voxel in along)


class Writer(_Place):
    """Where blocks write in one array.

    >>> from blockflow.arrays.array import Array
    >>> line = np.zeros(4, int)
    >>> Writer(Array(line), "checked").write(np.array([1, 2, 3]), ((0, 3),), ((1, 2),), "the result")
    >>> line
    array([0, 2, 0, 0])
    """

    def __init__(self, array: Array, casting: Casting) -> None:
        super().__init__(array)
        self.casting = casting
        self.dtype = array.dtype

    def write(self, result: Any, given: Box, writes: Box, what: str) -> None:
        """Write what a function made of one block.

        Args:
            result: A scalar for all voxels, or an array over what the block was given, which is cropped, or over
                what it writes.
            given: The box of the voxels that the function was given.
            writes: The box that the block writes.
            what: The name of the result, for messages.

        Raises:
            GeometryError: The result has another shape.
            ValueLossError: The dtype cannot hold the values, or must not be cast to.
        """
        if isinstance(result, np.ma.MaskedArray) and np.ma.is_masked(result):
            raise ValueLossError(f"{what} has masked values, and outputs hold no masks; return result.filled(...)")
        values = np.asarray(result)
        to = self.voxels(writes)
        if values.ndim:
            values = self._cropped(values, given, to, what)
        if values.dtype != self.dtype:
            values = self._cast(values, what)
        write_voxels(self.data, (*self.every_channel, *(slice(begin, end) for begin, end in to)), values)

    def _cropped(self, values: NDArray[Any], given: Box, to: list[tuple[int, int]], what: str) -> NDArray[Any]:
        written = tuple(end - begin for begin, end in to)
        spatial = values.shape[max(0, values.ndim - len(to)) :]
        if spatial != written:
            read = self.voxels(given)
            whole = tuple(end - begin for begin, end in read)
            if spatial != whole:
                raise GeometryError(_wrong_shape(what, values.shape, self.channels, whole, written))
            crop: tuple[Any, ...] = tuple(slice(b - o, e - o) for (b, e), (o, _) in zip(to, read, strict=True))
            values = values[(..., *crop)]
        own = values.shape[: values.ndim - len(to)]
        if own not in (self.channels, ()):
            raise GeometryError(_wrong_shape(what, own + spatial, self.channels, spatial, written))
        return values

    def _cast(self, values: NDArray[Any], what: str) -> NDArray[Any]:
        if self.casting == "checked":
            return cast(values, self.dtype, what)
        if not np.can_cast(values.dtype, self.dtype, self.casting):
            raise ValueLossError(
                f"{what} of dtype {values.dtype} must not be cast to {self.dtype} with casting={self.casting!r}; "
                "convert it first, or allow more with casting="
            )
        with np.errstate(all="ignore"):
            return values.astype(self.dtype)


def _wrong_shape(
    what: str, shape: tuple[int, ...], channels: tuple[int, ...], whole: tuple[int, ...], written: tuple[int, ...]
) -> str:
    expected = f"{whole}" if whole == written else f"{whole}, as it was given, or {written}, as the block writes"
    after = f" after channels {channels}" if channels else ""
    spatial = shape[max(0, len(shape) - len(whole)) :]
    wrong = [
        f"axis {axis} has {got}"
        for axis, (got, one, other) in enumerate(zip(spatial, whole, written, strict=False))
        if got not in (one, other)
    ]
    where = f" ({', '.join(wrong)})" if wrong and len(spatial) == len(whole) else ""
    return f"{what} must have shape {expected}{after}; got {shape}{where}"
