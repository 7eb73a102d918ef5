"""What may a scheduler say, judged by facts that it does not know?

A :class:`World` hands events to a scheduler and keeps ghost facts of its own: who holds what, what is done, what has
failed and why. It knows the boxes of blocks and compares them one by one; it shares no bookkeeping with the scheduler.
After every event it

1. checks every instruction against the facts (promises 1 to 4 of the design);
2. has the scheduler recount itself;
3. derives the state of every block from the facts, and compares.

:meth:`World.finish` ends all faults, and demands that everything ends.
"""

from __future__ import annotations

import mmap
from collections import deque
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from blockflow.plan.plan import Plan, TaskPlan, single
from blockflow.scheduler import events as ev
from blockflow.scheduler.block_states import BlockState
from blockflow.scheduler.completion import MOST_LOSSES
from blockflow.scheduler.retry_policy import FailureHistory
from blockflow.scheduler.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from blockflow.geometry import Box

LEASE = 60.0
"""Seconds of a lease; the server waits 5 % longer."""

DEAD = LEASE * 1.06
"""Seconds of silence after which a lease has certainly ended."""

WAITS = {1: 0.0, 2: 5.0}
"""By mishap of a block: seconds until it runs again at most; 30 for all others, and a tenth of the run's time."""

PATIENCE = 30.0
"""Seconds for which a block is left to a better worker."""

FAILURES_ON_HOST = 2
"""Blocks that fail in a row before a host may be in quarantine, in these lives."""

ENOUGH_BLOCKS = 3
"""Blocks beyond hope before a task is given up, in these lives."""

Key = tuple[int, int]
"""Task and index of a block."""


@dataclass(slots=True, eq=False)
class GhostBlock:
    """What is known about a block."""

    key: Key
    upstream: frozenset[Key]
    conflicts: frozenset[Key]
    ended: BlockState | None = None
    """DONE, FAILED or SKIPPED."""
    holder: GhostLease | None = None
    ran_on: int | None = None
    """While its post-check is under way: the worker that ran it."""
    checking: bool = False
    cleared: bool = False
    """Its pre-check has said that it has to run."""
    again: bool = False
    """It has to run alone."""
    failed_on: list[int | None] = field(default_factory=list)
    """By failure: the worker, or None for its pre-check."""
    avoids: set[int] = field(default_factory=set)
    """Workers on which it failed, or that were lost with it."""
    avoids_hosts: set[str] = field(default_factory=set)
    due: tuple[float, float] = (0.0, 0.0)
    """When it may run again at the earliest, and at the latest."""
    causes: set[str] = field(default_factory=set)
    """Of its failures."""
    killed: int = 0
    """Workers that ended while it was the only block that they can have been running."""


@dataclass(slots=True, eq=False)
class GhostLease:
    """Blocks that a worker holds."""

    number: int
    blocks: list[GhostBlock]
    reported: int = 0
    live: bool = True

    @property
    def outstanding(self) -> list[GhostBlock]:
        return self.blocks[self.reported :]


@dataclass(slots=True, eq=False)
class GhostWorker:
    """What is known about a client."""

    number: int
    task: int
    process: int | None
    host: str = ""
    connected: bool = True
    asking: bool = False
    dismissed: bool = False
    """For good, because it failed too often, or ends, or the run was stopped while it held blocks."""
    ending: bool = False
    heard: float = 0.0
    """When its leases were renewed last."""
    leases: list[GhostLease] = field(default_factory=list)
    """All that it ever held, oldest first."""
    failed_in_a_row: set[int] = field(default_factory=set)

    @property
    def live(self) -> list[GhostLease]:
        return [lease for lease in self.leases if lease.live]


class World:
    """A scheduler, the facts about it, and ways to make things happen."""

    def __init__(self, plan: Plan, *, largest_lease: int, most_workers: int, hosts: int = 1, causes: int = 1) -> None:
        self.plan = plan
        self.hosts = hosts
        self.causes = causes
        """Kinds of error that blocks fail with."""
        self.most_workers = most_workers
        self.largest_lease = largest_lease
        self.scheduler = Scheduler(plan, largest_lease=largest_lease, lease_seconds=LEASE)
        self.now = 0.0
        self.blocks = ghosts(plan)
        self.workers: dict[int, GhostWorker] = {}
        self.gone: dict[int, GhostWorker] = {}
        self.processes: dict[int, int] = {}
        """By process that lives: its task."""
        self.silent: set[int | None] = set()
        """Those that have lost blocks because nothing was heard of them, and are not back."""
        self.checks: list[ev.RunChecks] = []
        """That have not been answered."""
        self.stopped = False
        self.wanted = {task.number: task.task.num_workers for task in plan.tasks}
        """By task: how many processes."""
        self._rows: dict[tuple[int, str], set[int]] = {}
        """By task and host: blocks that failed there since the last that was done."""
        self._numbers = count()
        self._processes_seen: set[int] = set()
        self._last_attempt = 0
        self._expected_failures: list[tuple[Key, bool]] = []
        self._expected_checks: list[Key] = []
        self._expected_answers: list[tuple[int, bool]] = []
        self._expected_dismissals: set[int] = set()
        self._expected_cuts: set[int] = set()
        self._handle(ev.Ticked())

    # -------------------------------------------------------------------------------------------- what may happen

    def join(self, task: int, process: int | None = None) -> GhostWorker:
        number = next(self._numbers)
        host = f"host {number % self.hosts}" if self.hosts else ""
        worker = GhostWorker(number=number, task=task, process=process, host=host)
        self.workers[worker.number] = worker
        self.silent.discard(process)
        self._handle(ev.WorkerJoined(worker=worker.number, task=task, process=process, host=host))
        return worker

    def rejoin(self, worker: GhostWorker) -> None:
        """A worker that lost its connection is back, with its leases."""
        worker.connected, worker.dismissed, worker.ending = True, False, False
        worker.failed_in_a_row.clear()
        self.silent.discard(worker.process)
        self._handle(ev.WorkerJoined(worker=worker.number, task=worker.task, process=worker.process, host=worker.host))
        for lease in worker.live:
            worker.heard = self.now
            self._expected_answers.append((lease.number, False))
            indices = np.array([block.key[1] for block in lease.blocks], dtype=np.int64)
            self._handle(ev.LeaseClaimed(worker=worker.number, lease=lease.number, attempt=1, indices=indices))

    def ask(self, worker: GhostWorker) -> None:
        worker.asking = not worker.dismissed
        worker.heard = self.now
        self._handle(ev.BlocksAsked(worker=worker.number))

    def report(
        self, worker: GhostWorker, lease: GhostLease, upto: int, fails: Collection[int] = (), seconds: float = 0.0
    ) -> None:
        """Report the blocks up to a position; `fails` are indices of blocks that failed."""
        fresh = lease.blocks[lease.reported : upto] if lease.live else []
        failures = tuple(ev.BlockFailure(index=index, error=f"{self._cause(index)}: no") for index in fails)
        self._expected_answers.append((lease.number, not lease.live))
        worker.heard = self.now
        if fresh:
            lease.reported = upto
            lease.live = upto < len(lease.blocks)
            for block in fresh:
                block.holder = None
                if block.key[1] in fails:
                    self._attempt_failed(block, worker.number, self._cause(block.key[1]), worker.host)
                elif self._task(block).task.post_check is not None:
                    block.ran_on = worker.number
                    self._expected_checks.append(block.key)
                else:
                    block.ended = BlockState.DONE
            row = self._rows.setdefault((worker.task, worker.host), set())
            if any(block.key[1] not in fails for block in fresh):
                worker.failed_in_a_row.clear()
                row.clear()
            worker.failed_in_a_row.update(fails)
            row.update(fails)
            if len(worker.failed_in_a_row) >= 3 and worker.process is not None and not worker.dismissed:
                worker.dismissed, worker.asking = True, False
                self._expected_dismissals.add(worker.number)
        self._handle(
            ev.BlocksReported(worker=worker.number, lease=lease.number, upto=upto, seconds=seconds, failures=failures)
        )

    def give_back(self, worker: GhostWorker, lease: GhostLease, kept: int) -> None:
        """Return the blocks of a lease behind the first `kept`."""
        worker.heard = self.now
        if lease.live:
            for block in lease.blocks[kept:]:
                block.holder = None
            del lease.blocks[kept:]
            lease.live = lease.reported < kept
        self._handle(ev.BlocksReturned(worker=worker.number, lease=lease.number, kept=kept))

    def heartbeat(self, worker: GhostWorker) -> None:
        worker.heard = self.now
        self._handle(ev.HeartbeatReceived(worker=worker.number))

    def leave(self, worker: GhostWorker, *, crashed: bool) -> None:
        self._lose(worker, suspicious=crashed)
        self._forget(worker)
        self._handle(ev.WorkerLeft(worker=worker.number, crashed=crashed))

    def leave_again(self, worker: GhostWorker) -> None:
        """News of a worker that is gone already changes nothing."""
        self._handle(ev.ConnectionLost(worker=worker.number))
        self._handle(ev.WorkerLeft(worker=worker.number, crashed=True))

    def announce_end(self, worker: GhostWorker) -> None:
        """A worker is about to end in the middle of its blocks."""
        worker.ending, worker.dismissed, worker.asking = True, True, False
        self._handle(ev.WorkerEnding(worker=worker.number))

    def disconnect(self, worker: GhostWorker) -> None:
        worker.connected, worker.asking = False, False
        if worker.ending:
            self._lose(worker, suspicious=False)
        if not worker.live:
            self._forget(worker)
        self._handle(ev.ConnectionLost(worker=worker.number))

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and let the scheduler know."""
        self.now += seconds
        for worker in list(self.workers.values()):
            if worker.live and worker.heard + LEASE * 1.05 <= self.now:
                self._lose(worker, suspicious=True)
                self.silent.add(worker.process)
                if worker.connected:
                    worker.asking = False
                    self._expected_cuts.add(worker.number)
                else:
                    self._forget(worker)
        self._handle(ev.Ticked())

    def end_process(self, process: int, *, clean: bool) -> None:
        """A process ends, after its workers."""
        for worker in list(self.workers.values()):
            if worker.process == process:
                self.leave(worker, crashed=not clean)
        task = self.processes.pop(process)
        self._handle(ev.ProcessEnded(process=process, task=task, clean=clean, how="with an exit code"))

    def answer(self, check: ev.RunChecks, answers: Sequence[bool | None]) -> None:
        """Answer a check: True passes, False refuses, None is a function that raised."""
        self.checks = [other for other in self.checks if other is not check]
        passed: list[int] = []
        refused: list[int] = []
        failures: list[ev.BlockFailure] = []
        for index, answer in zip(check.indices.tolist(), answers, strict=True):
            block = self.blocks[check.task, index]
            if check.phase is ev.CheckPhase.BEFORE:
                block.checking = False
                if answer:
                    block.ended = BlockState.SKIPPED
                elif answer is None:
                    self._attempt_failed(block, None, "ValueError")
                    block.again = False
                else:
                    block.cleared = True
            else:
                worker, block.ran_on = block.ran_on, None
                if answer:
                    block.ended = BlockState.DONE
                else:
                    known = None if worker is None else self.workers.get(worker)
                    cause = "ValueError" if answer is None else "refused by the post-check"
                    self._attempt_failed(block, worker, cause, "" if known is None else known.host)
            if answer is None:
                failures.append(ev.BlockFailure(index=index, error="ValueError: cannot look"))
            else:
                (passed if answer else refused).append(index)
        self._handle(
            ev.BlocksChecked(
                task=check.task,
                phase=check.phase,
                passed=np.array(passed, dtype=np.int64),
                refused=np.array(refused, dtype=np.int64),
                failures=tuple(failures),
                seconds=0.001 * len(check.indices),
            )
        )

    def stop(self) -> None:
        if not self.stopped:
            for worker in self.workers.values():
                if worker.connected and worker.live:
                    self._expected_dismissals.add(worker.number)
                    worker.dismissed, worker.asking = True, False
        self.stopped = True
        self._handle(ev.StopAsked())

    def resize(self, task: int, workers: int) -> None:
        """Somebody wants another number of processes."""
        self.wanted[task] = workers
        self._handle(ev.WorkersWanted(task=task, workers=workers))

    # ------------------------------------------------------------------------------------------------ liveness

    def finish(self) -> None:
        """No more faults: everything must end. After a stop, only what is under way does."""
        for worker in list(self.workers.values()):
            if not worker.connected:
                self.pass_time(DEAD)
        self._staff()
        patience = 60 * (len(self.blocks) + len(self.workers) + 10)
        while not self.scheduler.finished:
            patience -= 1
            assert patience > 0, f"the run does not end: {self.scheduler.task_states}"
            self._step()
            due = self.scheduler.next_deadline()
            if due is not None and not self.checks and not any(worker.live for worker in self.workers.values()):
                self.pass_time(max(0.0, due - self.now))  # nobody has anything to do: it must know until when
        if not self.stopped:
            given_up: set[int] = set()
            for task in self.plan.tasks:
                if self.given_up(task.number) or any(number in given_up for number, _ in task.upstream):
                    given_up.add(task.number)
                else:
                    assert self.scheduler.task_states[task.task_id].is_done(), task.task_id
        assert not any(worker.live or worker.asking for worker in self.workers.values())
        for worker in list(self.workers.values()):
            if not worker.dismissed:
                self._expected_dismissals.add(worker.number)
                self.ask(worker)

    def _staff(self) -> None:
        """Somebody works on every task."""
        for task in self.plan.tasks:
            if not self.stopped and not any(
                worker.task == task.number and not worker.dismissed for worker in self.workers.values()
            ):
                self.join(task.number)

    def _step(self) -> None:
        """Something that goes well, wherever something can."""
        if self.checks:
            self.answer(self.checks[0], [self.checks[0].phase is ev.CheckPhase.AFTER] * len(self.checks[0].indices))
            return
        self._staff()
        for worker in list(self.workers.values()):
            if worker.live:
                self.report(worker, worker.live[0], len(worker.live[0].blocks))
            elif worker.dismissed:
                self.leave(worker, crashed=False)
            elif not worker.asking:
                self.ask(worker)

    # --------------------------------------------------------------------------------------------- ghost facts

    def _cause(self, index: int) -> str:
        return f"Error{index % self.causes}"

    def _attempt_failed(self, block: GhostBlock, worker: int | None, cause: str, host: str = "") -> None:
        block.failed_on.append(worker)
        block.causes.add(cause)
        final = len(block.failed_on) > self._task(block).task.max_retries
        self._expected_failures.append((block.key, final))
        block.again = True
        if worker is not None:
            self._avoid(block, worker, host)
            able = [w.number for w in self.workers.values() if w.task == block.key[0] and self._is_able(w)]
            self._postpone(block, others=not block.avoids.issuperset(able))
        if final:
            block.ended = BlockState.FAILED

    def _avoid(self, block: GhostBlock, worker: int, host: str) -> None:
        block.avoids.add(worker)
        block.avoids_hosts |= {host} - {""}

    def _postpone(self, block: GhostBlock, *, others: bool) -> None:
        mishaps = len(block.failed_on) + block.killed + (not others)
        longest = min(WAITS.get(max(mishaps, 1), 30.0), self.now / 10)
        block.due = (self.now + longest / 2, self.now + longest)

    def _lose(self, worker: GhostWorker, *, suspicious: bool) -> None:
        for place, lease in enumerate(worker.live):
            lease.live = False
            for block in lease.outstanding:
                block.holder = None
                if suspicious and not worker.ending and not place:
                    block.again = True
                    self._avoid(block, worker.number, worker.host)
                    block.killed += len(lease.outstanding) == 1
                    self._postpone(block, others=True)
                    if block.killed == MOST_LOSSES:
                        block.ended = BlockState.FAILED
                        block.causes.add("5 workers ended while they ran this block")
                        self._expected_failures.append((block.key, True))

    def _forget(self, worker: GhostWorker) -> None:
        worker.asking = False
        self.gone[worker.number] = self.workers.pop(worker.number)

    def _task(self, block: GhostBlock) -> TaskPlan:
        return self.plan.tasks[block.key[0]]

    # ------------------------------------------------------------------------------------------------- judgement

    def _handle(self, event: ev.Event) -> None:
        for instruction in self.scheduler.handle(event, self.now):
            match instruction:
                case ev.GrantLease():
                    self._granted(instruction)
                case ev.AcknowledgeReport():
                    self._expected_answers.remove((instruction.lease, instruction.stale))
                case ev.RecallLease():
                    self._recalled(instruction)
                case ev.DismissWorker():
                    self._dismissed(instruction.worker)
                case ev.CutOff():
                    self._expected_cuts.remove(instruction.worker)
                case ev.StartProcess():
                    self._started(instruction)
                case ev.RunChecks():
                    self._check_asked(instruction)
                case ev.TellFailure():
                    key = (instruction.task, instruction.failure.index)
                    self._expected_failures.remove((key, instruction.final))
        assert not self._expected_failures, "nobody was told of a failure"
        assert not self._expected_checks, "a finished block is not verified"
        assert not self._expected_answers, "a report was not answered"
        assert not self._expected_cuts, "a worker may hear that all is well, though what it held was taken back"
        assert not self._expected_dismissals, "a worker was not dismissed"
        self.scheduler.validate()
        self._compare()
        self._nobody_waits_in_vain()

    def _recalled(self, recall: ev.RecallLease) -> None:
        """Blocks are taken back from a worker only while another one of its task waits."""
        holder = self.workers[recall.worker]
        assert recall.lease in {lease.number for lease in holder.live}, "a recall of a lease that nobody holds"
        assert self.given_up(holder.task) or any(
            worker.asking and worker.task == holder.task and worker.number != holder.number
            for worker in self.workers.values()
        ), "a recall while nobody waits"

    def _granted(self, grant: ev.GrantLease) -> None:
        worker = self.workers[grant.worker]
        assert worker.connected
        assert worker.asking, "a grant that nobody asked for"
        assert not self.stopped
        assert not self.given_up(worker.task), "a grant in a task whose first blocks all failed"
        assert grant.task == worker.task
        indices = grant.indices.tolist()
        assert indices == sorted(set(indices))
        assert 0 < len(indices) <= self.largest_lease
        assert grant.attempt > self._last_attempt, "attempts do not increase"
        self._last_attempt = grant.attempt + len(indices) - 1
        blocks = [self.blocks[grant.task, index] for index in indices]
        for block in blocks:
            self._may_run(block)
            assert not block.again or len(blocks) == 1, "a block that runs again is not alone"
            if block.again:
                assert self.now >= block.due[0], "a block runs again too early"
                assert self.now >= block.due[0] + PATIENCE or not self._better_asks(worker, block)
        lease = GhostLease(number=grant.lease, blocks=blocks)
        for block in blocks:
            block.holder = lease
            block.again = False
        worker.leases.append(lease)
        worker.asking = False
        worker.heard = self.now

    def _may_run(self, block: GhostBlock) -> None:
        assert block.ended is None
        assert block.holder is None, "granted twice at the same time"
        assert block.ran_on is None
        assert not block.checking
        assert block.cleared or self._task(block).task.pre_check is None, "not checked before it runs"
        self._is_ready(block)
        for key in block.conflicts:
            other = self.blocks[key]
            assert other.holder is None, "two conflicting blocks at once"
            assert other.ran_on is None, "granted while a neighbour is being verified"

    def _is_ready(self, block: GhostBlock) -> None:
        for key in block.upstream:
            assert self.blocks[key].ended in (BlockState.DONE, BlockState.SKIPPED), "something upstream is not done"

    def _better_asks(self, worker: GhostWorker, block: GhostBlock) -> bool:
        """Whether a worker waits on which less went wrong with a block."""

        def against(one: GhostWorker) -> tuple[bool, bool]:
            return one.number in block.avoids, one.host in block.avoids_hosts

        return any(
            other.task == worker.task
            and other.asking
            and against(other) < against(worker)
            and not self._may_be_held_back(other)
            for other in self.workers.values()
        )

    def _is_able(self, worker: GhostWorker) -> bool:
        return worker.connected and not worker.dismissed

    def _may_be_held_back(self, worker: GhostWorker) -> bool:
        """Whether nothing but failures was heard from the host of a worker, and there are workers elsewhere."""

        def bad(one: GhostWorker) -> bool:
            return len(self._rows.get((one.task, one.host), ())) >= FAILURES_ON_HOST

        return bad(worker) and any(
            other.task == worker.task and other.host != worker.host and self._is_able(other)
            for other in self.workers.values()
        )

    def _nobody_waits_in_vain(self) -> None:
        """A worker that asks, and could have a block, has got one."""
        if self.stopped:
            return
        for task in self.plan.tasks:
            asks = [w for w in self.workers.values() if w.task == task.number and w.asking]
            if not asks or self.given_up(task.number):
                continue
            states = self._states()
            ready = [
                block
                for key, block in self.blocks.items()
                if key[0] == task.number
                and states[key] == BlockState.READY
                and (task.task.pre_check is None or block.cleared)
            ]
            for worker in asks:
                free = not self._may_be_held_back(worker)
                assert not (free and any(self.now >= block.due[1] + PATIENCE for block in ready if block.again)), (
                    "waits"
                )
                assert not (free and any(not block.again for block in ready)), "waits though a block is ready"
                for block in ready:
                    fresh = worker.number not in block.avoids and worker.host not in block.avoids_hosts
                    assert not (free and fresh and self.now >= block.due[1]), "nothing speaks against it"

    def given_up(self, task: int) -> bool:
        """Whether all first blocks of a task failed for the same reason."""
        if not self.plan.tasks[task].task.stop_if_all_fail:
            return False
        blocks = [block for key, block in self.blocks.items() if key[0] == task]
        hopeless = [block for block in blocks if block.ended is BlockState.FAILED or len(block.failed_on) >= 3]
        if any(block.ended in (BlockState.DONE, BlockState.SKIPPED) or block.ran_on is not None for block in blocks):
            return False
        return len(hopeless) >= ENOUGH_BLOCKS and len(set().union(*(block.causes for block in blocks))) == 1

    def _dismissed(self, number: int) -> None:
        worker = self.workers[number]
        assert worker.connected
        if number in self._expected_dismissals:
            self._expected_dismissals.remove(number)
        elif self._is_surplus(worker):
            assert worker.asking or worker.live
            worker.dismissed = True
        else:
            assert worker.asking
            assert self.stopped or self._over(worker.task), "a worker was dismissed too early"
        worker.asking = False

    def _is_surplus(self, worker: GhostWorker) -> bool:
        """Whether a worker's task has more processes than are wanted."""
        colleagues = [w for w in self.workers.values() if w.task == worker.task and w.connected and not w.dismissed]
        processes = {w.process for w in colleagues if w.process is not None}
        return worker.process in processes and len(processes) > self.wanted[worker.task] and not self.stopped

    def _over(self, task: int) -> bool:
        """Nothing can happen in a task, unless a new worker comes by itself."""
        blocks = [block for key, block in self.blocks.items() if key[0] == task]
        states = {state for key, state in self._states().items() if key[0] == task}
        if states.issubset(_ENDED):
            return True
        if BlockState.RUNNING in states or any(block.checking for block in blocks):
            return False
        if self.given_up(task):
            return True
        pool = self.scheduler.task(task).pool
        if pool.exhausted and not any(worker.task == task for worker in self.workers.values()):
            return True
        above = [self._over(number) for number, _ in self.plan.tasks[task].upstream]
        return BlockState.READY not in states and all(above)

    def _started(self, start: ev.StartProcess) -> None:
        assert not self.stopped
        assert start.process not in self._processes_seen
        assert 0 <= start.delay <= 30
        self._processes_seen.add(start.process)
        self.processes[start.process] = start.task
        alive = sum(task == start.task and each not in self.silent for each, task in self.processes.items())
        assert alive <= self.wanted[start.task]

    def _check_asked(self, check: ev.RunChecks) -> None:
        keys = [(check.task, index) for index in check.indices.tolist()]
        assert keys
        assert len(set(keys)) == len(keys)
        if check.phase is ev.CheckPhase.AFTER:
            assert keys == self._expected_checks
            self._expected_checks = []
        else:
            assert not self.stopped
            assert not any(other.task == check.task and other.phase is ev.CheckPhase.BEFORE for other in self.checks), (
                "two batches of pre-checks at once"
            )
            for key in keys:
                block = self.blocks[key]
                assert block.ended is None
                assert block.holder is None
                assert not block.checking
                assert not block.cleared, "checked twice"
                self._is_ready(block)
                block.checking = True
        self.checks.append(check)

    def _compare(self) -> None:
        """Every block is where the facts say, and the numbers that people see are a recount."""
        states = self._states()
        for task in self.plan.tasks:
            book = self.scheduler.task(task.number)
            expected = [states[task.number, index] for index in range(task.grid.size)]
            for index, found in enumerate(book.blocks.states.tolist()):
                block = self.blocks[task.number, index]
                undrawn = found == BlockState.PENDING and not block.upstream  # a root, which is ready all the same
                assert expected[index] == (BlockState.READY if undrawn else found), (block.key, found, expected[index])
                mishaps = book.histories.get(index, FailureHistory())
                over = block.ended is not None
                assert mishaps.failures == (0 if over else len(block.failed_on)), "failures of the user's code"
                assert mishaps.losses == (0 if over else block.killed), "lost workers"
            numbers = self.scheduler.task_states[task.task_id]
            assert numbers.total_block_count == len(expected)
            assert numbers.pending_count == expected.count(BlockState.PENDING)
            assert numbers.ready_count == expected.count(BlockState.READY)
            assert numbers.processing_count == expected.count(BlockState.RUNNING)
            assert numbers.skipped_count == expected.count(BlockState.SKIPPED)
            assert numbers.completed_count == expected.count(BlockState.DONE) + numbers.skipped_count
            assert numbers.failed_count == expected.count(BlockState.FAILED)
            assert numbers.orphaned_count == expected.count(BlockState.ORPHANED)
            assert numbers.is_done() == all(state in _ENDED for state in expected)

    def _states(self) -> dict[Key, BlockState]:
        """Where every block stands, from the facts."""
        states: dict[Key, BlockState] = {}
        for key, block in self.blocks.items():  # upstream first
            above = {states[other] for other in block.upstream}
            if block.ended is not None:
                states[key] = block.ended
            elif block.holder is not None or block.ran_on is not None:
                states[key] = BlockState.RUNNING
            elif BlockState.FAILED in above or BlockState.ORPHANED in above:
                states[key] = BlockState.ORPHANED
            elif above <= {BlockState.DONE, BlockState.SKIPPED}:
                states[key] = BlockState.READY
            else:
                states[key] = BlockState.PENDING
        return states


_ENDED = (BlockState.DONE, BlockState.FAILED, BlockState.ORPHANED, BlockState.SKIPPED)


def ghosts(plan: Plan) -> dict[Key, GhostBlock]:
    """All blocks, upstream first.

    Across tasks, and for conflicts, boxes are compared one by one; within a task the levels of the plan decide.
    """
    found = {}
    for task in plan.tasks:
        for index in range(task.grid.size):
            above = task.levels.upstream(task.positions(single(index))).flat(task.grid.shape)
            upstream = {(task.number, other) for other in above.tolist()}
            for number, _ in task.upstream:
                grid = plan.tasks[number].grid
                upstream |= {
                    (number, other)
                    for other in range(grid.size)
                    if _meet(grid.write_box(other), task.grid.read_box(index))
                }
            conflicts = {
                (task.number, other)
                for other in range(task.grid.size)
                if task.task.read_write_conflict and other != index and _conflict(task, index, other)
            }
            key = (task.number, index)
            found[key] = GhostBlock(key=key, upstream=frozenset(upstream), conflicts=frozenset(conflicts))
    order = TopologicalSorter({key: block.upstream for key, block in found.items()}).static_order()
    return {key: found[key] for key in order}


def _conflict(task: TaskPlan, one: int, other: int) -> bool:
    grid = task.grid
    return _meet(grid.write_box(one), grid.read_box(other)) or _meet(grid.read_box(one), grid.write_box(other))


def _meet(one: Box, other: Box) -> bool:
    return all(max(a[0], b[0]) < min(a[1], b[1]) for a, b in zip(one, other, strict=True))


def fingerprint(thing: object) -> object:
    """Everything that a scheduler knows, as nested lists that can be compared."""
    if isinstance(thing, np.ndarray):
        return thing.tolist()
    if isinstance(thing, dict):
        return [(fingerprint(key), fingerprint(value)) for key, value in thing.items()]
    if isinstance(thing, list | tuple | deque):
        return [fingerprint(part) for part in thing]
    if isinstance(thing, set | frozenset):
        return sorted(thing)
    if isinstance(thing, count):
        return repr(thing)
    if thing is None or isinstance(thing, int | float | str):
        return thing
    if isinstance(thing, mmap.mmap):
        return thing[:].hex()
    names = getattr(thing, "__slots__", None) or vars(thing)
    return [(name, fingerprint(getattr(thing, name))) for name in names if name not in ("plan", "_scheduler")]
