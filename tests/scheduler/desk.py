"""Talking to a scheduler in few words: one event at a time, and what it leads to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from blockflow.scheduler import events as ev
from blockflow.scheduler.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from blockflow.plan.task import Task
    from blockflow.scheduler.state import TaskRecord


class Desk:
    """A scheduler that is made to recount itself after every event."""

    def __init__(
        self,
        *tasks: Task,
        largest_lease: int = 1,
        lease_seconds: float = 60.0,
        scheduler: Scheduler | None = None,
    ) -> None:
        self.scheduler = scheduler or Scheduler(tasks, largest_lease=largest_lease, lease_seconds=lease_seconds)
        self.now = 0.0
        self.told = self.tell(ev.Ticked())
        """What the last event has led to."""

    @property
    def book(self) -> TaskRecord:
        """The first task's."""
        return self.scheduler.task(0)

    def finished(self) -> bool:
        return self.scheduler.finished

    def tell(self, event: ev.Event) -> list[ev.Instruction]:
        self.told = self.scheduler.handle(event, self.now)
        self.scheduler.validate()
        return self.told

    def join(self, *workers: int, task: int = 0, process: int | None = None) -> None:
        for worker in workers:
            self.tell(ev.WorkerJoined(worker=worker, task=task, process=process))

    def claim(self, grant: ev.GrantLease) -> bool:
        """Say that a worker which is back holds a lease; whether it may keep it."""
        claim = ev.LeaseClaimed(worker=grant.worker, lease=grant.lease, attempt=grant.attempt, indices=grant.indices)
        return not stale(self.tell(claim))

    def ask(self, worker: int) -> ev.GrantLease:
        """Ask, and get blocks."""
        grants = [told for told in self.tell(ev.BlocksAsked(worker=worker)) if isinstance(told, ev.GrantLease)]
        assert [grant.worker for grant in grants] == [worker]
        return grants[0]

    def ask_in_vain(self, worker: int) -> None:
        """Ask, and be left waiting."""
        assert self.tell(ev.BlocksAsked(worker=worker)) == []

    def report(
        self, grant: ev.GrantLease, upto: int | None = None, *, fails: Collection[int] = (), seconds: float = 1.0
    ) -> list[ev.Instruction]:
        """Report blocks of a lease; all if not said otherwise."""
        failures = tuple(ev.BlockFailure(index=index, error="ValueError: no") for index in fails)
        return self.tell(
            ev.BlocksReported(
                worker=grant.worker,
                lease=grant.lease,
                upto=len(grant.indices) if upto is None else upto,
                seconds=seconds,
                failures=failures,
            )
        )

    def give_back(self, grant: ev.GrantLease, kept: int = 0) -> list[ev.Instruction]:
        return self.tell(ev.BlocksReturned(worker=grant.worker, lease=grant.lease, kept=kept))

    def leave(self, worker: int, *, crashed: bool) -> list[ev.Instruction]:
        return self.tell(ev.WorkerLeft(worker=worker, crashed=crashed))

    def wait(self, seconds: float) -> list[ev.Instruction]:
        self.now += seconds
        return self.tell(ev.Ticked())

    def answer(
        self,
        phase: ev.CheckPhase,
        *,
        passed: Sequence[int] = (),
        refused: Sequence[int] = (),
        raised: Sequence[int] = (),
        task: int = 0,
    ) -> list[ev.Instruction]:
        """Answer a check."""
        return self.tell(
            ev.BlocksChecked(
                task=task,
                phase=phase,
                passed=np.array(passed, dtype=np.int64),
                refused=np.array(refused, dtype=np.int64),
                failures=tuple(ev.BlockFailure(index=index, error="ValueError: cannot look") for index in raised),
                seconds=0.001,
            )
        )


def granted(told: Sequence[ev.Instruction]) -> list[tuple[int, list[int]]]:
    """Worker and blocks of every grant."""
    return [(grant.worker, grant.indices.tolist()) for grant in told if isinstance(grant, ev.GrantLease)]


def failures(told: Sequence[ev.Instruction]) -> list[tuple[int, bool]]:
    """Block, and whether it is for good, of every failure that people are told of."""
    return [(tell.failure.index, tell.final) for tell in told if isinstance(tell, ev.TellFailure)]


def stale(told: Sequence[ev.Instruction]) -> bool:
    """The answer to a report."""
    answers = [answer.stale for answer in told if isinstance(answer, ev.AcknowledgeReport)]
    assert len(answers) == 1
    return answers[0]


def checks(told: Sequence[ev.Instruction]) -> list[tuple[ev.CheckPhase, list[int]]]:
    """The checks that are wanted."""
    return [(check.phase, check.indices.tolist()) for check in told if isinstance(check, ev.RunChecks)]


def dismissed(told: Sequence[ev.Instruction]) -> list[int]:
    """The workers that are dismissed."""
    return [dismissal.worker for dismissal in told if isinstance(dismissal, ev.DismissWorker)]


def started(told: Sequence[ev.Instruction]) -> list[int]:
    """The processes that are started."""
    return [start.process for start in told if isinstance(start, ev.StartProcess)]
