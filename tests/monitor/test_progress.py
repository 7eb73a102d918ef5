"""Does what is shown tell how far a run is?"""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest

import blockflow
from blockflow import TaskState
from blockflow.monitor.guarded import Guarded
from blockflow.monitor.progress import LINES_SECONDS, Lines, Rate, Silence, clock, describe, make_display


def state(done: int, total: int = 100, **more: int) -> TaskState:
    counts = {"ready_count": 0, "processing_count": 0, "skipped_count": 0, "failed_count": 0, "orphaned_count": 0}
    return TaskState(started=True, total_block_count=total, completed_count=done, **(counts | more))


def test_lines_come_now_and_then_only_if_something_changed_and_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    lines.update({"t": state(10, processing_count=2)}, 0.0)
    lines.update({"t": state(20)}, LINES_SECONDS / 2)
    lines.update({"t": state(30, failed_count=1, skipped_count=5)}, LINES_SECONDS)
    lines.update({"t": state(30, failed_count=1, skipped_count=5)}, 2 * LINES_SECONDS)
    lines.close({"t": state(99, failed_count=1)}, 2.1 * LINES_SECONDS)
    shown = capsys.readouterr().err.splitlines()
    assert shown[0] == "t: 10/100 done, 2 running"
    assert shown[1].startswith("t: 30/100 done, 1 failed, 5 skipped, ")
    assert shown[-1] == "t: 99/100 done, 1 failed"


def test_a_task_that_has_not_begun_is_not_mentioned(capsys: pytest.CaptureFixture[str]) -> None:
    waiting = TaskState(
        started=False,
        total_block_count=5,
        ready_count=0,
        processing_count=0,
        completed_count=0,
        skipped_count=0,
        failed_count=0,
        orphaned_count=0,
    )
    Lines().update({"t": waiting}, 0.0)
    assert capsys.readouterr().err == ""


def test_the_time_left_comes_from_the_last_minute_and_leaves_skipped_blocks_out() -> None:
    rate = Rate()
    rate.add(state(0), 0.0)
    assert rate.left(state(0)) is None
    for second in range(1, 121):  # ten blocks a second in the first minute, one in the second
        done = 10 * min(second, 60) + max(0, second - 60)
        rate.add(state(done + 7, 2000, skipped_count=7), float(second))
    left = rate.left(state(667, 2000, skipped_count=7))
    assert left == pytest.approx(1333, rel=0.02)


def test_numbers_that_are_zero_are_not_shown() -> None:
    assert describe(state(5), None) == ""
    assert describe(state(5, orphaned_count=2), 75.0) == ", 2 orphaned, 1:15 left"
    assert describe(state(100), 75.0) == "", "nothing is left when all is done"


def test_durations_are_read_by_people() -> None:
    assert [clock(0.4), clock(59.6), clock(3600), clock(172_800)] == ["0:00", "1:00", "1:00:00", "2 d 0 h"]


BARS = """
from blockflow import TaskState
from blockflow.monitor.progress import Bars, make_display

def state(done, running):
    return TaskState(started=True, total_block_count=100, ready_count=0, processing_count=running,
                     completed_count=done, skipped_count=0, failed_count=0, orphaned_count=0)

display = make_display(progress=True)
assert isinstance(display.display, Bars)
display.update({"smooth": state(40, 3)}, 0.0)
display.write("a line of its own")
display.close({"smooth": state(100, 0)}, 10.0)
"""


def test_bars_in_a_terminal_show_tasks_and_let_lines_through() -> None:
    ours, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    environment = os.environ | {"PYTHONPATH": str(Path(blockflow.__file__).parent.parent)}
    with subprocess.Popen([sys.executable, "-c", BARS], stderr=terminal, env=environment) as child:
        os.close(terminal)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 10_000)
            except OSError:  # the terminal closes with its process
                break
    os.close(ours)
    assert child.returncode == 0
    text = shown.decode()
    for part in ("smooth:  40%", "40/100", "3 running", "a line of its own", "100/100"):
        assert part in text


def test_no_progress_is_silent_but_for_lines(capsys: pytest.CaptureFixture[str]) -> None:
    display = make_display(progress=False)
    assert isinstance(display, Guarded)
    assert isinstance(display.display, Silence)
    display.update({"t": state(1)}, 0.0)
    display.close({"t": state(1)}, 0.0)
    display.write("said")
    assert capsys.readouterr().err == "said\n"


def test_a_stream_that_is_strict_or_poor_takes_any_text(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(written, encoding="latin-1", write_through=True))
    Lines().write("café 🔬 \udcff")
    assert written.getvalue() == b"caf\xe9 \\U0001f52c \\udcff\n"

    class Poor:
        said = ""

        def write(self, text: str) -> None:
            self.said += text

    poor = Poor()
    monkeypatch.setattr(sys, "stderr", poor)
    Silence().write("as loggers are \udcff")
    assert poor.said == "as loggers are \\udcff\n"


def test_without_errors_nothing_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    display = make_display(progress=True, logs=tmp_path)
    display.update({"t": state(1)}, 0.0)
    display.write("to the log")
    display.close({"t": state(1)}, 0.0)
    assert (tmp_path / "driver.log").read_text().endswith(" to the log\n")


def test_lines_are_for_what_is_no_terminal() -> None:
    display = make_display(progress=True)
    assert isinstance(display, Guarded)
    assert isinstance(display.display, Lines)
