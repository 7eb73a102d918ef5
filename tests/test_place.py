"""Where a process runs: what can others there see of it?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from blockflow.place import is_dead, is_stopped, is_worker, kill

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN = "0123456789abcdef"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A script that was told in its environment where its run is."""
    environment = os.environ | {"DAISY_CONTEXT": f"connection=/somewhere/{RUN}.connection"}
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env=environment) as process:
        yield process
        process.kill()


def until(process: subprocess.Popen[bytes], *, stopped: bool) -> None:
    deadline = time.monotonic() + 30.0
    while is_stopped(process.pid) is not stopped:
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


def test_a_worker_is_known_by_its_run(sleeper: subprocess.Popen[bytes]) -> None:
    assert is_worker(sleeper.pid, RUN)
    assert not is_worker(sleeper.pid, RUN[::-1])
    assert not is_worker(os.getpid(), RUN)


def test_a_process_is_stopped_goes_on_and_is_dead(sleeper: subprocess.Popen[bytes]) -> None:
    assert not is_dead(sleeper.pid)
    os.kill(sleeper.pid, signal.SIGSTOP)
    until(sleeper, stopped=True)
    os.kill(sleeper.pid, signal.SIGCONT)
    until(sleeper, stopped=False)
    kill(sleeper.pid)
    sleeper.wait()
    assert is_dead(sleeper.pid)
    assert not is_stopped(sleeper.pid)
    assert not is_worker(sleeper.pid, RUN)
    kill(sleeper.pid)
