"""Lives of a driver, one after the other: schedulers that go on from the records of the one before.

What blocks do is fixed: some always fail, some are found done by their check, all others succeed. So it is known how
every run of a plan must end, however often its driver dies, and whatever was not durable then.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from blockflow.scheduler import events as ev
from blockflow.scheduler.block_states import BlockState
from blockflow.scheduler.events import (
    Record,
    RecordDone,
    RecordFailure,
    RecordGone,
    RecordLoss,
    RecordSkipped,
    RecordWorker,
)
from blockflow.scheduler.propagation import RestoredTask
from blockflow.scheduler.retry_policy import FailureHistory
from blockflow.scheduler.scheduler import Scheduler
from tests.scheduler.world import ghosts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from blockflow.plan.plan import Plan

Key = tuple[int, int]

LEASE = 60.0


@dataclass(eq=False)
class Held:
    """A lease as its worker knows it."""

    grant: ev.GrantLease
    said: list[ev.BlocksReported] = field(default_factory=list)

    @property
    def upto(self) -> int:
        return self.said[-1].upto if self.said else 0


@dataclass(eq=False)
class Worker:
    """A worker process, which outlives its driver."""

    number: int
    task: int
    process: int | None = None
    held: list[Held] = field(default_factory=list)
    asking: bool = False


class Life:
    """One life of a driver, with the workers that it inherits."""

    def __init__(self, plan: Plan, random: Random, nature: Nature, epoch: int = 0) -> None:
        self.plan = plan
        self.random = random
        self.nature = nature
        self.epoch = epoch
        self.now = 0.0
        self.scheduler = Scheduler(plan, largest_lease=4, lease_seconds=LEASE, epoch=epoch, recording=True)
        self.records: list[Record] = []
        self.workers: dict[int, Worker] = {}
        self._next_worker = epoch << 40

    def restore(self, records: Sequence[Record], absent: Sequence[RecordWorker]) -> None:
        """Go on after a life that has left records."""
        self.scheduler.restore(histories(self.plan, records), absent, self.now)
        self.scheduler.validate()

    def tell(self, event: ev.Event) -> list[ev.Instruction]:
        """Something happens; what it leads to is done."""
        told = self.scheduler.handle(event, self.now)
        self.records += self.scheduler.take_records()
        self.scheduler.validate()
        for instruction in told:
            match instruction:
                case ev.GrantLease():
                    self._granted(instruction)
                case ev.RunChecks():
                    self.tell(self.nature.check(self.plan, instruction))
                case ev.DismissWorker():
                    self._leave(self.workers[instruction.worker])
                case _:
                    pass
        return told

    def _granted(self, grant: ev.GrantLease) -> None:
        indices = set(grant.indices.tolist())
        for worker in self.workers.values():
            for held in worker.held if worker.task == grant.task else ():
                left = held.grant.indices[held.upto :].tolist()
                assert not indices.intersection(left), "granted while another worker holds it"
        assert not self.scheduler.awaited_workers, "granted while workers of an earlier life may be at work"
        worker = self.workers[grant.worker]
        worker.asking = False
        worker.held.append(Held(grant))

    def _leave(self, worker: Worker) -> None:
        del self.workers[worker.number]
        self.tell(ev.WorkerLeft(worker=worker.number, crashed=False))

    def join(self, task: int) -> None:
        """A worker comes."""
        worker = Worker(self._next_worker, task)
        self._next_worker += 1
        self.workers[worker.number] = worker
        self.tell(ev.WorkerJoined(worker=worker.number, task=task, host="host", pid=worker.number))

    def come_back(self, worker: Worker) -> None:
        """A worker of an earlier life is back with what it holds, and repeats what may not have been heard."""
        self.workers[worker.number] = worker
        worker.asking = False
        self.tell(ev.WorkerJoined(worker=worker.number, task=worker.task, host="host", pid=worker.number))
        for held in list(worker.held):
            grant = held.grant
            told = self.tell(
                ev.LeaseClaimed(worker=worker.number, lease=grant.lease, attempt=grant.attempt, indices=grant.indices)
            )
            (stale,) = [answer.stale for answer in told if isinstance(answer, ev.AcknowledgeReport)]
            if stale:
                worker.held.remove(held)
        for held in list(worker.held):
            for report in held.said:
                self.tell(report)
            if held.upto == len(held.grant.indices):
                worker.held.remove(held)
        self.tell(ev.HeartbeatReceived(worker=worker.number))

    def work(self, worker: Worker) -> None:
        """A worker reports some of what it holds, or asks."""
        if worker.held:
            held = worker.held[0]
            upto = self.random.randint(held.upto + 1, len(held.grant.indices))
            indices = held.grant.indices[held.upto : upto].tolist()
            failures = tuple(
                ev.BlockFailure(index=index, error=f"ValueError: {index}", where=f"a.py:{index}")
                for index in indices
                if (worker.task, index) in self.nature.bad
            )
            report = ev.BlocksReported(
                worker=worker.number, lease=held.grant.lease, upto=upto, seconds=1e-3, failures=failures
            )
            held.said.append(report)
            if upto == len(held.grant.indices):
                worker.held.remove(held)
            self.tell(report)
        elif not worker.asking:
            worker.asking = True
            self.tell(ev.BlocksAsked(worker=worker.number))

    def step(self) -> None:
        """Something happens that goes well."""
        for task in self.plan.tasks:
            if sum(worker.task == task.number for worker in self.workers.values()) < 2:
                self.join(task.number)
        for worker in list(self.workers.values()):
            if worker.number in self.workers:
                self.work(worker)
        self.now += 1.0
        for worker in self.workers.values():
            self.tell(ev.HeartbeatReceived(worker=worker.number))
        self.tell(ev.Ticked())

    def finish(self) -> None:
        """Run to the end."""
        patience = 2000
        while not self.scheduler.finished:
            patience -= 1
            assert patience, "the run does not end"
            self.step()


class Nature:
    """What becomes of the blocks of a plan, whoever runs them and when."""

    def __init__(self, plan: Plan, random: Random) -> None:
        keys = [(task.number, index) for task in plan.tasks for index in range(task.grid.size)]
        self.bad = {key for key in keys if random.random() < 0.1}
        checked = {task.number for task in plan.tasks if task.task.pre_check is not None}
        self.found_done = {key for key in keys if key[0] in checked and random.random() < 0.3}

    def check(self, plan: Plan, asked: ev.RunChecks) -> ev.BlocksChecked:
        """The answer to a check."""
        before = asked.phase is ev.CheckPhase.BEFORE
        passes = [not before or (asked.task, index) in self.found_done for index in asked.indices.tolist()]
        passed = np.array(passes, dtype=np.bool_)
        assert plan.tasks[asked.task].number == asked.task
        return ev.BlocksChecked(
            task=asked.task,
            phase=asked.phase,
            passed=asked.indices[passed],
            refused=asked.indices[~passed],
            failures=(),
            seconds=1e-3,
        )

    def states(self, plan: Plan) -> dict[Key, BlockState]:
        """How every block must end."""
        states: dict[Key, BlockState] = {}
        for key, block in ghosts(plan).items():
            above = {states[other] for other in block.upstream}
            if above & {BlockState.FAILED, BlockState.ORPHANED}:
                states[key] = BlockState.ORPHANED
            elif key in self.found_done:
                states[key] = BlockState.SKIPPED
            else:
                states[key] = BlockState.FAILED if key in self.bad else BlockState.DONE
        return states


def states_of(scheduler: Scheduler) -> dict[Key, BlockState]:
    """Where every block of a scheduler stands."""
    return {
        (task.number, index): BlockState(int(state))
        for task in scheduler.plan.tasks
        for index, state in enumerate(scheduler.task(task.number).blocks.states.tolist())
    }


def histories(plan: Plan, records: Sequence[Record]) -> list[RestoredTask]:
    """What records tell of each task, one after the other."""
    found = [RestoredTask(states=np.zeros(task.grid.size, dtype=np.uint8)) for task in plan.tasks]
    for record in records:
        match record:
            case RecordDone():
                found[record.task].states[record.indices] = BlockState.DONE
                for index in record.indices.tolist():
                    found[record.task].histories.pop(index, None)
            case RecordFailure():
                history, failure = found[record.task], record.failure
                mishaps = history.histories.setdefault(failure.index, FailureHistory())
                mishaps.failures += 1
                mishaps.attempt = record.attempt
                if record.final:
                    history.states[failure.index] = BlockState.FAILED
                    history.failures[failure.index] = failure
                    del history.histories[failure.index]
            case RecordLoss():
                found[record.task].histories.setdefault(record.index, FailureHistory()).losses += 1
            case RecordSkipped():
                for index in record.indices.tolist():
                    found[record.task].histories.pop(index, None)
            case RecordWorker() | RecordGone():
                pass
    return found


def absent_after(records: Sequence[Record]) -> list[RecordWorker]:
    """The workers that may still be at work, by what was recorded."""
    known: dict[int, RecordWorker] = {}
    for record in records:
        match record:
            case RecordWorker():
                known[record.worker] = record
            case RecordGone():
                known.pop(record.worker, None)
            case _:
                pass
    return list(known.values())


def times_done(records: Sequence[Record]) -> Counter[Key]:
    """How often each block was recorded as done."""
    return Counter(
        (record.task, index)
        for record in records
        if isinstance(record, RecordDone)
        for index in record.indices.tolist()
    )
