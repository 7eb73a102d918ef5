"""Workers as jobs of a batch system: how are many of them asked for, watched and ended with few calls?

A thread of its own speaks with the batch system, as that may take seconds to answer:

1. orders that come within a moment of one another are submitted together, as one array for each task and launcher;
2. all jobs are looked at with one call; often while something changes, seldom while nothing does;
3. what is not needed any more is called off before it begins, and at the end everything is ended by its id.

A batch system that does not answer is asked again later; that says nothing about its jobs. If the answer to a
submission was lost, jobs of this run that nobody knows are looked for and ended before more are submitted.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blockflow.errors import BlockflowError, RunError
from blockflow.launch.base import JobEnd, Standing
from blockflow.launch.handover import write_handover
from blockflow.launch.launchers import Batch
from blockflow.launch.queue import ENDED, Full, Member, Phase, Seen, Silence, Submission
from blockflow.launch.records import JobRecords

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from blockflow.launch.base import Order
    from blockflow.launch.queue import BatchSystem

_LOGGER = logging.getLogger("blockflow")

GATHER_SECONDS = 0.05
"""Orders that come within this time of one another are submitted together."""

FIRST_LOOK = 0.5
"""Seconds until the queue is looked at again after something changed; half as much longer each time nothing did."""

ENDING_LOOK = 0.2
"""The same while everything is about to end."""

CALL_OFF_SECONDS = 5.0
"""How often jobs are called off that are not needed any more; near the end of a task there are more with each block."""

FIRST_RETRY, LONGEST_RETRY = 1.0, 60.0
"""Seconds until a submission is tried again; doubled each time."""

MOST_IN_ARRAY = 1000
"""Jobs in an array: Slurm and LSF allow a thousand, unless the site says otherwise."""

MOST_REFUSALS = 5
"""How often a batch system with no job of this run may say in a row that it takes no more."""

UNENDABLE_SECONDS = 12.0
"""How long jobs that are being ended are waited for."""


@dataclass(slots=True, eq=False)
class _Worker:
    """A worker that was ordered and has not ended."""

    order: Order
    member: Member | None = None
    """Its job; None before it is submitted."""
    seen: Seen | None = None
    """What the batch system said last."""
    called_off: bool = False
    """It is not needed, if it has not begun."""
    cancelled: bool = False
    """The batch system knows that."""

    @property
    def is_to_be_cancelled(self) -> bool:
        """Whether the batch system has to hear that it is not needed."""
        return self.called_off and self.waits and self.member is not None and not self.cancelled

    @property
    def waits(self) -> bool:
        """Whether it has not begun, as far as one knows."""
        return self.seen is None or self.seen.phase is Phase.WAITING


@dataclass(slots=True)
class _Retry:
    """When to try again what did not work."""

    due: float = 0.0
    count: int = 0

    def failed(self, now: float) -> None:
        self.due = now + min(LONGEST_RETRY, FIRST_RETRY * 2.0**self.count)
        self.count = min(self.count + 1, 30)

    def worked(self) -> None:
        self.due, self.count = 0.0, 0


@dataclass(slots=True)
class _Array:
    """A submission that is not over."""

    handover: Path
    processes: set[int] = field(default_factory=set)
    """Its workers that have not ended."""


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
        self._lock = threading.Lock()
        """Guards what both threads use: all that follows, up to the blank line."""
        self._workers: dict[int, _Worker] = {}
        self._ended: list[JobEnd] = []
        self._error: BaseException | None = None
        self._ending = False
        self._look_asked = False
        self._kill_at: float | None = None

        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"blockflow-{system.name}", daemon=True)
        self._started = False
        self._arrays: dict[str, _Array] = {}
        self._earlier: tuple[str, ...] = ()
        """Jobs that an earlier life of the driver has left; their workers come back by themselves."""
        self._submissions = 0
        self._retry = _Retry()
        self._doubtful = False
        """The answer to a submission was lost."""
        self._next_call_off = 0.0
        self._next_look = float("inf")
        self._pause = FIRST_LOOK
        self._complained = ""

    # ------------------------------------------------------------------------------------ for the driver's loop

    def __len__(self) -> int:
        return len(self._workers)

    def start(self, order: Order) -> None:
        """Start a worker, soon."""
        with self._lock:
            self._workers[order.process] = _Worker(order)
        if not self._started:
            self._started = True
            self._thread.start()
        self._wake.set()

    def ended(self) -> list[JobEnd]:
        """The workers that have ended since the last call.

        Raises:
            RunError: None can be started; the message says why.
        """
        with self._lock:
            error, self._error = self._error, None
            ended, self._ended = self._ended, []
        if error is not None:
            raise error
        return ended

    def look(self) -> None:
        """Look soon how far the workers have come."""
        self._look_asked = True
        self._wake.set()

    def standing(self) -> dict[str, Standing]:
        """By task: how far its workers have come."""
        with self._lock:
            workers = list(self._workers.values())
        by_task: dict[str, list[_Worker]] = {}
        for worker in workers:
            by_task.setdefault(worker.order.task, []).append(worker)
        return {task: _standing(members) for task, members in by_task.items()}

    def release(self, processes: Sequence[int], most: int) -> int:
        """Call off workers that have not begun; they are reported as ended.

        Args:
            processes: Which ones, in this order.
            most: How many at most; those that were called off before count.

        Returns:
            How many of them are called off.
        """
        with self._lock:
            known = [worker for process in processes if (worker := self._workers.get(process)) is not None]
            waiting = [worker for worker in known if worker.waits]
            released = sorted(waiting, key=lambda worker: not worker.called_off)[:most]
            fresh = [worker for worker in released if not worker.called_off]
            for worker in fresh:
                worker.called_off = True
        if fresh:
            self._wake.set()
        return len(released)

    def dismiss(self) -> None:
        """There is no more work: call off what has not begun, and look often for the end of the rest."""
        with self._lock:
            self._ending = True
            for worker in self._workers.values():
                worker.called_off = worker.waits
        self._wake.set()

    def stop(self, *, grace: float) -> None:
        """End all workers, and return when they are gone, or cannot be ended.

        Args:
            grace: Seconds between asking and killing.
        """
        self._kill_at = time.monotonic() + grace
        self._wake.set()
        if self._started:
            self._thread.join(grace + 2 * UNENDABLE_SECONDS)

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
        workers = self._snapshot()
        if any(worker.member is None for worker in workers):
            due = min(due, self._retry.due)
        if any(worker.is_to_be_cancelled for worker in workers):
            due = min(due, self._next_call_off)
        return None if due == float("inf") else max(0.0, due - time.monotonic())

    def _turn(self, now: float) -> None:
        """Do what is due."""
        if self._records.cancelled:
            raise RunError(f"run {self._run} was cancelled with `blockflow cancel`")
        self._call_off()
        fresh = [worker for worker in self._snapshot() if worker.member is None]
        if fresh and now >= self._retry.due:
            self._gather()
            self._submit_all()
        if self._ending or self._look_asked:
            self._look_asked = False
            self._next_look = min(self._next_look, now + ENDING_LOOK)
        if time.monotonic() >= self._next_look:
            self._look()

    def _gather(self) -> None:
        """Wait until no more orders come, for half a second at most."""
        known = -1
        for _ in range(10):
            if len(self._workers) == known or self._kill_at is not None:
                return
            known = len(self._workers)
            time.sleep(GATHER_SECONDS)

    def _snapshot(self) -> list[_Worker]:
        with self._lock:
            return list(self._workers.values())

    # ------------------------------------------------------------------------------------------------ submitting

    def _submit_all(self) -> None:
        """Submit every worker that has not been, task by task and launcher by launcher."""
        groups: dict[tuple[str, int], list[_Worker]] = {}
        for worker in self._snapshot():
            if worker.member is None:
                groups.setdefault((worker.order.task, id(worker.order.launcher)), []).append(worker)
        try:
            if self._doubtful:
                self._end_strays()
            for group in groups.values():
                self._submit_group(group)
        except Silence as silence:
            self._doubtful = True
            self._put_off(f"{self._system.name} does not answer ({silence}); it is asked again")
        except Full as full:
            if self._retry.count >= MOST_REFUSALS and not self._arrays:
                raise RunError(
                    f"{self._system.name} takes no jobs, and has none of this run: {full}; ask for fewer workers at a "
                    "time (workers=), for less, or with another account"
                ) from full
            self._put_off(f"{self._system.name} takes no more jobs now ({full}); the rest is submitted later")
        else:
            self._retry.worked()
            self._complained = ""

    def _put_off(self, why: str) -> None:
        self._retry.failed(time.monotonic())
        if why != self._complained:
            _LOGGER.warning(why)
            self._complained = why

    def _submit_group(self, group: list[_Worker]) -> None:
        launcher = group[0].order.launcher
        assert isinstance(launcher, Batch)
        most = MOST_IN_ARRAY if launcher.array else 1
        while group:
            part = group[:most]
            try:
                self._submit(part, launcher)
            except Full:
                if len(part) == 1:
                    raise
                most = (len(part) + 1) // 2  # fewer may be welcome
                continue
            group = group[len(part) :]

    def _submit(self, workers: list[_Worker], launcher: Batch) -> None:
        order = workers[0].order
        self._submissions += 1
        handover = self._directory / f"{self._run}.{self._system.name.lower()}-{self._submissions}"
        write_handover(handover, [worker.order.payload for worker in workers])
        submission = Submission(
            launcher=launcher,
            run=self._run,
            task=order.task,
            payload=str(handover),
            output=order.payload["job_log"],
            count=len(workers),
            throttle=self._throttle(workers, launcher),
        )
        try:
            job = self._system.submit(submission)
        except BlockflowError:
            handover.unlink(missing_ok=True)
            raise
        self._records.submitted(self._system.name, job, task=order.task, count=len(workers))
        self._arrays[job] = _Array(handover, {worker.order.process for worker in workers})
        with self._lock:
            for index, worker in enumerate(workers):
                worker.member = (job, index)
        self._look_soon()

    def _throttle(self, workers: list[_Worker], launcher: Batch) -> int | None:
        """How many of an array may run at once, beside those of the same launcher in other arrays."""
        if launcher.max_jobs is None:
            return None
        others = sum(each.order.launcher is launcher and each.member is not None for each in self._snapshot())
        room = max(1, launcher.max_jobs - others)
        return room if room < len(workers) else None

    def _end_strays(self) -> None:
        strays = self._system.strays(self._run, self._arrays)
        if strays:
            for job in strays:
                self._records.submitted(self._system.name, job, task="", count=0)
            self._system.cancel(strays)
        self._doubtful = False

    # --------------------------------------------------------------------------------------------------- looking

    def _look_soon(self) -> None:
        self._pause = FIRST_LOOK
        self._next_look = min(self._next_look, time.monotonic() + self._pause)

    def _look(self) -> None:
        """Look at all jobs."""
        before = {worker.order.process: worker.seen for worker in self._snapshot()}
        if not self._arrays:
            self._next_look = float("inf")
            return
        try:
            seen = self._system.look(list(self._arrays))
        except Silence as silence:
            _LOGGER.debug("%s does not answer: %s", self._system.name, silence)
            seen = None
        if seen is not None:
            self._take_in(seen)
        now = time.monotonic()
        after = {worker.order.process: worker.seen for worker in self._snapshot()}
        slowest = min((_poll(worker) for worker in self._snapshot()), default=FIRST_LOOK)
        self._pause = FIRST_LOOK if before != after else min(slowest, 1.5 * self._pause)
        self._next_look = now + (ENDING_LOOK if self._ending or self._kill_at is not None else self._pause)

    def _take_in(self, seen: Mapping[Member, Seen]) -> None:
        for worker in self._snapshot():
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

    def _end(self, worker: _Worker, seen: Seen) -> None:
        """Note that a worker has ended."""
        assert worker.member is not None
        job, index = worker.member
        process = worker.order.process
        clean = seen.phase is Phase.DONE or worker.called_off
        lost = seen.phase in (Phase.EVICTED, Phase.LOST)
        how = f"ended as {self._system.name} job {job}_{index}: {seen.said}"
        end = JobEnd(process=process, code=0 if clean else 1, how=how, certain=seen.phase is not Phase.LOST, lost=lost)
        array = self._arrays[job]
        array.processes.discard(process)
        if not array.processes:
            self._records.over(self._system.name, job)
            array.handover.unlink(missing_ok=True)
            del self._arrays[job]
        with self._lock:
            del self._workers[process]
            self._ended.append(end)

    # ---------------------------------------------------------------------------------------------------- ending

    def _call_off(self) -> None:
        """End what has been called off and has not begun."""
        unwanted = [worker for worker in self._snapshot() if worker.called_off and worker.waits]
        with self._lock:
            for worker in unwanted:
                if worker.member is None:
                    del self._workers[worker.order.process]
                    self._ended.append(JobEnd(process=worker.order.process, code=0, how="was not needed"))
        submitted = [worker for worker in unwanted if worker.is_to_be_cancelled]
        if submitted and (self._ending or time.monotonic() >= self._next_call_off):
            self._next_call_off = time.monotonic() + CALL_OFF_SECONDS
            try:
                self._system.cancel(_named(submitted, self._arrays), waiting=True)
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
        with self._lock:
            for process in [process for process, worker in self._workers.items() if worker.member is None]:
                del self._workers[process]
        deadline = kill_at + UNENDABLE_SECONDS
        asked = killed = False
        while self._arrays or self._doubtful or self._earlier:
            try:
                if self._doubtful:
                    self._end_strays()
                if not asked:
                    self._system.cancel([*self._arrays, *self._earlier])
                    asked = True
                    for job in self._earlier:
                        self._records.over(self._system.name, job)
                    self._earlier = ()
                if not killed and time.monotonic() >= kill_at:
                    self._system.cancel(list(self._arrays), kill=True)
                    killed = True
                self._look()
            except Silence as silence:
                _LOGGER.debug("%s does not answer: %s", self._system.name, silence)
            if time.monotonic() > deadline:
                break
            if self._arrays:
                time.sleep(ENDING_LOOK)
        if not self._arrays:
            for left in self._directory.glob(f"{self._run}.{self._system.name.lower()}-*"):
                left.unlink(missing_ok=True)  # by an earlier life
        else:
            _LOGGER.warning(
                "%s jobs %s could not be ended; their workers end by themselves when they notice that the run is "
                "over. `blockflow cancel %s` tries again",
                self._system.name,
                ", ".join(self._arrays),
                self._directory / self._run,
            )


def _named(workers: Iterable[_Worker], arrays: Mapping[str, _Array]) -> list[str | Member]:
    """Jobs by name: an array by its id where all that is left of it is meant."""
    by_job: dict[str, list[_Worker]] = {}
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


def _poll(worker: _Worker) -> float:
    launcher = worker.order.launcher
    assert isinstance(launcher, Batch)
    return launcher.poll


def _standing(workers: list[_Worker]) -> Standing:
    waiting = [worker for worker in workers if worker.waits]
    reasons = [worker.seen.said for worker in waiting if worker.seen is not None]
    return Standing(waiting=len(waiting), running=len(workers) - len(waiting), reason=reasons[0] if reasons else "")
