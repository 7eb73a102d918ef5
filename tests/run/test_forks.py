"""Processes that block functions fork are no workers; threads that are left behind hold nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from blockflow.place import is_dead
from tests.run.scene import run, task_of, wait_for

if TYPE_CHECKING:
    from pathlib import Path

BLOCKS = 12


def note(folder: str, index: int) -> None:
    """Note that a process has got to the end of a block."""
    file = os.open(f"{folder}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"{index} {os.getpid()}\n".encode())
    os.close(file)


def runs(folder: Path) -> Counter[str]:
    return Counter(line.split()[0] for line in (folder / "log").read_text().splitlines())


ENDS = {
    "sys.exit": "import sys; sys.exit(0)",
    "an error": "raise ValueError('in the copy')",
    "return": "return",
    "os._exit": "import os; os._exit(0)",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("staged", [False, True], ids=["plain", "with state"])
def test_copy_of_a_worker_gets_no_blocks(tmp_path: Path, end: str, staged: bool) -> None:
    source = textwrap.dedent(f"""
        def leave():
            {end}

        def work(block, state=None):
            import os
            if block.index == 5:
                pid = os.fork()
                if pid == 0:
                    return leave()
                os.waitpid(pid, 0)
            note({str(tmp_path)!r}, block.index)
    """)
    space: dict[str, object] = {"note": note}
    exec(source, space)  # functions that differ in one line
    more: dict[str, Any] = {"setup": list} if staged else {}
    result = run(task_of(space["work"], BLOCKS, num_workers=1, max_retries=0, **more))
    assert result
    assert runs(tmp_path) == {str(index): 1 for index in range(BLOCKS)}


def test_processes_of_multiprocessing(tmp_path: Path) -> None:
    folder = str(tmp_path)

    def work(block: object) -> None:
        import multiprocessing

        context = multiprocessing.get_context("fork")
        with context.Pool(2) as pool:  # its end is SIGTERM
            assert pool.map(abs, [-1, -2]) == [1, 2]
        note(folder, block.index)  # type: ignore[attr-defined]

    assert run(task_of(work, 4, num_workers=1, max_retries=0))
    assert runs(tmp_path) == {str(index): 1 for index in range(4)}


def test_copy_that_outlives_its_worker_does_not_hold_the_connection(tmp_path: Path) -> None:
    """The worker dies in the middle of a block; its copy lives on until the run is over."""
    folder = str(tmp_path)

    def work(block: object) -> None:
        import os
        import signal
        import time

        if block.index == 1 and not os.path.exists(f"{folder}/once"):  # type: ignore[attr-defined]
            open(f"{folder}/once", "w").close()
            if os.fork() == 0:
                os.setsid()
                with open(f"{folder}/copy", "w") as file:
                    file.write(str(os.getpid()))
                os.rename(f"{folder}/copy", f"{folder}/pid")
                while not os.path.exists(f"{folder}/over"):
                    time.sleep(0.01)
                os._exit(0)
            while not os.path.exists(f"{folder}/pid"):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        note(folder, block.index)  # type: ignore[attr-defined]

    try:
        assert run(task_of(work, 4, num_workers=1, max_retries=0))
    finally:
        (tmp_path / "over").touch()
        wait_for(lambda: is_dead(int((tmp_path / "pid").read_text())))
    assert runs(tmp_path) == {str(index): 1 for index in range(4)}


def test_script_whose_block_forks(tmp_path: Path) -> None:
    path = tmp_path / "worker.py"
    path.write_text(
        textwrap.dedent(f"""
            import os, sys
            import blockflow
            client = blockflow.Client()
            while True:
                with client.acquire_block() as block:
                    if block is None:
                        break
                    if block.index == 1:
                        pid = os.fork()
                        if pid == 0:
                            sys.exit(3)
                        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
                    if block.index == 2 and os.fork() == 0:
                        continue
                    with open({str(tmp_path / "log")!r}, "a") as log:
                        log.write(f"{{block.index}} {{os.getpid()}}\\n")
        """)
    )

    def start() -> None:
        subprocess.run([sys.executable, str(path)], check=True)

    assert run(task_of(start, 4, num_workers=1, max_retries=0))
    assert runs(tmp_path) == {str(index): 1 for index in range(4)}


def test_threads_that_are_left_behind_end_with_their_worker(tmp_path: Path) -> None:
    """Without the limit this thread would go on for ever."""
    folder = str(tmp_path)

    def work(block: object) -> None:
        import os
        import threading
        import time

        def go_on() -> None:
            while not os.path.exists(f"{folder}/over"):
                time.sleep(0.05)

        threading.Thread(target=go_on, name="left-by-user-code").start()
        note(folder, block.index)  # type: ignore[attr-defined]

    assert run(task_of(work, 1, num_workers=1), run_dir=tmp_path / "run")
    (said,) = (tmp_path / "run" / "logs" / "t").glob("*.err")
    assert "left-by-user-code" in said.read_text()
