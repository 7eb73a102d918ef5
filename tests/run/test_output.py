"""What does a run show: in a terminal, in a file, to nobody; and where do logs go that have odd names?"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

import blockflow
from blockflow import Block, Context, Roi, Task, run_blockwise
from blockflow.logging import set_log_basedir

SCRIPT = """
import blockflow
from blockflow import Roi, Task, run_blockwise

blockflow.logging.set_log_basedir("logs")

def process(block):
    print("from a worker")
    if block.index == 1:
        raise ValueError("bad block")

roi = Roi((0,), (10,))
first = Task("first", Roi((0,), (30,)), roi, roi, process, max_retries=0)
second = Task("second", Roi((0,), (30,)), roi, roi, print, upstream_tasks=[first])
result = run_blockwise([second], OPTIONS)
open("result", "w").write(repr(result))
"""

RESULT = "<RunResult INCOMPLETE; first: 2/3, 1 failed, second: 2/3, 1 orphaned; first: ValueError: bad block>"


def script(folder: Path, options: str = "") -> list[str]:
    path = folder / "script_of_a_user.py"
    path.write_text(SCRIPT.replace("OPTIONS", options))
    return [sys.executable, str(path)]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(blockflow.__file__).parents[1])}


def in_a_terminal(folder: Path, options: str = "", columns: int = 100) -> str:
    """Everything that a script shows in a terminal."""
    ours, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, columns))
    command = script(folder, options)
    with subprocess.Popen(command, cwd=folder, stdout=terminal, stderr=terminal, env=environment()) as child:
        os.close(terminal)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 10_000)
            except OSError:  # the terminal closes with its last process
                break
    os.close(ours)
    assert child.returncode == 0
    assert (folder / "result").read_text() == RESULT
    return shown.decode().replace("\r\n", "\n")


def elsewhere(folder: Path, options: str = "") -> tuple[str, str]:
    """What a script prints on output and errors when these are files."""
    done = subprocess.run(
        script(folder, options), cwd=folder, env=environment(), capture_output=True, text=True, check=True
    )
    assert (folder / "result").read_text() == RESULT
    return done.stdout, done.stderr


SUMMARY = """
Execution summary (0:0X)
task          blocks         done   skipped    failed  orphaned
first              3            2         0         1         0
second             3            2         0         0         1
NOT COMPLETE: 2 of 6 blocks are not done
first: 1 failed: ValueError: bad block at script_of_a_user.py:10 (e.g. block 1)
    Traceback (most recent call last):
"""

TOLD = "first: block 1 at (1,) fails for good: ValueError: bad block (script_of_a_user.py:10)"


def of_any_time(text: str) -> str:
    return re.sub(r"\(0:0\d\)", "(0:0X)", text)


# ------------------------------------------------------------------------------------------------------- terminals


def test_in_a_terminal_there_are_bars_and_then_the_summary(tmp_path: Path) -> None:
    shown = in_a_terminal(tmp_path)
    for name in ("first", "second"):
        assert re.search(rf"{name}: +0%\|", shown)
        assert re.search(rf"{name}: +67%\|[^|]*\| 2/3 \[", shown)
    assert "1 failed" in shown
    assert "1 orphaned" in shown
    assert TOLD in shown
    summary = of_any_time(shown[shown.index("Execution summary") :])
    assert summary.startswith(SUMMARY.lstrip())
    assert "what the workers printed: " in summary
    assert "from a worker" not in shown, "that is in the logs"


def test_a_narrow_terminal_has_room_for_both(tmp_path: Path) -> None:
    shown = in_a_terminal(tmp_path, columns=40)
    assert re.search(r"second: +67%\|", shown)
    assert of_any_time(shown).count("Execution summary (0:0X)") == 1


def test_a_terminal_without_progress_and_summary_shows_failures_only(tmp_path: Path) -> None:
    assert in_a_terminal(tmp_path, "progress=False, summary=False") == f"{TOLD}\n"


def test_a_file_gets_lines_without_control_characters(tmp_path: Path) -> None:
    out, err = elsewhere(tmp_path)
    assert out == "", "all of it goes to the errors, as output may be data"
    lines = err.splitlines()
    assert "first: 2/3 done, 1 failed" in lines
    assert "second: 2/3 done, 1 orphaned" in lines
    assert TOLD in lines
    assert SUMMARY in of_any_time(err)
    assert all(line.isprintable() for line in lines)


def test_the_summary_alone(tmp_path: Path) -> None:
    _, err = elsewhere(tmp_path, "progress=False")
    assert of_any_time(err).startswith(f"{TOLD}\n{SUMMARY}")


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_nobody_is_shown_anything(tmp_path: Path, closed: str) -> None:
    """As in a daemon, whose standard files are closed."""
    command = [*script(tmp_path), closed]
    line = f"{command[0]} {command[1]} {closed}"
    done = subprocess.run(["sh", "-c", line], cwd=tmp_path, env=environment(), capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")
    assert (tmp_path / "result").read_text() == RESULT
    written = "".join(path.read_text() for path in (tmp_path / "logs" / "first").glob("*.out"))
    assert written == "from a worker\n" * 3


# ------------------------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize("ledger", [False, True])
def test_paths_that_are_no_utf8(tmp_path: Path, ledger: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Names of files are bytes; those of old disks come from other encodings."""
    odd = tmp_path / os.fsdecode(b"caf\xe9 \xff")
    odd.mkdir()
    set_log_basedir(odd / "logs")

    def process(block: Block) -> None:
        found = Context.from_env()["logdir"]
        (odd / f"{block.index}").write_bytes(os.fsencode(found))
        print("seen")
        if block.index == 1:
            raise ValueError(str(odd))

    contexts: list[Context] = []
    roi = Roi((0,), (10,))
    task = Task("t", Roi((0,), (30,)), roi, roi, process, init_callback_fn=contexts.append, max_retries=0)
    run_dir = odd / "run" if ledger else None
    result = run_blockwise([task], progress=False, run_dir=run_dir)
    assert result["t"].completed_count == 2
    logs = odd / ("run/logs" if ledger else "logs")
    assert (odd / "0").read_bytes() == os.fsencode(logs)
    assert (logs / "t" / "worker_0.out").read_text() == "seen\n" * 3
    assert contexts[0]["logdir"] == str(logs)
    assert result.causes[0].error == "ValueError: " + str(odd).encode(errors="backslashreplace").decode()
    if ledger:
        assert not run_blockwise([task], progress=False, summary=False, run_dir=run_dir)
        assert (logs / "t" / "worker_0.out").read_text() == "seen\n" * 3, "nothing was run again"


def test_a_large_closure_holds_nobody_up(tmp_path: Path) -> None:
    """It is sent once, before the run listens, and not by the loop that answers workers."""
    large = bytes(40_000_000)

    def process(block: Block) -> None:
        (tmp_path / f"{block.index} {len(large)}").touch()

    roi = Roi((0,), (10,))
    many: dict[str, Any] = {"num_workers": 4, "read_write_conflict": False}
    tasks = [Task(name, Roi((0,), (40,)), roi, roi, process, **many) for name in ("a", "b")]
    assert run_blockwise(tasks, progress=False, summary=False)
    assert {path.name for path in tmp_path.glob("* 40000000")} == {f"{index} 40000000" for index in range(4)}
