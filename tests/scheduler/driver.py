"""How does a run go when nothing unexpected happens: in which order, how fast, by whom?

A :class:`Simulation` runs a plan to its end with a virtual clock. Workers come from outside, or from the processes
that the scheduler asks for; each runs the blocks of its leases in order, reports them at the end of the lease, and asks
for the next. Messages and checks take no time, blocks as long as the test says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, TypeVar

from msgspec import structs

from blockflow.plan.plan import Plan, compile_plan
from blockflow.scheduler import events as ev
from blockflow.scheduler.checks import call_checks
from blockflow.scheduler.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from blockflow.plan.task import Task

_Kind = TypeVar("_Kind", bound=ev.Instruction)


def _works(_: int) -> str:
    return "works"


def _one_second(_: str, __: int) -> float:
    return 1.0


def _never(_: str, __: int, ___: int) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt at one block."""

    task: str
    index: int
    worker: int
    begin: float
    end: float
    size: int
    """Blocks in its lease."""
    ok: bool


@dataclass(slots=True)
class _Worker:
    task: int
    process: int | None
    busy: bool = False
    dismissed: bool = False
    """It leaves when what it works on is done."""


@dataclass(slots=True, kw_only=True)
class Simulation:
    """Runs tasks to their end and remembers what ran when and where."""

    tasks: Sequence[Task]
    by_hand: int = 0
    """Workers of every task that no launcher started; with any, processes are asked for in vain."""
    process: Callable[[int], str] = _works
    """What the process with a number does: "works", "works once", "declines" or "crashes"."""
    seconds: Callable[[str, int], float] = _one_second
    """How long a block of a task takes."""
    fails: Callable[[str, int, int], bool] = _never
    """Whether a block of a task fails on a worker."""
    check_seconds: float = 0.0
    """How long a check takes."""
    largest_lease: int = 1
    plan: Plan = field(init=False)
    scheduler: Scheduler = field(init=False)
    now: float = 0.0
    runs: list[Run] = field(default_factory=list)
    instructions: list[tuple[float, ev.Instruction]] = field(default_factory=list)
    _agenda: list[tuple[float, int, ev.Event]] = field(default_factory=list)
    _numbers: count[int] = field(default_factory=count)
    _workers_ever: count[int] = field(default_factory=count)
    _workers: dict[int, _Worker] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.plan = compile_plan(self.tasks)
        self.scheduler = Scheduler(self.plan, largest_lease=self.largest_lease)

    def run(self) -> Simulation:
        """Run until nothing is left to happen; the scheduler must then have finished."""
        self.start()
        while self.step():
            pass
        assert self.scheduler.finished
        return self

    def start(self) -> None:
        """The workers from outside come."""
        self.happens(ev.Ticked())
        for task in self.plan.tasks:
            for _ in range(self.by_hand):
                self.join(task.number)

    def step(self) -> bool:
        """The next event, or the time at which the scheduler wants to look, whichever is first."""
        look = None if self.scheduler.finished else self.scheduler.next_deadline()
        if look is not None and (not self._agenda or look < self._agenda[0][0]):
            self.now = max(self.now, look)
            for worker in self._workers if self._agenda else ():
                self.happens(ev.HeartbeatReceived(worker=worker))
            self.happens(ev.Ticked())
            return True
        if self._agenda:
            self.now, _, event = heappop(self._agenda)
            self.happens(event)
            return True
        return False

    def join(self, task: int, process: int | None = None, delay: float = 0.0) -> None:
        """A worker comes."""
        self.later(delay, ev.WorkerJoined(worker=next(self._workers_ever), task=task, process=process))

    def happens(self, event: ev.Event) -> None:
        """Something happens now; do what the scheduler wants done about it."""
        todo = self.scheduler.handle(event, self.now)
        for instruction in todo:
            self.instructions.append((self.now, instruction))
            match instruction:
                case ev.GrantLease():
                    self._work(instruction)
                case ev.RunChecks():
                    checked = call_checks(self.plan.tasks[instruction.task], instruction)
                    seconds = self.check_seconds * len(instruction.indices)
                    self.later(seconds, structs.replace(checked, seconds=seconds))
                case ev.DismissWorker():
                    self._dismiss(instruction.worker)
                case ev.StartProcess() if not self.by_hand:
                    self._start(instruction)
                case _:
                    pass
        if isinstance(event, ev.WorkerJoined):
            self._workers[event.worker] = _Worker(event.task, event.process)
            self.happens(ev.BlocksAsked(worker=event.worker))
        if isinstance(event, ev.BlocksReported) and event.worker in self._workers:
            self._done(event.worker)

    def _done(self, worker: int) -> None:
        self._workers[worker].busy = False
        if self._workers[worker].dismissed:
            self._dismiss(worker)
            return
        process = self._workers[worker].process
        if process is not None and self.process(process) == "works once":
            self._dismiss(worker)
        else:
            self.happens(ev.BlocksAsked(worker=worker))

    def _start(self, start: ev.StartProcess) -> None:
        does = self.process(start.process)
        if does in ("declines", "crashes"):
            ended = ev.ProcessEnded(process=start.process, task=start.task, clean=does == "declines", how="oddly")
            self.later(start.delay, ended)
        else:
            self.join(start.task, start.process, start.delay)

    def later(self, seconds: float, event: ev.Event) -> None:
        """Something will happen."""
        heappush(self._agenda, (self.now + seconds, next(self._numbers), event))

    def ids(self, task: str = "t") -> list[int]:
        """Numbers of the blocks of a task in the order in which they were granted."""
        grid = self.plan.tasks[self.plan.number_of(task)].grid
        return [grid.number(run.index) for run in self.runs if run.task == task]

    def order(self, task: str = "t") -> list[int]:
        """Indices of the blocks of a task in the order in which they were granted."""
        return [run.index for run in self.runs if run.task == task]

    def lease_sizes(self) -> list[int]:
        """Blocks in each lease, in the order of the grants."""
        return [len(grant.indices) for grant in self.of(ev.GrantLease)]

    def of(self, kind: type[_Kind]) -> list[_Kind]:
        """The instructions of one kind."""
        return [instruction for _, instruction in self.instructions if isinstance(instruction, kind)]

    def _work(self, grant: ev.GrantLease) -> None:
        task = self.plan.tasks[grant.task].task_id
        self._workers[grant.worker].busy = True
        begin = self.now
        failures = []
        for index in grant.indices.tolist():
            end = begin + self.seconds(task, index)
            fails = self.fails(task, index, grant.worker)
            if fails:
                failures.append(ev.BlockFailure(index=index, error="ValueError: no"))
            self.runs.append(Run(task, index, grant.worker, begin, end, len(grant.indices), not fails))
            begin = end
        report = ev.BlocksReported(
            worker=grant.worker,
            lease=grant.lease,
            upto=len(grant.indices),
            seconds=begin - self.now,
            failures=tuple(failures),
        )
        self.later(begin - self.now, report)

    def _dismiss(self, worker: int) -> None:
        self._workers[worker].dismissed = True
        if self._workers[worker].busy:
            return
        known = self._workers.pop(worker)
        self.later(0.0, ev.WorkerLeft(worker=worker, crashed=False))
        if known.process is not None:
            self.later(0.0, ev.ProcessEnded(process=known.process, task=known.task, clean=True))
