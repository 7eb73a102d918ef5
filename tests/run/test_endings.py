"""What becomes of a block when its worker is told to end, or its job is about to?"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import blockflow
from blockflow import Block, Client
from tests.run.scene import run, task_of, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable


def note(folder: Path, block: Block, word: str) -> None:
    (folder / f"{block.index}.{block.attempt}.{word}").write_text(str(os.getpid()))


def slow_once(folder: Path) -> Callable[[Block], None]:
    """The first attempt at block 1 waits until the file `go` is there; all others are quick."""

    def process(block: Block) -> None:
        first = block.index == 1 and not list(folder.glob("1.*"))
        note(folder, block, "begun")
        while first and not (folder / "go").exists():
            time.sleep(0.005)
        note(folder, block, "done")

    return process


def slow_worker(folder: Path) -> int:
    wait_for(lambda: any(path.read_text() for path in folder.glob("1.*.begun")))
    (begun,) = folder.glob("1.*.begun")
    return int(begun.read_text())


def aside(function: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_lets_the_block_under_way_end(folder: Path, number: signal.Signals) -> None:
    """And the worker is replaced for the others."""

    def interfere() -> None:
        worker = slow_worker(folder)
        os.kill(worker, number)
        wait_for(lambda: len(list(folder.glob("*.done"))) == 3)  # others do the rest meanwhile
        (folder / "go").touch()

    thread = aside(interfere)
    result = run(task_of(slow_once(folder), num_workers=2, max_retries=0))
    thread.join()
    assert result
    assert len(list(folder.glob("1.*.begun"))) == 1, "it was not run again"


def test_a_second_signal_gives_the_block_back_unharmed(folder: Path, logs: Path) -> None:
    def interfere() -> None:
        worker = slow_worker(folder)
        os.kill(worker, signal.SIGTERM)
        time.sleep(0.7)  # within half a second it would be an echo of the first
        os.kill(worker, signal.SIGTERM)

    thread = aside(interfere)
    result = run(task_of(slow_once(folder), num_workers=2, max_retries=0))
    thread.join()
    assert result
    assert len(list(folder.glob("1.*.begun"))) == 2
    assert len(list(folder.glob("1.*.done"))) == 1
    assert any("told to end" in path.read_text() for path in logs.glob("t/*.err"))


def test_a_signal_reaches_a_worker_in_the_middle_of_c_code(folder: Path) -> None:
    """Where the main thread runs no Python, unstarted blocks go to others all the same."""

    def process(block: Block) -> None:
        first = not list(folder.glob("*.begun"))
        note(folder, block, "begun")
        if first:
            threading.Event().wait(1.5)  # C code that lets Python run meanwhile
        note(folder, block, "done")

    def interfere() -> None:
        wait_for(lambda: any(path.read_text() for path in folder.glob("*.begun")))
        os.kill(int(next(folder.glob("*.begun")).read_text()), signal.SIGTERM)

    thread = aside(interfere)
    assert run(task_of(process, 3, max_retries=0))
    thread.join()
    assert len({path.read_text() for path in folder.glob("*.begun")}) > 1, "somebody else did the others"


def test_what_a_block_starts_itself_still_dies_of_a_signal(folder: Path) -> None:
    """Forked processes inherit handlers, and must not inherit ours: a pool could not be ended."""

    def process(block: Block) -> None:
        context = multiprocessing.get_context("fork")
        child = context.Process(target=time.sleep, args=(600,))
        child.start()
        child.terminate()
        child.join(10)
        child.kill()
        assert child.exitcode == -signal.SIGTERM
        note(folder, block, "done")

    assert run(task_of(process, 2, max_retries=0))
    assert len(list(folder.glob("*.done"))) == 2, "and the worker itself heard nothing of it"


def test_the_time_limit_of_a_job_ends_a_worker_in_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its block is given back when only the margin is left; another job has more time."""

    def process(block: Block) -> None:
        first = not list(folder.glob("*.begun"))
        note(folder, block, "begun")
        if first:
            time.sleep(600)
        note(folder, block, "done")

    def function() -> None:
        if not list(folder.glob("*.begun")):
            os.environ["BLOCKFLOW_END_TIME"] = str(int(time.time()) + 7)
        client = Client()
        while True:
            with client.acquire_block() as block:
                if block is None:
                    return
                process(block)

    began = time.monotonic()
    assert run(task_of(function, 2, max_retries=0))
    assert time.monotonic() - began < 60
    assert len(list(folder.glob("*.begun"))) == 3
    assert len(list(folder.glob("*.done"))) == 2


@pytest.mark.parametrize(
    ("number", "environment"), [(signal.SIGTERM, {}), (signal.SIGINT, {"LSB_JOBID": "7"})], ids=["anywhere", "in LSF"]
)
def test_a_script_with_a_client_ends_cleanly(folder: Path, number: signal.Signals, environment: dict[str, str]) -> None:
    """A user's own loop sees that there are no more blocks, and goes on behind it. LSF begins with SIGINT."""
    script = folder.parent / "script_of_a_worker.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import os, pathlib, time
            from blockflow import Client
            seen = pathlib.Path({str(folder)!r})
            client = Client()
            while True:
                with client.acquire_block() as block:
                    if block is None:
                        break
                    (seen / f"{{block.index}}.{{block.attempt}}.begun").write_text(str(os.getpid()))
                    while not (seen / "go").exists():
                        time.sleep(0.005)
            (seen / f"end.{{os.getpid()}}").touch()
            """
        )
    )

    def function() -> None:
        code = subprocess.call([sys.executable, str(script)], env=os.environ | {"PYTHONPATH": _ROOT} | environment)
        (folder / f"code.{code}").touch()

    def interfere() -> None:
        wait_for(lambda: any(path.read_text() for path in folder.glob("0.*.begun")))
        pid = int(next(folder.glob("0.*.begun")).read_text())
        os.kill(pid, number)
        time.sleep(0.1)
        (folder / "go").touch()
        wait_for((folder / f"end.{pid}").exists)

    thread = aside(interfere)
    assert run(task_of(function, 3, max_retries=0))
    thread.join()
    assert [path.name for path in folder.glob("code.*")] == ["code.0"]
    assert len(list(folder.glob("end.*"))) == 2


_ROOT = str(Path(blockflow.__file__).parents[1])


def test_a_client_leaves_the_handlers_of_others_alone(folder: Path) -> None:
    def function() -> None:
        signal.signal(signal.SIGUSR1, lambda number, frame: (folder / "mine").touch())
        client = Client()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        while True:
            with client.acquire_block() as block:
                if block is None:
                    return
                os.kill(os.getpid(), signal.SIGUSR1)
                wait_for((folder / "mine").exists)

    assert run(task_of(function, 2, max_retries=0))


def test_after_the_end_signals_mean_what_they_did_before(folder: Path) -> None:
    def function() -> None:
        client = Client()
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        while True:
            with client.acquire_block() as block:
                if block is None:
                    break
        client.close()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert signal.set_wakeup_fd(-1) == -1
        (folder / "fine").touch()

    assert run(task_of(function, 2, max_retries=0))
    assert (folder / "fine").exists()


def test_a_stopped_run_does_not_wait_for_long_blocks(folder: Path) -> None:
    """Workers that hold a block are told that nothing more is wanted, so that the first signal ends them."""

    def process(block: Block) -> None:
        note(folder, block, "begun")
        time.sleep(600)

    stop = threading.Event()

    def interfere() -> None:
        wait_for(lambda: len(list(folder.glob("*.begun"))) == 2)
        stop.set()

    thread = aside(interfere)
    server = blockflow.Server(stop_event=stop)
    assert server.run_blockwise([task_of(process, num_workers=2)])["t"].completed_count == 0
    thread.join()
    assert len(list(folder.glob("*.begun"))) == 2
