"""Runs with a run directory: what does the next one find, however the one before has ended?"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import blockflow
from blockflow import Block, BlockStatus, Ledger, Roi, RunResult, Task, run_blockwise
from blockflow.errors import DriverAliveError, LedgerError, PlanChangedError, PlanError, RunDirectoryError
from tests.run.scene import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

# Functions are mended, or capture something else, between lives; tests/run/test_code_versions.py tests what is said.
pytestmark = pytest.mark.filterwarnings("ignore:the function .* has changed")

BLOCKS = 8


def line(function: Any, blocks: int = BLOCKS, name: str = "line", step: int = 10, **more: Any) -> Task:
    one = Roi((0,), (step,))
    return Task(name, Roi((0,), (step * blocks,)), one, one, function, **more)


def run(*tasks: Task, run_dir: Path, **more: Any) -> RunResult:
    return run_blockwise(tasks, progress=False, summary=False, run_dir=run_dir, **more)


def told(folder: Path, what: str = "began") -> list[tuple[str, int]]:
    """The blocks of which block functions have told something, in order."""
    path = folder / what
    lines = path.read_text().splitlines() if path.exists() else []
    return [(task, int(index)) for task, index in (line.split() for line in lines)]


def teller(folder: Path, act: Callable[[Block], None] | None = None) -> Callable[[Block], None]:
    """A block function that tells when it has begun, and when it is done."""
    place = str(folder)

    def tell(what: str, block: Block) -> None:
        with open(f"{place}/{what}", "a") as file:
            file.write(f"{block.task_id} {block.index}\n")

    def work(block: Block) -> None:
        tell("began", block)
        if act is not None:
            act(block)
        tell("ended", block)

    return work


HEAD = """
    import os, pathlib, signal, sys, threading, time
    import blockflow
    from blockflow import Roi, Task, run_blockwise

    def tell(what, block):
        with open(what, "a") as file:
            file.write(f"{block.task_id} {block.index}\\n")

    def line(function, blocks=8, name="line", **more):
        return Task(name, Roi((0,), (10 * blocks,)), Roi((0,), (10,)), Roi((0,), (10,)), function, **more)

    def work(block):
        tell("began", block)
        with open(f"pid {block.index}", "w") as file:
            file.write(str(os.getpid()))
        while block.index in (2, 3) and not os.path.exists("go"):
            time.sleep(0.01)
        tell("ended", block)

    options = {"progress": False, "summary": False, "run_dir": "run"}
    tasks = [line(work, num_workers=2, read_write_conflict=False)]
    """


class Script:
    """A script of a user; the same can be started again."""

    def __init__(self, folder: Path, text: str = "assert run_blockwise(tasks, **options)") -> None:
        self.folder = folder
        self._path = folder / "script_of_a_user.py"
        self._path.write_text(textwrap.dedent(HEAD) + textwrap.dedent(text))
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """Start it; what it says goes to a file."""
        with (self.folder / "said").open("ab") as said:
            self.process = subprocess.Popen(
                [sys.executable, str(self._path)],
                cwd=self.folder,
                env=os.environ | {"PYTHONPATH": str(Path(blockflow.__file__).parents[1])},
                stdout=said,
                stderr=said,
            )
        return self.process

    @property
    def said(self) -> str:
        return (self.folder / "said").read_text()

    def waits(self) -> None:
        """Blocks 2 and 3 are under way, and wait for a file."""
        wait_for(lambda: {("line", 2), ("line", 3)} <= set(told(self.folder)) or self.process.poll() is not None)
        assert self.process.poll() is None, self.said

    def go(self) -> None:
        (self.folder / "go").touch()

    def pid(self, block: int) -> int:
        return int((self.folder / f"pid {block}").read_text())

    def ends(self, code: int = 0, seconds: float = 60.0) -> None:
        assert self.process.wait(seconds) == code, self.said


# ------------------------------------------------------------------------------------------------------ killed drivers


def test_workers_that_outlive_their_driver_lose_nothing(tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.waits()
    script.process.kill()
    script.process.wait()
    script.start()
    wait_for(lambda: len(list((tmp_path / "run" / "connection").glob("*.connection"))) == 1)
    script.go()
    script.ends()
    assert sorted(told(tmp_path)) == sorted(told(tmp_path, "ended")) == [("line", n) for n in range(BLOCKS)]


def test_workers_go_on_while_there_is_no_driver(tmp_path: Path) -> None:
    """What they have finished meanwhile is recorded by the next driver."""
    script = Script(tmp_path)
    script.waits()
    script.process.kill()
    script.process.wait()
    script.go()
    wait_for(lambda: {("line", 2), ("line", 3)} <= set(told(tmp_path, "ended")))
    script.start()
    script.ends()
    assert sorted(told(tmp_path)) == [("line", n) for n in range(BLOCKS)]


def test_blocks_of_workers_that_died_with_their_driver_run_again(tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.waits()
    script.process.kill()
    script.process.wait()
    for block in (2, 3):
        os.kill(script.pid(block), signal.SIGKILL)
    script.go()
    began = time.monotonic()
    script.start()
    script.ends()
    assert time.monotonic() - began < 20, "nobody waits for the lease of a process that is known to be dead"
    times = Counter(told(tmp_path))
    assert {index: count for (_, index), count in times.items() if count > 1} == {2: 2, 3: 2}
    assert Ledger.open(tmp_path / "run").counts("line")["done"] == BLOCKS


def test_a_worker_that_is_asleep_while_the_driver_is_restarted_keeps_its_block(tmp_path: Path) -> None:
    """Its driver cannot know: it waits, and hands out nothing that the sleeper may be at work on."""
    script = Script(tmp_path)
    script.waits()
    script.process.kill()
    script.process.wait()
    os.kill(script.pid(2), signal.SIGSTOP)
    script.start()
    wait_for(lambda: Ledger.open(tmp_path / "run").task_ids)
    script.go()
    wait_for(lambda: ("line", 3) in told(tmp_path, "ended"))
    os.kill(script.pid(2), signal.SIGCONT)
    script.ends()
    assert sorted(told(tmp_path)) == [("line", n) for n in range(BLOCKS)]


def test_many_lives_leave_no_rubbish(tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.waits()
    for _ in range(4):
        script.process.kill()
        script.process.wait()
        known = sorted((tmp_path / "run" / "connection").iterdir())
        script.start()
        wait_for(lambda known=known: sorted((tmp_path / "run" / "connection").iterdir()) != known)  # type: ignore[misc]
    script.go()
    script.ends()
    names = sorted(path.name for path in (tmp_path / "run" / "connection").iterdir())
    assert [Path(name).suffix for name in names] == [".connection"]
    assert "PRIVATE" not in (tmp_path / "run" / "connection" / names[0]).read_text()
    assert sorted(told(tmp_path)) == [("line", n) for n in range(BLOCKS)]


def test_logs_of_every_life_stay(tmp_path: Path) -> None:
    text = """
        def speak(block):
            print("block", block.index, flush=True)
            work(block)

        tasks = [line(speak, num_workers=2, read_write_conflict=False)]
        assert run_blockwise(tasks, **options)
        """
    script = Script(tmp_path, text)
    script.waits()
    script.process.kill()
    script.process.wait()
    for block in (2, 3):
        os.kill(script.pid(block), signal.SIGKILL)
    script.go()
    script.start()
    script.ends()
    logs = [path.read_text() for path in (tmp_path / "run" / "logs" / "line").glob("*.out")]
    said = Counter(line for log in logs for line in log.splitlines())
    assert said == Counter(f"block {index}" for _, index in told(tmp_path))


def test_a_worker_that_cannot_come_back_is_ended_before_others_get_its_block(tmp_path: Path) -> None:
    """C code keeps Python's lock there, so it notices neither that its driver was killed nor that its lease is over."""
    text = """
        def work(block):
            if block.index == 0 and block.attempt < 2**41:
                with open("first.draft", "w") as file:
                    file.write(str(os.getpid()))
                os.rename("first.draft", "first")
                ctypes.PyDLL(None).sleep(600)
            if block.index == 0:
                with open("second", "w") as file:
                    file.write(str(is_dead(int(open("first").read()))))

        import ctypes
        from blockflow.place import is_dead
        assert run_blockwise([line(work, 2, num_workers=2)], **options, lease_seconds=1.5)
        """
    script = Script(tmp_path, text)
    wait_for((tmp_path / "first").exists)
    script.process.kill()
    script.process.wait()
    script.start()
    script.ends()
    assert (tmp_path / "second").read_text() == "True"


def test_logs_of_an_orderly_life_stay_too(tmp_path: Path) -> None:
    for life in (1, 2):

        def speak(block: Block, life: int = life) -> None:
            print("life", life)
            if block.index == 3 and life == 1:
                raise ZeroDivisionError("no")

        run(line(speak, num_workers=1, max_retries=0), run_dir=tmp_path / "run", retry_failed=True)
    said = "".join(path.read_text() for path in (tmp_path / "run" / "logs" / "line").glob("*.out"))
    assert Counter(said.splitlines()) == {"life 1": BLOCKS, "life 2": 1}


def test_what_a_driver_of_the_same_number_has_left_is_no_hindrance(tmp_path: Path) -> None:
    """In a container every driver may have the same process number."""
    assert run(line(fails_at_3, max_retries=0), run_dir=tmp_path / "run") is not None
    (connection,) = (tmp_path / "run" / "connection").iterdir()
    draft = connection.with_name(f".{connection.stem}.{os.getpid()}.draft")
    draft.write_text("PRIVATE")
    assert run(line(teller(tmp_path)), run_dir=tmp_path / "run", retry_failed=True)
    assert not draft.exists()


# --------------------------------------------------------------------------------------------------------------- Ctrl-C


def test_ctrl_c_lets_blocks_end_and_the_next_run_goes_on(tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.waits()
    script.process.send_signal(signal.SIGINT)
    wait_for(lambda: "finishing the blocks under way" in script.said)
    script.go()
    wait_for(lambda: script.process.poll() is not None)
    assert script.process.returncode != 0
    assert "KeyboardInterrupt" in script.said
    before = told(tmp_path)
    assert sorted(before) == sorted(told(tmp_path, "ended"))
    assert len(before) < BLOCKS
    assert Ledger.open(tmp_path / "run").counts("line")["done"] == len(before)
    script.start()
    script.ends()
    assert sorted(told(tmp_path)) == [("line", n) for n in range(BLOCKS)]


def test_a_second_ctrl_c_stops_at_once_and_the_next_run_goes_on(tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.waits()
    script.process.send_signal(signal.SIGINT)
    wait_for(lambda: "finishing the blocks under way" in script.said)
    script.process.send_signal(signal.SIGINT)
    began = time.monotonic()
    wait_for(lambda: script.process.poll() is not None)
    assert time.monotonic() - began < 10, "blocks under way are not waited for"
    done = told(tmp_path, "ended")
    assert Ledger.open(tmp_path / "run").counts("line")["done"] == len(done)
    script.go()
    script.start()
    script.ends()
    times = Counter(told(tmp_path))
    assert {index for (_, index), count in times.items() if count > 1} == {2, 3}


def test_sigterm_stops_and_the_next_run_goes_on(tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.waits()
    script.process.terminate()
    script.ends(128 + signal.SIGTERM)
    script.go()
    script.start()
    script.ends()
    assert Ledger.open(tmp_path / "run").counts("line")["done"] == BLOCKS


# -------------------------------------------------------------------------------------------------------- two drivers


def test_a_second_driver_is_refused_while_the_first_is_alive(tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.waits()
    with pytest.raises(DriverAliveError, match=f"another driver is at work .*: process {script.process.pid} .* alive"):
        run(line(lambda block: None, num_workers=2, read_write_conflict=False), run_dir=tmp_path / "run")
    script.go()
    script.ends()
    assert sorted(told(tmp_path)) == [("line", n) for n in range(BLOCKS)]


def test_a_stopped_driver_that_was_replaced_records_nothing_more(tmp_path: Path) -> None:
    """The user was wrong to say that it is dead: it is only asleep."""
    script = Script(tmp_path)
    script.waits()
    first = script.process
    first.send_signal(signal.SIGSTOP)
    script.start()
    wait_for(lambda: script.process.poll() is not None)
    assert "another driver is at work in this run directory" in script.said
    script._path.write_text(script._path.read_text() + "\n")
    text = script._path.read_text().replace("**options)", "**options, take_over=True, lease_seconds=3)")
    script._path.write_text(text)
    script.start()
    script.go()
    script.ends(seconds=90)
    first.send_signal(signal.SIGCONT)
    assert first.wait(60) != 0
    assert "another driver has taken over this run directory" in script.said
    assert Ledger.open(tmp_path / "run").counts("line")["done"] == BLOCKS


# ------------------------------------------------------------------------------------------------ what can be asked for


def fails_at_3(block: Block) -> None:
    if block.index == 3:
        raise ZeroDivisionError("no")


def test_a_finished_run_does_nothing_and_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / "run"
    for _ in range(2):
        assert run(line(teller(tmp_path)), run_dir=run_dir)
    assert len(told(tmp_path)) == BLOCKS
    result = run_blockwise(line(teller(tmp_path)), run_dir=run_dir, progress=False)
    assert result["line"].completed_count == BLOCKS
    assert f"{run_dir}: 8 of 8 blocks of task 'line' are done already" in capfd.readouterr().err
    assert not list(run_dir.glob("owner-*.draft"))


def test_reset_starts_over(tmp_path: Path) -> None:
    for reset in (False, True):
        assert run(line(teller(tmp_path)), run_dir=tmp_path / "run", reset=reset)
    assert Counter(told(tmp_path)) == {("line", n): 2 for n in range(BLOCKS)}


def test_blocks_that_failed_for_good_are_tried_again_only_if_asked(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    task = line(teller(tmp_path, fails_at_3), max_retries=1)
    result = run(task, run_dir=run_dir)
    assert not result
    assert (result["line"].completed_count, result["line"].failed_count) == (7, 1)
    again = run(task, run_dir=run_dir)
    assert not again
    assert (again["line"].completed_count, again["line"].failed_count) == (7, 1)
    assert again.causes[0].error == "ZeroDivisionError: no", "it is still told why"
    assert Counter(told(tmp_path))["line", 3] == 2
    assert Ledger.open(run_dir).failures("line")[3].error == "ZeroDivisionError: no"
    assert run(line(teller(tmp_path)), run_dir=run_dir, retry_failed=True)
    assert Counter(told(tmp_path))["line", 3] == 3
    assert Ledger.open(run_dir).counts("line")["done"] == BLOCKS


def test_failures_are_counted_over_all_lives(tmp_path: Path) -> None:
    """Else a driver that is started again and again would try a block for ever."""
    text = """
        def work(block):
            tell("began", block)
            if block.index == 1:
                if len(open("began").readlines()) > 2:
                    os.kill(int(open("driver").read()), signal.SIGKILL)
                    time.sleep(600)
                raise ZeroDivisionError("no")

        open("driver", "w").write(str(os.getpid()))
        run_blockwise([line(work, 2, num_workers=1, max_retries=1)], **options)
        """
    script = Script(tmp_path, text)
    script.ends(-signal.SIGKILL)
    left = told(tmp_path).count(("line", 1))
    assert left == 2
    (tmp_path / "began").write_text("")
    for pid in [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]:
        if _is_worker(pid, tmp_path):
            os.kill(pid, signal.SIGKILL)
    result = run(line(teller(tmp_path, _fails_at_1), 2, num_workers=1, max_retries=1), run_dir=tmp_path / "run")
    assert not result
    assert told(tmp_path).count(("line", 1)) == 1, "one failure is known, and one more is too many"


def _fails_at_1(block: Block) -> None:
    if block.index == 1:
        raise ZeroDivisionError("no")


def _is_worker(pid: int, folder: Path) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return f"BLOCKFLOW_TEST_MARK={folder}\0".encode() in environment and b"blockflow.worker" in command


def test_another_plan_is_refused_and_says_what_differs(tmp_path: Path) -> None:
    assert run(line(teller(tmp_path)), run_dir=tmp_path / "run")
    with pytest.raises(PlanChangedError) as refused:
        run(line(teller(tmp_path), step=20), run_dir=tmp_path / "run")
    print(refused.value)
    with pytest.raises(PlanChangedError, match="line"):
        run(line(teller(tmp_path), name="other"), run_dir=tmp_path / "run")
    assert len(told(tmp_path)) == BLOCKS


def test_what_is_covered_by_done_blocks_is_carried_over_to_another_plan(tmp_path: Path) -> None:
    """Twice as large blocks; the one that covers the failed block runs, and the region grows by one."""
    run_dir = tmp_path / "run"
    assert not run(line(fails_at_3, max_retries=0), run_dir=run_dir)
    assert run(line(teller(tmp_path), 5, step=20), run_dir=run_dir, accept_change=True)
    assert sorted(told(tmp_path)) == [("line", 1), ("line", 4)]
    assert Ledger.open(run_dir).counts("line")["done"] == 5


@pytest.mark.parametrize("option", ["reset", "retry_failed", "accept_change", "take_over"])
def test_options_without_a_run_directory_are_refused(option: str) -> None:
    options: dict[str, Any] = {option: True}
    with pytest.raises(PlanError, match="say what to do with a run_dir; there is none"):
        run_blockwise(line(fails_at_3), progress=False, **options)


@pytest.mark.parametrize("option", ["retry_failed", "accept_change"])
def test_contradictions_are_refused(tmp_path: Path, option: str) -> None:
    options: dict[str, Any] = {option: True}
    with pytest.raises(PlanError, match="reset forgets everything that happened"):
        run(line(fails_at_3), run_dir=tmp_path / "run", reset=True, **options)
    assert not (tmp_path / "run").exists()


def test_a_directory_of_somebody_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunDirectoryError, match=r"holds .*thesis\.tex"):
        run(line(fails_at_3), run_dir=tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    assert not (tmp_path / "journal").exists()


def test_a_plan_that_cannot_be_sent_leaves_the_directory_usable(tmp_path: Path) -> None:
    lock = threading.Lock()
    with pytest.raises(blockflow.errors.NotShippableError):
        run(line(lambda block: lock.acquire()), run_dir=tmp_path / "run")
    assert run(line(teller(tmp_path)), run_dir=tmp_path / "run")


# ------------------------------------------------------------------------------------------------------ in one process


def test_a_run_in_this_process_goes_on_where_its_first_exception_was_raised(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with pytest.raises(ZeroDivisionError):
        run(line(teller(tmp_path, fails_at_3)), run_dir=run_dir, multiprocessing=False)
    assert Ledger.open(run_dir).counts("line")["done"] == 3
    assert run(line(teller(tmp_path)), run_dir=run_dir, multiprocessing=False)
    assert told(tmp_path) == [("line", n) for n in (0, 1, 2, 3, 3, 4, 5, 6, 7)]


def test_a_run_may_change_between_this_process_and_others(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with pytest.raises(ZeroDivisionError):
        run(line(teller(tmp_path, fails_at_3)), run_dir=run_dir, multiprocessing=False)
    assert run(line(teller(tmp_path)), run_dir=run_dir)
    assert sorted(told(tmp_path)) == [("line", n) for n in (0, 1, 2, 3, 3, 4, 5, 6, 7)]
    assert run(line(teller(tmp_path)), run_dir=run_dir, multiprocessing=False)
    assert len(told(tmp_path)) == 9


def test_a_process_that_is_killed_loses_no_block_that_others_waited_for(tmp_path: Path) -> None:
    text = """
        def end(block):
            tell("began", block)
            if block.task_id == "below" and block.index == 4:
                os.kill(os.getpid(), signal.SIGKILL)

        above = line(end, name="above")
        run_blockwise([line(end, name="below", upstream_tasks=[above])], multiprocessing=False, **options)
        """
    Script(tmp_path, text).ends(-signal.SIGKILL)
    ledger = Ledger.open(tmp_path / "run")
    waited_for = {index for task, index in told(tmp_path) if task == "below"}
    assert waited_for
    assert all(ledger.states("above")[index] == 3 for index in waited_for)


# --------------------------------------------------------------------------------------------------------- what is seen


def test_the_ledger_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.waits()
    ledger = Ledger.open(tmp_path / "run")
    wait_for(lambda: ledger.counts("line")["done"] >= 2)  # more, if another worker has done what comes after
    done = ledger.states("line") == 3
    assert 2 <= done.sum() < BLOCKS
    assert (ledger.attempts("line")[done] == 1).all()
    script.go()
    while script.process.poll() is None:
        assert 2 <= ledger.counts("line")["done"] <= BLOCKS
    script.ends()
    assert ledger.counts("line")["done"] == BLOCKS
    assert (ledger.seconds("line") >= 0).all()


def test_logs_are_in_the_run_directory(tmp_path: Path, logs: Path) -> None:
    def work(block: Block) -> None:
        print("block", block.index)

    assert run(line(work, num_workers=2), run_dir=tmp_path / "run")
    written = "".join(path.read_text() for path in (tmp_path / "run" / "logs" / "line").glob("*.out"))
    assert sorted(written.split("\n"))[1:] == [f"block {n}" for n in range(BLOCKS)]
    assert not logs.exists()


def test_a_relative_run_directory_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def move(context: object) -> None:
        os.chdir("/")

    assert run(line(lambda block: None, init_callback_fn=move), run_dir=Path("run"))
    assert Ledger.open(tmp_path / "run").counts("line")["done"] == BLOCKS


# ----------------------------------------------------------------------------------------------------------- two tasks


def chain(folder: Path, act: Callable[[Block], None] | None = None) -> list[Task]:
    above = line(teller(folder), name="above", num_workers=2, read_write_conflict=False)
    wide = Roi((-10,), (30,))
    total = Roi((-10,), (10 * BLOCKS + 20,))
    return [Task("below", total, wide, Roi((0,), (10,)), teller(folder, act), num_workers=2, upstream_tasks=[above])]


def test_a_chain_goes_on_in_the_middle(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"

    def fail(block: Block) -> None:
        if block.index in (2, 5):
            block.status = BlockStatus.FAILED

    tasks = chain(tmp_path, fail)
    tasks[0].max_retries = 0
    result = run(*tasks, run_dir=run_dir)
    assert (result["above"].completed_count, result["below"].failed_count) == (BLOCKS, 2)
    assert run(*chain(tmp_path), run_dir=run_dir, retry_failed=True)
    times = Counter(told(tmp_path))
    assert {block for block, count in times.items() if count > 1} == {("below", 2), ("below", 5)}


def test_orphans_of_a_failure_run_when_it_is_mended(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"

    def tasks(act: Callable[[Block], None]) -> list[Task]:
        above = line(teller(tmp_path, act), name="above", max_retries=0)
        return [line(teller(tmp_path), name="below", upstream_tasks=[above])]

    result = run(*tasks(fails_at_3), run_dir=run_dir)
    assert (result["above"].failed_count, result["below"].orphaned_count) == (1, 1)
    assert Ledger.open(run_dir).counts("below")["orphaned"] == 1
    again = run(*tasks(fails_at_3), run_dir=run_dir)
    assert (again["above"].failed_count, again["below"].orphaned_count) == (1, 1)
    assert run(*tasks(lambda block: None), run_dir=run_dir, retry_failed=True)
    times = Counter(told(tmp_path))
    assert [times["above", 3], times["below", 3]] == [2, 1]


def test_skipped_blocks_are_asked_for_again(tmp_path: Path) -> None:
    """They are nobody's work: what the check looks at may be gone."""
    run_dir, asked = tmp_path / "run", []

    def check(block: Block) -> bool:
        asked.append(block.index)
        return block.index is not None and block.index < 2

    for _ in range(2):
        result = run(line(teller(tmp_path), check_function=check), run_dir=run_dir)
        assert result
        assert (result["line"].completed_count, result["line"].skipped_count) == (BLOCKS, 2)
    assert Counter(asked)[0] == Counter(asked)[1] == 2
    assert len(told(tmp_path)) == 6
    assert Ledger.open(run_dir).counts("line")["skipped"] == 2


def test_a_damaged_ledger_is_refused_and_left_alone(tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.waits()
    script.process.kill()
    script.process.wait()
    for block in (2, 3):
        os.kill(script.pid(block), signal.SIGKILL)
    (journal,) = (tmp_path / "run" / "journal").iterdir()
    data = bytearray(journal.read_bytes())
    data[len(data) // 2] ^= 1
    journal.write_bytes(data)
    script.start()
    wait_for(lambda: script.process.poll() is not None)
    assert script.process.returncode != 0
    assert journal.name in script.said
    assert journal.read_bytes() == bytes(data)
    with pytest.raises(LedgerError, match=journal.name):
        Ledger.open(tmp_path / "run").counts("line")


def test_the_owner_file_is_for_people_too(tmp_path: Path) -> None:
    assert run(line(lambda block: None), run_dir=tmp_path / "run")
    owner = json.loads((tmp_path / "run" / "owner.json").read_text())
    assert owner["released"]
    assert owner["process"]["pid"] == os.getpid()
