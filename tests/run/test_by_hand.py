"""Workers that people start for a run that goes on, from another shell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

import blockflow
from blockflow import Block, Roi, Task, cli, run_blockwise
from tests.run.scene import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "seen"
    made.mkdir()
    return made


class Run:
    """A run in a thread; its own worker is at its first block until others have done the rest."""

    def __init__(self, seen: Path, blocks: int = 30, **more: Any) -> None:
        self._seen = seen
        self.result: Any = None

        def work(block: Block) -> None:
            (seen / f"{block.index}-{os.getpid()}").touch()
            time.sleep(0.05)
            while block.index == 0 and not (seen / "go on").exists() and len(list(seen.iterdir())) < blocks:
                time.sleep(0.01)

        roi = Roi((0,), (10,))
        self._task = Task("work", Roi((0,), (10 * blocks,)), roi, roi, work, **more)
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        self.result = run_blockwise([self._task], progress=False, summary=False, host="127.0.0.1")

    def __enter__(self) -> Self:
        self._thread.start()
        wait_for(lambda: list(self._seen.iterdir()))
        return self

    def __exit__(self, *exception: object) -> None:
        (self._seen / "go on").touch()
        self._thread.join(60.0)


def workers(seen: Path) -> set[str]:
    return {file.name.partition("-")[2] for file in seen.iterdir()} - {""}


def places(logs: Path) -> Iterator[Path]:
    yield logs
    yield logs / ".runs"
    yield next(logs.glob(".runs/*.connection"))
    yield next(logs.glob(".runs/*.connection")).with_suffix("")


def test_workers_join_and_leave(seen: Path, logs: Path) -> None:
    with Run(seen) as run:
        assert cli.main(["worker", str(logs), "--task", "work", "--count", "2"]) == 0
    assert run.result
    assert len(workers(seen)) == 3


def test_a_run_is_found_by_any_of_its_places(seen: Path, logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from blockflow.launch.by_hand import find_run

    with Run(seen, 2):
        assert {find_run(place, ".connection").resolve() for place in places(logs)} == {
            next(logs.glob(".runs/*.connection")).resolve()
        }
        assert cli.main(["worker", str(logs), "--task", "other"]) == cli.WRONG
        assert "there is no task 'other'; the tasks of this run are 'work'" in capsys.readouterr().err
    assert cli.main(["worker", str(logs)]) == cli.WRONG
    assert "is over" in capsys.readouterr().err
    assert not list(logs.glob(".runs/*.task-*"))


def test_a_run_of_one_machine_says_how_others_could_join(
    seen: Path, logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(block: Block) -> None:
        assert cli.main(["worker", str(logs)]) == cli.WRONG

    roi = Roi((0,), (10,))
    assert run_blockwise([Task("work", roi, roi, roi, work)], progress=False, summary=False)
    errors = next(logs.glob("work/*.err")).read_text()
    assert "is for this machine alone: start it with host=" in errors


def test_where_nothing_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["worker", str(tmp_path)]) == cli.WRONG
    assert "no run that goes on is found" in capsys.readouterr().err
    assert cli.main(["cancel", str(tmp_path)]) == cli.WRONG
    assert "no run that goes on is found" in capsys.readouterr().err


def test_ctrl_c_lets_them_finish_their_blocks(seen: Path, logs: Path) -> None:
    with Run(seen, 100) as run:
        process = subprocess.Popen(
            [sys.executable, "-m", "blockflow", "worker", str(logs), "--count", "2"],
            env={**os.environ, "PYTHONPATH": str(Path(blockflow.__file__).parents[1])},
            start_new_session=True,
        )
        wait_for(lambda: len(workers(seen)) == 3)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        assert process.wait(20) == 0
    assert run.result
    assert len([file for file in seen.iterdir() if "-" in file.name]) == 100, "a block was run twice"
