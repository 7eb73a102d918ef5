"""A worker in a job says what is wrong before it has begun."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from blockflow.errors import RunError
from blockflow.launch import interpreter, shell
from blockflow.launch.handover import read_handover, write_handover
from blockflow.launch.job import Timing, end_of, grace_of, main
from blockflow.launch.queue import Silence

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_handed_over_is_what_each_is_told(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = [{"same": b"x" * 10_000, "own": number} for number in range(50)]
    write_handover(tmp_path / "h", told)
    assert (tmp_path / "h").stat().st_size < 12_000
    assert [read_handover(str(tmp_path / "h"), number) for number in range(50)] == told
    assert [path.name for path in tmp_path.iterdir()] == ["h"]


def test_a_run_that_is_over_is_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "gone"), "0"]) == 0
    assert "the run is over, or this node does not see the directory" in capsys.readouterr().err


def test_a_directory_that_the_node_does_not_see_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere" / "gone"), "0"]) == 1
    assert "start it in one that all nodes share" in capsys.readouterr().err


def test_a_damaged_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "h"
    for content in (b"", b"nonsense"):
        path.write_bytes(content)
        assert main([str(path), "0"]) == 1
    write_handover(path, [{"a": 1}])
    assert main([str(path), "3"]) == 1
    assert capsys.readouterr().err.count(f"{path} does not say what worker") == 3


@pytest.mark.parametrize(
    ("end", "expected"), [(None, 25.0), (900, 25.0), (1003, 0.0), (1065, 60.0), (1190, 185.0), (1191, 25.0)]
)
def test_how_long_a_worker_may_take_to_leave(end: float | None, expected: float) -> None:
    assert grace_of(Timing(limit=None, notice=120.0, patience=25.0), end, 1000.0) == expected


def test_when_a_job_ends() -> None:
    known, unknown = Timing(limit=600.0, notice=0.0, patience=25.0), Timing(limit=None, notice=0.0, patience=25.0)
    for said, with_limit, without in (("7", 7.0, 7.0), ("never", 1600.0, None), ("", 1600.0, None)):
        assert end_of(known, {"SLURM_JOB_END_TIME": said}, 1000.0) == with_limit
        assert end_of(unknown, {"SLURM_JOB_END_TIME": said}, 1000.0) == without


# --------------------------------------------------------------------------------------------------------- commands


def test_a_command_is_given_its_input_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_A_JOB", "1")
    monkeypatch.setenv("KEPT", "ü")
    words = ["sh", "-c", 'cat; echo "$SECRET_OF_A_JOB-$KEPT-$LC_ALL"; echo wrong >&2; exit 3']
    answer = shell.call(words, given="ä\n", without=lambda name: name.startswith("SECRET"))
    assert (answer.code, answer.out, answer.err) == (3, "ä\n-ü-C.UTF-8\n", "wrong\n")


def test_a_command_that_is_not_there() -> None:
    with pytest.raises(
        RunError, match="there is no command nosuchthing on this machine's PATH: start the run on a login"
    ):
        shell.call(["nosuchthing"], without=lambda name: False)


def test_a_command_that_cannot_be_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be run"):
        shell.call([str(tmp_path)], without=lambda name: False)


def test_a_command_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "PATIENCE", 0.1)
    with pytest.raises(Silence, match=r"sleep has not answered for 0\.1 s"):
        shell.call(["sleep", "60"], without=lambda name: False)


# ------------------------------------------------------------------------------------------------------ interpreters


def test_a_job_sees_the_places_of_modules_that_are_not_the_interpreters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", "/mine", os.path.dirname(os.__file__), sys.prefix, f"{sys.prefix}-not"])
    assert interpreter.places_of_modules()[-3:] == [str(tmp_path), "/mine", f"{sys.prefix}-not"]


def test_an_installed_package_is_found_without_help(monkeypatch: pytest.MonkeyPatch) -> None:
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(interpreter.__file__))))
    assert interpreter.path_of_package() in (None, root)
    monkeypatch.setattr(sys, "prefix", root)
    assert interpreter.path_of_package() is None
    monkeypatch.setenv("PYTHONPATH", "/known")
    assert interpreter.environment_with_package()["PYTHONPATH"] == "/known"
    monkeypatch.setattr(sys, "prefix", "/nowhere")
    monkeypatch.setattr(sys, "exec_prefix", "/nowhere")
    monkeypatch.setattr(sys, "base_prefix", "/nowhere")
    assert interpreter.environment_with_package()["PYTHONPATH"] == f"{root}:/known"
    monkeypatch.delenv("PYTHONPATH")
    assert interpreter.environment_with_package()["PYTHONPATH"] == root
