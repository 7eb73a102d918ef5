"""How many workers of a task may have blocks now, given what they and others need?"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blockflow.state.leases import Leases
    from blockflow.state.task_book import TaskBook


class Resources:
    """Amounts of what workers hold while they have blocks; shares the books of the scheduler.

    Args:
        amounts: By name: how much there is.
        books: Of all tasks.
        leases: Of all workers.
    """

    def __init__(self, amounts: Mapping[str, int], books: Sequence[TaskBook], leases: Leases) -> None:
        self._amounts = amounts
        self._books = books
        self._leases = leases
        self.tasks = {book.plan.number for book in books if book.plan.task.requires}
        """Tasks that need any: what happens to one may concern each of them."""

    def allow(self, task: int, worker: int) -> bool:
        """Whether a worker may be given blocks of a task now; one that has some holds already what it needs."""
        if task not in self.tasks or self._leases.of_worker(worker):
            return True
        left = dict(self._amounts)
        for number in self.tasks:
            busy = self._leases.workers_busy_with(number)
            for name, amount in self._books[number].plan.task.requires.items():
                left[name] -= amount * busy
        return all(left[name] >= amount for name, amount in self._books[task].plan.task.requires.items())

    def most_workers(self, task: int) -> int | None:
        """How many workers of a task can be busy at once at most; None if nothing limits them."""
        requires = self._books[task].plan.task.requires
        return min((self._amounts[name] // amount for name, amount in requires.items()), default=None)
