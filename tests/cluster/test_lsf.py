"""Runs on stand-ins for LSF's commands: what is asked of them, and what is made of their answers, fits together."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from blockflow import LSF, Block, Roi, Task, run_blockwise
from blockflow.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("lsf")

SOON = 0.5


def task_of(function: Any, blocks: int = 20, **more: Any) -> Task:
    roi = Roi((0,), (10,))
    return Task(
        "t %x", Roi((0,), (10 * blocks,)), roi, roi, function, launcher=LSF(**{"workers": 3, "poll": SOON, **more})
    )


def run(task: Task) -> Any:
    return run_blockwise([task], progress=False, summary=False)


def note(folder: Path, seconds: float = 0.02) -> Callable[[Block], None]:
    def work(block: Block) -> None:
        (folder / f"{block.index}.{block.attempt}").write_text(os.environ["LSB_JOBINDEX"])
        time.sleep(seconds)

    return work


def bjobs() -> list[str]:
    words = ["bjobs", "-noheader", "-o", "jobid jobindex stat exit_reason delimiter='|'"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()


def bkill(*words: str) -> None:
    subprocess.run(["bkill", *words], capture_output=True, check=False)


def test_an_array_of_workers_does_all_blocks(folder: Path) -> None:
    assert run(task_of(note(folder), 40))
    assert len(list(folder.iterdir())) == 40
    assert {file.read_text() for file in folder.iterdir()} <= {"1", "2", "3"}


def test_each_worker_may_be_a_job_of_its_own(folder: Path) -> None:
    assert run(task_of(note(folder), array=False, queue="short", memory="1G", gpus=0, time="1:00:00"))
    assert {file.read_text() for file in folder.iterdir()} == {"0"}


def test_jobs_that_wait_are_called_off(folder: Path) -> None:
    assert run(task_of(note(folder), workers=12, max_jobs=2))


def test_jobs_that_are_killed_are_replaced(folder: Path) -> None:
    def kill() -> None:
        for wanted, options in ((20, []), (60, ["-s", "KILL"])):
            while len(list(folder.iterdir())) < wanted:
                time.sleep(0.02)
            job, index, _ = next(line for line in bjobs() if "|RUN|" in line).split("|")[:3]
            bkill(*options, f"{job}[{index}]")

    thread = threading.Thread(target=kill)
    thread.start()
    assert run(task_of(note(folder), 200))
    thread.join()
    assert {int(file.name.partition(".")[0]) for file in folder.iterdir()} == set(range(200))


def test_silence_is_not_the_end_of_a_job(folder: Path, lsf: Path) -> None:
    def disturb() -> None:
        while len(list(folder.iterdir())) < 10:
            time.sleep(0.02)
        (lsf / "down").touch()
        while len(list(folder.iterdir())) < 60:
            time.sleep(0.02)
        (lsf / "down").unlink()

    thread = threading.Thread(target=disturb)
    thread.start()
    assert run(task_of(note(folder, 0.05), 100))
    thread.join()
    assert len(list(folder.iterdir())) == 100


def test_a_queue_that_does_not_exist(folder: Path) -> None:
    with pytest.raises(RunError, match=r"LSF does not take the jobs: nope: No such queue\. Job not submitted"):
        run(task_of(note(folder), queue="nope"))
