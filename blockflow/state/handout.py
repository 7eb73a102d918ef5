"""Handing out: who gets which blocks now, and what is needed so that more can be handed out?

For every task that something happened to: leases for the workers that wait, oldest first; a dismissal where nothing
is left for them, or where they are too many; the next pre-checks, ahead of demand but not far; processes where blocks
could run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from blockflow.plan.plan import single
from blockflow.state import events as ev
from blockflow.state.leases import LARGEST_LEASE
from blockflow.state.retries import PATIENCE
from blockflow.state.storage_pauses import DRIVER
from blockflow.state.surplus import surplus_workers
from blockflow.state.transitions import BlockState, Cause

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from blockflow.plan.slices import Indices
    from blockflow.state.absence import Absence
    from blockflow.state.events import BlockFailure
    from blockflow.state.leases import Leases
    from blockflow.state.resources import Resources
    from blockflow.state.retries import Mishaps
    from blockflow.state.task_book import TaskBook


RECALL_SECONDS = 0.05
"""How long a worker waits before blocks that another one holds and has not started are taken back for it: a lease is
made to last as long, so that this happens only where blocks take longer than those before them."""


LARGEST_BULK = 2**20
"""Blocks that a mask or a bulk check is asked for at once: some ten megabytes of indices."""


@dataclass(slots=True, kw_only=True)
class WorkerBook:
    """What the scheduler knows about one connected client."""

    task: int
    process: int | None
    """The slot that it runs in, if it was started by a launcher."""
    host: str = ""
    """Where it runs; empty if unknown."""
    connected: bool = True
    ending: bool = False
    """It has said that it ends in the middle of its blocks."""
    failure: BlockFailure | None = None
    """Which of them is to blame for that; None if nobody is."""
    failed_in_a_row: set[int] = field(default_factory=set)
    """Blocks that failed on it since the last one that did not."""
    unclaimed: set[int] | None = None
    """While it is back, but may have more to claim: the leases that it should have, and has not claimed."""
    outdated: bool = False
    """It has other code than this driver would send: it keeps what it holds, and gets nothing new."""
    fenced: bool = True
    """Nothing that it may still be at work on was given to others; false if one of its claims was refused."""


class Handout:
    """Decides what to hand out; shares the books of the scheduler."""

    def __init__(
        self,
        books: list[TaskBook],
        leases: Leases,
        workers: dict[int, WorkerBook],
        largest_lease: int,
        absence: Absence,
        resources: Resources,
    ) -> None:
        self._books = books
        self._leases = leases
        self._workers = workers
        self._largest_lease = largest_lease
        self._absence = absence
        self._resources = resources
        self.next_process = 0
        """Number of the next process to be started."""
        self._over = [False] * len(books)
        """For each task, whether nothing can happen in it any more."""
        self._recalls: dict[int, float] = {}
        """By task in which a worker waits though no block is ready: when to take blocks from others for it."""
        self._looks: dict[int, float] = {}
        """By task in which something can be handed out later, though nothing happens: when."""
        self.stopping = False
        """Nothing is handed out any more."""
        self.finished = False
        """Nothing can happen any more."""

    def follow_up(self, tasks: Iterable[int], now: float, reporter: int | None = None) -> list[ev.Instruction]:
        """Everything that can be handed out.

        Args:
            tasks: Those to which something happened.
            now: The time.
            reporter: A worker that has just reported, and is about to ask for more.
        """
        done: list[ev.Instruction] = []
        numbers = sorted(self._resources.tasks.union(tasks))
        if not self.stopping:
            for number in numbers:
                book = self._books[number]
                if book.given_up:
                    done += self.recall_all(number)
                elif not self._absence.waiting:
                    book.frontier.fall_due(now)
                    done += self._checks(book, now)
                    done += self._leases_for(book, now, reporter)
                done += self._let_go(book)
                self._note_waiting(book)
                self._note_look(book, now)
                done += self._starts(book)
        return done + self._dismissals(numbers)

    @property
    def next_recall(self) -> float | None:
        """When blocks may be recalled for a worker that waits; None if nobody waits in vain."""
        return min(self._recalls.values()) if self._recalls else None

    def recalls(self, now: float) -> list[ev.Instruction]:
        """Ask workers for blocks they have not started, where others have waited long enough."""
        done: list[ev.Instruction] = []
        for number in [number for number, due in self._recalls.items() if due <= now]:
            self._recalls[number] = now + RECALL_SECONDS
            lease = self._leases.longest(number)
            if lease is not None:
                lease.recalled = True
                done.append(ev.RecallLease(worker=lease.worker, lease=lease.number))
        return done

    def recall_all(self, task: int, host: str | None = None) -> list[ev.Instruction]:
        """Ask the workers of a task, on one host or on all, for all blocks they have not started."""
        done: list[ev.Instruction] = []
        for lease in self._leases:
            worker = self._workers[lease.worker]
            if host not in (None, worker.host):
                continue
            if lease.task == task and not lease.recalled and worker.connected:
                lease.recalled = True
                done.append(ev.RecallLease(worker=lease.worker, lease=lease.number))
        return done

    @property
    def next_look(self) -> float | None:
        """When something can be handed out though nothing happens; None if never."""
        return min(self._looks.values()) if self._looks else None

    def to_look_at(self, now: float) -> list[int]:
        """The tasks in which something can be handed out by now; each is told once."""
        due = [number for number, when in self._looks.items() if when <= now]
        for number in due:
            del self._looks[number]
        return due

    def _note_waiting(self, book: TaskBook) -> None:
        """Note that a worker that has nothing to do waits though no block is ready; one that asks early does not."""
        vain = not book.to_run and book.blocks.count(BlockState.RUNNING)
        waiting = self._free(book) if vain else ()
        since = next((book.asking[worker] for worker in waiting if not self._leases.of_worker(worker)), None)
        if since is None:
            self._recalls.pop(book.plan.number, None)
        else:
            self._recalls.setdefault(book.plan.number, since + RECALL_SECONDS)

    def _note_look(self, book: TaskBook, now: float) -> None:
        """Note when a worker that asks can be given blocks though nothing happens.

        Blocks wait before they run again, or are left to a better worker; hosts are in quarantine for some time.
        """
        times: list[float] = []
        if book.asking and not book.given_up:
            if book.frontier.next_due is not None:
                times.append(book.frontier.next_due)
            if book.frontier.again:
                times.append(next(iter(book.frontier.again.values())).due + PATIENCE)
            if book.hosts.quarantined or len(book.storage):
                held = {self._held_until(book, worker) for worker in book.asking}
                times += [until for until in held if until is not None]
        first = min((time for time in times if time > now), default=None)
        if first is None:
            self._looks.pop(book.plan.number, None)
        else:
            self._looks[book.plan.number] = first

    def _dismissals(self, numbers: list[int]) -> list[ev.Instruction]:
        """Workers that wait in vain, because their task is over; takes a sorted list of tasks, and consumes it."""
        done: list[ev.Instruction] = []
        while numbers:
            number = heappop(numbers)
            book = self._books[number]
            over = self._is_over(book)
            if over != self._over[number]:
                self._over[number] = over
                for below, _ in book.plan.downstream:
                    heappush(numbers, below)
            if over or self.stopping:
                done += [ev.DismissWorker(worker=worker) for worker in book.asking]
                book.asking.clear()
        self.finished = all(self._over)
        return done

    def _is_over(self, book: TaskBook) -> bool:
        if book.ended:
            return True
        if book.blocks.count(BlockState.RUNNING) or (len(book.being_checked) and not self.stopping):
            return False
        if self.stopping or book.given_up or (book.pool.exhausted and not book.workers):
            return True
        return not book.ready and all(self._over[number] for number, _ in book.plan.upstream)

    def _leases_for(self, book: TaskBook, now: float, reporter: int | None) -> list[ev.Instruction]:
        done: list[ev.Instruction] = []
        for worker in tuple(book.asking):
            if not book.to_run:
                break
            if not self._resources.allow(book.plan.number, worker):
                continue
            until = self._held_until(book, worker)
            tries = until is not None
            host = self._workers[worker].host
            if until is not None and now < until:
                continue
            indices = self._next_blocks(book, worker, now, reporter, tries=tries)
            if not len(indices):
                continue
            if tries:
                book.storage.tries(host, now)
                book.hosts.tries(host, now)
            del book.asking[worker]
            book.started = True
            book.blocks.move(indices, Cause.GRANTED, now)
            lease = self._leases.grant(worker, book.plan.number, indices, now)
            done.append(
                ev.GrantLease(
                    worker=worker,
                    task=lease.task,
                    lease=lease.number,
                    attempt=lease.attempt,
                    indices=indices,
                    timeout=book.seconds_for(int(indices[0])),
                )
            )
        return done

    def _let_go(self, book: TaskBook) -> list[ev.Instruction]:
        """Dismiss workers that are too many, or have the code of an earlier driver."""
        outdated = [worker for worker in sorted(book.outdated) if worker in self._workers]
        book.outdated.clear()
        leaving = surplus_workers(book, self._workers, self._leases) + outdated
        for worker in leaving:
            book.workers.discard(worker)
            book.asking.pop(worker, None)
        return [ev.DismissWorker(worker=worker) for worker in leaving]

    def _is_held_back(self, book: TaskBook, worker: int) -> bool:
        """Whether a worker gets single blocks from time to time, and no others."""
        return self._held_until(book, worker) is not None

    def _held_until(self, book: TaskBook, worker: int) -> float | None:
        """When a single block may be tried on the host of a worker; None if it may have as many as it likes.

        Its storage fails there, or the host is in quarantine, and there are workers elsewhere.
        """
        hosts, host = book.hosts, self._workers[worker].host
        until = book.storage.until(host) if len(book.storage) else None
        if not hosts.quarantined or not hosts.is_quarantined(host):
            return until
        if all(hosts.is_quarantined(self._workers[other].host) for other in book.workers):
            return until
        return max(hosts.until(host), until or 0.0)

    def _free(self, book: TaskBook) -> Iterator[int]:
        """Workers that ask, and may be given blocks."""
        return (worker for worker in book.asking if not self._is_held_back(book, worker))

    def _next_blocks(self, book: TaskBook, worker: int, now: float, reporter: int | None, *, tries: bool) -> Indices:
        for index, retry in book.frontier.again.items():
            overdue = now >= retry.due + PATIENCE and not tries  # a block is not tried where it may be the host's fault
            if overdue or not self._better_comes(book, retry.mishaps, worker, reporter):
                del book.frontier.again[index]
                return single(index)
        size = min(1 if tries else self._largest_lease, book.pace.batch(waiting=book.ready, takers=len(book.workers)))
        return book.cleared.take(size) if book.plan.task.is_checked else self._draw(book, size, now)

    def _better_comes(self, book: TaskBook, mishaps: Mishaps, worker: int, reporter: int | None) -> bool:
        """Whether a worker for which less speaks waits for blocks, or has some and will be back for more."""
        against = mishaps.against(worker, self._workers[worker].host)
        return against > 0 and any(
            mishaps.against(other, self._workers[other].host) < against
            and (other in book.asking or other == reporter or self._leases.of_worker(other))
            and not self._is_held_back(book, other)
            for other in book.workers
        )

    def _draw(self, book: TaskBook, at_most: int, now: float) -> Indices:
        """Ready blocks; roots that nobody has drawn before become ready only here."""
        indices = book.frontier.take(at_most)
        roots = indices[book.blocks.states[indices] == BlockState.PENDING]
        if len(roots):
            book.blocks.move(roots, Cause.INPUTS_DONE, now)
        return indices

    def _checks(self, book: TaskBook, now: float) -> list[ev.Instruction]:
        task = book.plan.task
        if not task.is_checked or len(book.being_checked):
            return []
        until = book.storage.until(DRIVER) if len(book.storage) else None
        if until is not None and now < until:
            return []
        # Two leases ahead for every worker: checking goes on while they work, and stops when nobody asks.
        ahead = 2 * task.num_workers * book.pace.batch(waiting=len(book.cleared) + 1, takers=1)
        if len(book.cleared) >= ahead:
            return []
        largest = LARGEST_LEASE if task.pre_check is not None else LARGEST_BULK
        size = book.check_pace.batch(waiting=2 * len(book.frontier), takers=1, largest=largest if until is None else 1)
        indices = self._draw(book, size, now)
        if not len(indices):
            return []
        book.storage.tries(DRIVER, now)
        book.being_checked = indices
        return [ev.RunChecks(task=book.plan.number, phase=ev.Phase.BEFORE, indices=indices)]

    def _starts(self, book: TaskBook) -> list[ev.Instruction]:
        done: list[ev.Instruction] = []
        useful = 0 if book.given_up else book.known_to_run
        most = self._resources.most_workers(book.plan.number)
        for _ in range(book.pool.wanted(useful if most is None else min(useful, most))):
            process = self.next_process
            self.next_process += 1
            delay = book.pool.started(process)
            book.started = True
            done.append(ev.StartProcess(task=book.plan.number, process=process, delay=delay))
        return done
