"""A script of a user that writes a sharded zarr array, one shard for each block; the last of each axis are cut."""

from __future__ import annotations

import sys
from pathlib import Path

import zarr

from blockflow import Block, Roi, Task, run_blockwise

SHAPE = (2000, 12100)
SHARD = (512, 1024)
CHUNK = (64, 64)
BLOCKS = 4 * 12


def make(store: Path) -> None:
    """Make the array."""
    zarr.create_array(store, shape=SHAPE, shards=SHARD, chunks=CHUNK, dtype="uint32", fill_value=0, compressors=None)


def task_of(store: Path, *, workers: int) -> Task:
    """Fill the array with values that tell where they belong."""
    place = str(store)

    def work(block: Block) -> None:
        import os

        import numpy as np
        import zarr

        def tell(what: str) -> None:
            with open(f"{place}.trace", "a") as file:
                file.write(f"{what} {os.getpid()} {block.block_id[1]}\n")

        tell("began")
        array = zarr.open_array(place, mode="r+")
        where = block.write_roi.to_slices()
        rows, columns = np.mgrid[where]
        array[where] = (rows * 100003 + columns * 7919).astype("uint32")
        tell("ended")

    block = Roi((0, 0), SHARD)
    return Task("fill", Roi((0, 0), SHAPE), block, block, work, num_workers=workers, fit="shrink")


def main(store: Path, run_dir: Path) -> int:
    """Run, or go on."""
    if not store.exists():
        make(store)
    return 0 if run_blockwise(task_of(store, workers=3), run_dir=run_dir, progress=False, summary=False) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
