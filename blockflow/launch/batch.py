"""Workers as jobs of a batch system: how are many of them asked for, watched and ended with few calls?

A thread of its own speaks with the batch system, as that may take seconds to answer:

1. orders that come within a moment of one another are submitted together (:mod:`blockflow.launch.submitter`);
2. all jobs are looked at with one call; often while something changes, seldom while nothing does;
3. what is not needed any more is called off before it begins, and at the end everything is ended by its id.

A batch system that does not answer is asked again later; that says nothing about its jobs.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from blockflow.background import BackgroundCall
from blockflow.errors import RunError
from blockflow.escaping import get_logger
from blockflow.launch.base import JobEnd
from blockflow.launch.launchers import Batch
from blockflow.launch.queue import ENDED, Phase, Seen, Silence
from blockflow.launch.records import JobRecords
from blockflow.launch.roster import Roster
from blockflow.launch.submitter import Submitter
from blockflow.trusted_files import open_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from blockflow.launch.base import Order, Standing
    from blockflow.launch.queue import BatchSystem, Member
    from blockflow.launch.roster import JobWorker
    from blockflow.launch.submitter import JobArray

_LOGGER = get_logger()

GATHER_SECONDS = 0.05
"""Orders that come within this time of one another are submitted together."""

FIRST_LOOK = 0.5
"""Seconds until the queue is looked at again after something changed; half as much longer each time nothing did."""

ENDING_LOOK = 0.2
"""The same while everything is about to end."""

CALL_OFF_SECONDS = 5.0
"""How often jobs are called off that are not needed any more; near the end of a task there are more with each block."""

STUCK_SECONDS = 2.0
"""How long the batch system and the disk may take to answer before jobs are ended by another thread."""

KILL_SECONDS = 1.0
"""How long that is waited for."""

UNENDABLE_SECONDS = 12.0
"""How long jobs that are being ended are waited for."""


class BatchFleet:
    """The workers of a run that are jobs of one batch system.

    Args:
        system: The batch system.
        directory: Private directory of the run's files; the nodes must see it.
        run: Id of the run.
    """

    def __init__(self, system: BatchSystem, *, directory: Path, run: str) -> None:
        self._system = system
        self._directory = directory
        self._run = run
        self._records = JobRecords(directory, run)
        self._roster = Roster()
        self._submitter = Submitter(system, self._roster, self._records, directory=directory, run=run)
        self._error: BaseException | None = None
        """What ended the other thread; raised once."""
        self._raised = False
        self._ending = False
        self._look_asked = False
        self._kill_at: float | None = None
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"blockflow-{system.name}", daemon=True)
        self._started = False
        self._cancelling = threading.Event()
        """Jobs have been told to end, or there are none."""
        self._earlier: tuple[str, ...] = ()
        """Jobs that an earlier life of the driver has left; their workers come back by themselves."""
        self._next_call_off = 0.0
        self._next_look = float("inf")
        self._pause = FIRST_LOOK

    # ------------------------------------------------------------------------------------ for the driver's loop

    def __len__(self) -> int:
        return len(self._roster)

    def start(self, order: Order) -> None:
        """Start a worker, soon."""
        self._roster.add(order)
        if not self._started:
            self._started = True
            self._thread.start()
        self._wake.set()

    def ended(self) -> list[JobEnd]:
        """The workers that have ended since the last call.

        Raises:
            RunError: None can be started; the message says why.
        """
        if self._error is not None and not self._raised:
            self._raised = True
            raise self._error
        return self._roster.take_ended()

    def look(self) -> None:
        """Look soon how far the workers have come."""
        self._look_asked = True
        self._wake.set()

    def standing(self) -> dict[str, Standing]:
        """By task: how far its workers have come."""
        return self._roster.standing()

    def release(self, processes: Sequence[int], most: int) -> int:
        """Call off workers that have not begun; they are reported as ended.

        Args:
            processes: Which ones, in this order.
            most: How many at most; those that were called off before count.

        Returns:
            How many of them are called off.
        """
        released, news = self._roster.release(processes, most)
        if news:
            self._wake.set()
        return released

    def dismiss(self) -> None:
        """There is no more work: call off what has not begun, and look often for the end of the rest."""
        self._ending = True
        self._roster.release_all()
        self._wake.set()

    def stop(self, *, grace: float) -> None:
        """End all workers, and return when they are gone, or cannot be ended.

        Args:
            grace: Seconds between asking and killing.
        """
        self._kill_at = time.monotonic() + grace
        self._wake.set()
        if not self._started:
            return
        if not self._cancelling.wait(grace + STUCK_SECONDS):  # the thread hangs, perhaps in a call of the disk
            self.kill()
        self._thread.join(grace + 2 * UNENDABLE_SECONDS)

    def kill(self) -> None:
        """End all jobs by their ids from another thread, whatever this fleet's own one waits for."""
        jobs = list(self._submitter.arrays)
        if jobs:
            BackgroundCall(lambda: self._system.cancel(jobs), name="blockflow-cancel").wait(KILL_SECONDS)

    # ----------------------------------------------------------------------------------------- the other thread

    def _work(self) -> None:
        try:
            self._earlier = self._records.begin(self._system.name)
            if self._earlier:
                with contextlib.suppress(Silence):
                    self._system.cancel(self._earlier, waiting=True)
            while self._kill_at is None:
                self._wake.wait(self._seconds_to_wait())
                self._wake.clear()
                if self._kill_at is None:
                    self._turn(time.monotonic())
        except BaseException as error:  # carried to the driver's loop
            self._error = error
        finally:
            try:
                self._end_all()
            except BaseException as error:
                self._error = self._error or error

    def _seconds_to_wait(self) -> float | None:
        due = self._next_look
        workers = self._roster.all()
        if any(worker.member is None for worker in workers):
            due = min(due, self._submitter.due)
        if any(worker.is_to_be_cancelled for worker in workers):
            due = min(due, self._next_call_off)
        return None if due == float("inf") else max(0.0, due - time.monotonic())

    def _turn(self, now: float) -> None:
        """Do what is due."""
        if self._records.cancelled:
            raise RunError(f"run {self._run} was cancelled with `blockflow cancel`")
        self._call_off()
        if self._roster.fresh() and now >= self._submitter.due:
            self._gather()
            if self._submitter.submit_all():
                self._look_soon()
        if self._ending or self._look_asked:
            self._look_asked = False
            self._next_look = min(self._next_look, now + ENDING_LOOK)
        if time.monotonic() >= self._next_look:
            self._look()

    def _gather(self) -> None:
        """Wait until no more orders come, for half a second at most."""
        known = -1
        for _ in range(10):
            if len(self._roster) == known or self._kill_at is not None:
                return
            known = len(self._roster)
            time.sleep(GATHER_SECONDS)

    # --------------------------------------------------------------------------------------------------- looking

    def _look_soon(self) -> None:
        self._pause = FIRST_LOOK
        self._next_look = min(self._next_look, time.monotonic() + self._pause)

    def _look(self) -> None:
        """Look at all jobs."""
        before = {worker.order.process: worker.seen for worker in self._roster.all()}
        if not self._submitter.arrays:
            self._next_look = float("inf")
            return
        try:
            seen = self._system.look(list(self._submitter.arrays))
        except Silence as silence:
            _LOGGER.debug("%s does not answer: %s", self._system.name, silence)
            seen = None
        if seen is not None:
            self._take_in(seen)
        now = time.monotonic()
        after = {worker.order.process: worker.seen for worker in self._roster.all()}
        slowest = min((_poll(worker) for worker in self._roster.all()), default=FIRST_LOOK)
        self._pause = FIRST_LOOK if before != after else min(slowest, 1.5 * self._pause)
        self._next_look = now + (ENDING_LOOK if self._ending or self._kill_at is not None else self._pause)

    def _take_in(self, seen: Mapping[Member, Seen]) -> None:
        for worker in self._roster.all():
            if worker.member is None:
                continue
            now = seen.get(worker.member)
            if now is None:
                now = Seen(Phase.FAILED, "not in the queue any more")
            worker.seen = now
            if now.phase is Phase.RUNNING:
                worker.called_off = worker.cancelled = False  # too late
            if now.phase in ENDED:
                self._end(worker, now)

    def _end(self, worker: JobWorker, seen: Seen) -> None:
        """Note that a worker has ended."""
        assert worker.member is not None
        job, index = worker.member
        process = worker.order.process
        clean = seen.phase is Phase.DONE or worker.called_off
        lost = seen.phase in (Phase.EVICTED, Phase.LOST)
        how = f"ended as {self._system.name} job {job}_{index}: {seen.said}"
        name = f"{job}_{index}" if worker.order.launcher.array else job  # type: ignore[attr-defined]
        end = JobEnd(
            process=process,
            code=0 if clean else 1,
            how=how,
            certain=seen.phase is not Phase.LOST,
            lost=lost,
            printed=f"{worker.order.payload['job_log']}-{name}.log",
        )
        self._submitter.over(job, process)
        self._roster.end(worker, end)

    # ---------------------------------------------------------------------------------------------------- ending

    def _call_off(self) -> None:
        """End what has been called off and has not begun."""
        unwanted = [worker for worker in self._roster.all() if worker.called_off and worker.waits]
        for worker in unwanted:
            if worker.member is None:
                self._roster.end(worker, JobEnd(process=worker.order.process, code=0, how="was not needed"))
        submitted = [worker for worker in unwanted if worker.is_to_be_cancelled]
        if submitted and (self._ending or time.monotonic() >= self._next_call_off):
            self._next_call_off = time.monotonic() + CALL_OFF_SECONDS
            try:
                self._system.cancel(_named(submitted, self._submitter.arrays), waiting=True)
            except Silence as silence:
                _LOGGER.debug("%s does not answer: %s", self._system.name, silence)
                return
            for worker in submitted:
                worker.cancelled = True
            self._look_soon()

    def _end_all(self) -> None:
        """End every job by its id."""
        assert self._kill_at is not None or self._error is not None
        kill_at = time.monotonic() if self._kill_at is None else self._kill_at
        self._kill_at = kill_at
        self._roster.forget_fresh()
        deadline = kill_at + UNENDABLE_SECONDS
        asked = killed = False
        if not (self._submitter.arrays or self._submitter.doubtful or self._earlier):
            self._cancelling.set()
        while self._submitter.arrays or self._submitter.doubtful or self._earlier:
            try:
                if self._submitter.doubtful:
                    self._submitter.end_strays()
                if not asked:
                    self._system.cancel([*self._submitter.arrays, *self._earlier])
                    asked = True
                    self._cancelling.set()
                    for job in self._earlier:
                        with contextlib.suppress(OSError):
                            self._records.over(self._system.name, job)
                    self._earlier = ()
                if not killed and time.monotonic() >= kill_at:
                    self._system.cancel(list(self._submitter.arrays), kill=True)
                    killed = True
                self._look()
            except Silence as silence:
                _LOGGER.debug("%s does not answer: %s", self._system.name, silence)
            if time.monotonic() > deadline:
                break
            if self._submitter.arrays:
                time.sleep(ENDING_LOOK)
        if not self._submitter.arrays:
            with contextlib.suppress(FileNotFoundError), open_folder(self._directory, private=True) as folder:
                for name in folder.names():
                    if name.startswith(f"{self._run}.{self._system.name.lower()}-"):
                        folder.remove(name)  # of an earlier life
        else:
            _LOGGER.warning(
                "%s jobs %s could not be ended; their workers end by themselves when they notice that the run is "
                "over. `blockflow cancel %s` tries again",
                self._system.name,
                ", ".join(self._submitter.arrays),
                self._directory / self._run,
            )


def _named(workers: Iterable[JobWorker], arrays: Mapping[str, JobArray]) -> list[str | Member]:
    """Jobs by name: an array by its id where all that is left of it is meant."""
    by_job: dict[str, list[JobWorker]] = {}
    for worker in workers:
        assert worker.member is not None
        by_job.setdefault(worker.member[0], []).append(worker)
    named: list[str | Member] = []
    for job, members in by_job.items():
        if len(members) == len(arrays[job].processes):
            named.append(job)
        else:
            named += [worker.member for worker in members if worker.member is not None]
    return named


def _poll(worker: JobWorker) -> float:
    launcher = worker.order.launcher
    assert isinstance(launcher, Batch)
    return launcher.poll
