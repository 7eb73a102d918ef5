"""Where a process runs: what can others there see of it?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from blockflow.place import is_dead, is_stopped, kill, started

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


def until(process: subprocess.Popen[bytes], *, stopped: bool) -> None:
    deadline = time.monotonic() + 30.0
    while is_stopped(process.pid) is not stopped:
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


def test_a_process_that_has_the_number_of_another_one_is_not_that(sleeper: subprocess.Popen[bytes]) -> None:
    since = started(sleeper.pid)
    boot, _, ticks = since.partition("/")
    for other in (f"{boot}/{int(ticks) - 1}", f"{boot[::-1]}/{ticks}"):
        assert is_dead(sleeper.pid, other)
        kill(sleeper.pid, other)
    kill(sleeper.pid, "")  # of which nobody knows which one was meant
    assert not is_dead(sleeper.pid, since)
    assert not is_dead(sleeper.pid)
    assert sleeper.poll() is None


def test_a_process_is_stopped_goes_on_and_is_dead(sleeper: subprocess.Popen[bytes]) -> None:
    assert not is_dead(sleeper.pid)
    os.kill(sleeper.pid, signal.SIGSTOP)
    until(sleeper, stopped=True)
    os.kill(sleeper.pid, signal.SIGCONT)
    until(sleeper, stopped=False)
    since = started(sleeper.pid)
    kill(sleeper.pid, since)
    sleeper.wait()
    assert is_dead(sleeper.pid)
    assert not is_stopped(sleeper.pid)
    assert started(sleeper.pid) == ""
    kill(sleeper.pid, since)
