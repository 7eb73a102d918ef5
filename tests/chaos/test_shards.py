"""Workers that are killed while they write a shard: is every shard whole afterwards, and right?"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
import zarr

from blockflow import Ledger, run_blockwise
from tests.chaos import shards
from tests.chaos.scene import PATIENCE, ROOT, ROUNDS, environment, until

if TYPE_CHECKING:
    from pathlib import Path

KILLS = 8
DRIVER_KILLS = 2
PAUSE = 5
"""Blocks that begin between two kills: a block that ends five workers has failed."""


def started(folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "said").open("ab") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.shards", str(folder / "array.zarr"), str(folder / "run")],
            env=environment(),
            cwd=ROOT,
            stdout=said,
            stderr=said,
        )


def kill_a_writer(store: Path, driver: subprocess.Popen[bytes]) -> None:
    """Kill a worker that is just writing a shard, and all others."""
    before = len(trace(store))
    until(lambda: len(trace(store)) >= before + PAUSE or driver.poll() is not None, "other blocks have begun")
    known = {entry.name for entry in torn(store)}
    deadline = time.monotonic() + PATIENCE
    while driver.poll() is None:
        assert time.monotonic() < deadline
        pids = {int(line) for line in trace(store)}
        for _ in range(20):
            if any(entry.name not in known for entry in torn(store)):
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                return


def torn(store: Path) -> list[os.DirEntry[str]]:
    """Files that are being written, or were when their writer was killed."""
    rows = list(os.scandir(store / "c")) if (store / "c").exists() else []
    return [entry for row in rows if row.is_dir() for entry in os.scandir(row) if entry.name.endswith(".partial")]


def trace(store: Path) -> list[str]:
    """The processes that have begun a block; one line for each block."""
    path = store.with_name("array.zarr.trace")
    return path.read_text().split() if path.exists() else []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_shards_are_whole_whoever_was_killed(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    store = tmp_path / "array.zarr"
    todo = ["worker"] * KILLS + ["driver"] * DRIVER_KILLS
    dice.shuffle(todo)
    driver = started(tmp_path)
    for what in todo:
        kill_a_writer(store, driver)
        if what == "driver":
            driver.kill()
            driver.wait()
            driver = started(tmp_path)
    until(lambda: driver.poll() is not None, "the run ends")
    assert driver.returncode == 0, (tmp_path / "said").read_text()
    print(f"{len(trace(store))} executions of {shards.BLOCKS} blocks, {len(torn(store))} torn writes")
    assert Ledger.open(tmp_path / "run").counts("fill")["done"] == shards.BLOCKS
    undisturbed = tmp_path / "undisturbed.zarr"
    shards.make(undisturbed)
    assert run_blockwise(shards.task_of(undisturbed, workers=1), multiprocessing=False, progress=False, summary=False)
    for file in undisturbed.rglob("*"):
        if file.is_file():
            assert (store / file.relative_to(undisturbed)).read_bytes() == file.read_bytes()
    read, right = zarr.open_array(store, mode="r")[:], zarr.open_array(undisturbed, mode="r")[:]
    assert (read == right).all()  # type: ignore[union-attr]
