"""Are the tasks of a script found, without running any?"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from blockflow import cli, run, servers
from blockflow.errors import PlanError
from blockflow.plan import plan
from blockflow.scripts import tasks_in

HEAD = """
from pathlib import Path
from blockflow import Grid, Server, Task, run_blockwise
from dataclasses import dataclass, replace
def work(block):
    Path("ran").touch()
def make(name):
    return Task(name, grid=Grid.regular((10, 10), block=5), process_function=work)
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "job.py"


def names(target: str) -> list[str]:
    return [task.task_id for task in tasks_in(target)]


@pytest.mark.parametrize(
    ("body", "target", "found"),
    [
        ("a, b = make('a'), make('b')", "job.py", ["a", "b"]),
        ("a, b = make('a'), make('b')", "job.py:b", ["b"]),
        ("many = [make('a'), make('b')]", "job.py:many", ["a", "b"]),
        ("def all_tasks():\n    return [make('a'), make('b')]", "job.py:all_tasks", ["a", "b"]),
        ("def one():\n    return make('a')", "job.py:one", ["a"]),
        ("other = make('other')\nrun_blockwise([make('a')], progress=False)\n1 / 0", "job.py", ["a"]),
        ("run_blockwise(make('a'))", "job.py", ["a"]),
        ("Server().run_blockwise([make('a')])", "job.py", ["a"]),
        ("from blockflow import SerialServer\nSerialServer().run_blockwise([make('a')])", "job.py", ["a"]),
        ("above = make('above')\nrun_blockwise(replace(make('a'), upstream_tasks=[above]))", "job.py", ["above", "a"]),
        ("def main():\n    run_blockwise([make('a')])", "job.py:main", ["a"]),
        ("a = make('a')\nif __name__ == '__main__':\n    1 / 0", "job.py", ["a"]),
        ("a = make('a')", "job", ["a"]),
        ("from helper import number\n@dataclass\nclass C:\n    x: 'int'\na = make(f'a{number}')", "job.py", ["a7"]),
    ],
)
def test_tasks_of_a_script_are_found(script: Path, body: str, target: str, found: list[str]) -> None:
    script.write_text(HEAD + body)
    (script.parent / "helper.py").write_text("number = 7")
    state = sys.path[:], sys.argv[:], run.check_runnable, servers.check_runnable  # type: ignore[attr-defined]
    try:
        assert names(target) == found
    finally:
        for module in ("job", "helper"):
            sys.modules.pop(module, None)
    now = sys.path, sys.argv, run.check_runnable, servers.check_runnable  # type: ignore[attr-defined]
    assert now == state
    assert state[2] is state[3] is plan.check_runnable
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("body", "target", "message"),
    [
        ("", "absent.py", "there is no script absent.py"),
        ("", "absent", "there is no module absent; the name of a script ends with .py"),
        ("", "absent.part", "there is no module absent.part"),
        ("a = make('a')", "job.py:b", "job.py has no 'b'; it has Path, Grid, Server, Task, run_blockwise"),
        ("", "job.py", "job.py has no task at its top level; name a list of tasks or a function that returns them"),
        ("def f():\n    return 3", "job.py:f", "f of job.py must be a task, or a list of tasks, or a function"),
        ("empty = []", "job.py:empty", "empty of job.py must be a task, or a list"),
        ("run_blockwise([])", "job.py", "there is no task to run"),
    ],
)
def test_a_script_without_tasks_is_refused(script: Path, body: str, target: str, message: str) -> None:
    script.write_text(HEAD + body)
    with pytest.raises(PlanError, match=f"^{message}"):
        tasks_in(target)


def test_what_a_script_raises_is_not_wrapped(script: Path) -> None:
    script.write_text("import module_that_nobody_has")
    for target in ("job.py", "job"):
        with pytest.raises(ModuleNotFoundError, match="module_that_nobody_has"):
            tasks_in(target)


def test_the_command_prints_every_task(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script.write_text(
        HEAD
        + "import zarr\n"
        + "above = make('above')\n"
        + "out = zarr.create_array('out.zarr', shape=(10, 10), chunks=(4, 10), dtype='u1', overwrite=True)\n"
        + "def bad():\n"
        + "    return Task('bad', grid=above.grid, outputs=[out])\n"
        + "def good():\n"
        + "    return Task('good', grid=above.grid, outputs=[out], shared_chunks='serialize', upstream_tasks=[above])\n"
    )
    assert cli.main(["plan", "job.py:good"]) == cli.DONE
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if not line.startswith(" ")] == ["task above", "", "task good"]
    assert cli.main(["plan", "job.py:bad"]) == cli.WRONG
    assert "REFUSED, blocks would write into one chunk at once" in capsys.readouterr().out
    assert cli.main(["plan", "absent.py"]) == cli.REFUSED
    assert capsys.readouterr().err == "blockflow: there is no script absent.py\n"
