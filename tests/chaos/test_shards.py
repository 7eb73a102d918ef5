"""Workers that are killed while they write a shard: is every shard whole afterwards, and right?"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import zarr

from blockflow import Ledger, run_blockwise
from tests.chaos import shards
from tests.chaos.scene import ROOT, ROUNDS, environment, until

if TYPE_CHECKING:
    from pathlib import Path

KILLS = 8
DRIVER_KILLS = 2
LATEST = 4
"""Blocks that begin before workers are killed, if none is seen while it writes."""

MOST = 3
"""Kills that hit the same block: one that ends five workers has failed."""


def started(folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "said").open("ab") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.shards", str(folder / "array.zarr"), str(folder / "run")],
            env=environment(),
            cwd=ROOT,
            stdout=said,
            stderr=said,
        )


def kill_a_writer(store: Path, driver: subprocess.Popen[bytes], hits: Counter[int]) -> None:
    """Kill a worker that is just writing a shard, and all others; not where a block has been hit too often."""
    known, begun = torn(store), executions(store)

    def is_time() -> bool:
        return bool(torn(store) - known) or executions(store) >= begun + LATEST

    while driver.poll() is None:
        until(lambda: is_time() or driver.poll() is not None, "a worker writes")
        pids, running = at_work(store)
        if any(hits[block] >= MOST for block in running):
            known, begun = torn(store), executions(store)
            continue
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        hits.update(running)
        return


def torn(store: Path) -> set[str]:
    """Files that are being written, or were when their writer was killed."""
    rows = list(os.scandir(store / "c")) if (store / "c").exists() else []
    return {entry.name for row in rows if row.is_dir() for entry in os.scandir(row) if entry.name.endswith(".partial")}


def trace(store: Path) -> list[tuple[str, int, int]]:
    """What the processes told: that a block began or ended, the process, the block."""
    path = store.with_name("array.zarr.trace")
    lines = path.read_text().splitlines() if path.exists() else []
    return [(what, int(pid), int(block)) for what, pid, block in map(str.split, lines)]


def executions(store: Path) -> int:
    """How many blocks have begun, those that were killed as well."""
    return sum(what == "began" for what, _, _ in trace(store))


def at_work(store: Path) -> tuple[set[int], set[int]]:
    """Processes that have begun a block, and the blocks that are not ended by the process that began them last."""
    told = trace(store)
    last = {block: (what, pid) for what, pid, block in told}
    return {pid for _, pid, _ in told}, {block for block, (what, _) in last.items() if what == "began"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_shards_are_whole_whoever_was_killed(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    store = tmp_path / "array.zarr"
    todo = ["worker"] * KILLS + ["driver"] * DRIVER_KILLS
    dice.shuffle(todo)
    driver = started(tmp_path)
    hits = Counter[int]()
    for what in todo:
        kill_a_writer(store, driver, hits)
        if what == "driver":
            driver.kill()
            driver.wait()
            driver = started(tmp_path)
    until(lambda: driver.poll() is not None, "the run ends")
    assert driver.returncode == 0, (tmp_path / "said").read_text()
    print(f"{executions(store)} executions of {shards.BLOCKS} blocks, {len(torn(store))} torn writes")
    assert hits.total() >= KILLS, "too few blocks were running when workers were killed"
    assert Ledger.open(tmp_path / "run").counts("fill")["done"] == shards.BLOCKS
    undisturbed = tmp_path / "undisturbed.zarr"
    shards.make(undisturbed)
    assert run_blockwise(shards.task_of(undisturbed, workers=1), multiprocessing=False, progress=False, summary=False)
    for file in undisturbed.rglob("*"):
        if file.is_file():
            assert (store / file.relative_to(undisturbed)).read_bytes() == file.read_bytes()
    read, right = zarr.open_array(store, mode="r")[:], zarr.open_array(undisturbed, mode="r")[:]
    assert (read == right).all()  # type: ignore[union-attr]
