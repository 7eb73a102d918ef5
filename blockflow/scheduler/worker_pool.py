"""Pool of the worker processes of one task: when to start another, when to give up starting.

1. There are never more processes than the task wants, nor more than there are blocks to run. One that has lost its
   blocks because nothing was heard of it does not count until it is heard again: it may be frozen for good.
2. A process that ends cleanly and never asked for a block is not replaced: it does not want to work. One that asked
   is (a script may end itself after some blocks, to free memory).
3. A process that crashes is replaced. If it never asked for a block, the next one starts later, and after some such
   ends in a row the pool gives up: something is wrong with starting, and only a user can help. A crash in a block is
   counted on the block, not here.
4. A job that its cluster has lost before it began says nothing about starting.
5. Where starting has worked before, it is given up only after very many such ends in a row, some ten minutes of them,
   and only when no other process is at work: a file system that is gone for a minute ends no run of a month.
"""

from __future__ import annotations

FIRST_DELAY = 0.5
"""Seconds before the second start in a row that may fail; doubled each time."""
LONGEST_DELAY = 30.0
LEAST_BAD_STARTS = 3
"""Crashes in a row, before any block was asked for, at which a pool gives up; one per worker if that is more."""
START_PATIENCE = 20
"""So many times more crashes are needed where starting has worked before."""


class WorkerPool:
    """Processes of one task."""

    def __init__(self, size: int) -> None:
        self.size = size
        """Greatest number of processes at once; a user may change it. With 0 the task is paused."""
        self.alive: set[int] = set()
        self.gave_up: str | None = None
        """Reason why no process is started any more; None otherwise."""
        self._reached: set[int] = set()
        self.joined_processes: set[int] = set()
        """Living processes whose worker has joined, and perhaps left."""
        self._adopted: set[int] = set()
        self._silent: set[int] = set()
        """Living processes that were silent for longer than their lease."""
        self._unable: dict[int, tuple[str, str]] = {}
        """By living process: why it cannot begin, as its worker has said, and the traceback."""
        self.detail = ""
        """After the pool has given up: the traceback, or the last lines, of the last process."""
        self._works = False
        """A process has asked for a block before."""
        self._declined = 0
        self._bad_starts = 0

    def resize(self, size: int) -> None:
        """Have another number of processes from now on; those that are too many are not ended here."""
        self.size = size
        self._declined = 0

    def wanted(self, blocks: int) -> int:
        """Return how many processes to start now.

        Args:
            blocks: Blocks that are running or could run.
        """
        if self.gave_up is not None:
            return 0
        return max(0, min(self.size - self._declined, blocks) - len(self.alive) + len(self._silent))

    def started(self, process: int) -> float:
        """Count a process as started; returns the seconds to wait before."""
        self.alive.add(process)
        if not self._bad_starts:
            return 0.0
        doublings = min(self._bad_starts - 1, 10)  # a large pool has more bad starts than a float has exponents
        return float(min(LONGEST_DELAY, FIRST_DELAY * 2**doublings))

    def adopt(self, process: int) -> None:
        """Count a process of an earlier driver, whose end no launcher reports."""
        self.alive.add(process)
        self._reached.add(process)
        self._adopted.add(process)

    def left(self, process: int | None) -> None:
        """Count a worker that has left; if its process was adopted, this is its end."""
        if process in self._adopted:
            self._adopted.discard(process)
            self.ended(process, clean=True, how="")

    def joined(self, process: int | None) -> None:
        """Count a worker of a process that has joined."""
        if process in self.alive:
            self.joined_processes.add(process)
            self._silent.discard(process)

    def silent(self, process: int | None) -> None:
        """Note that a process is silent: its leases have expired."""
        if process in self.alive:
            self._silent.add(process)

    def reached(self, process: int | None) -> None:
        """Note that a process, or a worker from elsewhere (None), asks for a block: starting works."""
        if process is None:
            self._bad_starts = 0
        elif process in self.alive and process not in self._reached:
            self._bad_starts = 0
            self._works = True
            self._reached.add(process)

    def unable(self, process: int | None, why: str, traceback: str) -> None:
        """Note why a worker cannot begin; counted when its process ends."""
        if process is not None and process in self.alive:
            self._unable[process] = why, traceback

    def ended(self, process: int, *, clean: bool, how: str, output: str = "", lost: bool = False) -> str | None:
        """Count the end of a process.

        Args:
            process: Its number.
            clean: It ended by itself and without an error.
            how: How it ended, in words.
            output: The last lines that it printed.
            lost: Its machine was lost.

        Returns:
            The reason in words, if it was a bad start whose worker has not said so itself.
        """
        if process not in self.alive:
            return None
        self.alive.discard(process)
        said = self._unable.pop(process, None)
        self._silent.discard(process)
        joined = process in self.joined_processes
        self.joined_processes.discard(process)
        if process in self._reached:
            self._reached.discard(process)
        elif clean and not joined:
            self._declined += 1
        elif not lost:
            why, detail = (how, output) if said is None else said
            self._bad_starts += 1
            most = START_PATIENCE * self.size if self._works else max(LEAST_BAD_STARTS, self.size)
            if self._bad_starts >= most and not self._reached:
                self.gave_up = (
                    f"{self._bad_starts} worker processes in a row ended before they asked for a block; the last {why}"
                )
                self.detail = detail
            return None if said is not None else how
        return None

    @property
    def exhausted(self) -> bool:
        """Whether no process lives and none will be started."""
        return not self.alive and (self.gave_up is not None or 0 < self.size <= self._declined)
