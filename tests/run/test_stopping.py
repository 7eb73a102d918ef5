"""Ctrl-C, a stop event, a debugger's mode: does a run end when and how it should?"""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import blockflow
from blockflow import BlockStatus, Roi, Server, Task, run_blockwise
from blockflow.errors import PlanError, RunError
from tests.run.scene import wait_for

SCRIPT = """
import sys, time
from pathlib import Path
import blockflow

def work(block):
    Path(sys.argv[1], f"began_{block.index}").touch()
    time.sleep(600)

roi = blockflow.Roi((0,), (8,)), blockflow.Roi((0,), (1,)), blockflow.Roi((0,), (1,))
blockflow.logging.set_log_basedir(sys.argv[1] + "/logs")
blockflow.run_blockwise([blockflow.Task("long", *roi, work, num_workers=2)])
"""

# nohup and a shell's background leave signals ignored, and children inherit that: undo it in the script itself.
UNDO = """
import signal
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
"""


def line(function: Any, blocks: int = 4, **more: Any) -> Task:
    return Task("line", Roi((0,), (blocks,)), Roi((0,), (1,)), Roi((0,), (1,)), function, **more)


ON_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, sys.argv[1]])
"""


def begun(folder: Path, text: str = UNDO + SCRIPT) -> subprocess.Popen[str]:
    """A script whose blocks have begun, and never end."""
    script = folder / "script.py"
    script.write_text(text.replace("sys.argv[1]", repr(str(folder))))
    environment = os.environ | {"PYTHONPATH": str(Path(blockflow.__file__).parent.parent)}
    run = subprocess.Popen([sys.executable, script], env=environment, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list(folder.glob("began_*")) or run.poll() is not None)
    assert run.poll() is None
    return run


def test_ctrl_c_ends_a_run_within_seconds(tmp_path: Path) -> None:
    """The fixture of this folder then looks for processes that were left behind."""
    run = begun(tmp_path)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=20)
    assert run.returncode not in (0, None)
    assert "stopping: workers are asked to end, and are ended in a second" in said
    assert "KeyboardInterrupt" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_run_as_ctrl_c_does(tmp_path: Path, number: signal.Signals) -> None:
    """As a cluster ends the job of a driver, and a terminal that is closed; the fixture looks for what is left."""
    run = begun(tmp_path)
    run.send_signal(number)
    _, said = run.communicate(timeout=20)
    assert run.returncode == 128 + number
    assert f"this process got {number.name}" in said
    assert f"this process got {number.name}" in (tmp_path / "logs" / "driver.log").read_text()


def test_a_terminal_that_is_closed_ends_a_run_in_order(tmp_path: Path) -> None:
    """Nothing can be printed any more, and the second signal comes while the run ends."""
    leader, follower = pty.openpty()
    script = tmp_path / "script.py"
    script.write_text((UNDO + SCRIPT).replace("sys.argv[1]", repr(str(tmp_path))))
    environment = os.environ | {"PYTHONPATH": str(Path(blockflow.__file__).parent.parent)}
    # A session of its own whose terminal this is: it gets the signal when the other end is closed.
    run = subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL, script],
        env=environment,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    )
    os.close(follower)
    wait_for(lambda: list(tmp_path.glob("began_*")) or run.poll() is not None)
    os.close(leader)
    assert run.wait(timeout=30) == 128 + signal.SIGHUP
    said = (tmp_path / "logs" / "driver.log").read_text()
    assert "this process got SIGHUP: its terminal was closed; the run was ended in order" in said


def test_what_nohup_ignores_stays_ignored(tmp_path: Path) -> None:
    script = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + SCRIPT
    run = begun(tmp_path, script)
    run.send_signal(signal.SIGHUP)
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate(timeout=20)
    assert run.returncode == 128 + signal.SIGTERM
    assert "SIGHUP" not in said


def test_no_port_that_is_free_is_an_error_before_anything_starts(logs: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RunError, match=rf"cannot listen on 127\.0\.0\.1:{port}: .* or several of which"):
            run_blockwise([line(lambda block: None)], port=f"{port}-{port}", progress=False)


def test_an_address_of_another_machine_is_refused_before_anything_starts(logs: Path) -> None:
    with pytest.raises(RunError, match=r"cannot listen on 192\.0\.2\.1:0: .*host= must be an address of this machine"):
        run_blockwise([line(lambda block: None)], host="192.0.2.1", progress=False)
    assert not logs.exists()


@pytest.mark.parametrize("reset", [False, True])
def test_a_port_that_is_taken_is_refused_before_a_run_directory_is_made_or_forgotten(
    tmp_path: Path, *, reset: bool
) -> None:
    path = tmp_path / "run"
    if reset:
        assert run_blockwise([line(lambda block: None)], run_dir=path, progress=False, summary=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RunError, match=f"cannot listen on 127.0.0.1:{port}: .*port= one that is free"):
            run_blockwise([line(lambda block: None)], run_dir=path, reset=reset, port=port, progress=False)
    if reset:
        assert blockflow.Ledger.open(path).counts("line")["done"] == 4
    else:
        assert not path.exists()


@pytest.mark.parametrize("seconds", [0, -1, True, 1e9])
def test_a_lease_of_no_sensible_length_is_refused(seconds: Any) -> None:
    with pytest.raises(PlanError, match="lease_seconds must be a number from 1 to 86400"):
        run_blockwise([line(lambda block: None)], lease_seconds=seconds, progress=False)


def test_c_code_may_hold_pythons_lock_for_longer_than_a_lease(tmp_path: Path) -> None:
    ran = str(tmp_path / "ran")

    def hold(block: blockflow.Block) -> None:
        import ctypes
        import os

        with open(ran, "a") as file:
            file.write(f"{block.index}\n")
        if block.index == 1:
            ctypes.PyDLL(None).usleep(900_000)
            ctypes.PyDLL(None).usleep(900_000)
        assert os.getpid()

    assert run_blockwise([line(hold, num_workers=2)], lease_seconds=1, progress=False, summary=False)
    assert sorted((tmp_path / "ran").read_text().split()) == ["0", "1", "2", "3"], "each block ran once"


def test_the_blocks_of_a_stopped_process_run_elsewhere(tmp_path: Path) -> None:
    folder = str(tmp_path)

    def freeze_once(block: blockflow.Block) -> None:
        import os
        import signal

        if block.index == 1:
            try:
                os.close(os.open(f"{folder}/frozen", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
            os.kill(os.getpid(), signal.SIGSTOP)

    result = run_blockwise([line(freeze_once, num_workers=2)], lease_seconds=1, progress=False, summary=False)
    assert result
    assert result["line"].completed_count == 4


def test_a_server_stops_when_its_event_is_set(tmp_path: Path) -> None:
    stop = threading.Event()
    began = str(tmp_path / "began")

    def work(block: blockflow.Block) -> None:
        from pathlib import Path
        from time import sleep

        Path(began).touch()
        sleep(600)

    def set_when_begun() -> None:
        while not os.path.exists(began):
            time.sleep(0.01)
        stop.set()

    watcher = threading.Thread(target=set_when_begun)
    watcher.start()
    server = Server(stop_event=stop)
    states = server.run_blockwise([line(work)])
    watcher.join()
    assert states["line"].completed_count == 0
    assert not states["line"].is_done()
    assert server.port > 0


def test_a_server_may_be_used_again() -> None:
    server = Server()
    for _ in range(2):
        assert server.run_blockwise([line(lambda block: None)])["line"].completed_count == 4


def test_the_first_exception_is_raised_in_this_process() -> None:
    seen = []

    def work(block: blockflow.Block) -> None:
        seen.append(block.index)
        if block.index == 2:
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        run_blockwise([line(work)], multiprocessing=False, progress=False, summary=False)
    assert seen == [0, 1, 2]


def test_setup_and_teardown_surround_the_blocks_in_this_process() -> None:
    events: list[Any] = []

    def load() -> list[int]:
        events.append("setup")
        return []

    def work(block: blockflow.Block, state: list[int]) -> None:
        assert block.index is not None
        state.append(block.index)
        if block.index == 3:
            block.status = BlockStatus.FAILED

    task = line(work, setup=load, teardown=events.append, max_retries=0)
    result = run_blockwise(task, multiprocessing=False, progress=False, summary=False)
    assert events == ["setup", [0, 1, 2, 3]]
    assert [block.index for block in result.failed_blocks["line"]] == [3]
    assert result.causes[0].error == "block.status was set to FAILED"


def test_each_worker_sets_up_once(logs: Path) -> None:
    def load() -> str:
        print("set up")
        return "state"

    def work(block: blockflow.Block, state: str) -> None:
        assert state == "state"

    def leave(state: str) -> None:
        print("torn down", state)

    task = line(work, 50, setup=load, teardown=leave, num_workers=2, read_write_conflict=False)
    assert run_blockwise(task, progress=False, summary=False)
    outputs = [file.read_text().splitlines() for file in (logs / "line").glob("*.out")]
    assert outputs
    assert all(output in ([], ["set up", "torn down state"]) for output in outputs)


def test_a_worker_function_needs_a_server() -> None:
    with pytest.raises(PlanError, match="takes no block, so it is a worker that needs a server"):
        run_blockwise([line(lambda: None)], multiprocessing=False)


def test_a_long_lease_is_shared_when_blocks_become_slow(tmp_path: Path) -> None:
    """The first blocks are quick, so leases grow; then two block waits for what the other process does."""
    folder = str(tmp_path)

    def work(block: blockflow.Block) -> None:
        import os
        import time

        if block.index is None or block.index < 40:
            return
        with open(os.path.join(folder, f"slow_{os.getpid()}"), "a") as file:
            file.write("x")
        while len([name for name in os.listdir(folder) if name.startswith("slow_")]) < 2:
            time.sleep(0.01)

    task = line(work, 60, num_workers=2, read_write_conflict=False, timeout=30.0, max_retries=0)
    assert run_blockwise(task, progress=False, summary=False)


@pytest.mark.parametrize("setup", [None, dict])
def test_processes_end_after_so_many_blocks_and_others_take_their_place(setup: Any, logs: Path) -> None:
    def work(block: blockflow.Block, *state: object) -> None:
        print("block", block.index)

    task = line(work, 50, setup=setup, num_workers=2, read_write_conflict=False, blocks_per_process=3)
    result = run_blockwise(task, progress=False, summary=False)
    assert result
    outputs = [file.read_text().splitlines() for file in (logs / "line").glob("*.out")]
    assert max(map(len, outputs)) == 3
    assert sorted(text for output in outputs for text in output) == sorted(f"block {index}" for index in range(50))


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "3"])
def test_processes_that_would_do_no_block_are_refused(number: Any) -> None:
    with pytest.raises(PlanError, match="blocks_per_process must be a whole number >= 1, got"):
        line(print, blocks_per_process=number)
