"""A run whose directory is on a disk that becomes full: run as root of a mount namespace of its own.

Says as JSON how many blocks had begun when the disk was full and nothing more happened, a while later, and at the end.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from blockflow import Ledger, Roi, Task, run_blockwise
from tests.chaos import drive

MEGABYTES = 2
QUIET_SECONDS = 1.5
"""A run in which no block begins for so long stands still: blocks take milliseconds."""


def fill(disk: Path) -> None:
    """Leave not one byte."""
    with open(disk / "filler", "ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(bytes(size)) == size:
                    continue
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


def begun(folder: Path) -> int:
    """How many times a block function was called."""
    return sum(file.read_text().count("began") for file in (folder / "trace").iterdir())


def quiet(folder: Path) -> int:
    """Wait until nothing happens any more; how many blocks have begun."""
    known, since = begun(folder), time.monotonic()
    while time.monotonic() - since < QUIET_SECONDS:
        time.sleep(0.05)
        if (now := begun(folder)) != known:
            known, since = now, time.monotonic()
    return known


def in_the_middle(folder: Path, disk: Path, blocks: int) -> dict[str, Any]:
    """The disk is full for a while."""
    drive.prepare(folder, blocks=blocks)
    told: dict[str, Any] = {}

    def disturb() -> None:
        while begun(folder) < blocks // 5:
            time.sleep(0.01)
        fill(disk)
        told["paused"] = quiet(folder)
        time.sleep(QUIET_SECONDS)
        told["still"] = begun(folder)
        (disk / "filler").unlink()

    disturber = threading.Thread(target=disturb)
    disturber.start()
    tasks = drive.tasks_in(str(folder), blocks=blocks, seconds=0.002, workers=2)
    result = run_blockwise(tasks, progress=False, summary=False, run_dir=disk / "run", lease_seconds=2)
    disturber.join()
    told |= {"well": bool(result), "begun": begun(folder)}
    told["done"] = {name: Ledger.open(disk / "run").counts(name)["done"] for name in ("first", "second")}
    return told


def at_the_end(folder: Path, disk: Path) -> dict[str, Any]:
    """The disk is full when the snapshot is made; the next run finds room again."""
    place, executions = str(disk), str(folder / "executions")

    def work(block: Any) -> None:
        from pathlib import Path

        from tests.chaos.full_disk import fill

        with open(executions, "a") as file:
            file.write(f"{block.index}\n")
        if block.index == 4:
            fill(Path(place))

    one = Roi((0,), (1,))
    task = Task("line", Roi((0,), (5,)), one, one, work)
    told: dict[str, Any] = {"well": bool(run_blockwise(task, progress=False, summary=False, run_dir=disk / "run"))}
    told["done"] = Ledger.open(disk / "run").counts("line")["done"]
    told["snapshot"] = (disk / "run" / "ledger.zarr").exists()
    (disk / "filler").unlink()
    told["again"] = bool(run_blockwise(task, progress=False, summary=False, run_dir=disk / "run"))
    told["snapshot later"] = (disk / "run" / "ledger.zarr").exists()
    told["executions"] = len((folder / "executions").read_text().split())
    return told


def at_the_start(folder: Path, disk: Path) -> dict[str, Any]:
    """There is no room for a run directory at all."""
    fill(disk)
    (disk / "run").mkdir(mode=0o700)
    one = Roi((0,), (1,))
    task = Task("line", Roi((0,), (5,)), one, one, lambda block: None)
    try:
        run_blockwise(task, progress=False, summary=False, run_dir=disk / "run")
    except Exception as error:
        return {"error": type(error).__name__, "said": str(error)}
    return {}


def main(what: str, folder: Path) -> None:
    """Make the disk, and run."""
    logging.basicConfig()
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}M", "tmpfs", disk], check=True)
    stories = {
        "middle": lambda: in_the_middle(folder / "out", disk, 501),
        "end": lambda: at_the_end(folder, disk),
        "start": lambda: at_the_start(folder, disk),
    }
    sys.stdout.write(json.dumps(stories[what]()) + "\n")
    sys.stdout.flush()
    os.sync()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
