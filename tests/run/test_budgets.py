"""What do failures cost a run: a retry, a wait, a host, or the whole task?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from blockflow.scheduler import leases
from blockflow.scheduler.retry_policy import BREAKER_BLOCKS
from tests.run.scene import run, task_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from blockflow import Block


def always_fails(folder: Path) -> Callable[[Block], None]:
    def process(block: Block) -> None:
        (folder / f"{block.index}.{block.attempt}").touch()
        raise KeyError(block.index)

    return process


def test_code_that_cannot_work_is_not_tried_on_every_block(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(task_of(always_fails(folder), 500, num_workers=2), summary=True)
    assert not result
    tried = len({path.name.partition(".")[0] for path in folder.iterdir()})
    assert BREAKER_BLOCKS <= tried < 50
    (problem,) = result.problems
    assert problem.startswith(
        f"task 't' was stopped early: its first {BREAKER_BLOCKS} blocks all failed with KeyError: "
    )
    assert f"{500 - result['t'].failed_count} blocks were not tried" in problem
    assert "raise KeyError(block.index)" in result.causes[0].traceback
    printed = capsys.readouterr()
    said = printed.out + printed.err
    assert problem in said
    assert "raise KeyError(block.index)" in said


def test_unless_the_user_wants_it(folder: Path) -> None:
    result = run(task_of(always_fails(folder), 40, num_workers=2, max_retries=0, stop_if_all_fail=False))
    assert result["t"].failed_count == 40
    assert result.problems == []


@pytest.mark.filterwarnings("ignore:the function .* has changed")  # it is another one than before
def test_what_was_done_in_an_earlier_run_speaks_against_stopping(folder: Path, tmp_path: Path) -> None:
    def first(block: Block) -> None:
        if block.index:
            raise KeyError(block.index)

    directory = tmp_path / "run"
    assert run(task_of(first, 1), run_dir=directory)
    plan: dict[str, Any] = {"num_workers": 2, "max_retries": 0}
    other = tmp_path / "other"
    assert not run(task_of(first, 30, **plan), run_dir=other)
    result = run(task_of(always_fails(folder), 30, **plan), run_dir=other, retry_failed=True)
    assert result["t"].completed_count == 1
    assert len(list(folder.iterdir())) == 29


def test_a_block_that_hangs_is_found_without_a_timeout_of_the_user(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEAST_TIMEOUT", 0.5)

    def process(block: Block) -> None:
        (folder / f"{block.index}.{block.attempt}").touch()
        if block.index == 8 and len(list(folder.glob("8.*"))) == 1:
            time.sleep(600)

    assert run(task_of(process, 12, timeout="auto", max_retries=1))
    assert len(list(folder.glob("8.*"))) == 2


@pytest.mark.parametrize("multiprocessing", [True, False])
def test_a_block_that_failed_runs_again_soon_even_if_there_is_nothing_else(folder: Path, multiprocessing: bool) -> None:
    def process(block: Block) -> None:
        from blockflow import BlockStatus

        (folder / f"{block.index}.{block.attempt}").touch()
        if len(list(folder.glob("0.*"))) < 3:
            block.status = BlockStatus.FAILED

    began = time.monotonic()
    assert run(task_of(process, 1), multiprocessing=multiprocessing)
    assert time.monotonic() - began < 60
    assert len(list(folder.iterdir())) == 3
