"""A run that goes on ends only processes that were its own workers, and never one that has only the same number."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from blockflow import Roi, Task, run_blockwise
from blockflow.ledger.records import WorkerKnown
from blockflow.ledger.rundir import open_run
from blockflow.place import started, this_place
from blockflow.plan.plan import compile_plan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """A process whose command line looks like that of a worker."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "blockflow.worker"]) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("known", ["nothing", "another start", "its start"])
def test_only_the_worker_itself_is_ended(tmp_path: Path, other: subprocess.Popen[bytes], known: str) -> None:
    def work(block: object) -> None:
        pass

    since = started(other.pid)
    said = {"nothing": "", "another start": since[:-1] + ("1" if since[-1] != "1" else "2"), "its start": since}[known]
    task = Task("t", Roi((0,), (4,)), Roi((0,), (1,)), Roi((0,), (1,)), work)
    store = open_run(tmp_path / "run", compile_plan([task]))
    store.append([WorkerKnown(store.epoch << 40, 0, this_place(), other.pid, 0, said)])
    store.commit()
    store.close()
    assert run_blockwise(task, run_dir=tmp_path / "run", progress=False, summary=False, lease_seconds=1)
    assert (other.poll() is None) is (known != "its start")
