"""Dispatch: leases for waiting workers, and what is needed so that more can be granted.

For every task to which something happened: leases for the workers that wait, oldest first; dismissals where nothing is
left for them, or where they are too many; the next pre-checks, ahead of demand but not far; processes where blocks
could run; blocks that one worker holds and has not started, stolen for another that waits.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

from blockflow.plan.plan import single
from blockflow.scheduler import events as ev
from blockflow.scheduler.block_states import BlockState, BlockTrigger
from blockflow.scheduler.leases import LARGEST_LEASE
from blockflow.scheduler.retry_policy import PATIENCE
from blockflow.scheduler.state import dismiss
from blockflow.scheduler.storage_pauses import DRIVER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blockflow.plan.slices import Indices
    from blockflow.scheduler.retry_policy import FailureHistory
    from blockflow.scheduler.state import SchedulerState, TaskRecord

STEAL_SECONDS = 0.05
"""How long a worker waits before blocks are stolen for it: a lease is made to last as long, so that this happens only
where blocks take longer than those before them."""

LARGEST_BULK = 2**20
"""Blocks that a mask or a bulk check is asked for at once: some ten megabytes of indices."""


def dispatch(state: SchedulerState, now: float, reporter: int | None = None) -> list[ev.Instruction]:
    """Grant, check, start, steal and dismiss, in all tasks to which something happened.

    Args:
        state: Of the scheduler.
        now: The time.
        reporter: A worker that has just reported, and is about to ask for more.
    """
    done: list[ev.Instruction] = []
    numbers = sorted(_tasks_to_visit(state))
    state.dirty.clear()
    if not state.stopping:
        for number in numbers:
            task = state.tasks[number]
            if task.given_up:
                done += steal_all(state, number)
            elif state.awaited_until is None:
                task.ready_queue.release_delayed(now)
                done += _checks(task, now)
                done += _leases(state, task, now, reporter)
            done += _scale_down(state, task)
            _plan_steal(state, task)
            _plan_wake(state, task, now)
            done += _starts(state, task)
    done += _dismissals(state, numbers)
    state.dirty.clear()
    return done


def next_dispatch(state: SchedulerState) -> float | None:
    """Return when something can be granted or stolen without an event; None if never."""
    return min((*state.steal_times.values(), *state.wake_times.values()), default=None)


def wake(state: SchedulerState, now: float) -> None:
    """Mark tasks in which something can be granted by now without an event."""
    for number in [number for number, when in state.wake_times.items() if when <= now]:
        del state.wake_times[number]
        state.dirty.add(number)


def steal(state: SchedulerState, now: float) -> list[ev.Instruction]:
    """Ask workers for blocks they have not started, where others have waited long enough."""
    done: list[ev.Instruction] = []
    for number in [number for number, due in state.steal_times.items() if due <= now]:
        state.steal_times[number] = now + STEAL_SECONDS
        lease = state.leases.longest(number)
        if lease is not None:
            lease.stealing = True
            done.append(ev.RecallLease(worker=lease.worker, lease=lease.number))
    return done


# ------------------------------------------------------------------------------------------------------- leases


def _leases(state: SchedulerState, task: TaskRecord, now: float, reporter: int | None) -> list[ev.Instruction]:
    done: list[ev.Instruction] = []
    for worker in tuple(task.waiting_workers):
        if not task.grantable_count:
            break
        if not _has_resources(state, task, worker):
            continue
        until = _held_until(state, task, worker)
        tries = until is not None
        host = state.workers[worker].host
        if until is not None and now < until:
            continue
        indices = _next_blocks(state, task, worker, now, reporter, tries=tries)
        if not len(indices):
            continue
        if tries:
            task.storage.tries(host, now)
            task.hosts.tries(host, now)
        del task.waiting_workers[worker]
        task.started = True
        task.blocks.move(indices, BlockTrigger.GRANTED, now)
        lease = state.leases.grant(worker, task.plan.number, indices, now)
        done.append(
            ev.GrantLease(
                worker=worker,
                task=lease.task,
                lease=lease.number,
                attempt=lease.attempt,
                indices=indices,
                timeout=task.timeout_of(int(indices[0])),
            )
        )
    return done


def _next_blocks(
    state: SchedulerState, task: TaskRecord, worker: int, now: float, reporter: int | None, *, tries: bool
) -> Indices:
    for index, retry in task.ready_queue.retries.items():
        overdue = now >= retry.due + PATIENCE and not tries  # a block is not tried where the host may be the cause
        if overdue or not _better_comes(state, task, retry.history, worker, reporter):
            del task.ready_queue.retries[index]
            return single(index)
    takers = len(task.active_workers)
    size = min(1 if tries else state.largest_lease, task.durations.batch(waiting=task.ready_count, takers=takers))
    return task.cleared.take(size) if task.plan.task.is_checked else _draw(task, size, now)


def _better_comes(
    state: SchedulerState, task: TaskRecord, history: FailureHistory, worker: int, reporter: int | None
) -> bool:
    """Return whether a worker for which less speaks waits for blocks, or will be back for more."""
    against = history.against(worker, state.workers[worker].host)
    return against > 0 and any(
        history.against(other, state.workers[other].host) < against
        and (other in task.waiting_workers or other == reporter or state.leases.of_worker(other))
        and not _is_held_back(state, task, other)
        for other in task.active_workers
    )


def _draw(task: TaskRecord, at_most: int, now: float) -> Indices:
    """Take ready blocks from the queue; undrawn roots become ready only here."""
    indices = task.ready_queue.take(at_most)
    roots = indices[task.blocks.states[indices] == BlockState.PENDING]
    if len(roots):
        task.blocks.move(roots, BlockTrigger.INPUTS_DONE, now)
    return indices


def _is_held_back(state: SchedulerState, task: TaskRecord, worker: int) -> bool:
    """Return whether a worker gets only single blocks from time to time."""
    return _held_until(state, task, worker) is not None


def _held_until(state: SchedulerState, task: TaskRecord, worker: int) -> float | None:
    """Return when a single block may be tried on the host of a worker; None if it may have as many as it asks for.

    Its storage fails there, or the host is in quarantine and there are workers elsewhere.
    """
    hosts, host = task.hosts, state.workers[worker].host
    until = task.storage.until(host) if len(task.storage) else None
    if not hosts.quarantined or not hosts.is_quarantined(host):
        return until
    if all(hosts.is_quarantined(state.workers[other].host) for other in task.active_workers):
        return until
    return max(hosts.until(host), until or 0.0)


def _checks(task: TaskRecord, now: float) -> list[ev.Instruction]:
    if not task.plan.task.is_checked or len(task.being_checked):
        return []
    until = task.storage.until(DRIVER) if len(task.storage) else None
    if until is not None and now < until:
        return []
    # Two leases ahead for every worker: checking goes on while they work, and stops when no worker asks.
    takers = task.plan.task.num_workers
    ahead = 2 * takers * task.durations.batch(waiting=len(task.cleared) + 1, takers=1)
    if len(task.cleared) >= ahead:
        return []
    largest = LARGEST_LEASE if task.plan.task.pre_check is not None else LARGEST_BULK
    if until is not None:
        largest = 1  # storage failed: a single check finds out whether it is back
    size = task.check_durations.batch(waiting=2 * len(task.ready_queue), takers=1, largest=largest)
    indices = _draw(task, size, now)
    if not len(indices):
        return []
    task.storage.tries(DRIVER, now)
    task.being_checked = indices
    return [ev.RunChecks(task=task.plan.number, phase=ev.CheckPhase.BEFORE, indices=indices)]


# ---------------------------------------------------------------------------------------------------- resources


def _tasks_to_visit(state: SchedulerState) -> set[int]:
    """Return the dirty tasks; tasks that require resources are visited always, as others may have freed some."""
    if not state.resources:
        return state.dirty
    return state.dirty.union(number for number, task in enumerate(state.tasks) if task.plan.task.requires)


def _has_resources(state: SchedulerState, task: TaskRecord, worker: int) -> bool:
    """Return whether there is enough for a worker to begin; one that holds blocks has what it needs."""
    requires = task.plan.task.requires
    if not requires or state.leases.of_worker(worker):
        return True
    left = dict(state.resources)
    for number, other in enumerate(state.tasks):
        busy = state.leases.workers_busy_with(number) if other.plan.task.requires else 0
        for name, amount in other.plan.task.requires.items():
            left[name] -= amount * busy
    return all(left[name] >= amount for name, amount in requires.items())


def _starts(state: SchedulerState, task: TaskRecord) -> list[ev.Instruction]:
    done: list[ev.Instruction] = []
    useful = 0 if task.given_up else task.runnable_count
    for name, amount in task.plan.task.requires.items():
        useful = min(useful, state.resources[name] // amount)
    for _ in range(task.pool.wanted(useful)):
        process = state.next_process
        state.next_process += 1
        delay = task.pool.started(process)
        task.started = True
        done.append(ev.StartProcess(task=task.plan.number, process=process, delay=delay))
    return done


# -------------------------------------------------------------------------------------------- stealing and waking


def steal_all(state: SchedulerState, number: int, host: str | None = None) -> list[ev.Instruction]:
    """Ask the workers of a task, on one host or on all, for all blocks they have not started."""
    done: list[ev.Instruction] = []
    for lease in state.leases:
        worker = state.workers[lease.worker]
        if host not in (None, worker.host):
            continue
        if lease.task == number and not lease.stealing and worker.is_connected:
            lease.stealing = True
            done.append(ev.RecallLease(worker=lease.worker, lease=lease.number))
    return done


def _plan_steal(state: SchedulerState, task: TaskRecord) -> None:
    """Note that a worker without blocks waits though none is ready; one that asks ahead does not count."""
    in_vain = not task.grantable_count and task.blocks.count(BlockState.RUNNING)
    waiting = _free(state, task) if in_vain else ()
    since = next((task.waiting_workers[worker] for worker in waiting if not state.leases.of_worker(worker)), None)
    if since is None:
        state.steal_times.pop(task.plan.number, None)
    else:
        state.steal_times.setdefault(task.plan.number, since + STEAL_SECONDS)


def _free(state: SchedulerState, task: TaskRecord) -> Iterator[int]:
    """Return waiting workers that may be given blocks."""
    return (worker for worker in task.waiting_workers if not _is_held_back(state, task, worker))


def _plan_wake(state: SchedulerState, task: TaskRecord, now: float) -> None:
    """Note when a waiting worker can be given blocks without an event.

    Retried blocks are delayed, or left to a better worker; hosts are in quarantine for some time.
    """
    times: list[float] = []
    if task.waiting_workers and not task.given_up:
        if task.ready_queue.next_due is not None:
            times.append(task.ready_queue.next_due)
        if task.ready_queue.retries:
            times.append(next(iter(task.ready_queue.retries.values())).due + PATIENCE)
        if task.hosts.quarantined or len(task.storage):
            held = {_held_until(state, task, worker) for worker in task.waiting_workers}
            times += [until for until in held if until is not None]
    first = min((time for time in times if time > now), default=None)
    if first is None:
        state.wake_times.pop(task.plan.number, None)
    else:
        state.wake_times[task.plan.number] = first


# ---------------------------------------------------------------------------------------------------- dismissals


def _scale_down(state: SchedulerState, task: TaskRecord) -> list[ev.Instruction]:
    """Dismiss workers that are too many, or have the code of an earlier driver."""
    outdated = [worker for worker in sorted(task.outdated_workers) if worker in state.workers]
    task.outdated_workers.clear()
    leaving = _surplus(state, task) + outdated
    dismiss(state, (worker for worker in leaving if state.workers[worker].is_connected))
    return [ev.DismissWorker(worker=worker) for worker in leaving]


def _surplus(state: SchedulerState, task: TaskRecord) -> list[int]:
    """Return the workers to dismiss though their task goes on.

    1. Processes beyond the number that the task wants, after a user has asked for fewer.
    2. In jobs of a cluster, those that wait for blocks though others hold all that are left.

    Those that wait go first, then the newest. Workers that neither wait nor hold blocks are dismissed when they ask.
    """
    in_vain = task.in_jobs and bool(task.waiting_workers)
    most = min(task.pool.size, task.unended_count) if in_vain else task.pool.size
    if len(task.pool.joined_processes) <= most:
        return []
    workers_of: dict[int, list[int]] = {}
    for worker in task.active_workers:
        process = state.workers[worker].process
        if process is not None:
            workers_of.setdefault(process, []).append(worker)
    waiting = {process for process, its in workers_of.items() if all(worker in task.waiting_workers for worker in its)}
    idle = min(len(workers_of) - task.unended_count, len(waiting)) if in_vain else 0
    count = max(len(workers_of) - task.pool.size, idle, 0)
    leaving = sorted(workers_of, key=lambda process: (process in waiting, process), reverse=True)[:count]
    busy = {lease.worker for lease in state.leases}
    its = [worker for process in leaving for worker in workers_of[process]]
    return [worker for worker in its if worker in task.waiting_workers or worker in busy]


def _dismissals(state: SchedulerState, numbers: list[int]) -> list[ev.Instruction]:
    """Dismiss workers that wait in vain, because their task is over.

    Args:
        state: Of the scheduler.
        numbers: Tasks to look at, sorted; consumed.
    """
    done: list[ev.Instruction] = []
    while numbers:
        number = heappop(numbers)
        task = state.tasks[number]
        over = _is_over(state, task)
        if over != state.over[number]:
            state.over[number] = over
            for below, _ in task.plan.downstream:
                heappush(numbers, below)
        if over or state.stopping:
            done += [ev.DismissWorker(worker=worker) for worker in task.waiting_workers]
            task.waiting_workers.clear()
    state.finished = all(state.over)
    return done


def _is_over(state: SchedulerState, task: TaskRecord) -> bool:
    if task.ended:
        return True
    if task.blocks.count(BlockState.RUNNING) or (len(task.being_checked) and not state.stopping):
        return False
    if state.stopping or task.given_up or (task.pool.exhausted and not task.active_workers):
        return True
    return not task.ready_count and all(state.over[number] for number, _ in task.plan.upstream)
