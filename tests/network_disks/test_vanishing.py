"""Run directories on a disk that goes away, or stands still: what is said, and is everything ended?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from blockflow import Ledger
from tests.chaos.scene import ROOT, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.network_disks.disks import Vanishing

PATIENCE = 60.0
"""Until a test fails, on a machine that is busy."""

ENDED = 15.0
"""Seconds that the end of a run may take there; 5 on one that is not busy."""

BEGUN = 10
"""Blocks after which the disk goes."""


class Driver:
    """The process of a run."""

    def __init__(self, folder: Path, run_dir: Path, host: str) -> None:
        self.notes = folder / "blocks"
        self.said = folder / "said"
        self.folder = folder
        with self.said.open("w") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.network_disks.vanishing_run", str(run_dir), host, str(self.notes)],
                cwd=ROOT,
                stdout=said,
                stderr=said,
                env={**environment(), "MARK_OF_TEST": str(folder)},
            )

    def blocks(self) -> int:
        return len(self.notes.read_text().splitlines()) if self.notes.exists() else 0

    def processes(self) -> list[int]:
        """All processes of the run that live."""
        mark = f"MARK_OF_TEST={self.folder}".encode()
        found = []
        for entry in filter(str.isdecimal, os.listdir("/proc")):
            try:
                status = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[0]
                if status not in "ZX" and mark in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                    found.append(int(entry))
            except OSError:
                continue
        return found


def wait_until(done: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.fixture(params=["", "127.0.0.1"], ids=["socket", "network"])
def driver(vanishing: Vanishing, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Driver]:
    """A run on a disk that can vanish, with blocks under way."""
    driver = Driver(tmp_path, vanishing.place / "run", request.param)
    try:
        wait_until(lambda: driver.blocks() >= BEGUN or driver.process.poll() is not None, "the run does not begin")
        assert driver.process.poll() is None, driver.said.read_text()
        yield driver
    finally:
        for pid in driver.processes():
            os.kill(pid, signal.SIGKILL)
        driver.process.wait()


def test_a_disk_that_goes_away_ends_the_run_with_its_reason(vanishing: Vanishing, driver: Driver) -> None:
    done = driver.blocks()
    vanishing.vanish()
    assert driver.process.wait(PATIENCE) == 4, driver.said.read_text()
    said = driver.said.read_text()
    assert "RAISED LedgerError" in said
    assert "Transport endpoint is not connected" in said
    assert "OSError" not in said
    wait_until(lambda: not driver.processes(), "workers are left", ENDED)
    counts = Ledger.open(vanishing.behind / "run").counts("t")
    assert counts["done"] + 2 + 1 >= done - 4, counts  # what workers had under way, or in reports, may be missing


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_whose_disk_stands_still_ends_when_it_is_told_to(
    vanishing: Vanishing, driver: Driver, number: signal.Signals
) -> None:
    vanishing.stand_still()
    time.sleep(0.5)  # so that the driver waits for the disk
    told = time.monotonic()
    driver.process.send_signal(number)
    while driver.process.poll() is None and number == signal.SIGINT:  # the first one waits for blocks under way
        time.sleep(0.5)
        driver.process.send_signal(number)
        assert time.monotonic() < told + PATIENCE, driver.said.read_text()
    driver.process.wait(PATIENCE)
    assert time.monotonic() - told < ENDED, driver.said.read_text()
    wait_until(lambda: not driver.processes(), "workers are left", ENDED)
    vanishing.go_on()
    assert Ledger.open(vanishing.place / "run").counts("t")["done"] > 0


def test_a_disk_that_stands_still_is_named_and_the_run_goes_on_when_it_answers(
    vanishing: Vanishing, driver: Driver
) -> None:
    vanishing.stand_still()
    wait_until(lambda: "has not answered for" in driver.said.read_text(), "nothing is said")
    assert f"(fuse at {vanishing.place})" in driver.said.read_text()
    blocks = driver.blocks()
    assert driver.process.poll() is None
    vanishing.go_on()
    wait_until(lambda: driver.blocks() > blocks + BEGUN, "it does not go on")
    assert driver.process.wait(PATIENCE) == 0, driver.said.read_text()
    assert Ledger.open(vanishing.place / "run").counts("t")["done"] == 400
