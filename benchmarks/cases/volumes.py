"""The image that is smoothed, the function that smooths a block of it, and whether the result is right.

``volumes.py make <source> <edge>`` writes the image, ``volumes.py check <target>`` prints a checksum. Workers import
this file by name.
"""

from __future__ import annotations

import functools
import sys
import zlib
from typing import Any

import numpy as np
import zarr
from scipy.ndimage import gaussian_filter

CHUNK = 64
SIGMA = 2
CONTEXT = 8
"""Where scipy cuts the kernel: four sigma."""


@functools.cache
def opened(path: str, mode: str) -> Any:
    """An array, opened once in each process."""
    return zarr.open_array(path, mode=mode)


def empty_like(path: str, edge: int) -> Any:
    """A new array for a result."""
    return zarr.create_array(path, shape=(edge,) * 3, chunks=(CHUNK,) * 3, dtype="uint8")


def smooth(source: str, target: str, block: Any) -> None:
    """Smooth one block; at the faces of the volume there is no context, and scipy mirrors."""
    image = opened(source, "r")
    begin = [max(0, at) for at in block.read_roi.begin]
    end = [min(size, at) for size, at in zip(image.shape, block.read_roi.end, strict=True)]
    write = block.write_roi
    smoothed = gaussian_filter(image[tuple(map(slice, begin, end))], SIGMA)
    inner = tuple(slice(b - o, e - o) for b, e, o in zip(write.begin, write.end, begin, strict=True))
    opened(target, "r+")[tuple(map(slice, write.begin, write.end))] = smoothed[inner]


def make(path: str, edge: int) -> None:
    """An image of blurred shapes and noise, the same each time."""
    rng = np.random.default_rng(0)
    coarse = gaussian_filter(rng.random((edge // 8,) * 3), 1.5)
    coarse = (coarse - coarse.min()) / (coarse.max() - coarse.min())
    image = empty_like(path, edge)
    for z in range(0, edge, CHUNK):
        slab = coarse[z // 8 : (z + CHUNK) // 8].repeat(8, 0).repeat(8, 1).repeat(8, 2)
        image[z : z + CHUNK] = (slab * 200 + rng.integers(0, 32, slab.shape, dtype=np.uint8)).astype(np.uint8)


def checksum(path: str) -> int:
    """One number for a whole array."""
    image = zarr.open_array(path, mode="r")
    return functools.reduce(
        lambda crc, z: zlib.crc32(np.asarray(image[z : z + CHUNK]), crc), range(0, image.shape[0], CHUNK), 0
    )


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2], int(sys.argv[3]))
    else:
        print(f'{{"checksum": {checksum(sys.argv[2])}}}')
