"""Runs beside one another, inside one another, and in places that have a loop or a thread of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import blockflow
from blockflow import Block, RunResult, Task
from tests.run.scene import run, task_of, wait_for


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.fixture
def seen(tmp_path: Path) -> Path:
    made = tmp_path / "seen"
    made.mkdir()
    return made


# -------------------------------------------------------------------------------------------------------- threads


def test_two_runs_in_two_threads_go_on_at_once(seen: Path) -> None:
    """Each waits for a block of the other one."""

    def process(block: Block) -> None:
        (seen / f"{block.task_id} {block.index}").touch()
        other = {"one": "two", "two": "one"}[str(block.task_id)]
        wait_for((seen / f"{other} {block.index}").exists)

    before = signal.getsignal(signal.SIGTERM)
    results: dict[str, RunResult] = {}
    threads = [
        threading.Thread(target=lambda name=name: results.update({name: run(task_of(process, name=name))}))
        for name in ("one", "two")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [bool(results[name]) for name in ("one", "two")] == [True, True]
    assert len(names(seen)) == 8
    assert signal.getsignal(signal.SIGTERM) == before


def test_errors_of_two_threads_are_their_own(seen: Path) -> None:
    def of(name: str) -> Task:
        def fail(block: Block) -> None:
            raise ValueError(f"of {name}")

        return task_of(fail, name=name, blocks=1, max_retries=0)

    results: dict[str, RunResult] = {}
    threads = [
        threading.Thread(target=lambda name=name: results.update({name: run(of(name))})) for name in ("one", "two")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {name: result.causes[0].error for name, result in results.items()} == {
        "one": "ValueError: of one",
        "two": "ValueError: of two",
    }


# ------------------------------------------------------------------------------------------- a loop of somebody else


def test_a_run_inside_a_loop_that_runs(seen: Path) -> None:
    """As in a notebook, whose cells are called by its loop."""

    async def cell() -> RunResult:
        return run(task_of(lambda block: (seen / str(block.index)).touch()))

    assert asyncio.run(cell())
    assert names(seen) == ["0", "1", "2", "3"]


def test_a_run_that_a_loop_waits_for_leaves_it_alone(seen: Path) -> None:
    """The run needs what the loop does meanwhile."""

    def process(block: Block) -> None:
        (seen / "began").touch()
        wait_for((seen / "go on").exists)

    async def go_on() -> None:
        while not (seen / "began").exists():  # noqa: ASYNC110  # there is no event between processes
            await asyncio.sleep(0.005)
        (seen / "go on").touch()

    async def both() -> RunResult:
        result, _ = await asyncio.gather(asyncio.to_thread(run, task_of(process)), go_on())
        return result

    assert asyncio.run(both())


@pytest.fixture
def result(logs: Path, seen: Path) -> RunResult:
    return run(task_of(lambda block: (seen / str(block.index)).touch()))


def test_a_run_inside_a_fixture(result: RunResult, seen: Path) -> None:
    assert result
    assert names(seen) == ["0", "1", "2", "3"]


# ----------------------------------------------------------------------------------------------- runs inside blocks


@pytest.mark.parametrize("multiprocessing", [True, False])
def test_a_block_may_run_tasks_of_its_own(seen: Path, multiprocessing: bool) -> None:
    """With the same names, and blocks of the same numbers."""

    def inner(outer: int | None, block: Block) -> None:
        (seen / f"{outer} {block.index}").write_text(str(os.getpid()))

    def process(block: Block) -> None:
        from functools import partial

        blockflow.logging.set_log_basedir(seen.parent / f"logs of {block.index}")
        task = task_of(partial(inner, block.index), blocks=3)
        assert run(task, multiprocessing=multiprocessing)
        (seen / f"{block.index} outer").write_text(str(os.getpid()))

    assert run(task_of(process, blocks=2, num_workers=2, read_write_conflict=False))
    assert names(seen) == [f"{outer} {inner}" for outer in (0, 1) for inner in (0, 1, 2, "outer")]
    elsewhere = {(seen / f"0 {inner}").read_text() != (seen / "0 outer").read_text() for inner in range(3)}
    assert elsewhere == {multiprocessing}


def started(folder: Path, text: str) -> subprocess.Popen[str]:
    """A script of a user."""
    head = """
import os, pathlib, signal, sys, time
import blockflow
from blockflow import Roi, Task, run_blockwise

def task(function, blocks=2, **more):
    return Task("t", Roi((0,), (10 * blocks,)), Roi((0,), (10,)), Roi((0,), (10,)), function, **more)

blockflow.logging.set_log_basedir("logs")
"""
    path = folder / "script_of_a_user.py"
    path.write_text(head + text)
    return subprocess.Popen(
        [sys.executable, str(path)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(blockflow.__file__).parents[1])},
        stderr=subprocess.PIPE,
        text=True,
    )


INNER = """
def inner(block):
    pathlib.Path("inner").touch()
    time.sleep(600)

def process(block):
    blockflow.logging.set_log_basedir("logs of the block")
    run_blockwise([task(inner)], progress=False)

run_blockwise([task(process)], progress=False)
"""


def test_ctrl_c_ends_runs_inside_blocks_too(tmp_path: Path) -> None:
    """The fixture of this folder then looks for processes and sockets that were left behind."""
    process = started(tmp_path, INNER)
    wait_for((tmp_path / "inner").exists)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in said
    assert not list(tmp_path.glob("*/.runs/*.socket"))


AT_ONCE = """
def check(block):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(600)

run_blockwise([task(print, check_function=check)], progress=False)
"""


def test_ctrl_c_right_after_the_start(tmp_path: Path) -> None:
    """A check is the first thing that runs; the thread of the user may be at any place then."""
    process = started(tmp_path, AT_ONCE)
    _, said = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in said
    assert [path.suffix for path in (tmp_path / "logs" / ".runs").iterdir()] == [".connection"]
