"""Submitting: how do the workers that are wanted become jobs, in few calls, and each once?

All that wait are submitted together, as one array for each task and launcher. A batch system that does not answer, or
takes no more, is asked again later. If the answer to a submission was lost, jobs of this run that nobody knows are
looked for and ended before more are submitted.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blockflow.background import run_all
from blockflow.errors import BlockflowError, RunError
from blockflow.escaping import get_logger
from blockflow.launch.handover import write_handover
from blockflow.launch.launchers import Batch
from blockflow.launch.queue import Full, Silence, Submission
from blockflow.trusted_files import remove_file

if TYPE_CHECKING:
    from pathlib import Path

    from blockflow.launch.queue import BatchSystem
    from blockflow.launch.records import JobRecords
    from blockflow.launch.roster import JobWorker, Roster

_LOGGER = get_logger()

FIRST_RETRY, LONGEST_RETRY = 1.0, 60.0
"""Seconds until a submission is tried again; doubled each time."""

MOST_IN_ARRAY = 1000
"""Jobs in an array: Slurm and LSF allow a thousand, unless the site says otherwise."""

MOST_REFUSALS = 5
"""How often a batch system with no job of this run may say in a row that it takes no more."""


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
class JobArray:
    """A submission that is not over."""

    handover: Path
    processes: set[int] = field(default_factory=set)
    """Its workers that have not ended."""


class Submitter:
    """Makes the jobs of one fleet.

    Args:
        system: The batch system.
        roster: The workers.
        records: Where jobs are recorded.
        directory: Private directory of the run's files; the nodes must see it.
        run: Id of the run.
    """

    def __init__(self, system: BatchSystem, roster: Roster, records: JobRecords, *, directory: Path, run: str) -> None:
        self._system = system
        self._roster = roster
        self._records = records
        self._directory = directory
        self._run = run
        self.arrays: dict[str, JobArray] = {}
        """By id: what was submitted, and is not over."""
        self.doubtful = False
        """The answer to a submission was lost."""
        self._submissions = 0
        self._retry = _Retry()
        self._complained = ""

    @property
    def due(self) -> float:
        """When it may be tried again, by the monotonic clock."""
        return self._retry.due

    def submit_all(self) -> bool:
        """Submit every worker that has not been, task by task and launcher by launcher; whether any was.

        Raises:
            RunError: The batch system will not take them.
        """
        before = len(self.arrays)
        groups: dict[tuple[str, int], list[JobWorker]] = {}
        for worker in self._roster.fresh():
            groups.setdefault((worker.order.task, id(worker.order.launcher)), []).append(worker)
        try:
            if self.doubtful:
                self.end_strays()
            for group in groups.values():
                self._submit_group(group)
        except Silence as silence:
            self.doubtful = True
            self._put_off(f"{self._system.name} does not answer ({silence}); it is asked again")
        except Full as full:
            if self._retry.count >= MOST_REFUSALS and not self.arrays:
                raise RunError(
                    f"{self._system.name} takes no jobs, and has none of this run: {full}; ask for fewer workers at a "
                    "time (workers=), for less, or with another account"
                ) from full
            self._put_off(f"{self._system.name} takes no more jobs now ({full}); the rest is submitted later")
        else:
            self._retry.worked()
            self._complained = ""
        return len(self.arrays) > before

    def end_strays(self) -> None:
        """End jobs of this run that nobody knows.

        Raises:
            Silence: The batch system does not answer.
        """
        strays = self._system.strays(self._run, self.arrays)
        if strays:
            for job in strays:
                with contextlib.suppress(OSError):  # it is ended all the same
                    self._records.submitted(self._system.name, job, task="", count=0)
            self._system.cancel(strays)
        self.doubtful = False

    def over(self, job: str, process: int) -> None:
        """A worker of an array has ended."""
        array = self.arrays[job]
        array.processes.discard(process)
        if not array.processes:
            del self.arrays[job]
            run_all(lambda: self._records.over(self._system.name, job), lambda: remove_file(array.handover))

    def _put_off(self, why: str) -> None:
        self._retry.failed(time.monotonic())
        if why != self._complained:
            _LOGGER.warning(why)
            self._complained = why

    def _submit_group(self, group: list[JobWorker]) -> None:
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

    def _submit(self, workers: list[JobWorker], launcher: Batch) -> None:
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
            remove_file(handover)
            raise
        self._records.submitted(self._system.name, job, task=order.task, count=len(workers))
        self.arrays[job] = JobArray(handover, {worker.order.process for worker in workers})
        self._roster.submitted(workers, job)

    def _throttle(self, workers: list[JobWorker], launcher: Batch) -> int | None:
        """How many of an array may run at once, beside those of the same launcher in other arrays."""
        if launcher.max_jobs is None:
            return None
        others = sum(each.order.launcher is launcher and each.member is not None for each in self._roster.all())
        room = max(1, launcher.max_jobs - others)
        return room if room < len(workers) else None
