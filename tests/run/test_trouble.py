"""What does a run do when something around it goes wrong: the terminal, the disk, the processes, the user?"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

import blockflow
from blockflow import Block, Client, Task, run_blockwise
from tests.run.scene import run, task_of, wait_for


def started(folder: Path, text: str) -> subprocess.Popen[str]:
    """A script of a user, in a folder."""
    head = """
        import os, pathlib, signal, sys, threading, time
        import blockflow
        from blockflow import Client, Roi, Task, run_blockwise
        blockflow.logging.set_log_basedir("logs")

        def task(function, blocks=4, **more):
            return Task("t", Roi((0,), (10 * blocks,)), Roi((0,), (10,)), Roi((0,), (10,)), function, **more)

        def touch(name):
            pathlib.Path("seen", str(name)).touch()
        """
    path = folder.parent / "script_of_a_user.py"
    path.write_text(textwrap.dedent(head) + textwrap.dedent(text))
    return subprocess.Popen(
        [sys.executable, str(path)],
        cwd=folder.parent,
        env=os.environ | {"PYTHONPATH": str(Path(blockflow.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str], seconds: float) -> str:
    """Everything that a process printed, when it has ended in time."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return out + err


# -------------------------------------------------------------------------------------------------------- the user


def test_an_impatient_user_leaves_no_process_and_no_key_either(folder: Path) -> None:
    """Ctrl-C, and again, and again."""
    process = started(
        folder,
        """
        def process(block):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            touch(block.index)
            time.sleep(600)

        run_blockwise([task(process, num_workers=2)])
        """,
    )
    wait_for((folder / "0").exists)
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)  # within the time that stopping takes
    assert "KeyboardInterrupt" in ended(process, 20)
    assert process.returncode != 0


@pytest.mark.parametrize("check", ["(check, None)", "(None, check)"])
def test_ctrl_c_does_not_wait_for_a_check(folder: Path, check: str) -> None:
    process = started(
        folder,
        f"""
        def check(block):
            touch("checking")
            time.sleep(600)

        run_blockwise([task(lambda block: None, check_function={check})])
        """,
    )
    wait_for((folder / "checking").exists)
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in ended(process, 20)


def test_ctrl_c_ends_what_workers_have_started(folder: Path) -> None:
    """Also what was started by a worker that has ended since; the fixture looks for processes left behind."""
    process = started(
        folder,
        """
        import subprocess

        def work():
            subprocess.Popen(["sleep", "600"])
            client = Client()
            with client.acquire_block() as block:
                touch(block.index)
                if block.index > 0:
                    time.sleep(600)

        run_blockwise([task(work)])
        """,
    )
    wait_for((folder / "1").exists)
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in ended(process, 20)


def test_a_finished_run_ends_what_workers_have_left(folder: Path) -> None:
    def work() -> None:
        subprocess.Popen(["sleep", "600"])
        client = Client()
        with client.acquire_block():
            pass

    assert run(task_of(work, blocks=3))


# ----------------------------------------------------------------------------------------------------- the terminal


def test_a_run_whose_display_breaks_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the output is piped into a program that ends."""

    class Broken:
        def write(self, text: str) -> int:
            raise BrokenPipeError("nobody reads this")

        def flush(self) -> None:
            pass

        def isatty(self) -> bool:
            return False

    def process(block: Block) -> None:
        (folder / str(block.index)).touch()

    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Broken())
        assert run_blockwise([task_of(process)])
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("blockflow")]


# --------------------------------------------------------------------------------------------------------- the disk


def test_logs_that_are_deleted_while_a_run_goes_on_cost_nothing(folder: Path, logs: Path) -> None:
    def process(block: Block) -> None:
        if block.index == 2:
            shutil.rmtree(logs)

    assert run(task_of(process))


def test_a_run_may_change_its_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs and connection file stay where they were when it started."""
    monkeypatch.chdir(folder)
    blockflow.logging.set_log_basedir("here")

    def process(block: Block) -> None:
        if block.index == 1:
            os._exit(1)  # another worker is started, from the other directory

    def move(context: object) -> None:
        os.chdir("/")

    result = run(task_of(process, init_callback_fn=move))
    assert result["t"].completed_count == 3
    assert len(list((folder / "here" / "t").glob("*.out"))) > 1
    assert [file.read_text().count("PRIVATE") for file in (folder / "here" / ".runs").iterdir()] == [0]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_logs_that_cannot_be_written_are_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError):
            run(task_of(lambda block: None))
    finally:
        tmp_path.chmod(0o700)


# ---------------------------------------------------------------------------------------------------- the processes


def test_a_driver_with_many_open_files_can_run(folder: Path) -> None:
    """select() knows no descriptor above 1023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 3000:
        pytest.skip("this user may not open so many files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (3000, hard))
    descriptors = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        assert run(task_of(lambda block: None))
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_run_survives_the_process_that_makes_its_workers(folder: Path) -> None:
    """Block 0 kills it while block 1 runs on another worker; then a worker dies, so that a new one is needed."""

    def process(block: Block) -> None:
        (folder / f"began {block.index}").touch()
        if block.index == 0:
            wait_for((folder / "began 1").exists)
            os.kill(parent_of(os.getpid()), signal.SIGKILL)
            os._exit(1)
        if block.index == 1:
            wait_for((folder / "began 2").exists)

    def again(block: Block) -> None:
        if block.index == 0 and (folder / "began 0").exists():
            return
        process(block)

    began = time.monotonic()
    assert run(task_of(again, num_workers=2))
    assert time.monotonic() - began < 20  # not after some patience has run out


def test_runs_leave_no_file_thread_or_process_open() -> None:
    def full() -> Task:
        checks = (lambda block: block.index == 1, lambda block: True)
        return task_of(lambda block: None, num_workers=2, check_function=checks, init_callback_fn=print)

    run(full())
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(5):
        assert run(full())
    wait_for(lambda: threading.active_count() <= before[1], seconds=5.0)  # the last of them are on their way
    # Threads of tests before this one may still have been on their way when they were counted first.
    assert threading.active_count() <= before[1]
    assert len(os.listdir("/proc/self/fd")) <= before[0]


# ----------------------------------------------------------------------------------------------- the callbacks


def test_an_init_callback_that_fails_ends_the_run_with_its_own_error(folder: Path) -> None:
    def fail(context: object) -> None:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        run(task_of(lambda block: (folder / "ran").touch(), init_callback_fn=fail))
    assert not (folder / "ran").exists()


def test_the_init_callback_of_a_later_task_that_fails_ends_the_run(folder: Path) -> None:
    def fail(context: object) -> None:
        raise ZeroDivisionError("mine")

    first = task_of(lambda block: (folder / "ran").touch(), name="first")
    with pytest.raises(ZeroDivisionError, match="mine"):
        run(task_of(lambda block: None, name="second", upstream_tasks=[first], init_callback_fn=fail))
    assert (folder / "ran").exists()


def test_a_slow_init_callback_holds_up_no_other_task(folder: Path) -> None:
    """The first task needs its driver while the second one prepares."""
    ready = threading.Event()

    def prepare(context: object) -> None:
        assert ready.wait(30), "the first task stands still"

    def first(block: Block) -> None:
        if block.index == 3:
            (folder / "all").touch()

    def watch() -> None:
        wait_for((folder / "all").exists)
        ready.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    above = task_of(first, name="first", read_write_conflict=False)
    assert run(task_of(lambda block: None, name="second", upstream_tasks=[above], init_callback_fn=prepare))
    watcher.join()


def test_an_init_callback_that_leaves_a_generator_is_an_error() -> None:
    def fail(context: object) -> None:
        next(iter([]))

    with pytest.raises(RuntimeError, match="raised StopIteration"):
        run(task_of(lambda block: None, init_callback_fn=fail))


def test_a_check_that_ends_python_ends_the_run(folder: Path) -> None:
    def check(block: Block) -> bool:
        sys.exit("no store")

    with pytest.raises(SystemExit, match="no store"):
        run(task_of(lambda block: None, check_function=check))
