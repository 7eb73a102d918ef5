from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

import blockflow
from blockflow import cli
from blockflow.errors import ArrayError, RunError


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"blockflow {blockflow.__version__}\n"


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == cli.REFUSED
    assert "demo" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [["nothing"], ["demo", "--workers", "0"], ["demo", "--workers", "x"], ["demo", "--w"]])
def test_wrong_arguments_are_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(argv)
    assert "error" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (ArrayError("no picture"), 2, "blockflow: no picture\n"),
        (RunError("not complete"), 1, "blockflow: not complete\n"),
        (KeyboardInterrupt(), 130, "blockflow: interrupted\n"),
    ],
)
def test_errors_become_exit_codes(
    raised: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(arguments: object) -> NoReturn:
        raise raised

    monkeypatch.setattr(cli, "_demo", command)
    assert cli.main(["demo"]) == code
    assert capsys.readouterr().err == said


def test_the_demo_says_where_its_drawing_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="the demo needs the extra 'demo'")
    pytest.importorskip("skimage", reason="the demo needs the extra 'demo'")
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.arange(600).reshape(20, 30))
    assert cli.main(["demo", "a.npy", "--workers", "1"]) == cli.DONE
    drawing = capsys.readouterr().out.splitlines()[-1].removeprefix("drawing").strip()
    assert drawing == str(Path("blockflow_demo/demo.png"))
    assert Path(drawing).exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "blockflow_demo"]
    monkeypatch.setattr("blockflow.demo.check.TOLERANCE", -1.0)  # even equal pictures fail then
    assert cli.main(["demo", "a.npy", "--workers", "1", "--output", "other"]) == cli.WRONG


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    assert cli.main(["demo"]) == cli.REFUSED
    needs = "the demo needs scikit-image, which is not installed: pip install scikit-image"
    assert capsys.readouterr().err == f"blockflow: {needs} (or pip install 'blockflow-nd[demo]')\n"


def test_the_package_is_a_command_and_loads_only_what_it_needs(tmp_path: Path) -> None:
    code = "import sys, blockflow.cli; print(sorted({'zarr', 'numpy', 'matplotlib', 'tornado'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
    ran = subprocess.run(
        [sys.executable, "-m", "blockflow", "demo", str(tmp_path / "nothing.png")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == cli.REFUSED
    assert "there is no file" in ran.stderr
