"""Workers that people start for a run that goes on, from another shell."""

from __future__ import annotations

import datetime
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

import blockflow
from blockflow import Block, Context, Roi, Task, cli, run_blockwise
from blockflow.errors import PlanError, UnreachableError
from blockflow.launch.by_hand import scale_run
from blockflow.net.connection_file import private_directory, read_connection, write_connection
from blockflow.net.tls import make_certificate
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

    host: str | None = "127.0.0.1"

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
        self.result = run_blockwise([self._task], progress=False, summary=False, host=self.host)

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


# --------------------------------------------------------------------------------------------------- more and fewer


class Paced(Run):
    """A run that waits in its tenth block and behind, until it is let go on.

    Each block leaves a file of its process when it begins, and another one when it ends.
    """

    def __init__(self, seen: Path, blocks: int, workers: int) -> None:
        super().__init__(seen)

        def work(block: Block) -> None:
            (seen / f"{block.index}-{os.getpid()}").touch()
            time.sleep(0.02)
            while (block.index or 0) >= 10 and not (seen / "go on").exists():
                time.sleep(0.01)
            (seen / f"{block.index}.done").touch()

        roi = Roi((0,), (10,))
        self._task = Task("work", Roi((0,), (10 * blocks,)), roi, roi, work, num_workers=workers)

    def go_on(self) -> None:
        (self._seen / "go on").touch()

    def done(self) -> int:
        return len(list(self._seen.glob("*.done")))

    def begun(self) -> int:
        return len(list(self._seen.glob("*-*")))

    def living(self) -> int:
        """How many of the workers that have begun a block are still there."""
        return sum(Path(f"/proc/{pid}").exists() for pid in workers(self._seen))


def scale(place: Path, workers: int, task: str = "work") -> int:
    return cli.main(["scale", str(place), task, str(workers)])


def test_more_workers_and_fewer_and_none(seen: Path, logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = 400
    with Paced(seen, blocks, 1) as run:
        assert scale(logs, 4) == 0
        assert "work: 4 workers are wanted now, 1 were before" in capsys.readouterr().out
        wait_for(lambda: len(workers(seen)) == 4)
        assert scale(logs, 0) == 0
        run.go_on()
        wait_for(lambda: run.living() == 0)
        assert run.begun() == run.done(), "a worker was ended in the middle of a block"
        assert run.done() < blocks
        assert scale(logs, 2) == 0
    assert run.result
    assert run.begun() == blocks, "a block was run twice"
    assert len(workers(seen)) == 6


def test_a_run_of_this_machine_alone_can_be_scaled_as_well(seen: Path, logs: Path) -> None:
    """It listens on no network; only its user can enter the directory of its socket."""
    alone = Paced(seen, 60, 1)
    alone.host = None
    with alone as run:
        assert scale(next(logs.glob(".runs/*.connection")), 3) == 0
        wait_for(lambda: len(workers(seen)) == 3)
    assert run.result


def test_what_cannot_be_scaled(seen: Path, logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scale(logs, 3) == cli.WRONG
    assert "no run that goes on is found" in capsys.readouterr().err
    with Paced(seen, 4, 1):
        assert scale(logs, 3, "other") == cli.WRONG
        assert "no task is called 'other'" in capsys.readouterr().err
        for text in ("-1", "x", "1.5", ""):
            with pytest.raises(SystemExit, match="2"):
                cli.main(["scale", str(logs), "work", text])
        for number in (-1, True, 1.5, 10**6, "3"):
            with pytest.raises(PlanError, match="workers must be a whole number from 0 to 999999, got"):
                scale_run(logs, "work", number)
    assert scale(logs, 3) == cli.WRONG
    assert "is over" in capsys.readouterr().err


def test_who_does_not_know_the_key_scales_nothing(seen: Path, logs: Path, tmp_path: Path) -> None:
    with Paced(seen, 12, 1) as run:
        own = read_connection(str(next(logs.glob(".runs/*.connection"))))
        pem = make_certificate(own.run, datetime.datetime.now(datetime.UTC))
        forged = write_connection(private_directory(tmp_path / "forged"), own.run, own.addresses, pem)
        with pytest.raises(UnreachableError, match="answers, but not with the key of run"):
            scale_run(Path(forged.path), "work", 0)
        run.go_on()
    assert run.result


def test_a_driver_that_is_dead_cannot_be_asked(tmp_path: Path) -> None:
    folder = private_directory(tmp_path / "runs")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        pem = make_certificate("run", datetime.datetime.now(datetime.UTC))
        connection = write_connection(folder, "run", (closed.getsockname(),), pem)
        with pytest.raises(UnreachableError, match="the driver of run run cannot be reached"):
            scale_run(Path(connection.path), "work", 3)


# ------------------------------------------------------------------------------------------- without a shared directory

CLIENT = """
import os, pathlib, sys
from blockflow import Client

client = Client()
assert client.worker_id is None
with client.acquire_block() as block:
    pathlib.Path(sys.argv[1], f"{block.index}-{os.getpid()}").touch()
"""


def invitation(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What `blockflow invite` prints."""
    capsys.readouterr()
    assert cli.main(["invite", *arguments]) == 0
    return capsys.readouterr().out


def invited(said: str, command: list[str], elsewhere: Path) -> subprocess.CompletedProcess[str]:
    """A command in a shell that has got an invitation, in another directory."""
    elsewhere.mkdir(exist_ok=True)
    return subprocess.run(
        ["bash", "-c", 'source /dev/stdin; exec "$@"', "x", *command],
        input=said,
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(Path(blockflow.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


WORKER = [sys.executable, "-m", "blockflow", "worker"]


def test_workers_join_with_nothing_but_an_invitation(
    seen: Path, logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Run(seen) as run:
        said = invitation(capsys, str(logs))
        assert str(logs) not in said, "it names no file of the run"
        done = invited(said, [*WORKER, "--count", "2", "--task", "work"], tmp_path / "elsewhere")
        assert done.returncode == 0, done.stderr
    assert run.result
    assert len(workers(seen)) == 3
    assert not list((tmp_path / "elsewhere").iterdir()), "something was written"


def test_a_script_joins_with_an_invitation(
    seen: Path, logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Run(seen) as run:
        said = invitation(capsys, str(logs), "--script")
        assert len(said) < 4000
        done = invited(said, [sys.executable, "-c", CLIENT, str(seen)], tmp_path / "elsewhere")
        assert done.returncode == 0, done.stderr
        refused = invited(said, WORKER, tmp_path / "elsewhere")
        assert "does not say what a worker has to do: it is for scripts" in refused.stderr
    assert run.result
    assert len(workers(seen)) == 2


def test_an_invitation_to_a_run_that_is_over_says_that_nobody_answers(
    seen: Path, logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Run(seen, 2):
        said = invitation(capsys, str(logs))
        other = invited(said, [*WORKER, "--task", "other"], tmp_path / "elsewhere")
        assert "this is an invitation to task 'work', not to 'other'" in other.stderr
    done = invited(said, WORKER, tmp_path / "elsewhere")
    assert done.returncode == cli.WRONG
    assert "cannot be reached: 127.0.0.1:" in done.stderr
    assert "PRIVATE" not in done.stdout + done.stderr
    assert cli.main(["invite", str(logs)]) == cli.WRONG
    assert "is over" in capsys.readouterr().err


def test_a_worker_of_a_run_that_is_seen_needs_no_name_of_it(seen: Path, logs: Path) -> None:
    """In an environment with a worker's usual context."""
    with Run(seen) as run:
        context = Context(task_id="work", connection=next(logs.glob(".runs/*.connection")))
        done = invited(f"export DAISY_CONTEXT='{context.to_env()}'", WORKER, seen.parent / "elsewhere")
        assert done.returncode == 0, done.stderr
    assert run.result
    assert len(workers(seen)) == 2


def test_a_function_that_is_too_large_for_an_environment(
    seen: Path, logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ballast = os.urandom(200_000)

    def work(block: Block) -> None:
        assert len(ballast) == 200_000
        (seen / "begun").touch()
        while not (seen / "go on").exists():
            time.sleep(0.01)

    roi = Roi((0,), (10,))
    task = Task("work", roi, roi, roi, work)
    run = threading.Thread(target=run_blockwise, args=[task], kwargs={"progress": False, "host": "127.0.0.1"})
    run.start()
    wait_for(lambda: (seen / "begun").exists())
    assert cli.main(["invite", str(logs)]) == cli.WRONG
    assert "its process function brings much data along" in capsys.readouterr().err
    assert cli.main(["invite", str(logs), "--script"]) == 0
    (seen / "go on").touch()
    run.join(30)


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (None, "name a run, or set DAISY_CONTEXT to what `blockflow invite` prints"),
        ("", "name a run, or set DAISY_CONTEXT"),
        ("{", "DAISY_CONTEXT is no context"),
        ('{"task_id": "t"}', "does not say what a worker has to do"),
        ('{"task_id": "t", "invitation": "x", "work": "no such thing"}', "DAISY_CONTEXT is damaged"),
    ],
)
def test_invitations_that_are_none(
    context: str | None, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DAISY_CONTEXT", raising=False)
    if context is not None:
        monkeypatch.setenv("DAISY_CONTEXT", context)
    assert cli.main(["worker"]) == cli.WRONG
    assert message in capsys.readouterr().err
