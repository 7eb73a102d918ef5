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
from blockflow.place import is_dead
from tests.chaos import shards
from tests.chaos.scene import ROOT, ROUNDS, environment, until

if TYPE_CHECKING:
    from pathlib import Path

KILLS = 8
DRIVER_KILLS = 2
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


def kill_a_writer(store: Path, dice: random.Random, hits: Counter[int]) -> None:
    """Kill a worker that is in the middle of writing a shard, and all others; no block too often."""
    while True:
        shards.allow(store, executions(store) + dice.randrange(1, 4))
        until(lambda: writing(store), "a worker is in the middle of writing")
        pids, running = at_work(store)
        if all(hits[block] < MOST for block in running):
            break
    assert torn(store)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: all(map(is_dead, pids)), "they are dead")
    hits.update(running)


def torn(store: Path) -> set[str]:
    """Files that are being written, or were when their writer was killed."""
    rows = list(os.scandir(store / "c")) if (store / "c").exists() else []
    return {entry.name for row in rows if row.is_dir() for entry in os.scandir(row) if entry.name.endswith(".partial")}


def trace(store: Path) -> list[tuple[str, int, int]]:
    """What the processes told: that a block began, stops while it is written, or ended; the process, the block."""
    path = store.with_name("array.zarr.trace")
    lines = path.read_text().splitlines() if path.exists() else []
    return [(what, int(pid), int(block)) for what, pid, block in map(str.split, lines)]


def executions(store: Path) -> int:
    """How many blocks have begun, those that were killed as well."""
    return sum(what == "began" for what, _, _ in trace(store))


def writing(store: Path) -> bool:
    """Whether a worker that lives has stopped in the middle of writing."""
    last = {pid: what for what, pid, _ in trace(store)}
    return any(what == "writes" and not is_dead(pid) for pid, what in last.items())


def at_work(store: Path) -> tuple[set[int], set[int]]:
    """Processes that live and have begun a block, and the blocks that they have not ended."""
    last = {pid: (what, block) for what, pid, block in trace(store)}
    alive = {pid: told for pid, told in last.items() if not is_dead(pid)}
    return set(alive), {block for what, block in alive.values() if what != "ended"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_shards_are_whole_whoever_was_killed(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    store = tmp_path / "array.zarr"
    todo = ["worker"] * KILLS + ["driver"] * DRIVER_KILLS
    dice.shuffle(todo)
    shards.allow(store, 0)
    driver = started(tmp_path)
    hits = Counter[int]()
    for what in todo:
        kill_a_writer(store, dice, hits)
        if what == "driver":
            driver.kill()
            driver.wait()
            driver = started(tmp_path)
    shards.allow(store, 10**9)
    until(lambda: driver.poll() is not None, "the run ends")
    assert driver.returncode == 0, (tmp_path / "said").read_text()
    print(f"{executions(store)} executions of {shards.BLOCKS} blocks, {len(torn(store))} torn writes")
    assert hits.total() >= KILLS + DRIVER_KILLS
    assert Ledger.open(tmp_path / "run").counts("fill")["done"] == shards.BLOCKS
    undisturbed = tmp_path / "undisturbed.zarr"
    shards.make(undisturbed)
    assert run_blockwise(shards.task_of(undisturbed, workers=1), multiprocessing=False, progress=False, summary=False)
    for file in undisturbed.rglob("*"):
        if file.is_file():
            assert (store / file.relative_to(undisturbed)).read_bytes() == file.read_bytes()
    read, right = zarr.open_array(store, mode="r")[:], zarr.open_array(undisturbed, mode="r")[:]
    assert (read == right).all()  # type: ignore[union-attr]
