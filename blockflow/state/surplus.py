"""Surplus: which workers are let go though their task goes on?

1. Processes beyond the number that the task wants, after people have asked for fewer.
2. In jobs, those that wait for blocks though others hold all that are left: they keep machines from other people.

Those that wait go first, and then the newest. One that has blocks finishes or returns them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blockflow.state.handout import WorkerBook
    from blockflow.state.leases import Leases
    from blockflow.state.task_book import TaskBook


def surplus_workers(book: TaskBook, workers: Mapping[int, WorkerBook], leases: Leases) -> list[int]:
    """The workers of a task to be dismissed now; others that are too many will be when they ask.

    Args:
        book: What is known about the task.
        workers: All workers.
        leases: All leases.
    """
    in_vain = book.in_jobs and bool(book.asking)
    most = min(book.pool.size, book.unended) if in_vain else book.pool.size
    if len(book.pool.joined_processes) <= most:
        return []
    clients: dict[int, list[int]] = {}
    for worker in book.workers:
        process = workers[worker].process
        if process is not None:
            clients.setdefault(process, []).append(worker)
    waiting = {process for process, its in clients.items() if all(worker in book.asking for worker in its)}
    idle = min(len(clients) - book.unended, len(waiting)) if in_vain else 0
    surplus = max(len(clients) - book.pool.size, idle, 0)
    leaving = sorted(clients, key=lambda process: (process in waiting, process), reverse=True)[:surplus]
    busy = {lease.worker for lease in leases}
    return [worker for process in leaving for worker in clients[process] if worker in book.asking or worker in busy]
