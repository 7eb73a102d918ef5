"""Displays that fail, or take nothing: the run does not notice, and the log has what could not be shown."""

from __future__ import annotations

import io
import os
import pty
import sys
import termios
from typing import TYPE_CHECKING, Any, TextIO

import pytest

from blockflow import TaskState
from blockflow.monitor import guarded
from blockflow.monitor.guarded import LOG_NAME, Guarded, append_line
from blockflow.monitor.progress import Bars, Lines, Silence, make_display

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

STATE = TaskState(
    started=True,
    total_block_count=4,
    ready_count=0,
    processing_count=1,
    completed_count=2,
    skipped_count=0,
    failed_count=0,
    orphaned_count=0,
)


def logged(folder: Path) -> list[str]:
    """What the lines of the log say after the time."""
    file = folder / LOG_NAME
    return [line[20:] for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def errors(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Let standard error, also the one that Python began with, be a file of this descriptor."""
    opened: list[TextIO] = []

    def be(descriptor: int) -> None:
        stream = io.TextIOWrapper(os.fdopen(descriptor, "wb"), line_buffering=True)
        opened.append(stream)
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(sys, "__stderr__", stream)

    yield be
    for stream in opened:
        stream.close()  # nothing that could not be written is left


def show(folder: Path, *, progress: bool = True) -> Guarded:
    display = make_display(progress=progress, logs=folder)
    assert isinstance(display, Guarded)
    display.update({"t": STATE}, 0.0)
    display.write("first line\nsecond line")
    display.close({"t": STATE}, 1.0)
    return display


@pytest.mark.parametrize("progress", [False, True])
def test_a_pipe_that_is_closed(errors: Any, tmp_path: Path, progress: bool) -> None:
    read, write = os.pipe()
    os.close(read)
    errors(write)
    show(tmp_path, progress=progress)
    assert logged(tmp_path)[0] == "first line"
    assert "second line" in (tmp_path / LOG_NAME).read_text()


def test_a_disk_that_is_full(errors: Any, tmp_path: Path) -> None:
    errors(os.open("/dev/full", os.O_WRONLY))
    show(tmp_path)
    assert logged(tmp_path)[0] == "first line"


def test_a_disk_that_has_room_again(errors: Any, tmp_path: Path) -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    errors(descriptor)
    display = show(tmp_path)
    file = os.open(tmp_path / "shown", os.O_WRONLY | os.O_CREAT)
    os.dup2(file, descriptor)
    os.close(file)
    display.write("third")
    assert (tmp_path / "shown").read_text() == "third\n"


def test_a_terminal_that_was_closed(errors: Any, tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    errors(follower)
    display = make_display(progress=True, logs=tmp_path)
    os.close(leader)
    display.update({"t": STATE}, 0.0)
    display.write("a line")
    display.close({"t": STATE}, 1.0)
    assert logged(tmp_path)[-1] == "a line"


def test_a_terminal_that_is_stopped(errors: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with Ctrl-S: what is written then waits until somebody presses Ctrl-Q."""
    monkeypatch.setattr(guarded, "PATIENCE_SECONDS", 0.01)
    leader, follower = pty.openpty()
    errors(follower)
    display = make_display(progress=False, logs=tmp_path)
    termios.tcflow(follower, termios.TCOOFF)
    display.write("while it stood")
    termios.tcflow(follower, termios.TCOON)
    display.write("afterwards")
    assert logged(tmp_path) == ["while it stood"]
    assert os.read(leader, 100) == b"afterwards\r\n"
    os.close(leader)


def test_a_pipe_that_nobody_reads(errors: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded, "PATIENCE_SECONDS", 0.01)
    read, write = os.pipe()
    errors(write)
    display = make_display(progress=True, logs=tmp_path)
    text = "\n".join(f"line {number} of a long account" for number in range(10_000))
    display.write(text)
    display.update({"t": STATE}, 0.0)
    display.close({"t": STATE}, 1.0)
    shown = os.read(read, 1 << 20).decode().splitlines()
    kept = (tmp_path / LOG_NAME).read_text()
    assert shown
    assert len(shown) < 10_000
    assert shown[-1] in text
    assert "line 9999 of a long account" in kept
    os.close(read)


@pytest.mark.parametrize("how", ["closed", "no file", "raises"])
def test_streams_that_are_hardly_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    class Raises(io.StringIO):
        def write(self, text: str) -> int:
            raise RuntimeError("the kernel is gone")

    stream: Any = {"closed": io.StringIO(), "no file": object(), "raises": Raises()}[how]
    if how == "closed":
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    show(tmp_path)
    assert "first line" in logged(tmp_path)


class BrokenBars(Silence):
    """As bars are in a notebook without ipywidgets."""

    talks = True

    def update(self, states: Mapping[str, TaskState], now: float) -> None:
        raise ImportError("IProgress not found")


def test_bars_that_cannot_be_drawn_become_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    display = Guarded(BrokenBars(), Lines(), logs=lambda: tmp_path)
    assert display.talks
    display.update({"t": STATE}, 0.0)
    assert capsys.readouterr().err == "t: 2/4 done, 1 running\n"
    assert logged(tmp_path) == ["progress is shown in a simpler way: ImportError: IProgress not found"]


def test_bars_begin_in_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    display = make_display(progress=True, logs=tmp_path)
    assert isinstance(display, Guarded)
    assert isinstance(display.display, Bars)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    display.update({"t": STATE}, 0.0)
    assert isinstance(display.display, Lines)


def test_ctrl_c_is_no_fault_of_the_display(tmp_path: Path) -> None:
    class Interrupted(Silence):
        def write(self, text: str) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Guarded(Interrupted(), logs=lambda: tmp_path).write("x")
    assert logged(tmp_path) == []


def test_a_log_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    append_line(None, "x")
    (tmp_path / "file").write_text("")
    append_line(tmp_path / "file", "x")
    (tmp_path / LOG_NAME).mkdir()
    append_line(tmp_path, "x")
