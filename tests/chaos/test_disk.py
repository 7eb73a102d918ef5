"""Run directories on a disk that is full, or that somebody removes: what is lost, and what is said?"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from blockflow import Ledger, Roi, Task, run_blockwise
from blockflow.errors import LedgerError
from tests.chaos.scene import PATIENCE, ROOT, environment, outputs, undisturbed

if TYPE_CHECKING:
    from pathlib import Path

    from blockflow import Block

NAMESPACE = ["unshare", "--map-root-user", "--mount"]


@cache
def can_mount() -> bool:
    """Whether this user may mount a small disk that nobody else sees."""
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run(
        [*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False, timeout=20
    )
    return tried.returncode == 0


def story(what: str, folder: Path) -> tuple[dict[str, Any], str]:
    """What :mod:`tests.chaos.full_disk` tells, and what was complained about meanwhile."""
    if not can_mount():
        pytest.skip("this user may not make mount namespaces (unshare --map-root-user --mount)")
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        [*NAMESPACE, sys.executable, "-m", "tests.chaos.full_disk", what, str(folder)],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.mark.slow
def test_a_full_disk_pauses_a_run_and_loses_nothing(tmp_path: Path) -> None:
    told, complaints = story("middle", tmp_path)
    print(told)
    assert 100 <= told["paused"] <= told["still"] < 900, "nothing was granted while the disk was full"
    assert told["well"]
    assert told["begun"] == 1001, "no block ran twice"
    assert told["done"] == {"first": 501, "second": 500}
    assert complaints.count("the run is paused, and goes on when there is") == 1
    assert outputs(tmp_path / "out") == undisturbed(tmp_path / "undisturbed", blocks=501)


def test_a_disk_that_is_full_at_the_end_costs_the_snapshot_and_nothing_else(tmp_path: Path) -> None:
    told, complaints = story("end", tmp_path)
    assert told == {
        "well": True,
        "done": 5,
        "snapshot": False,
        "again": True,
        "snapshot later": True,
        "executions": 5,
    }
    assert complaints.count("no snapshot of the run was made, its journal has everything") == 1


def test_a_disk_that_is_full_at_the_start_is_refused(tmp_path: Path) -> None:
    told, _ = story("start", tmp_path)
    assert told["error"] == "LedgerFullError"
    assert "no space is left; nothing was lost" in told["said"]


def line(function: Any, blocks: int = 200) -> Task:
    one = Roi((0,), (1,))
    return Task("line", Roi((0,), (blocks,)), one, one, function, num_workers=2)


def test_a_run_whose_directory_is_removed_stops(tmp_path: Path) -> None:
    """Nothing could be recorded any more; the fixture looks for processes that were left behind."""
    run_dir, began = str(tmp_path / "run"), str(tmp_path / "began")

    def work(block: Block) -> None:
        import shutil
        import time

        with open(began, "a") as file:
            file.write("x")
        if block.index == 5:
            shutil.rmtree(run_dir, ignore_errors=True)
        time.sleep(0.05)

    with pytest.raises(LedgerError, match=r"(owner\.json|the journal) is gone"):
        run_blockwise(line(work), progress=False, summary=False, run_dir=run_dir)
    assert len((tmp_path / "began").read_text()) < 100


@pytest.mark.filterwarnings("ignore:the function work .* has changed")  # it is another one than before
@pytest.mark.parametrize("part", ["journal", "connection", "logs", "ledger.zarr", "plan.json", "blockflow.json"])
def test_a_run_of_whose_directory_a_part_is_removed_tells_the_truth(
    tmp_path: Path, part: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Either it ends well and can be read, or it says what is wrong; and nothing hangs."""
    run_dir = str(tmp_path / "run")

    def first(block: Block) -> None:
        if block.index == 10:
            raise ZeroDivisionError("enough for now")

    with pytest.raises(ZeroDivisionError, match="enough for now"):
        run_blockwise(line(first), multiprocessing=False, progress=False, summary=False, run_dir=run_dir)

    def work(block: Block) -> None:
        import os
        import shutil

        if block.index == 15:
            path = f"{run_dir}/{part}"
            if os.path.isdir(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)

    if part == "journal":  # noticed at the next commit
        with pytest.raises(LedgerError, match="the journal is gone while the run goes on"):
            run_blockwise(line(work), progress=False, summary=False, run_dir=run_dir)
        return
    assert run_blockwise(line(work), progress=False, summary=False, run_dir=run_dir)
    if part in ("connection", "logs", "plan.json"):  # written again, or of no more use
        assert Ledger.open(run_dir).counts("line")["done"] == 200
        return
    with pytest.raises(LedgerError, match=part):
        Ledger.open(run_dir).counts("line")
    assert part == "blockflow.json" or "no snapshot of the run was made: " in capfd.readouterr().err
