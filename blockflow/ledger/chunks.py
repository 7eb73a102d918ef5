"""How is a grid of blocks cut into chunks of a zarr array, and what is in such a chunk?

Chunks are slabs: they hold whole trailing axes, one part of the axis in front of these, and one position of all others.
So each chunk is one range of C-order indices, and a grid of any number of axes is handled like a line. The last one of
an axis is filled up behind its blocks, as zarr wants it.
"""

from __future__ import annotations

import zlib
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from blockflow.errors import DamagedLedgerError

if TYPE_CHECKING:
    import numpy.typing as npt

    from blockflow.plan.slices import Indices

CHUNK_BLOCKS = 1 << 20
"""Blocks in a chunk at most: 1 MiB of states, and 1 to 100 files for a task of up to 10^8 blocks."""

DTYPES = {"state": "<u1", "attempts": "<u2", "seconds": "<f4", "stored": "<u4"}
"""The arrays of a task; `stored` is the number of chunks that a block has stored, plus one, and 0 if it is unknown."""

_GZIP = 31
"""What zlib wants to hear to write and read gzip."""


class Chunks:
    """The chunks of the arrays over one grid.

    Args:
        shape: Of the grid.

    >>> chunks = Chunks((3000, 1000))
    >>> chunks.shape, chunks.edges.tolist(), chunks.length(2), chunks.key(2)
    ((1048, 1000), [0, 1048000, 2096000], 904000, 'c.2.0')
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        axis = len(shape) - 1
        inner = 1
        while axis and inner * shape[axis] <= CHUNK_BLOCKS:
            inner *= shape[axis]
            axis -= 1
        extent = max(1, min(shape[axis], CHUNK_BLOCKS // max(1, inner)))
        self.shape = (*[1] * axis, extent, *(max(1, each) for each in shape[axis + 1 :]))
        """Of a chunk."""
        self._outer = shape[:axis]
        self._row = shape[axis] * inner
        self._step = extent * inner
        self._trailing = len(shape) - axis - 1
        rows = np.arange(prod(self._outer) if self._row else 0, dtype=np.int64) * self._row
        steps = np.arange(0, self._row, max(1, self._step), dtype=np.int64)
        self._per_row = len(steps)
        self.edges: Indices = (rows[:, None] + steps).ravel()
        """First block of each chunk."""

    def length(self, number: int) -> int:
        """Blocks in a chunk."""
        return min(self._step, self._row - number % self._per_row * self._step)

    def key(self, number: int) -> str:
        """Name of the file of a chunk."""
        number, part = divmod(number, self._per_row)
        position = [int(here) for here in np.unravel_index(number, self._outer)] if self._outer else []
        return ".".join(["c", *map(str, [*position, part, *[0] * self._trailing])])

    def encode(self, values: npt.NDArray[Any]) -> bytes:
        """The file of a chunk, from the values of its blocks."""
        whole = np.zeros(prod(self.shape), dtype=values.dtype)
        whole[: len(values)] = values
        return compress(whole.tobytes())

    def decode(self, data: bytes, name: str, number: int, path: str) -> npt.NDArray[Any]:
        """The values of the blocks of a chunk.

        Raises:
            DamagedLedgerError: The file is damaged.
        """
        dtype = np.dtype(DTYPES[name])
        values = np.frombuffer(decompress(data, path), dtype=dtype)
        if len(values) != prod(self.shape):
            raise DamagedLedgerError(f"{path} is damaged: it holds {len(values)} blocks in place of {prod(self.shape)}")
        return values[: self.length(number)].astype(dtype.newbyteorder("="))


def compress(data: bytes) -> bytes:
    """As gzip, which every reader of zarr knows, and which has a checksum."""
    packer = zlib.compressobj(level=1, wbits=_GZIP)
    return packer.compress(data) + packer.flush()


def decompress(data: bytes, path: str) -> bytes:
    """The inverse of :func:`compress`.

    Raises:
        DamagedLedgerError: The file at `path` is damaged.
    """
    reader = zlib.decompressobj(wbits=_GZIP)
    try:
        whole = reader.decompress(data)
    except zlib.error as error:
        raise DamagedLedgerError(f"{path} is damaged: {error}") from None
    if not reader.eof or reader.unused_data:
        raise DamagedLedgerError(f"{path} is damaged: it was cut, or something stands behind its end")
    return whole
