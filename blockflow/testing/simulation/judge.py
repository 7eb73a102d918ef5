"""Is every promise kept? The judge sees what really happens, and what the scheduler makes of it.

It keeps facts of its own (:mod:`blockflow.testing.simulation.facts`), and speaks up when

1. two blocks that share data are worked on at the same moment, or a block before everything upstream is done;
2. the scheduler grants what may not run, or counts as done what no live lease has finished, or twice;
3. a block fails for good without as many failures of its own code, or dead workers, as that takes;
4. a block leaves a state in which it has ended.

What the system calls leases, attempts and workers is written down for the story, but decides nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from blockflow.scheduler import events as ev
from blockflow.scheduler.block_states import BlockState
from blockflow.scheduler.events import RecordFailure
from blockflow.testing.simulation.facts import Execution, Grant, relations_of
from blockflow.testing.simulation.story import Story

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blockflow.plan.plan import Plan
    from blockflow.scheduler.events import Record
    from blockflow.scheduler.scheduler import Scheduler
    from blockflow.scheduler.state import TaskRecord
    from blockflow.testing.simulation.agenda import Agenda
    from blockflow.testing.simulation.plans import Key
    from blockflow.testing.simulation.worker import Worker

MOST_LOSSES = 5
"""Workers that a block may lose before it is given up. Not the product's own number, which a bug may change."""

FIRST_BLOCKS = 10
"""Blocks of a task that may fail for good before the task is given up, if none is done; a number of ours, too."""

_SATISFIED = (BlockState.DONE, BlockState.SKIPPED)
_ENDED = (BlockState.DONE, BlockState.SKIPPED, BlockState.FAILED, BlockState.ORPHANED)
_RUNNING = int(BlockState.RUNNING)


class BrokenPromise(Exception):
    """Something happened that must never happen.

    Args:
        promise: Which promise, in a word or two.
        what: What happened.
        keys: The blocks concerned.
    """

    def __init__(self, promise: str, what: str, keys: Iterable[Key] = ()) -> None:
        super().__init__(f"{promise}: {what}")
        self.promise = promise
        self.what = what
        self.keys = tuple(keys)


class Judge(Story):
    """Watches one run.

    Args:
        plan: What is run.
        agenda: Virtual time.
    """

    def __init__(self, plan: Plan, agenda: Agenda) -> None:
        super().__init__(agenda)
        self._plan = plan
        self._relations = relations_of(plan)
        self._grants = 0
        self.stopping = False
        """People have stopped the run: nothing more may be granted."""
        self.current: dict[Key, Grant] = {}
        """By block that is granted and not taken back, reported or lost."""
        self.ended: dict[Key, BlockState] = {}
        """Blocks that have ended, and how."""
        self._known = [bytes(task.grid.size) for task in plan.tasks]
        """The scheduler's states when they were looked at last."""
        self.active: dict[Execution, None] = {}
        """What is being worked on at this moment; a process that stands still does nothing."""
        self.failures: Counter[Key] = Counter()
        """By block: how often its own code failed, or one of its checks."""
        self.losses: Counter[Key] = Counter()
        """By block: how often it was lost with a worker."""
        self.last_attempt = 0
        self.executions = 0
        self._dismissed: set[int] = set()
        """Workers that were told that there is nothing more for them."""
        self._announced: set[int] = set()
        """Workers that have said that they end in the middle of a block: that is not the block's fault."""
        self._relied_on: set[Key] = set()
        """Blocks that are done, and something has followed from that."""
        self.speaker: Worker | None = None
        """The process whose message the driver takes in."""
        self._refused: dict[Key, Execution] = {}
        """By block: what a post-check has refused, while that is not recorded."""
        self._passed: set[Key] = set()
        """Blocks that a check has found done before they ran."""

    # ------------------------------------------------------------------------------------- what workers really do

    def begins(self, execution: Execution) -> None:
        """A worker begins to work on a block."""
        key = execution.key
        if key[1] in execution.grant.executions:
            raise BrokenPromise("twice", f"block {key} is run twice under {execution.grant}", (key,))
        self.executions += 1
        execution.grant.executions[key[1]] = execution
        self.note("process", execution.process, "begins under", execution.grant.number, keys=(key,))
        for above in self._relations.upstream[key]:
            if self.ended.get(above) not in _SATISFIED:
                raise BrokenPromise(
                    "order", f"block {key} is run before {above}, which it reads, is done", (key, above)
                )
            if self.ended[above] == BlockState.DONE:
                self._relied_on.add(above)
        self.goes_on(execution)

    def goes_on(self, execution: Execution) -> None:
        """A worker begins to work on a block, or wakes up in the middle of it."""
        apart = self._relations.apart[execution.key]
        for other in self.active:
            if other.key in apart:
                raise BrokenPromise(
                    "overlap",
                    f"process {execution.process} works on block {execution.key} under {execution.grant} while process "
                    f"{other.process} works on {other.key} under {other.grant}",
                    (execution.key, other.key),
                )
        self.active[execution] = None

    def stands_still(self, execution: Execution) -> None:
        """A process is stopped in the middle of a block."""
        self.active.pop(execution, None)

    def kept_for_too_long(self, execution: Execution, seconds: float) -> None:
        """A process stands still in the middle of a block, and its driver has been at work all the time."""
        if self.current.get(execution.key) is execution.grant and not self.stopping:
            raise BrokenPromise(
                "promptness",
                f"block {execution.key} is kept for process {execution.process}, which has stood still for "
                f"{seconds:.1f} s",
                (execution.key,),
            )

    def ends(self, execution: Execution, outcome: str) -> None:
        """The work on a block is over."""
        self.active.pop(execution, None)
        execution.outcome = outcome
        self.note("process", execution.process, outcome, keys=(execution.key,))
        self.failures[execution.key] += outcome == "failed"

    def all_first_failed(self, book: TaskRecord) -> bool:
        """Whether a task may be given up: its first blocks have failed, and none is done."""
        ended = [state for (task, _), state in self.ended.items() if task == book.plan.number]
        return BlockState.DONE not in ended and ended.count(BlockState.FAILED) >= FIRST_BLOCKS

    # ----------------------------------------------------------------------------------- what the scheduler thinks

    def saw(self, scheduler: Scheduler, event: ev.Event, instructions: list[ev.Instruction]) -> list[Grant]:
        """The scheduler has handled an event; returns the ghosts of the leases that it granted."""
        if isinstance(event, ev.BlocksChecked):
            self._checked(event)
        elif isinstance(event, ev.WorkerJoined):
            self._dismissed.discard(event.worker)
        elif isinstance(event, ev.WorkerEnding):
            self._announced.add(event.worker)
        orphans: list[Key] = []
        for number, known in enumerate(self._known):
            states = scheduler.task(number).blocks.states.tobytes()
            if states != known:
                orphans += self._changed(number, states, event)
                self._known[number] = states
        self._check_orphans(orphans)
        grants = [self._granted(wanted, event) for wanted in instructions if isinstance(wanted, ev.GrantLease)]
        self._dismissed.update(wanted.worker for wanted in instructions if isinstance(wanted, ev.DismissWorker))
        if instructions:
            self.note(type(event).__name__, "->", *(type(instruction).__name__ for instruction in instructions))
        return grants

    def overheard(self, instructions: list[ev.Instruction]) -> list[Grant]:
        """A driver that does not own the run directory any more grants something: only what workers do counts."""
        return [self._ghost(wanted) for wanted in instructions if isinstance(wanted, ev.GrantLease)]

    def _ghost(self, instruction: ev.GrantLease) -> Grant:
        self._grants += 1
        return Grant(
            self._grants, instruction.task, instruction.indices.tolist(), instruction.worker, instruction.lease
        )

    def restarted(self, scheduler: Scheduler) -> None:
        """A driver begins: what was promised before must still be true."""
        self.current.clear()
        self._dismissed.clear()
        for execution in self._refused.values():
            execution.outcome = "done"  # the refusal died with the driver that heard it; the next one has to ask again
        self._refused.clear()
        for number in range(len(self._known)):
            states = self._known[number] = scheduler.task(number).blocks.states.tobytes()
            for index, state in enumerate(states):
                key = (number, index)
                if key in self._relied_on and state != BlockState.DONE:
                    raise BrokenPromise("durability", f"block {key} was done and is {BlockState(state).name}", (key,))
                before = self.ended.pop(key, None)
                if state == BlockState.DONE and before != BlockState.DONE:
                    raise BrokenPromise("truth", f"block {key} is restored as done, but never was", (key,))
                if state in _ENDED:
                    self.ended[key] = BlockState(state)
        self.note("driver begins")

    def acknowledged(self, grant: Grant, indices: list[int]) -> None:
        """A worker was told that its report of some blocks has arrived: what was done is done for ever."""
        if self._plan.tasks[grant.task].task.post_check is not None:
            return
        for index in indices:
            if grant.executions[index].outcome == "done":
                key = (grant.task, index)
                if self.ended.get(key) != BlockState.DONE:
                    raise BrokenPromise(
                        "durability", f"block {key} was acknowledged, and does not count as done", (key,)
                    )
                self._relied_on.add(key)

    def _checked(self, event: ev.BlocksChecked) -> None:
        for failure in event.failures:
            self.failures[event.task, failure.index] += 1
        if event.phase is ev.CheckPhase.BEFORE:
            self._passed.update((event.task, index) for index in event.passed.tolist())
            return
        for index in event.refused.tolist():
            self.failures[event.task, index] += 1
            self._verified((event.task, index), "refused")
        for index in event.passed.tolist():
            self._verified((event.task, index), "verified")

    def _verified(self, key: Key, outcome: str) -> None:
        """A post-check has looked at what an execution did."""
        grant = self.current.get(key)
        if grant is not None and grant.executions[key[1]].outcome == "done":
            grant.executions[key[1]].outcome = outcome
            if outcome == "refused":
                self._refused[key] = grant.executions[key[1]]

    def recorded(self, records: Iterable[Record]) -> None:
        """Records are durable: no driver may forget them."""
        for record in records:
            if isinstance(record, RecordFailure):
                self._refused.pop((record.task, record.failure.index), None)

    def _granted(self, instruction: ev.GrantLease, event: ev.Event) -> Grant:
        grant = self._ghost(instruction)
        indices = grant.indices
        keys = tuple((grant.task, index) for index in indices)
        self.note("granted as", grant.number, "attempt", instruction.attempt, keys=keys)
        if self.stopping:
            raise BrokenPromise("stop", f"{grant} is granted after the run was stopped", keys)
        if grant.worker in self._dismissed:
            raise BrokenPromise("dismissal", f"{grant} is granted to a worker that was sent home", keys)
        if instruction.attempt <= self.last_attempt:
            raise BrokenPromise("attempts", f"attempt {instruction.attempt} follows {self.last_attempt}", keys)
        self.last_attempt = instruction.attempt + len(indices) - 1
        for key in keys:
            self._check_turn(key)
            if key in self.current:  # lost and granted again in one event
                self._taken_back(key, event)
            self.current[key] = grant
        return grant

    def _changed(self, task: int, states: bytes, event: ev.Event) -> list[Key]:
        """The states of some blocks of a task have changed; returns those that are orphaned now."""
        orphans = []
        for index, (before, after) in enumerate(zip(self._known[task], states, strict=True)):
            if before == after:
                continue
            key = (task, index)
            if before in _ENDED:
                raise BrokenPromise("terminal", f"{key} was {BlockState(before).name}", (key,))
            if before == _RUNNING and after != BlockState.DONE:
                self._taken_back(key, event)
            match after:
                case BlockState.DONE:
                    self._done(key)
                case BlockState.FAILED:
                    self._failed(key)
                case BlockState.SKIPPED if key not in self._passed:
                    raise BrokenPromise("truth", f"block {key} is skipped, but no check has found it done", (key,))
                case BlockState.ORPHANED:
                    orphans.append(key)
                case BlockState.RUNNING if isinstance(event, ev.LeaseClaimed):
                    self._claimed(key)
            if after in _ENDED:
                self.ended[key] = BlockState(after)
                self.note("is", BlockState(after).name, keys=(key,))
            if after != _RUNNING:
                self.current.pop(key, None)
        return orphans

    def _claimed(self, key: Key) -> None:
        """A block that an earlier life granted is taken over."""
        ghost = None if self.speaker is None else self.speaker.link.ghosts.get(key)
        if ghost is None:
            raise BrokenPromise("claim", f"a worker may keep block {key}, which it never was granted", (key,))
        self.note("claimed under", ghost.number, keys=(key,))
        self._check_turn(key)
        self.current[key] = ghost

    def _check_turn(self, key: Key) -> None:
        """A block may be worked on now."""
        if key in self.ended:
            raise BrokenPromise("terminal", f"block {key} is {self.ended[key].name} and granted again", (key,))
        for above in self._relations.upstream[key]:
            if self.ended.get(above) not in _SATISFIED:
                raise BrokenPromise("order", f"block {key} is granted before {above} is done", (key, above))
        for other in self._relations.conflicts[key]:
            if self._known[other[0]][other[1]] == _RUNNING:
                raise BrokenPromise("conflict", f"{key} is granted while {other} runs", (key, other))

    def _taken_back(self, key: Key, event: ev.Event) -> None:
        suspicious = isinstance(event, ev.Ticked) or (isinstance(event, ev.WorkerLeft) and event.crashed)
        self.losses[key] += suspicious and self.current[key].worker not in self._announced
        self.note("taken back after", type(event).__name__, keys=(key,))

    def _done(self, key: Key) -> None:
        grant = self.current.get(key)
        execution = None if grant is None else grant.executions.get(key[1])
        good = "done" if self._plan.tasks[key[0]].task.post_check is None else "verified"
        if execution is None or execution.outcome != good:
            ran = "it never ran" if execution is None else f"it was {execution.outcome}"
            raise BrokenPromise("truth", f"block {key} counts as done under {grant}, but there {ran}", (key,))

    def _failed(self, key: Key) -> None:
        least = self._plan.tasks[key[0]].task.max_retries + 1
        if self.failures[key] < least and self.losses[key] < MOST_LOSSES:
            raise BrokenPromise(
                "budget",
                f"block {key} has failed for good after {self.failures[key]} failures of {least}, and "
                f"{self.losses[key]} lost workers of {MOST_LOSSES}",
                (key,),
            )

    def _check_orphans(self, orphans: list[Key]) -> None:
        for key in orphans:
            states = {self._known[above[0]][above[1]] for above in self._relations.before[key]}
            if states.isdisjoint((BlockState.FAILED, BlockState.ORPHANED)):
                raise BrokenPromise("orphans", f"block {key} is orphaned, but nothing before it has failed", (key,))
