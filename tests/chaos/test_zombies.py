"""Workers that are asleep, or cut off, and come back: do their blocks run elsewhere, and do they write nothing more?

The workers here are on another machine, as far as the driver knows: it cannot see whether they live, so only the
lease tells when others may have their blocks.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from blockflow import Context, Roi, RunResult, Task, run_blockwise
from blockflow.place import is_dead
from tests.chaos.guest import IN_C, IN_PYTHON, STAYS
from tests.chaos.proxy import Proxy
from tests.chaos.scene import ROOT, ROUNDS, until

if TYPE_CHECKING:
    from collections.abc import Iterator

LEASE = 1.5
"""Seconds; a worker that is silent for longer may be dead."""
BLOCKS = 6
EXIT_FENCED = {75, 1}
"""Exit codes of a process whose lease has ended: if it looked at the clock, or if the thread that needs no lock did."""


class Staying(NamedTuple):
    """The worker that stays at its block."""

    pid: int
    block: int
    attempt: int


@dataclass
class Guests:
    """A run whose workers are scripts on another machine."""

    folder: Path
    proxy: Proxy | None = None
    """The network between the driver and the worker that comes first; None if nothing is between them."""
    where: str = IN_PYTHON
    """Where the worker stays that does."""
    results: list[RunResult] = field(default_factory=list)

    def run(self) -> None:
        """Run all blocks; in a thread of its own."""
        folder, root, where = str(self.folder), str(ROOT), self.where

        def start() -> None:
            import os

            environment = os.environ | {"PYTHONPATH": root}
            try:
                os.close(os.open(f"{folder}/one stays", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                environment[STAYS] = where
                if os.path.exists(f"{folder}/context"):
                    with open(f"{folder}/context") as file:
                        environment["DAISY_CONTEXT"] = file.read()
            command = [sys.executable, "-m", "tests.chaos.guest", folder]
            code = subprocess.call(command, env=environment, cwd=root)
            with open(f"{folder}/codes", "a") as file:
                file.write(f"{code}\n")
            sys.exit(code)

        def listen(context: Context) -> None:
            if self.proxy is not None:
                self.divert(context)

        one = Roi((0,), (1,))
        task = Task("wait", Roi((0,), (BLOCKS,)), one, one, start, num_workers=2, init_callback_fn=listen)
        self.results.append(
            run_blockwise(
                [task],
                progress=False,
                summary=False,
                host="127.0.0.1",
                lease_seconds=LEASE,
                run_dir=self.folder / "run",
            )
        )

    def divert(self, context: Context) -> None:
        """Make a context whose connection goes through the proxy."""
        assert self.proxy is not None
        self.proxy.target = int(context["port"])
        path = Path(context["connection"])
        first, _, key = path.read_text().partition("\n")
        said = json.loads(first) | {"addresses": [["127.0.0.1", self.proxy.port]]}
        private = self.folder / "private"
        private.mkdir(mode=0o700)
        copied = private / path.name
        copied.touch(mode=0o600)
        copied.write_text(f"{json.dumps(said)}\n{key}")
        diverted = context.copy()
        diverted["connection"] = copied
        (self.folder / "context").write_text(diverted.to_env())

    @property
    def staying(self) -> Staying:
        """The worker that stays at its block, or stayed."""
        return Staying(*map(int, (self.folder / "staying").read_text().split()))

    def attempts(self, what: str) -> list[int]:
        """The attempts at its block of which something is told; the oldest first."""
        block = self.staying.block
        return sorted(int(file.name.rpartition("-")[2]) for file in self.folder.glob(f"{what}-{block}-*"))

    def codes(self) -> list[int]:
        """Exit codes of the scripts that have ended."""
        path = self.folder / "codes"
        return [int(line) for line in path.read_text().split()] if path.exists() else []


@pytest.fixture
def guests(tmp_path: Path) -> Iterator[Guests]:
    guests = Guests(tmp_path)
    yield from _running(guests)


@pytest.fixture
def guests_behind_proxy(tmp_path: Path) -> Iterator[Guests]:
    proxy = Proxy()
    yield from _running(Guests(tmp_path, proxy))
    proxy.close()


@pytest.fixture
def guests_in_c(tmp_path: Path) -> Iterator[Guests]:
    yield from _running(Guests(tmp_path, where=IN_C))


def _running(guests: Guests) -> Iterator[Guests]:
    thread = threading.Thread(target=guests.run)
    thread.start()
    try:
        until((guests.folder / "staying").exists, "a worker is at its block")
        yield guests
    finally:
        (guests.folder / "go").touch()
        thread.join(60)
    assert not thread.is_alive(), "the run does not end"
    assert guests.results, "the run failed"
    assert guests.results[0]
    assert guests.results[0]["wait"].completed_count == BLOCKS


def lost_after(guests: Guests, began: float) -> float:
    """Wait until another worker has begun the block; seconds since."""
    until(lambda: len(guests.attempts("began")) > 1, "another worker gets the block")
    seconds = time.monotonic() - began
    print(f"lease of {LEASE:g} s: elsewhere after {seconds:.2f} s")
    return seconds


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5 * ROUNDS))
def test_a_worker_that_slept_for_too_long_writes_nothing(guests: Guests, seed: int) -> None:
    zombie = guests.staying
    os.kill(zombie.pid, signal.SIGSTOP)
    seconds = lost_after(guests, time.monotonic())
    (guests.folder / "go").touch()
    until(lambda: guests.attempts("wrote"), "the other worker is done with the block")
    os.kill(zombie.pid, signal.SIGCONT)
    until(lambda: is_dead(zombie.pid), "the zombie ends")
    assert zombie.attempt not in guests.attempts("wrote")
    assert seconds < LEASE + 5
    until(lambda: EXIT_FENCED.intersection(guests.codes()), "it says why")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2 * ROUNDS))
def test_a_worker_that_is_cut_off_without_being_told_ends_in_time(guests_behind_proxy: Guests, seed: int) -> None:
    """Nothing arrives any more, and no connection ends: only the clock tells either side."""
    guests = guests_behind_proxy
    assert guests.proxy is not None
    lost = guests.staying
    guests.proxy.cut()
    seconds = lost_after(guests, time.monotonic())
    assert is_dead(lost.pid), "another worker has its block, so it must not be at work any more"
    (guests.folder / "go").touch()
    until(lambda: guests.attempts("wrote"), "the other worker is done with the block")
    assert lost.attempt not in guests.attempts("wrote")
    assert seconds < LEASE + 5
    until(lambda: EXIT_FENCED.intersection(guests.codes()), "it says why")


@pytest.mark.slow
def test_a_worker_whose_c_code_keeps_the_lock_ends_with_its_lease(guests_in_c: Guests) -> None:
    """Its second thread cannot run, so it sends no heartbeats, and does not see that its block is another's."""
    guests = guests_in_c
    lost = guests.staying
    seconds = lost_after(guests, time.monotonic())
    assert is_dead(lost.pid), "another worker has its block, so it must not be at work any more"
    assert seconds < LEASE + 5
    until(lambda: guests.attempts("wrote"), "the other worker is done with the block")
    assert lost.attempt not in guests.attempts("wrote")
    until(lambda: EXIT_FENCED.intersection(guests.codes()), "it says why")


@pytest.mark.slow
def test_a_worker_that_is_back_before_its_old_connection_ends_keeps_its_block(guests_behind_proxy: Guests) -> None:
    """The driver does not hear that the old connection is of no use: it learns it from a second Hello."""
    guests = guests_behind_proxy
    assert guests.proxy is not None
    before = guests.proxy.joined
    guests.proxy.drop()
    until(lambda: guests.proxy is not None and guests.proxy.joined > before, "the worker is back")
    (guests.folder / "go").touch()
    until(lambda: guests.attempts("wrote"), "the block is done")
    assert guests.attempts("began") == guests.attempts("wrote") == [guests.staying.attempt]
