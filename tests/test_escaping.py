"""Text of others controls no terminal, and forges no line of a log."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow.errors import BlockflowError, LedgerFullError
from blockflow.escaping import escape, escape_line, get_logger
from blockflow.monitor.progress import Silence
from blockflow.wire.failures import describe

if TYPE_CHECKING:
    from pathlib import Path

OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What terminals obey, but for line ends and tabs."""

NASTY = "\x1b[2J \x9b2J \x1b]0;title\x07 \u202egnp.exe \u2066x\u2069 \r \x08 \u2028 \x7f"


@given(st.text() | st.text(st.characters(max_codepoint=0xA0)) | st.text(st.characters(categories=["Cf", "Zl", "Zp"])))
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    assert not OBEYED.search(escape(text))
    assert "\n" not in escape_line(text)
    assert escape(escape_line(text)) == escape_line(text)


@given(st.text(st.characters(categories=["L", "M", "N", "P", "S", "Zs"])))
def test_what_can_be_read_stays(text: str) -> None:
    assert escape(text) == escape_line(text) == text


def test_messages_of_errors_are_harmless() -> None:
    assert not OBEYED.search(str(BlockflowError(NASTY)))
    assert not OBEYED.search(str(LedgerFullError(28, NASTY, NASTY)))


def test_exceptions_of_user_code_are_harmless_before_they_are_sent() -> None:
    told = describe(ValueError(NASTY))
    assert not OBEYED.search(told.error + told.traceback + told.where)


def test_what_is_shown_is_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    Silence().write(NASTY)
    shown = capsys.readouterr().err
    assert shown.endswith("\n")
    assert not OBEYED.search(shown)


def test_records_of_the_logger_stay_on_their_lines(caplog: pytest.LogCaptureFixture) -> None:
    get_logger().warning("it said %s", NASTY + "\nall is done")
    get_logger().warning("100 % is not a format")
    first, second = (record.getMessage() for record in caplog.records)
    assert not OBEYED.search(first)
    assert "\n" not in first
    assert second == "100 % is not a format"
    assert logging.getLogger("blockflow").filters == get_logger().filters
    assert len(get_logger().filters) == 1


JOB = """
from blockflow import Roi, Task, run_blockwise
from blockflow.logging import set_log_basedir
set_log_basedir({logs})
def fails(block):
    raise ValueError({nasty!r})
task = Task("t", Roi((0,), (3,)), Roi((0,), (1,)), Roi((0,), (1,)), fails, read_write_conflict=False, max_retries=0)
result = run_blockwise(task)
print(result.causes[0].error, result.causes[0].traceback, result, result.causes)
"""


@pytest.mark.parametrize("logs", [None, "logs"])
def test_a_run_shows_nothing_that_a_terminal_obeys(tmp_path: Path, logs: str | None) -> None:
    job = JOB.format(logs=repr(logs), nasty=NASTY)
    done = subprocess.run([sys.executable, "-c", job], cwd=tmp_path, capture_output=True, timeout=120, check=True)
    written = [path.read_bytes() for path in tmp_path.rglob("*.err")]
    assert len(written) == (0 if logs is None else 1)
    for text in (done.stdout, done.stderr, *written):
        assert not OBEYED.search(text.decode()), text


@pytest.mark.parametrize("command", ["worker", "cancel", "scale", "plan", "invite"])
def test_the_command_line_shows_nothing_that_a_terminal_obeys(tmp_path: Path, command: str) -> None:
    folder = tmp_path / ("a\x1b[2Jb\u202e" + ("" if command == "plan" else "\n"))
    more = ["t", "3"] if command == "scale" else []
    words = [sys.executable, "-m", "blockflow", command, str(folder), *more]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert not OBEYED.search(done.stdout + done.stderr), done.stderr
