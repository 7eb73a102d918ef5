"""Does the reason of a failure reach the result, whatever happens?"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from blockflow import Client, Command, Roi, RunResult, Task, map_blocks, run_blockwise
from blockflow.errors import BlockError, RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from blockflow import Block


class Ended(BaseException):
    """An exception of a user that is no Exception."""


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise Ended


def run(function: Any, **more: Any) -> RunResult:
    block = Roi((0,), (1,))
    options = {"max_retries": 0, "read_write_conflict": False} | more
    return run_blockwise(Task("t", Roi((0,), (3,)), block, block, function, **options), progress=False, summary=False)


RAISED = [
    asyncio.CancelledError("hung up"),
    GeneratorExit("hung up"),
    KeyboardInterrupt("hung up"),
    SystemExit("hung up"),
    SystemExit(0),
    SystemExit(None),
    StopIteration("hung up"),
    Ended("hung up"),
    BaseExceptionGroup("hung up", [KeyboardInterrupt()]),
]


@pytest.mark.parametrize("error", RAISED, ids=repr)
def test_whatever_is_raised_is_a_failure_of_the_block(error: BaseException) -> None:
    def fail(block: Block) -> None:
        if block.index == 1:
            raise error

    result = run(fail)
    (cause,) = result.causes
    assert cause.error.startswith(type(error).__name__)
    assert result["t"].completed_count == 2
    assert cause.blocks.indices.tolist() == [1]


@pytest.mark.parametrize("stage", ["setup", "function"])
def test_whatever_is_raised_where_there_is_a_setup_is_told(stage: str) -> None:
    def setup() -> None:
        if stage == "setup":
            raise Ended("no model")

    def process(block: Block, state: None) -> None:
        raise Ended("no memory")

    result = run(process, setup=setup)
    assert not result
    if stage == "function":
        assert result.causes[0].error == "Ended: no memory"
    else:
        assert "could not begin: Ended: no model (test_reasons.py:" in result.problems[0]
        assert "in setup" in result.problems[0], "the traceback"


@pytest.mark.parametrize("error", [Ended("full"), asyncio.CancelledError("full"), SystemExit("full")], ids=repr)
def test_a_map_tells_what_its_function_raised(error: BaseException) -> None:
    def fail(block: Any) -> None:
        raise error

    with pytest.raises(BlockError, match=f"{type(error).__name__}: full"):
        map_blocks(fail, np.zeros(4), grid=2, num_workers=1, launcher=None, max_retries=0, timeout=60, progress=False)


def test_a_reason_that_cannot_be_said_is_told_as_far_as_can_be() -> None:
    def fail(block: Block) -> None:
        raise Unspeakable

    assert run(fail).causes[0].error == "Unspeakable: <its message cannot be shown: Ended>"


class Hostile(io.TextIOBase):
    def write(self, text: str) -> int:
        raise Ended


def close_descriptor(number: int) -> None:
    with contextlib.suppress(OSError):  # the block before may have closed it
        os.close(number)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda: setattr(sys, "stderr", None),
        lambda: sys.stderr.close(),
        lambda: setattr(sys, "stderr", Hostile()),
        lambda: close_descriptor(2),
        lambda: setattr(sys, "stdout", None),
    ],
    ids=["none", "closed", "hostile", "no descriptor", "no stdout"],
)
def test_a_reason_arrives_though_it_cannot_be_printed(spoil: Callable[[], None]) -> None:
    def fail(block: Block) -> None:
        spoil()
        if block.index == 1:
            raise ValueError("the real reason")

    result = run(fail)
    assert [cause.error for cause in result.causes] == ["ValueError: the real reason"]
    assert result["t"].completed_count == 2


def test_a_reason_arrives_though_the_log_cannot_be_written(logs: Path) -> None:
    (logs / "t").mkdir(parents=True)
    (logs / "t" / "worker_0.err").mkdir()

    def fail(block: Block) -> None:
        raise ValueError("the real reason")

    assert run(fail).causes[0].error == "ValueError: the real reason"


def test_a_function_that_cannot_be_loaded_says_so() -> None:
    class Unloadable:
        def __call__(self, block: Block) -> None: ...

        def __reduce__(self) -> Any:
            return (int, ("no number",))

    result = run(Unloadable())
    assert "could not begin" in result.problems[0]
    assert "invalid literal for int() with base 10: 'no number'" in result.problems[0]


def die(how: str) -> None:
    print("the last words", file=sys.stderr, flush=True)
    if how == "signal":
        os.kill(os.getpid(), signal.SIGSEGV)
    os._exit(3)


@pytest.mark.parametrize(("how", "said"), [("signal", "was killed by SIGSEGV"), ("exit", "ended with code 3")])
@pytest.mark.parametrize("launcher", [None, Command("{arguments}", workers=1)], ids=["local", "command"])
def test_the_end_of_workers_before_they_ask_is_told(how: str, said: str, launcher: Any) -> None:
    result = run(lambda block, state: None, setup=lambda: die(how), launcher=launcher)
    (problem,) = result.problems
    assert said in problem or launcher is not None
    assert "the last words" in problem


def test_the_end_of_workers_in_a_block_is_told() -> None:
    def process(block: Block) -> None:
        if block.index == 1:
            die("signal")

    (cause,) = run(process).causes
    assert cause.error == "5 workers ended while they ran this block: the last was killed by SIGSEGV"
    assert "the last words" in cause.traceback


def test_a_worker_function_that_fails_is_told_and_so_is_what_its_program_printed() -> None:
    def start() -> None:
        subprocess.run([sys.executable, "-c", "raise SystemError('no licence')"], check=True)

    (problem,) = run(start).problems
    assert "CalledProcessError" in problem


@pytest.mark.parametrize("end", [3, "no licence"])
def test_a_worker_function_that_ends_python_is_told(end: Any) -> None:
    def start() -> None:
        sys.exit(end)

    (problem,) = run(start).problems
    assert f"could not begin: SystemExit: {end}" in problem


def test_no_log_is_named_that_does_not_exist(logs: Path) -> None:
    result = run(lambda block, state: None, setup=lambda: os._exit(3))
    assert "worker_" not in result.problems[0]
    assert "ended with code 3" in result.problems[0]


def test_a_client_tells_whatever_is_raised_and_lets_it_through() -> None:
    def work() -> None:
        client = Client()
        with contextlib.suppress(Ended):
            while True:
                with client.acquire_block() as block:
                    if block is None:
                        break
                    raise Ended("in the block")
        client.close()

    result = run(work)
    assert [cause.error for cause in result.causes] == ["Ended: in the block"]


def test_a_client_that_raises_keyboardinterrupt_fails_its_block() -> None:
    def work() -> None:
        client = Client()
        with client.acquire_block() as block:
            if block is not None:
                raise KeyboardInterrupt("by myself")

    assert run(work).causes[0].error == "KeyboardInterrupt: by myself"


def test_ctrl_c_in_a_client_gives_its_block_back(tmp_path: Path) -> None:
    mark = tmp_path / "interrupted"

    def work() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        client = Client()
        while True:
            with client.acquire_block() as block:
                if block is None:
                    return
                if block.index == 1 and not mark.exists():
                    mark.touch()
                    os.kill(os.getpid(), signal.SIGINT)
                    for _ in range(10**9):
                        pass

    assert run(work), "without a retry"


# ------------------------------------------------------------------------------------------------- returned values


async def coroutine(block: Block) -> None: ...


def undecorated(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        return function(*arguments)

    return call


@contextlib.contextmanager
def managed(block: Block) -> Iterator[None]:
    yield


class Callable_:
    def __call__(self, block: Block) -> Any:
        return coroutine(block)


@pytest.mark.parametrize(
    "function",
    [
        undecorated(coroutine),
        lambda block: coroutine(block),
        functools.partial(lambda way, block: coroutine(block), 1),
        Callable_(),
        managed,
        lambda block: (n for n in range(3)),
    ],
    ids=["decorator", "lambda", "partial", "object", "context manager", "generator"],
)
@pytest.mark.parametrize("multiprocessing", [True, False], ids=["workers", "here"])
def test_a_block_of_a_function_that_has_run_nothing_is_not_done(function: Any, multiprocessing: bool) -> None:
    block = Roi((0,), (1,))
    task = Task("t", Roi((0,), (3,)), block, block, function, max_retries=0)
    options: Any = {"progress": False, "summary": False, "multiprocessing": multiprocessing}
    if multiprocessing:
        assert "nothing has run" in run_blockwise(task, **options).causes[0].error
    else:
        with pytest.raises(Exception, match="nothing has run"):
            run_blockwise(task, **options)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("options", [{"call": "block"}, {"collect": True}, {}], ids=["by block", "collected", "arrays"])
def test_a_map_of_a_function_that_has_run_nothing_raises(workers: int, options: Any) -> None:
    with pytest.raises(Exception, match="nothing has run"):
        map_blocks(
            lambda *given: coroutine(given[0]),
            np.zeros(4),
            grid=2,
            num_workers=workers,
            max_retries=0,
            progress=False,
            **options,
        )


@pytest.mark.parametrize("check", [lambda block: coroutine(block), (None, lambda block: coroutine(block))])
def test_a_check_that_has_run_nothing_is_a_failure(check: Any) -> None:
    assert "nothing has run" in run(lambda block: None, check_function=check).causes[0].error


def test_a_setup_that_has_run_nothing_is_told() -> None:
    async def load() -> None: ...

    assert "setup returned a coroutine" in run(lambda block, state: None, setup=lambda: load()).problems[0]


def test_a_worker_function_that_has_run_nothing_is_told() -> None:
    async def work() -> None: ...

    assert "returned a coroutine" in run(lambda: work()).problems[0]


def test_an_init_callback_that_has_run_nothing_is_told() -> None:
    with pytest.raises(Exception, match=r"init_callback_fn of task 't' returned a coroutine"):
        run(lambda block: None, init_callback_fn=lambda context: coroutine(context))


@pytest.mark.parametrize("multiprocessing", [True, False], ids=["workers", "here"])
def test_an_array_that_is_returned_is_told_of_once(multiprocessing: bool, capfd: pytest.CaptureFixture[str]) -> None:
    block = Roi((0,), (1,))
    task = Task("t", Roi((0,), (20,)), block, block, lambda block: np.ones(1), num_workers=2)
    assert run_blockwise(task, progress=False, summary=False, multiprocessing=multiprocessing)
    said = capfd.readouterr().err
    assert said.count("returns an array, and nothing is done with it") == 1
    assert "map_blocks" in said


def test_a_map_raises_what_kept_its_workers_from_beginning() -> None:
    def setup() -> None:
        raise RunError("no licence")

    with pytest.raises(RunError, match="no licence"):
        map_blocks(np.sum, np.zeros(4), grid=2, collect=True, num_workers=1, setup=setup, timeout=60, progress=False)


def test_a_result_shows_how_many_blocks_failed_and_why() -> None:
    def fail(block: Block) -> None:
        if block.index != 1:
            raise ValueError("a < b")

    result = run(fail)
    assert repr(result) == "<RunResult INCOMPLETE; t: 1/3, 2 failed; t: ValueError: a < b>"
    assert result.summary().splitlines()[:2] == ["NOT COMPLETE", "t: 1 of 3 blocks done, 2 failed"]
    assert "t: 2 failed: ValueError: a < b at test_reasons.py:" in result.summary()
    assert "ValueError: a &lt; b" in result._repr_html_()
    assert repr(run(lambda block: None)) == "<RunResult complete; t: 3/3>"
