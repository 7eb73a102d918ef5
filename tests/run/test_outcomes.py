"""What becomes of blocks that fail, hang, kill their worker, or are found done, in real worker processes?"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from blockflow import Block, BlockStatus, Roi, Task
from tests.run.scene import run, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable


def task_of(function: Any, blocks: int = 3, name: str = "t", **more: Any) -> Task:
    return Task(name, Roi((0,), (10 * blocks,)), Roi((0,), (10,)), Roi((0,), (10,)), function, **more)


class Notes:
    """A folder in which workers leave a line for every call, to be read by the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def add(self, block: Block) -> int:
        """Note a call; the number of calls for this block so far, from 1."""
        path = self.folder / f"{block.index}"
        with path.open("a") as file:
            file.write(f"{os.getpid()} {block.attempt}\n")
        return len(self.of(block.index))

    def of(self, index: int | None) -> list[tuple[int, int]]:
        """Process and attempt number of each call for a block."""
        path = self.folder / f"{index}"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(pid), int(attempt)) for pid, attempt in map(str.split, lines)]

    def touch(self, name: str) -> None:
        (self.folder / name).touch()

    def wait(self, name: str) -> None:
        wait_for((self.folder / name).exists)


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path / "notes")


# ---------------------------------------------------------------------------------------------------- failures


def test_a_block_that_fails_is_tried_again(notes: Notes) -> None:
    def process(block: Block) -> None:
        if notes.add(block) <= 2 and block.index == 1:
            raise ValueError("not yet")

    result = run(task_of(process, max_retries=2))
    assert result
    assert (result.causes, result.failed_blocks, result.orphaned_blocks, result.problems) == ([], {}, {}, [])
    assert [len(notes.of(index)) for index in range(3)] == [1, 3, 1]
    attempts = [attempt for _, attempt in notes.of(1)]
    assert attempts == sorted(set(attempts))


@pytest.mark.parametrize("max_retries", [0, 1])
def test_a_block_that_always_fails_is_given_up(notes: Notes, max_retries: int) -> None:
    def process(block: Block) -> None:
        notes.add(block)
        if block.index == 1:
            raise ValueError(f"no good: {block.index}")

    result = run(task_of(process, max_retries=max_retries))
    assert not result
    assert [len(notes.of(index)) for index in range(3)] == [1, 1 + max_retries, 1]
    assert list(result) == ["t"]
    state = result["t"]
    assert (state.completed_count, state.failed_count, state.orphaned_count) == (2, 1, 0)
    assert state.is_done()
    (cause,) = result.causes
    assert (cause.task_id, cause.error) == ("t", "ValueError: no good: 1")
    assert cause.where.startswith("test_outcomes.py:")
    assert "raise ValueError" in cause.traceback
    first = cause.traceback.split('File "', 1)[1].split('"')[0]
    assert Path(first) == Path(__file__), "the frames of the worker itself are of no interest"
    assert [block.block_id for block in cause.blocks] == [("t", 1)]
    assert [block.block_id for block in result.failed_blocks["t"]] == [("t", 1)]


def test_a_block_is_tried_again_on_another_worker(notes: Notes) -> None:
    def process(block: Block) -> None:
        calls = notes.add(block)
        notes.touch(f"started {block.index}")
        if block.index == 0 and calls == 1:
            notes.wait("started 1")  # on the other worker, which is there then
            raise ValueError("bad luck")
        if block.index == 1:
            wait_for(lambda: len(notes.of(0)) == 1)

    assert run(task_of(process, blocks=2, num_workers=2))
    (first, _), (second, _) = notes.of(0)
    assert first != second


def test_setting_the_status_to_failed_is_a_failure(notes: Notes) -> None:
    def process(block: Block) -> None:
        assert block.status is BlockStatus.PROCESSING
        good = notes.add(block) > 1 and block.index != 2
        block.status = BlockStatus.SUCCESS if good else BlockStatus.FAILED

    result = run(task_of(process, max_retries=1))
    assert [block.index for block in result.failed_blocks["t"]] == [2]
    assert result.causes[0].error == "block.status was set to FAILED"
    assert [len(notes.of(index)) for index in range(3)] == [2, 2, 2]


def test_a_block_that_ends_python_fails_and_its_process_goes_on(notes: Notes) -> None:
    def process(block: Block) -> None:
        notes.add(block)
        if block.index == 1:
            sys.exit("enough")

    result = run(task_of(process, max_retries=0))
    assert result.causes[0].error == "SystemExit: enough"
    assert result["t"].completed_count == 2
    assert notes.of(0)[0][0] == notes.of(2)[0][0]


@pytest.mark.parametrize(
    "text", ["\udcff\ud800", "\0\x1b[31m\r\n", "🔬" * 50_000, ""], ids=["surrogates", "control", "long", "empty"]
)
def test_an_error_of_any_text_arrives(text: str) -> None:
    def process(block: Block) -> None:
        raise ValueError(text)

    result = run(task_of(process, blocks=1, max_retries=0))
    assert result["t"].failed_count == 1
    assert result.causes[0].error.startswith("ValueError")
    assert result.problems == []


def test_an_error_that_cannot_be_printed_arrives() -> None:
    class Wrong(Exception):
        def __str__(self) -> str:
            raise RuntimeError("and this one too")

    def process(block: Block) -> None:
        raise Wrong

    result = run(task_of(process, blocks=1, max_retries=0))
    assert result["t"].failed_count == 1
    assert result.causes[0].error.startswith("Wrong")


def test_failures_orphan_what_waits_for_them_and_nothing_else(notes: Notes) -> None:
    def first(block: Block) -> None:
        if block.index == 2:
            raise ValueError("x")

    upstream = task_of(first, blocks=5, name="first", max_retries=0)
    downstream = Task(
        "second",
        Roi((0,), (54,)),
        Roi((0,), (14,)),
        Roi((2,), (10,)),
        lambda block: None,
        upstream_tasks=[upstream],
        read_write_conflict=False,
    )
    result = run(downstream)
    assert not result
    assert list(result) == ["first", "second"]
    reading = [block.block_id for block in result.orphaned_blocks["second"]]
    assert reading == [("second", 1), ("second", 2)]  # they read [10, 24) and [20, 34)
    assert result["second"].completed_count == 3
    assert list(result.failed_blocks) == ["first"]


def test_failures_with_one_cause_are_one_cause() -> None:
    def process(block: Block) -> None:
        assert block.index is not None
        if block.index < 3:
            raise ValueError(f"block {block.index} is bad")
        if block.index == 3:
            raise KeyError("elsewhere")

    result = run(task_of(process, blocks=6, max_retries=0, num_workers=2))
    assert [(cause.error.partition(":")[0], len(cause.blocks)) for cause in result.causes] == [
        ("ValueError", 3),
        ("KeyError", 1),
    ]
    assert [block.index for block in result.causes[0].blocks] == [0, 1, 2]


def test_a_worker_on_which_everything_fails_is_replaced(notes: Notes) -> None:
    def process(block: Block) -> None:
        notes.add(block)
        raise ValueError("x")

    result = run(task_of(process, blocks=7, max_retries=0))
    assert result["t"].failed_count == 7
    assert len({notes.of(index)[0][0] for index in range(7)}) > 1


# ------------------------------------------------------------------------------------------------------ checks


def test_blocks_that_are_done_already_are_skipped(notes: Notes) -> None:
    def pre(block: Block) -> bool:
        return block.index != 1

    result = run(task_of(notes.add, check_function=pre))
    assert result
    assert (result["t"].skipped_count, result["t"].completed_count) == (2, 3)
    assert [len(notes.of(index)) for index in range(3)] == [0, 1, 0]


def test_when_everything_is_done_no_process_is_started(notes: Notes, logs: Path) -> None:
    result = run(task_of(notes.add, check_function=lambda block: True, num_workers=4))
    assert result
    assert result["t"].skipped_count == 3
    assert not (logs / "t").exists()


def test_the_post_check_decides(notes: Notes) -> None:
    """Block 0 is good the second time, block 1 at once, block 2 never."""

    def post(block: Block) -> bool:
        assert block.status is BlockStatus.SUCCESS
        return len(notes.of(block.index)) > {0: 1, 1: 0}.get(block.index or 0, 99)

    result = run(task_of(notes.add, check_function=(None, post), max_retries=1))
    assert [len(notes.of(index)) for index in range(3)] == [2, 1, 2]
    assert [block.index for block in result.failed_blocks["t"]] == [2]
    assert result.causes[0].error == "refused by the post-check"


def test_a_pair_of_checks(notes: Notes) -> None:
    checked: list[int | None] = []

    def post(block: Block) -> bool:
        checked.append(block.index)
        return True

    result = run(task_of(notes.add, check_function=(lambda block: block.index == 0, post)))
    assert result
    assert result["t"].skipped_count == 1
    assert sorted(index for index in checked if index is not None) == [1, 2]


@pytest.mark.parametrize("phase", ["pre", "post"])
def test_a_check_that_raises_is_a_failure_that_people_see(
    phase: str, notes: Notes, capfd: pytest.CaptureFixture[str]
) -> None:
    def check(block: Block) -> bool:
        if block.index == 1:
            raise OSError("store is gone")
        return phase == "post"

    checks = (check, None) if phase == "pre" else (None, check)
    result = run(task_of(notes.add, check_function=checks, max_retries=0))
    assert not result
    assert result["t"].failed_count == 1
    assert result.causes[0].error == f"{phase}-check raised OSError: store is gone"
    assert result.causes[0].where.startswith("test_outcomes.py:")
    assert len(notes.of(1)) == (0 if phase == "pre" else 1)
    assert "block 1 at (1,) fails for good: " + result.causes[0].error in capfd.readouterr().err


# ------------------------------------------------------------------------------------------- killed and hanging


def test_a_killed_worker_costs_its_block_nothing(notes: Notes) -> None:
    def process(block: Block) -> None:
        if notes.add(block) == 1 and block.index == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    result = run(task_of(process, max_retries=0))
    assert result
    assert [len(notes.of(index)) for index in range(3)] == [1, 2, 1]
    assert notes.of(1)[0][0] != notes.of(1)[1][0]


@pytest.mark.parametrize(
    ("end", "how"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "was killed by SIGKILL"),
        (lambda: os._exit(0), "ended with code 0"),
    ],
)
def test_a_block_that_kills_every_worker_is_given_up(notes: Notes, end: Callable[[], None], how: str) -> None:
    def process(block: Block) -> None:
        notes.add(block)
        if block.index == 1:
            end()

    result = run(task_of(process, max_retries=0, num_workers=2))
    assert not result
    assert [block.index for block in result.failed_blocks["t"]] == [1]
    assert result.causes[0].error == f"5 workers ended while they ran this block: the last {how}"
    assert len(notes.of(1)) == 5
    assert result["t"].completed_count == 2


def sleep_in_python() -> None:
    time.sleep(1000)


def sleep_in_c() -> None:
    ctypes.CDLL(None).sleep(1000)


def sleep_in_c_with_the_lock_of_python() -> None:
    ctypes.PyDLL(None).sleep(1000)


@pytest.mark.parametrize("sleep", [sleep_in_python, sleep_in_c, sleep_in_c_with_the_lock_of_python])
def test_a_block_that_takes_too_long_fails_and_its_worker_is_killed(
    sleep: Callable[[], None], notes: Notes, logs: Path
) -> None:
    def process(block: Block) -> None:
        if notes.add(block) == 1 and block.index == 1:
            sleep()

    result = run(task_of(process, timeout=0.6, max_retries=1))
    assert result, result.causes
    assert [len(notes.of(index)) for index in range(3)] == [1, 2, 1]
    written = (logs / "t" / "worker_0.err").read_text()
    assert sleep.__name__ in written  # the stacks say what it was doing


def test_a_block_that_always_takes_too_long_is_given_up(notes: Notes) -> None:
    def process(block: Block) -> None:
        notes.add(block)
        if block.index == 1:
            sleep_in_python()

    result = run(task_of(process, timeout=0.5, max_retries=1))
    assert result.causes[0].error == "TimeoutError: it took longer than its timeout of 0.5 s"
    assert len(notes.of(1)) == 2
    assert result["t"].completed_count == 2


# ------------------------------------------------------------------------------------------- workers that do not work


def test_workers_that_decline_are_not_replaced_and_the_result_says_so(notes: Notes) -> None:
    def decline() -> None:
        notes.touch(str(os.getpid()))

    result = run(task_of(decline, num_workers=2))
    assert not result
    assert len(list(notes.folder.iterdir())) == 2
    (problem,) = result.problems
    assert problem.startswith("task 't': all worker processes ended by themselves while 3 blocks were left")


def test_workers_that_crash_before_they_ask_are_given_up(notes: Notes, logs: Path) -> None:
    def crash() -> None:
        notes.touch(str(os.getpid()))
        raise RuntimeError("no GPU here")

    result = run(task_of(crash))
    assert not result
    assert len(list(notes.folder.iterdir())) == 3
    (problem,) = result.problems
    said = "3 worker processes in a row ended before they asked for a block; the last could not begin: RuntimeError:"
    assert said in problem
    assert "no GPU here" in problem
    assert "in crash" in problem, "the traceback"
    assert "no GPU here" in (logs / "t" / "worker_2.err").read_text()


def test_what_waits_for_a_task_without_workers_is_told_too() -> None:
    upstream = task_of(lambda: None, name="first")
    result = run(task_of(lambda block: None, name="second", upstream_tasks=[upstream]))
    assert not result
    assert len(result.problems) == 2
    assert "task 'second': 3 blocks were not run" in result.problems


def test_the_rest_of_a_run_goes_on_when_one_task_cannot() -> None:
    result = run(task_of(lambda: None, name="first"), task_of(lambda block: None, name="second"))
    assert not result
    assert result["second"].completed_count == 3
