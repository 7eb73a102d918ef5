"""What do workers in jobs of Slurm cost, once they are there, beside processes of the driver's machine?

1. 1,000 blocks that sleep for 20 ms, on 8 workers: as processes, as 8 jobs, and as 4 jobs with two workers in each (the
   second one joins by hand). Counted from when all 8 have begun a block, against the sum of what blocks slept.
2. 200 workers on 12 slots: how long submitting takes, how many commands that and watching need, and how much of a core.

Needs Slurm's programs, starts a private cluster with them, and is run from the root of the repository::

    python -m benchmarks.slurm_overhead
"""

from __future__ import annotations

import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from blockflow import Block, Local, Roi, Slurm, Task, run_blockwise
from blockflow.launch import dialects
from blockflow.logging import set_log_basedir
from tests.cluster.slurm_cluster import SlurmCluster, missing

BLOCKS, SECONDS, WORKERS, ROUNDS = 1000, 0.02, 8, 5
WINDOW = 30.0


def measure(launcher: Any, folder: Path) -> tuple[float, float]:
    """Run all blocks; returns seconds per block and worker, counted from when all have begun, and those until then."""
    folder.mkdir()

    def work(block: Block) -> None:
        began = time.monotonic()
        time.sleep(SECONDS)
        with open(folder / f"{os.uname().nodename}-{os.getpid()}", "a") as file:
            file.write(f"{began} {time.monotonic()}\n")

    roi = Roi((0,), (1,))
    task = Task("t", Roi((0,), (BLOCKS,)), roi, roi, work, read_write_conflict=False, launcher=launcher)
    asked = time.monotonic()
    result = run_blockwise([task], progress=False, summary=False)
    assert result, result
    spans = [
        [tuple(map(float, line.split())) for line in file.read_text().splitlines()] for file in sorted(folder.iterdir())
    ]
    assert len(spans) == WORKERS, f"{len(spans)} workers have come"
    start = max(blocks[0][0] for blocks in spans)
    end = max(blocks[-1][1] for blocks in spans)
    count = sum(began >= start for blocks in spans for began, _ in blocks)
    return (end - start) * WORKERS / count, start - asked


def measure_many() -> None:
    """Want 200 workers where 12 can run, and look at what the driver does meanwhile."""
    seconds: dict[str, list[float]] = {}
    real = dialects.call

    def call(words: Any, **more: Any) -> Any:
        began = time.monotonic()
        answer = real(words, **more)
        seconds.setdefault(words[0], []).append(time.monotonic() - began)
        return answer

    go = Path("go")

    def work(block: Block) -> None:
        while not go.exists():
            time.sleep(0.2)

    def watch() -> None:
        time.sleep(10.0)  # until everything is submitted, and 12 jobs run
        before, (own, commands) = {name: len(found) for name, found in seconds.items()}, cpu_seconds()
        time.sleep(WINDOW)
        own, commands = (now - then for now, then in zip(cpu_seconds(), (own, commands), strict=True))
        calls = sum(len(found) - before.get(name, 0) for name, found in seconds.items())
        go.touch()
        print(
            f"200 jobs: {calls} commands in {WINDOW:.0f} s, which take {100 * commands / WINDOW:.2f} % of a core; the "
            f"driver itself takes {100 * own / WINDOW:.2f} %"
        )

    roi = Roi((0,), (1,))
    launcher = Slurm(200)
    task = Task("many", Roi((0,), (216,)), roi, roi, work, read_write_conflict=False, launcher=launcher)
    watching = threading.Thread(target=watch)
    dialects.call = call  # type: ignore[attr-defined]
    try:
        watching.start()
        assert run_blockwise([task], progress=False, summary=False)
    finally:
        dialects.call = real  # type: ignore[attr-defined]
        watching.join()
    print(f"200 jobs: submitted in {sum(seconds['sbatch']):.2f} s with {len(seconds['sbatch'])} call(s) of sbatch")


def cpu_seconds() -> tuple[float, float]:
    """Of this process, and of all commands that it has run."""
    own, commands = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime, commands.ru_utime + commands.ru_stime


def main() -> None:
    reason = missing()
    if reason is not None:
        sys.exit(f"no Slurm: {reason}")
    os.environ["BLOCKFLOW_HOST"] = "127.0.0.1"
    with tempfile.TemporaryDirectory() as name, SlurmCluster(Path(name) / "c", nodes=4) as cluster:
        os.environ.update(cluster.environment)
        os.chdir(name)
        root = Path(__file__).parents[1]
        by_hand = f"PYTHONPATH={root} {sys.executable} -m blockflow worker {name}/logs --task t &"
        kinds: dict[str, Any] = {
            "8 processes here": Local(WORKERS),
            "8 jobs": Slurm(WORKERS, poll=1.0),
            "4 jobs of 2 workers": Slurm(WORKERS // 2, cpus=2, setup=by_hand, poll=1.0),
        }
        seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
        starts: dict[str, list[float]] = {kind: [] for kind in kinds}
        measure_many()
        for number in range(ROUNDS):
            for place, (kind, launcher) in enumerate(kinds.items()):
                set_log_basedir(Path(name) / "logs")
                each, start = measure(launcher, Path(name) / f"seen-{number}-{place}")
                seconds[kind].append(each)
                starts[kind].append(start)
        usual = statistics.median(seconds["8 processes here"])
        for kind, found in seconds.items():
            middle = statistics.median(found)
            print(
                f"{kind:20} {1e3 * middle:6.2f} ms a block ({1e3 * min(found):.2f} to {1e3 * max(found):.2f}), "
                f"{100 * (middle / usual - 1):+5.1f} % of processes here; all at work after "
                f"{statistics.median(starts[kind]):.2f} s"
            )


if __name__ == "__main__":
    main()
