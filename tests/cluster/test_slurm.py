"""Runs whose workers are jobs of a real Slurm: nothing is lost, whatever happens to the jobs, and nothing is left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import blockflow
from blockflow import Client, Local, Roi, RunResult, Slurm, Task, cli, run_blockwise
from blockflow.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.cluster

SOON = 0.5
"""Seconds between two looks at the queue."""


def task_of(function: Any, blocks: int = 20, name: str = "t", **more: Any) -> Task:
    more.setdefault("launcher", Slurm(4, poll=SOON))
    return Task(name, Roi((0,), (10 * blocks,)), Roi((0,), (10,)), Roi((0,), (10,)), function, **more)


def run(*tasks: Task, **more: Any) -> RunResult:
    return run_blockwise(tasks, progress=False, summary=False, **more)


def note(folder: Path, seconds: float = 0.0, *, held: int | None = None) -> Callable[[Any], None]:
    """A block function that leaves a file for each attempt.

    Args:
        folder: Where.
        seconds: How long it takes.
        held: Blocks from this one on wait until they are let go on, so that no run ends before it was disturbed.
    """

    def work(block: Any) -> None:
        while held is not None and block.index >= held and not (folder / "go").exists():
            time.sleep(0.02)
        (folder / f"{block.index}.{block.attempt}.begun").write_text(os.environ.get("SLURM_JOB_ID", ""))
        time.sleep(seconds)
        (folder / f"{block.index}.{block.attempt}.done").touch()

    return work


def done(folder: Path) -> list[int]:
    return sorted({int(file.name.partition(".")[0]) for file in folder.glob("*.done")})


def attempts(folder: Path) -> int:
    return len(list(folder.glob("*.begun")))


class Beside:
    """Something that happens while a run goes on, in a thread of its own; then blocks that are held may go on."""

    def __init__(self, folder: Path, function: Callable[[], None]) -> None:
        self._folder = folder
        self._function = function
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._call)

    def _call(self) -> None:
        try:
            self._function()
        except BaseException as error:
            self._error = error
        finally:
            (self._folder / "go").touch()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exception: object) -> None:
        self._thread.join()
        if self._error is not None:
            raise self._error


def one_that_runs(cluster: Any) -> str:
    """A job that runs, by its name."""
    found: list[str] = []

    def look() -> bool:
        found.extend("_".join(line.split()[:2]) for line in cluster.queue() if line.endswith("RUNNING"))
        return bool(found)

    cluster.wait(look, "a job to run")
    return found[0]


# ------------------------------------------------------------------------------------------------------ all is well


def test_an_array_of_workers_does_all_blocks(cluster: Any, folder: Path) -> None:
    assert run(task_of(note(folder), 40))
    assert done(folder) == list(range(40))
    assert all(file.read_text() for file in folder.glob("*.begun")), "some ran outside of a job"


def test_names_and_paths_may_be_odd(cluster: Any, folder: Path, logs: Path) -> None:
    name = """ü 'x' "y" $HOME %A;&"""
    assert run(task_of(note(folder), name=name))
    assert done(folder) == list(range(20))
    assert list((logs / name).glob("job-*.log"))


def test_each_worker_may_be_a_job_of_its_own_without_srun(cluster: Any, folder: Path) -> None:
    launcher = Slurm(
        2, array=False, step=False, cpus=2, memory="100M", time="1:00:00", poll=SOON, setup="export A='b c'"
    )

    def work(block: Any) -> None:
        assert os.environ["A"] == "b c"
        assert os.environ["SLURM_CPUS_PER_TASK"] == "2"
        assert "SLURM_ARRAY_TASK_ID" not in os.environ
        note(folder)(block)

    assert run(task_of(work, launcher=launcher))


def test_a_function_without_argument_is_the_worker(cluster: Any, folder: Path) -> None:
    def work() -> None:
        client = Client()
        while True:
            with client.acquire_block() as block:
                if block is None:
                    return
                note(folder)(block)

    assert run(task_of(work))
    assert done(folder) == list(range(20))


def test_one_task_may_have_several_pools_and_another_the_default(cluster: Any, folder: Path) -> None:
    def where(kind: str) -> Callable[[Any], None]:
        def work(block: Any) -> None:
            time.sleep(0.05)
            job = os.environ.get("SLURM_JOB_PARTITION", "here")
            (folder / f"{kind}-{job}-{block.index}").touch()

        return work

    mixed = [Slurm(1, poll=SOON), Slurm(2, partition="urgent", poll=SOON), Local(1)]
    first = task_of(where("first"), 100, name="first", launcher=mixed)
    second = task_of(where("second"), 10, name="second", launcher=None, upstream_tasks=[first])
    assert run(second, launcher=Slurm(2, poll=SOON))
    seen = {file.name.rpartition("-")[0] for file in folder.iterdir()}
    assert seen == {"first-main", "first-urgent", "first-here", "second-main"}


def test_jobs_beyond_the_throttle_wait(cluster: Any, folder: Path) -> None:
    launcher = Slurm(6, max_jobs=2, poll=SOON)
    seen: list[int] = []

    def count() -> bool:
        seen.append(sum(line.endswith("RUNNING") for line in cluster.queue()))
        return max(seen) >= 2 and len(done(folder)) >= 10

    with Beside(folder, lambda: cluster.wait(count, "two jobs to run")):
        assert run(task_of(note(folder, 0.1, held=10), launcher=launcher))
    assert max(seen) == 2


def test_a_driver_inside_of_a_job_asks_for_jobs_of_its_own(
    cluster: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "10")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "9")
    monkeypatch.setenv("SQUEUE_FORMAT", "%i")
    assert run(task_of(note(folder), launcher=Slurm(2, memory="50M", poll=SOON)))


def test_no_more_jobs_are_left_waiting_than_there_are_blocks(cluster: Any, folder: Path) -> None:
    def watch() -> None:
        cluster.wait(lambda: len(done(folder)) >= 36, "most blocks to be done")
        cluster.wait(lambda: len(cluster.queue()) <= 12, "jobs that wait to be called off")

    with Beside(folder, watch):
        assert run(task_of(note(folder, 0.5), 48, launcher=Slurm(40, poll=SOON, cpus=1)))


def test_jobs_that_wait_for_nothing_are_let_go(cluster: Any, folder: Path) -> None:
    """The last block takes long: all nodes but its own are free meanwhile."""

    def watch() -> None:
        cluster.wait(lambda: len(done(folder)) == 19 and len(cluster.queue()) == 1, "idle jobs to end")

    with Beside(folder, watch):
        assert run(task_of(note(folder, held=19), launcher=Slurm(6, poll=SOON)))


def test_more_jobs_and_fewer_while_a_run_goes_on(cluster: Any, folder: Path) -> None:
    blocks = 300

    def work(block: Any) -> None:
        while block.index >= 30 and not (folder / "some").exists():
            time.sleep(0.02)
        note(folder, 0.02, held=150)(block)

    def scale() -> None:
        place = str(folder.parent / "logs")
        try:
            cluster.wait(lambda: attempts(folder) >= 5, "some blocks")
            assert cli.main(["scale", place, "t", "30"]) == 0
            cluster.wait(lambda: len(cluster.queue()) == 30, "more jobs, of which many wait")
            cluster.wait(lambda: sum(line.endswith("RUNNING") for line in cluster.queue()) == 12, "12 to run")
            assert cli.main(["scale", place, "t", "1"]) == 0
            (folder / "some").touch()
            cluster.wait(lambda: len(cluster.queue()) == 1, "all jobs but one to end")
            assert cli.main(["scale", place, "t", "4"]) == 0
        finally:
            (folder / "some").touch()

    with Beside(folder, scale):
        assert run(task_of(work, blocks, launcher=Slurm(2, poll=SOON)))
    assert done(folder) == list(range(blocks))
    assert attempts(folder) == blocks, "a block was begun twice"


# ----------------------------------------------------------------------------------------------------------- trouble


def test_jobs_that_are_killed_are_replaced(cluster: Any, folder: Path) -> None:
    def kill() -> None:
        for wanted in (50, 120, 190, 260, 330):
            cluster.wait(lambda wanted=wanted: len(done(folder)) >= wanted, f"{wanted} blocks")
            cluster.call("scancel", *(["--signal=KILL"] if wanted % 20 else []), one_that_runs(cluster), check=False)

    with Beside(folder, kill):
        result = run(task_of(note(folder, 0.02, held=400), 500))
    assert result
    assert done(folder) == list(range(500))


def test_a_worker_that_is_told_to_go_finishes_its_block(cluster: Any, folder: Path) -> None:
    def tell() -> None:
        cluster.wait(lambda: len(done(folder)) >= 2, "some blocks")
        one_that_runs(cluster)
        for job in {line.split()[0] for line in cluster.queue()}:
            cluster.call("scancel", "--signal=TERM", job)

    with Beside(folder, tell):
        assert run(task_of(note(folder, 0.7, held=12), 16))
    assert attempts(folder) == 16, "a block was begun twice"


def test_a_dead_node_costs_no_block(cluster: Any, folder: Path) -> None:
    def kill() -> None:
        cluster.wait(lambda: len(done(folder)) >= 10, "some blocks")
        cluster.kill_node("n1")

    try:
        with Beside(folder, kill):
            assert run(task_of(note(folder, 0.1, held=80), 100, launcher=Slurm(12, poll=SOON)))
        assert done(folder) == list(range(100))
    finally:
        cluster.start_node("n1")
        cluster.wait(lambda: cluster.call("sinfo", "-h", "-n", "n1", "-o", "%t").split()[0] == "idle", "n1", 60)


def test_a_controller_that_does_not_answer_is_not_the_end_of_a_job(cluster: Any, folder: Path) -> None:
    def disturb() -> None:
        cluster.wait(lambda: len(done(folder)) >= 5, "some blocks")
        cluster.stop_controller()
        seen = len(done(folder))
        cluster.wait(lambda: len(done(folder)) >= min(seen + 10, 60), "blocks without a controller")
        cluster.start_controller()

    with Beside(folder, disturb):
        result = run(task_of(note(folder, 0.25, held=60), 100))
    assert result
    assert attempts(folder) == 100


def test_a_submission_waits_for_the_controller(cluster: Any, folder: Path) -> None:
    cluster.stop_controller()
    timer = threading.Timer(3.0, cluster.start_controller)
    timer.start()
    try:
        assert run(task_of(note(folder)))
    finally:
        timer.join()
    assert done(folder) == list(range(20))


def test_a_requeued_job_may_come_back(cluster: Any, folder: Path) -> None:
    def requeue() -> None:
        cluster.wait(lambda: len(done(folder)) >= 5, "some blocks")
        cluster.call("scontrol", "requeue", one_that_runs(cluster))

    with Beside(folder, requeue):
        assert run(task_of(note(folder, 0.1, held=40), 60, launcher=Slurm(3, extra=["--requeue"], poll=SOON)))
    assert done(folder) == list(range(60))


def test_preempted_workers_are_replaced_when_there_is_room(cluster: Any, folder: Path) -> None:
    def preempt() -> None:
        cluster.wait(lambda: len(done(folder)) >= 5, "some blocks")
        script = "#!/bin/sh\nsleep 2\n"
        subprocess.run(
            ["sbatch", "--partition=urgent", "--nodes=3", "--exclusive", "--output=/dev/null"],
            input=script, text=True, check=True, capture_output=True,
        )  # fmt: skip

    with Beside(folder, preempt):
        assert run(task_of(note(folder, 0.2, held=60), 100))
    assert done(folder) == list(range(100))
    cluster.wait(lambda: not cluster.queue(), "the urgent job")


@pytest.mark.slow
def test_a_time_limit_costs_no_block(cluster: Any, folder: Path) -> None:
    result = run(task_of(note(folder, 1.0), 200, launcher=Slurm(2, partition="short", poll=SOON)))
    assert result
    assert done(folder) == list(range(200))
    assert attempts(folder) <= 202


def test_a_worker_that_crashes_in_a_block_is_replaced(cluster: Any, folder: Path) -> None:
    def work(block: Any) -> None:
        if block.index == 3 and not (folder / "crashed").exists():
            (folder / "crashed").touch()
            os._exit(9)
        note(folder)(block)

    assert run(task_of(work))
    assert done(folder) == list(range(20))


def test_blocks_of_a_killed_worker_on_another_host_are_free_when_slurm_says_so(cluster: Any, folder: Path) -> None:
    """Not only when its lease has run out."""
    elsewhere = folder.parent / "python-elsewhere"
    elsewhere.write_text(
        f'#!/bin/sh\nexec unshare --uts sh -c \'hostname elsewhere; exec {sys.executable} "$@"\' x "$@"\n'
    )
    elsewhere.chmod(0o755)

    def work(block: Any) -> None:
        assert os.uname().nodename == "elsewhere"
        if block.index == 3 and not (folder / "killed").exists():
            (folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        note(folder)(block)

    began = time.monotonic()
    assert run(task_of(work, launcher=Slurm(2, python=str(elsewhere), poll=SOON)), lease_seconds=1000)
    assert time.monotonic() - began < 500


# --------------------------------------------------------------------------------------------------- bad requests


def test_a_partition_that_does_not_exist(cluster: Any, folder: Path) -> None:
    with pytest.raises(
        RunError, match=r"(?i)slurm does not take the jobs: .*invalid partition.*--partition=nope.*sinfo"
    ):
        run(task_of(note(folder), launcher=Slurm(2, partition="nope")))


def test_an_option_that_does_not_exist(cluster: Any, folder: Path) -> None:
    with pytest.raises(RunError, match=r"(?i)slurm does not take the jobs: .*unrecognized option '--nope=3'.*sbatch"):
        run(task_of(note(folder), launcher=Slurm(2, extra=["--nope=3"])))


def test_nodes_that_do_not_see_the_directory_of_the_run(cluster: Any, folder: Path, logs: Path, capfd: Any) -> None:
    hiding = folder.parent / "python-that-sees-nothing"
    inner = f'mount -t tmpfs none {logs} && exec {sys.executable} "$@"'
    hiding.write_text(f"#!/bin/sh\nexec unshare --mount sh -c '{inner}' x \"$@\"\n")
    hiding.chmod(0o755)
    logs.mkdir()
    if subprocess.run([hiding, "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip("a directory cannot be hidden here")
    task = task_of(note(folder), launcher=Slurm(2, python=str(hiding), poll=SOON))
    assert not run_blockwise([task], progress=False)
    told = " ".join(capfd.readouterr().err.split())
    assert re.search(r"ended as Slurm job \S+: FAILED", told)
    reason = "this node does not see the directory in which it was started; then start it in one that all nodes"
    assert reason in "".join(file.read_text() for file in (logs / "t").glob("job-*.log"))
    assert reason in told


def test_more_memory_than_any_node_has(cluster: Any, folder: Path) -> None:
    with pytest.raises(RunError, match="Memory specification can not be satisfied"):
        run(task_of(note(folder), launcher=Slurm(2, memory="64T")))


def test_no_sbatch_on_this_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("DAISY_HOST", "127.0.0.1")
    with pytest.raises(RunError, match="there is no command sbatch on this machine's PATH"):
        run(task_of(note(folder)))


def test_workers_that_cannot_start_end_the_run_with_a_reason(cluster: Any, folder: Path) -> None:
    result = run(task_of(note(folder), launcher=Slurm(2, python="/nowhere/python", poll=SOON)))
    assert not result
    assert done(folder) == []


def test_a_failing_function_fails_the_run(cluster: Any, folder: Path) -> None:
    def work(block: Any) -> None:
        raise ZeroDivisionError

    result = run(task_of(work, 5))
    assert not result
    assert result["t"].failed_count == 5


# -------------------------------------------------------------------------------------------------- drivers that end

DRIVER = """
import os, pathlib, sys, time
from blockflow import Roi, Slurm, Task, run_blockwise

def work(block):
    pathlib.Path("seen", f"{block.index}.{block.attempt}.begun").touch()
    time.sleep(0.2)
    while block.index >= 40 and not pathlib.Path("seen", "go").exists():
        time.sleep(0.02)
    pathlib.Path("seen", f"{block.index}.{block.attempt}.done").touch()

task = Task("t", Roi((0,), (600,)), Roi((0,), (10,)), Roi((0,), (10,)), work, launcher=Slurm(20, poll=0.5))
run_blockwise([task], progress=False, run_dir=sys.argv[1] or None)
"""


def driver(folder: Path, run_dir: str = "") -> subprocess.Popen[str]:
    """A run in a process of its own: 20 workers on 12 slots, so that 8 jobs wait. Its last blocks are held."""
    script = folder.parent / "driver.py"
    script.write_text(textwrap.dedent(DRIVER))
    root = str(Path(blockflow.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, str(script), run_dir],
        env={**os.environ, "PYTHONPATH": root},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ctrl_c_ends_all_jobs(cluster: Any, folder: Path) -> None:
    process = driver(folder)
    cluster.wait(lambda: len(done(folder)) >= 20, "some blocks")
    assert any(line.endswith("PENDING") for line in cluster.queue())
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert cluster.queue() == []
    assert "KeyboardInterrupt" in errors


def test_jobs_end_by_themselves_when_their_driver_was_killed(cluster: Any, folder: Path) -> None:
    process = driver(folder)
    cluster.wait(lambda: len(done(folder)) >= 20, "some blocks")
    process.kill()
    process.communicate()
    (folder / "go").touch()
    cluster.wait(lambda: not cluster.queue(), "the jobs to notice")
    for file in (folder.parent / "daisy_logs").glob(".runs/*"):
        file.unlink()  # nobody was there to do it


def test_a_run_can_be_cancelled_from_another_shell(cluster: Any, folder: Path, capfd: Any) -> None:
    process = driver(folder)
    cluster.wait(lambda: len(done(folder)) >= 20, "some blocks")
    assert cli.main(["cancel", str(folder.parent)]) == 0
    _, errors = process.communicate(timeout=120)
    assert cluster.queue() == []
    assert "was cancelled with `blockflow cancel`" in errors
    assert "are cancelled" in capfd.readouterr().out


def test_jobs_of_a_dead_driver_can_be_cancelled(cluster: Any, folder: Path) -> None:
    process = driver(folder)
    cluster.wait(lambda: len(done(folder)) >= 20, "some blocks")
    process.kill()
    process.communicate()
    assert cli.main(["cancel", str(folder.parent / "daisy_logs")]) == 0
    cluster.wait(lambda: not cluster.queue(), "the queue to be empty")
    for file in (folder.parent / "daisy_logs").glob(".runs/*"):
        file.unlink()


def test_a_run_goes_on_after_its_driver_was_killed(cluster: Any, folder: Path) -> None:
    """Workers that run come back, those that wait are called off, and nothing is left at the end."""
    process = driver(folder, run_dir="run")
    cluster.wait(lambda: len(done(folder)) >= 20, "some blocks")
    process.kill()
    process.communicate()
    process = driver(folder, run_dir="run")
    (folder / "go").touch()
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert done(folder) == list(range(60))
    cluster.wait(lambda: not cluster.queue(), "the queue to be empty")
