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


def note(folder: Path, *, held: int | None = None) -> Callable[[Block], None]:
    """A block function that leaves a file for each attempt; blocks from `held` on wait until they are let go on."""

    def work(block: Block) -> None:
        while held is not None and (block.index or 0) >= held and not (folder.parent / "go").exists():
            time.sleep(0.02)
        (folder / f"{block.index}.{block.attempt}").write_text(os.environ["LSB_JOBINDEX"])
        time.sleep(0.02)

    return work


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def run_while(task: Task, folder: Path, happens: Callable[[], None]) -> Any:
    """Run a task while something happens in another thread; then blocks that are held may go on."""

    def happen() -> None:
        try:
            happens()
        finally:
            (folder.parent / "go").touch()

    thread = threading.Thread(target=happen)
    thread.start()
    try:
        return run(task)
    finally:
        thread.join()


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
    def kill_one(wanted: int, *options: str) -> None:
        running: list[str] = []

        def one_runs() -> bool:
            running.extend(line for line in bjobs() if "|RUN|" in line)
            return bool(running) and len(list(folder.iterdir())) >= wanted

        wait_for(one_runs)
        job, index, _ = running[-1].split("|", 2)
        bkill(*options, f"{job}[{index}]")

    def kill() -> None:
        kill_one(20)
        kill_one(60, "-s", "KILL")

    assert run_while(task_of(note(folder, held=150), 200), folder, kill)
    assert {int(file.name.partition(".")[0]) for file in folder.iterdir()} == set(range(200))


def test_silence_is_not_the_end_of_a_job(folder: Path, lsf: Path) -> None:
    def disturb() -> None:
        wait_for(lambda: len(list(folder.iterdir())) >= 10)
        (lsf / "down").touch()
        seen = len(list(folder.iterdir()))
        wait_for(lambda: len(list(folder.iterdir())) >= min(seen + 50, 150))
        (lsf / "down").unlink()

    assert run_while(task_of(note(folder, held=150), 200), folder, disturb)
    assert len(list(folder.iterdir())) == 200


def test_a_queue_that_does_not_exist(folder: Path) -> None:
    with pytest.raises(RunError, match=r"LSF does not take the jobs: nope: No such queue\. Job not submitted"):
        run(task_of(note(folder), queue="nope"))
