"""Does an exception of user code become text that can be sent, grouped and shown?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import blockflow
from blockflow.geometry import Roi, roi_of
from blockflow.plan.plan import compile_plan
from blockflow.plan.task import Task
from blockflow.scheduler.checks import call_checks
from blockflow.scheduler.events import CheckPhase, RunChecks
from blockflow.wire.failures import LONGEST_ERROR, LONGEST_TRACEBACK, LONGEST_WHERE, FailureText, describe


def raised(error: BaseException) -> FailureText:
    try:
        raise error
    except BaseException as caught:
        return describe(caught)


def test_type_and_message_on_one_line() -> None:
    assert raised(ValueError("no such\n  label\r\n")).error == "ValueError: no such label"
    assert raised(KeyError("a")).error == "KeyError: 'a'"


def test_an_error_without_message_is_its_type() -> None:
    assert raised(MemoryError()).error == "MemoryError"


def test_where_is_the_innermost_line_of_user_code() -> None:
    text = raised(ValueError("no"))
    name, line = text.where.split(":")
    assert name == "test_failures.py"
    assert Path(__file__).read_text().splitlines()[int(line) - 1].strip() == "raise error"
    assert text.traceback.startswith("Traceback (most recent call last):\n")
    assert text.traceback.endswith("ValueError: no\n")


def test_an_error_that_was_never_raised_has_no_place() -> None:
    text = describe(ValueError("no"))
    assert text.where == ""
    assert text.traceback == "ValueError: no\n"


def test_frames_of_blockflow_are_left_out() -> None:
    def check(_: object) -> bool:
        roi_of(((0, 1), (0,)))  # type: ignore[arg-type]  # raises in blockflow, called by user code
        return True

    task = Task("t", Roi((0,), (4,)), Roi((0,), (2,)), Roi((0,), (2,)), check_function=check)
    plan = compile_plan([task]).tasks[0]
    asked = RunChecks(task=0, phase=CheckPhase.BEFORE, indices=plan.roots().take(1))
    failure = call_checks(plan, asked).failures[0]
    assert str(Path(blockflow.__file__).parent) not in failure.traceback
    assert Path(__file__).name in failure.traceback
    assert failure.where.startswith("test_failures.py:")


def test_an_error_in_blockflow_alone_keeps_its_frames() -> None:
    with pytest.raises(ValueError) as caught:
        compile_plan([])
    text = describe(caught.value.with_traceback(caught.tb.tb_next))
    assert text.where == ""
    assert "plan.py" in text.traceback


@pytest.mark.parametrize("folder", ["blockflow_user", "blockflow-examples"])
def test_a_folder_whose_name_begins_like_blockflow_is_user_code(folder: str) -> None:
    file = Path(blockflow.__file__).parent.parent / folder / "segment.py"
    code = compile("raise ValueError('no')", str(file), "exec")
    with pytest.raises(ValueError) as caught:
        exec(code)
    assert describe(caught.value).where == "segment.py:1"


def called(*frames: str, file: str | None = None) -> str:
    """Where an error is said to be that code of the last file raises, called by that of the others in turn."""
    call: Any = None
    for name in reversed(frames):
        scope = {"call": call, "__file__": file}
        text = "def run():\n    raise ValueError('no')" if call is None else "def run():\n\n    call()"
        exec(compile(text, name, "exec"), scope)
        call = scope["run"]
    with pytest.raises(ValueError) as caught:
        call()
    return describe(caught.value.with_traceback(caught.tb.tb_next)).where


HERE = "/home/ada/segment.py"
ZARR = "/opt/venv/lib/python3.13/site-packages/zarr/core/array.py"
NUMPY = "/opt/venv/lib/python3.13/site-packages/numpy/core.py"
PYTHON = os.path.join(os.path.dirname(os.__file__), "json", "decoder.py")
OURS = os.path.join(os.path.dirname(blockflow.__file__), "worker.py")


def test_where_is_user_code_not_the_library_that_it_calls() -> None:
    assert called(HERE, ZARR, NUMPY) == "segment.py:3"
    assert called(ZARR, HERE, "<__array_function__ internals>", NUMPY) == "segment.py:3"
    assert called(HERE, PYTHON) == "segment.py:3"
    assert called(HERE, ZARR, HERE) == "segment.py:2", "as a callback"
    assert called("<ipython-input-3-a>", "<frozen importlib._bootstrap>") == "<ipython-input-3-a>:3"


def test_where_all_is_installed_the_package_that_was_called_is_the_users() -> None:
    package = "/opt/venv/lib/python3.13/site-packages/segmentation"
    assert called(f"{package}/blocks.py", f"{package}/models/net.py", ZARR, NUMPY) == "net.py:3"
    assert called(OURS, ZARR, NUMPY) == "array.py:3"
    assert called(OURS, PYTHON, NUMPY) == "decoder.py:3"


def test_compiled_code_is_where_its_module_is() -> None:
    assert called(HERE, "numpy/random/mtrand.pyx", file=NUMPY) == "segment.py:3"
    assert called(HERE, "fast.pyx", file="/home/ada/fast.so") == "fast.so:2"
    assert called(HERE, "fast.pyx") == "fast.pyx:2"


def test_causes_are_told() -> None:
    def translate() -> None:
        try:
            raise KeyError("label")
        except KeyError as cause:
            raise ValueError("no") from cause

    with pytest.raises(ValueError) as caught:
        translate()
    text = describe(caught.value)
    assert text.error == "ValueError: no"
    assert "KeyError: 'label'" in text.traceback


def test_an_error_that_cannot_be_shown_is_still_a_failure() -> None:
    class BadError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("not today")

    text = raised(BadError())
    assert text.error == "BadError: <its message cannot be shown: RuntimeError>"
    assert text.where.startswith("test_failures.py:")


def test_what_utf8_cannot_say_is_written_out() -> None:
    text = raised(OSError("cannot open 'a\udcff.tif'"))
    assert text.error == "OSError: cannot open 'a\\udcff.tif'"
    assert "a\\udcff.tif" in text.traceback


def test_long_texts_lose_their_middle() -> None:
    text = raised(ValueError("begin" + "x" * 100_000 + "end"))
    assert len(text.error) <= LONGEST_ERROR
    assert len(text.traceback) <= LONGEST_TRACEBACK
    assert text.error.startswith("ValueError: begin")
    assert text.error.endswith("end")
    assert "\n" not in text.error
    assert text.traceback.startswith("Traceback")
    assert text.traceback.endswith("end\n")


def test_a_long_file_name_is_bounded() -> None:
    code = compile("raise ValueError('no')", "/tmp/" + "n" * 300 + ".py", "exec")
    with pytest.raises(ValueError) as caught:
        exec(code)
    where = describe(caught.value).where
    assert len(where) <= LONGEST_WHERE
    assert where.endswith("n.py:1")


def test_endless_recursion_is_bounded() -> None:
    def again() -> None:
        again()

    with pytest.raises(RecursionError) as caught:
        again()
    text = describe(caught.value)
    assert len(text.traceback) <= LONGEST_TRACEBACK
    assert text.error.startswith("RecursionError")


@given(st.text(alphabet=st.characters()), st.sampled_from([ValueError, SystemExit, KeyError, OSError]))
def test_any_message_can_be_sent(message: str, kind: type[BaseException]) -> None:
    text = raised(kind(message))
    assert len(text.error.splitlines()) == 1
    for part, longest in (
        (text.error, LONGEST_ERROR),
        (text.traceback, LONGEST_TRACEBACK),
        (text.where, LONGEST_WHERE),
    ):
        part.encode()
        assert len(part) <= longest


def test_a_group_of_errors_is_told() -> None:
    text = raised(ExceptionGroup("two", [ValueError("one"), KeyError("other")]))
    assert text.error == "ExceptionGroup: two (2 sub-exceptions)"
    assert "ValueError: one" in text.traceback


def test_an_error_whose_attributes_raise_is_still_a_failure() -> None:
    class HostileError(Exception):
        @property
        def __notes__(self) -> list[str]:  # type: ignore[override]
            raise KeyError("no notes")

    text = raised(HostileError("no"))
    assert text.error == "HostileError: no"
    assert text.traceback
