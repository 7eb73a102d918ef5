"""Beginning: when do workers pay, and what happens until they are there?

Starting workers takes longer than many a map over a small array takes altogether. A map that leaves the number of
workers to us therefore begins in this process:

1. The calling thread does block after block. A second thread looks at how far it is.
2. As soon as what is left would take so long that workers save more time than it takes to start them, the second thread
   starts them for what is left, except for as many blocks as this process can do meanwhile.
3. A block that fails here, and those behind it, are left to workers, who try it as often as they were asked to.

Both threads run the same kind of task with the same kind of scheduler; that of the workers is told what is not theirs.
"""

from __future__ import annotations

import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from blockflow.driving import Terminated, run_in_processes, scheduler_here
from blockflow.monitor.progress import make_display
from blockflow.ops.running import beside
from blockflow.plan.plan import check_runnable, compile_plan
from blockflow.result import result_of
from blockflow.scheduler.block_states import BlockState
from blockflow.scheduler.leases import LARGEST_LEASE
from blockflow.scheduler.propagation import RestoredTask
from blockflow.scheduler.scheduler import Scheduler
from blockflow.serial import run_serially

if TYPE_CHECKING:
    from collections.abc import Generator

    from blockflow.ops.work import Work
    from blockflow.plan.plan import Plan
    from blockflow.result import RunResult

__all__ = ["Beginning", "first_for_workers"]

START_SECONDS = 0.3
"""What it takes to start workers, with something to spare; if it takes less, little is lost."""

COPY_SECONDS = 1e-9
"""What it takes to copy a byte of an array to shared memory, or back."""

MEANWHILE_SECONDS = 0.5
"""What this process goes on with when workers are started, because they import what the function needs as well."""

LOOK_SECONDS = 0.02
"""How often the second thread looks."""


def first_for_workers(size: int, done: int, seconds: float, workers: int, copying: float = 0.0) -> int | None:
    """From which block on workers should go on; None as long as they do not pay.

    Args:
        size: Number of blocks.
        done: How many of them are done; one more is under way.
        seconds: What that has taken.
        workers: How many there would be.
        copying: Seconds that it takes to share the arrays with them.

    >>> first_for_workers(100, done=1, seconds=0.1, workers=2), first_for_workers(100, done=10, seconds=0.05, workers=2)
    (7, None)
    """
    if not done and seconds < START_SECONDS:
        return None  # who knows how long the first one takes
    each = seconds / max(1, done)
    meanwhile = int((MEANWHILE_SECONDS + copying) / each) if done else 0
    first = done + 1 + meanwhile
    saved = (size - first) * each * (1 - 1 / workers)
    return first if saved > START_SECONDS + copying else None


class Beginning:
    """A map that begins in this process, and goes on in workers if they pay.

    Args:
        work: The map.
        workers: How many there may be.
        progress: Show how far the run is.
    """

    def __init__(self, work: Work, workers: int, *, progress: bool) -> None:
        self._work = work
        self._workers = workers
        self._progress = progress
        self._copying = work.bytes_to_copy * COPY_SECONDS
        self._began = time.monotonic()
        self._lock = threading.Lock()
        """Guards what is below."""
        self._done = 0
        """Blocks that this process has done: the first ones."""
        self._end = work.size
        """Blocks from here on are done by workers."""
        self._left: range | None = None
        """Blocks that failed here, or were behind one that did."""
        self._over = threading.Event()
        """This process has done its blocks, or leaves them."""
        self._stop = threading.Event()
        """Nothing more is wanted."""
        self._elsewhere: Plan | None = None
        self._error: BaseException | None = None
        self.results: list[RunResult] = []
        """Of workers; complete when the iterator ends."""

    def steps(self) -> Generator[None]:
        """Do the map; an iterator that stops for a moment when there may be something new, and can be closed."""
        self._work.check_sendable()
        plan = compile_plan([self._work.here(may_move=True)])
        check_runnable(plan)
        with beside(self._look, self._end_soon) as thread:
            yield from self._here(plan)
            self._over.set()
            while thread.is_alive():
                thread.join(LOOK_SECONDS)
                yield
        if self._error is not None:
            raise self._error
        yield

    def _end_soon(self) -> None:
        self._stop.set()
        self._over.set()

    def _here(self, plan: Plan) -> Generator[None]:
        scheduler = scheduler_here(plan)
        try:
            with closing(run_serially(scheduler)) as steps:
                for _ in steps:
                    with self._lock:
                        self._done += 1
                    yield
                    if self._done >= self._end:
                        break
        except Terminated:
            raise
        except (Exception, SystemExit):  # what a worker would report, and goes on after
            with self._lock:
                self._left = range(self._done, self._end)
                self._end = self._done
        if self._done == self._work.size:
            make_display(progress=self._progress).close(scheduler.task_states, time.monotonic())

    def _look(self) -> None:
        """What the second thread does."""
        try:
            while not (self._over.wait(LOOK_SECONDS) and self._left is None) and not self._stop.is_set():
                blocks = self._for_workers()
                if blocks:
                    self._run(blocks)
        except BaseException as error:
            self._error = error
            with self._lock:
                self._end = self._done  # there is no reason to go on

    def _for_workers(self) -> range | None:
        """What workers should do now; this process keeps off that."""
        with self._lock:
            left, self._left = self._left, None
            if left is not None:
                return left
            seconds = time.monotonic() - self._began
            first = first_for_workers(self._end, self._done, seconds, self._workers, self._copying)
            if first is None:
                return None
            blocks = range(first, self._end)
            self._end = first
            return blocks

    def _run(self, blocks: range) -> None:
        """Have some blocks done by workers."""
        if self._elsewhere is None:
            self._elsewhere = compile_plan([self._work.elsewhere()])
        scheduler = Scheduler(self._elsewhere, largest_lease=LARGEST_LEASE)
        states = np.full(self._work.size, BlockState.DONE, np.uint8)
        states[blocks.start : blocks.stop] = 0
        scheduler.restore([RestoredTask(states=states)], [], time.monotonic())
        display = make_display(progress=self._progress)
        run_in_processes(self._elsewhere, display, endpoint=None, scheduler=scheduler, stop_event=self._stop)
        self.results.append(result_of(scheduler))
