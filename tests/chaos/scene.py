"""A run in processes of its own, what is done to it, and what must be true of it afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import blockflow
from blockflow import Ledger
from blockflow.ledger import records as rec
from blockflow.ledger.disk import LocalDisk
from blockflow.ledger.journal import JournalReader
from blockflow.place import is_dead
from tests.chaos import drive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(blockflow.__file__).parents[1]

ROUNDS = int(os.environ.get("BLOCKFLOW_CHAOS_ROUNDS", "1"))
"""How often each kind of trouble is made; CI makes it once."""

PATIENCE = 300.0
"""Seconds after which a test gives up."""


@dataclass(frozen=True)
class Execution:
    """One call of a block function."""

    task: str
    index: int
    attempt: int


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> None:
    """Wait for something that other processes do."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}"
        threading.Event().wait(0.002)


def environment() -> dict[str, str]:
    """Where the blockflow under test is found."""
    return os.environ | {"PYTHONPATH": str(ROOT)}


@dataclass
class Scene:
    """A run of the tasks of :mod:`tests.chaos.drive` in a folder.

    Args:
        folder: Where everything is; made here.
        blocks: Of the first task; the second has one less.
        seconds: That a block takes.
        workers: Of each task.
        options: For ``run_blockwise``.
    """

    folder: Path
    blocks: int
    seconds: float = 0.008
    workers: int = 4
    options: dict[str, Any] = field(default_factory=dict)
    killed: set[int] = field(default_factory=set)
    """Workers that were killed."""
    driver: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        drive.prepare(self.folder, blocks=self.blocks)
        (self.folder / "kept" / "journal").mkdir(parents=True)

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    @property
    def trace(self) -> Path:
        return self.folder / "trace"

    @property
    def said(self) -> Path:
        """What the last driver has said."""
        return self.folder / "said"

    @property
    def complaints(self) -> Path:
        """What all drivers have said that went wrong."""
        return self.folder / "complaints"

    @property
    def plan(self) -> dict[str, Any]:
        return {"blocks": self.blocks, "seconds": self.seconds, "workers": self.workers}

    # ------------------------------------------------------------------------------------------------- the driver

    def start(self, **more: Any) -> None:
        """Start a driver; a second one goes on where the first has ended."""
        options = {"run_dir": str(self.run_dir)} | self.options | more
        command = [sys.executable, "-m", "tests.chaos.drive", str(self.folder), json.dumps(self.plan)]
        with self.said.open("w") as said, self.complaints.open("a") as complaints:
            # Not pipes: what outlives the driver has them as well, and they would not end.
            self.driver = subprocess.Popen(
                [*command, json.dumps(options)], env=environment(), cwd=ROOT, stdout=said, stderr=complaints
            )

    def kill_driver(self) -> None:
        """As the kernel does when memory is short."""
        self.driver.kill()
        self.driver.wait()
        self.keep_journal()

    def end(self, seconds: float = PATIENCE) -> None:
        """Wait for a good end of the driver."""
        until(self._has_ended, "the run ends", seconds)
        assert self.driver.returncode == 0, self.complaints.read_text()
        assert json.loads(self.said.read_text()) == {"first": self.blocks, "second": self.blocks - 1}

    def _has_ended(self) -> bool:
        self.keep_journal()
        return self.driver.poll() is not None

    def keep_journal(self) -> None:
        """Keep everything that is recorded, also what is later folded into a snapshot."""
        kept = self.folder / "kept" / "journal"
        for file in (self.run_dir / "journal").glob("*"):
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                os.link(file, kept / file.name)

    # ------------------------------------------------------------------------------------------------- its workers

    def workers_at_work(self) -> list[int]:
        """Processes that have begun a block, and live."""
        found = [int(file.name) for file in self.trace.iterdir()]
        return [pid for pid in found if pid not in self.killed and not is_dead(pid)]

    def kill_worker(self, pid: int) -> None:
        """End a worker at once."""
        self.killed.add(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def executions(self, what: str) -> Iterator[tuple[int, Execution]]:
        """What the processes told: the process, and what it has begun, or ended."""
        for file in self.trace.iterdir():
            for line in file.read_text().splitlines():
                told, task, index, attempt = line.split()
                if told == what:
                    yield int(file.name), Execution(task, int(index), int(attempt))

    def progress(self) -> int:
        """How many different blocks were executed to their end."""
        return len({(done.task, done.index) for _, done in self.executions("ended")})

    # ------------------------------------------------------------------------------------------------- afterwards

    def recorded(self) -> list[Execution]:
        """Every completion in all journals, in the order in which they were recorded."""
        reader = JournalReader(LocalDisk(self.folder / "kept"), 0)
        names = Ledger.open(self.run_dir).task_ids
        done = []
        for _, records in reader.batches():
            for record in records:
                if isinstance(record, rec.BlocksDone):
                    begins, counts = rec.blocks_of(record.runs)
                    parts = zip(begins.tolist(), counts.tolist(), strict=True)
                    indices = [index for begin, length in parts for index in range(begin, begin + length)]
                    done += [
                        Execution(names[record.task], index, attempt)
                        for attempt, index in enumerate(indices, record.attempt)
                    ]
        return done

    def check(self) -> dict[str, int]:
        """Everything that must be true of a run that has ended well, whatever was done to it.

        Returns:
            Figures: executions that began, that ended, and blocks that ran again.
        """
        blocks = {"first": self.blocks, "second": self.blocks - 1}
        ledger = Ledger.open(self.run_dir)
        for task, size in blocks.items():
            assert ledger.counts(task) == {"pending": 0, "done": size, "failed": 0, "orphaned": 0, "skipped": 0}
        began, ended = dict[Execution, int](), dict[Execution, int]()
        for pid, execution in self.executions("began"):
            assert execution not in began, "an attempt was executed twice"
            began[execution] = pid
        for pid, execution in self.executions("ended"):
            ended[execution] = pid
        assert len({execution.attempt for execution in began}) == len(began), "an attempt number was used twice"
        recorded = self.recorded()
        times = Counter((done.task, done.index) for done in recorded)
        assert sum(times.values()) == len(times) == sum(blocks.values()), "each block is recorded done once"
        assert set(recorded) <= set(ended), "what was never executed to its end is recorded as done"
        lost = set(began) - set(recorded)
        assert {began[execution] for execution in lost} <= self.killed, "a worker that lived on has lost a block"
        return {
            "began": len(began),
            "ended": len(ended),
            "ran again": len(set(ended) - set(recorded)),
            "most by one worker": max(Counter(began[execution] for execution in lost).values(), default=0),
        }


def undisturbed(folder: Path, *, blocks: int) -> dict[str, bytes]:
    """The output of a run to which nothing is done."""
    drive.prepare(folder, blocks=blocks)
    tasks = drive.tasks_in(str(folder), blocks=blocks, seconds=0.0, workers=1)
    assert blockflow.run_blockwise(tasks, multiprocessing=False, progress=False, summary=False)
    return outputs(folder)


def outputs(folder: Path) -> dict[str, bytes]:
    """Everything that was written."""
    return {name: (folder / name).read_bytes() for name in ("first", "second")}
