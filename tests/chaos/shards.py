"""A script of a user that writes a sharded zarr array, one shard for each block; the last of each axis are cut.

So that workers can be killed while they write, however fast the machine is, some executions stop in the middle of
writing: when the file of the shard is written, and has not got its name yet. They go on when they may.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zarr

from blockflow import Block, Roi, Task, run_blockwise

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPE = (2000, 12100)
SHARD = (512, 1024)
CHUNK = (64, 64)
BLOCKS = 4 * 12


def make(store: Path) -> None:
    """Make the array."""
    zarr.create_array(store, shape=SHAPE, shards=SHARD, chunks=CHUNK, dtype="uint32", fill_value=0, compressors=None)


def allow(store: Path, executions: int) -> None:
    """Let so many executions pass; the next one stops in the middle of writing."""
    draft = store.with_name("allowed.draft")
    draft.write_text(str(executions))
    draft.replace(store.with_name("allowed"))


def task_of(store: Path, *, workers: int) -> Task:
    """Fill the array with values that tell where they belong."""
    place = str(store)
    allowed = str(store.with_name("allowed"))

    def work(block: Block) -> None:
        import os
        import pathlib
        import time

        import numpy as np
        import pytest
        import zarr

        def tell(what: str) -> None:
            with open(f"{place}.trace", "a") as file:
                file.write(f"{what} {os.getpid()} {block.block_id[1]}\n")

        def may_pass() -> bool:
            with open(allowed) as file:
                return number <= int(file.read())

        def stop_before(name: Callable[..., Any]) -> Callable[..., Any]:
            def waits(*arguments: Any) -> Any:
                if "array.zarr" in str(arguments[0]) and not may_pass():
                    tell("writes")
                    while not may_pass():
                        time.sleep(0.005)
                return name(*arguments)

            return waits

        tell("began")
        with open(f"{place}.trace") as file:
            number = sum(line.startswith("began") for line in file)
        array = zarr.open_array(place, mode="r+")
        where = block.write_roi.to_slices()
        rows, columns = np.mgrid[where]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pathlib.Path, "replace", stop_before(pathlib.Path.replace))
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
