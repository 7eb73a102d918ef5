"""Does a run directory know which version of the code has done which block, and does each driver's code do its own?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from blockflow import Ledger, Roi, RunResult, Task, map_blocks, run_blockwise
from blockflow.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def task_of(function: Any, blocks: int = 6, name: str = "smooth", **more: Any) -> Task:
    block = Roi((0,), (1,))
    return Task(name, Roi((0,), (blocks,)), block, block, function, read_write_conflict=False, **more)


def run(*tasks: Task, run_dir: Path, **options: Any) -> tuple[RunResult, list[str]]:
    """Run, here, and what was warned of."""
    options = {"multiprocessing": False, "progress": False, "summary": False} | options
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        result = run_blockwise(tasks, run_dir=run_dir, **options)
    return result, [str(each.message) for each in seen]


def adding(number: int, done: list[tuple[int, int]], fails: Any = ()) -> Callable[[Any], None]:
    """A version of a function that notes what it does, and fails on some blocks."""

    def version(block: Any) -> None:
        if block.index in fails:
            raise ValueError(number)
        notes.kept.append((number, block.index))

    notes = Notes(done)
    return version


class Notes:
    """What is noted is no code."""

    def __init__(self, kept: list[tuple[int, int]]) -> None:
        self.kept = kept

    def __blockflow_code__(self) -> None: ...


def begin(run_dir: Path, done: list[tuple[int, int]]) -> None:
    """Do the first three of six blocks by a first version."""
    with pytest.raises(ValueError, match="1"):
        run(task_of(adding(1, done, fails=(3,))), run_dir=run_dir)


def test_changed_code_is_told_of_and_what_is_done_is_kept(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    begin(tmp_path / "run", done)
    result, said = run(task_of(adding(2, done)), run_dir=tmp_path / "run")
    assert result
    assert said == [
        "the function version of task 'smooth' has changed since 3 of 6 blocks were done by its version 1; they are "
        "kept. rerun_older=True does them again"
    ]
    assert done == [(1, 0), (1, 1), (1, 2), (2, 3), (2, 4), (2, 5)]
    ledger = Ledger.open(tmp_path / "run")
    assert ledger.versions("smooth").tolist() == [1, 1, 1, 2, 2, 2]
    codes = ledger.code_versions("smooth")
    assert sorted(codes) == [1, 2]
    assert codes[1].digest != codes[2].digest
    assert codes[1].name == "version"
    assert codes[1].environment.startswith("python ")


def test_the_same_code_is_not_told_of(tmp_path: Path) -> None:
    for _ in range(2):
        result, said = run(task_of(adding(1, [])), run_dir=tmp_path / "run")
        assert result
        assert said == []
    assert Ledger.open(tmp_path / "run").versions("smooth").tolist() == [1] * 6


def test_older_blocks_are_done_again_if_that_is_asked_for(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    begin(tmp_path / "run", done)
    result, (said,) = run(task_of(adding(2, done)), run_dir=tmp_path / "run", rerun_older=True)
    assert result
    assert said.endswith("; they are done again")
    assert done[3:] == [(2, index) for index in range(6)]
    ledger = Ledger.open(tmp_path / "run")
    assert ledger.versions("smooth").tolist() == [2] * 6
    assert ledger.attempts("smooth").tolist() == [2, 2, 2, 1, 1, 1]


def test_what_is_to_be_done_again_stays_so_if_the_run_is_stopped(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    begin(tmp_path / "run", done)
    with pytest.raises(ValueError, match="2"):
        run(task_of(adding(2, done, fails=(1,))), run_dir=tmp_path / "run", rerun_older=True)
    assert Ledger.open(tmp_path / "run").versions("smooth").tolist() == [2, 0, 0, 0, 0, 0]


def test_blocks_downstream_are_done_again_as_well(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []

    def both(number: int, name: str = "first") -> list[Task]:
        first = task_of(adding(number, done), name=name)
        second = task_of(adding(3, done), name="second", upstream_tasks=[first])
        return [first, second]

    assert run(*both(1), run_dir=tmp_path / "run")[0]
    done.clear()
    assert run(*both(2), run_dir=tmp_path / "run", rerun_older=True)[0]
    assert sorted(done) == [(number, index) for number in (2, 3) for index in range(6)]


def test_code_that_comes_back_has_its_old_number(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    begin(tmp_path / "run", done)
    with pytest.raises(ValueError, match="2"):
        run(task_of(adding(2, done, fails=(4,))), run_dir=tmp_path / "run")
    assert run(task_of(adding(1, done, fails=(3,))), run_dir=tmp_path / "run")[0]
    ledger = Ledger.open(tmp_path / "run")
    assert ledger.versions("smooth").tolist() == [1, 1, 1, 2, 1, 1]
    assert len(ledger.code_versions("smooth")) == 2


def test_versions_outlive_snapshots_and_other_grids(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    begin(tmp_path / "run", done)
    for _ in range(3):  # each closes with a snapshot
        run(task_of(adding(2, done)), run_dir=tmp_path / "run")
    assert Ledger.open(tmp_path / "run").versions("smooth").tolist() == [1, 1, 1, 2, 2, 2]
    other = task_of(adding(2, done), name="other")
    assert run(other, task_of(adding(2, done)), run_dir=tmp_path / "run", accept_change=True)[0]
    assert Ledger.open(tmp_path / "run").versions("smooth").tolist() == [1, 1, 1, 2, 2, 2]
    assert Ledger.open(tmp_path / "run").versions("other").tolist() == [1] * 6


def test_rerun_older_needs_a_run_directory() -> None:
    with pytest.raises(PlanError, match="rerun_older"):
        run_blockwise(task_of(print), rerun_older=True)
    with pytest.raises(PlanError, match="rerun_older"):
        map_blocks(np.sum, np.zeros(4), rerun_older=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_map_tells_of_its_function(tmp_path: Path, workers: int) -> None:
    np.save(tmp_path / "a.npy", np.ones((8, 8), "float32"))
    call: Any = {"out": tmp_path / "o.zarr", "grid": (4, 4), "run_dir": tmp_path / "run", "progress": False}
    map_blocks(lambda b: b * 2, tmp_path / "a.npy", num_workers=workers, **call)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        map_blocks(lambda b: b * 2, tmp_path / "a.npy", num_workers=2 - workers, **call)
    with pytest.warns(UserWarning, match=r"the function <lambda> of task 'map_blocks' has changed since 4 of 4 blocks"):
        kept = map_blocks(lambda b: b * 3, tmp_path / "a.npy", num_workers=workers, **call)
    assert (kept.to_ndarray() == 2).all()
    with pytest.warns(UserWarning, match="they are done again"):
        again = map_blocks(lambda b: b * 3, tmp_path / "a.npy", num_workers=workers, rerun_older=True, **call)
    assert (again.to_ndarray() == 3).all()


JOB = """
import sys, time
from blockflow import Roi, Task, run_blockwise
version = sys.argv[1]
def f(block):
    time.sleep(0.02)
    with open("log", "a") as log:
        log.write(f"{block.index} {version} {block.attempt >> 40}\\n")
one = Roi((0,), (1,))
task = Task("t", Roi((0,), (60,)), one, one, f, read_write_conflict=False, num_workers=2)
assert run_blockwise(task, run_dir="run", progress=False, summary=False)
"""


@pytest.mark.parametrize("second", ["v2", "v1"])
def test_each_driver_has_its_blocks_done_by_its_own_code(tmp_path: Path, second: str) -> None:
    script = tmp_path / "job.py"
    script.write_text(textwrap.dedent(JOB))
    log = tmp_path / "log"
    first = subprocess.Popen([sys.executable, script, "v1"], cwd=tmp_path)
    while not log.exists() or len(log.read_text().splitlines()) < 10:
        assert first.poll() is None
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    subprocess.run([sys.executable, script, second], cwd=tmp_path, check=True, timeout=120, capture_output=True)
    entries = [line.split() for line in log.read_text().splitlines()]
    assert {version for _, version, life in entries if life == "2"} == {second}
    assert {version for _, version, life in entries if life == "1"} == {"v1"}
    assert {int(index) for index, _, _ in entries} == set(range(60))
    versions = Ledger.open(tmp_path / "run").versions("t").tolist()
    by_code = {int(index): version for index, version, _ in entries}  # the last one counts
    if second == "v2":
        assert versions == [{"v1": 1, "v2": 2}[by_code[index]] for index in range(60)]
    else:
        assert versions == [1] * 60
