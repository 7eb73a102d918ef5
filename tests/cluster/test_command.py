"""Workers that a command of the user's starts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from blockflow import Block, Command, Local, Roi, Task, run_blockwise
from blockflow.errors import RunError
from blockflow.launch.command import command_words

if TYPE_CHECKING:
    from pathlib import Path


def task_of(function: Any, launcher: Any, blocks: int = 20) -> Task:
    roi = Roi((0,), (10,))
    return Task("t", Roi((0,), (10 * blocks,)), roi, roi, function, launcher=launcher)


def run(task: Task) -> Any:
    return run_blockwise([task], progress=False, summary=False, host="127.0.0.1")


@pytest.mark.parametrize(
    "command", ["sh -c {command}", "env MADE_BY=me nice {arguments}", """sh -c 'exec "$@"' x {arguments}"""]
)
def test_a_command_starts_workers(folder: Path, command: str) -> None:
    def work(block: Block) -> None:
        (folder / f"{block.index}").write_text(str(os.getppid()))

    assert run(task_of(work, Command(command, 2)))
    assert len(list(folder.iterdir())) == 20


def test_beside_processes_of_this_machine(folder: Path) -> None:
    def work(block: Block) -> None:
        (folder / f"{block.index}").touch()

    assert run(task_of(work, [Command("sh -c {command}", 1), Local(1)]))
    assert len(list(folder.iterdir())) == 20


def test_a_command_that_fails_ends_the_run(folder: Path, logs: Path) -> None:
    result = run(task_of(print, Command("sh -c 'echo no such node >&2; exit 3' {command}", 1)))
    assert not result
    assert "no such node" in next(logs.glob("t/job-*.log")).read_text()


def test_workers_that_reach_no_address_say_what_happened_at_each(folder: Path, logs: Path) -> None:
    task = task_of(print, Command("sh -c {command}", 1))
    addresses = ["127.0.0.1:1", "[::1]:2"]
    assert not run_blockwise([task], progress=False, summary=False, host="127.0.0.1", advertise=addresses)
    said = next(logs.glob("t/worker_*.err")).read_text()
    assert "cannot be reached: 127.0.0.1:1 ([Errno 111] Connection refused); [::1]:2 (" in said
    assert "then pass host= or advertise= to run_blockwise" in said


def test_a_command_that_does_not_exist(folder: Path) -> None:
    with pytest.raises(RunError, match=r"the command 'nosuchthing \{command\}' cannot be run"):
        run(task_of(print, Command("nosuchthing {command}", 1)))


def test_a_failing_block_fails_the_run(folder: Path) -> None:
    def work(block: Block) -> None:
        if block.index == 0:
            raise ZeroDivisionError

    result = run(task_of(work, Command("sh -c {command}", 2)))
    assert not result
    assert result["t"].completed_count == 19


def test_words_with_blanks_stay_words() -> None:
    assert command_words("ssh 'a b' {command} x", ["p", "it's"]) == ["ssh", "a b", """p 'it'"'"'s'""", "x"]
