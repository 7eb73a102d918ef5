"""What does a task say about where its workers come from?

A launcher is a value: it says what to ask for, and does nothing. The kinds of launchers are in
:mod:`blockflow.launch.launchers`; a task needs to know only how many workers one may start.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from blockflow.errors import PlanError


class Launcher:
    """Base of all launchers."""

    workers: int | None
    """Greatest number of workers; None for the task's `num_workers`."""
    local = False
    """Whether they are processes of the driver's machine that need no address of it."""


def launchers_of(value: Any, whose: str) -> tuple[Launcher, ...]:
    """One launcher or several, as a tuple; empty for None.

    >>> launchers_of(None, "task 't'")
    ()

    Args:
        value: A launcher, several, or None.
        whose: Where they were given, for messages.

    Raises:
        PlanError: Something that is no launcher, none at all, or several of which one does not say how many workers.
    """
    if value is None:
        return ()
    launchers = (value,) if isinstance(value, Launcher) or not isinstance(value, Iterable) else tuple(value)
    for each in launchers:
        if not isinstance(each, Launcher):
            raise PlanError(f"{whose}: launcher must be Local, Slurm, LSF, Command or Dask, or a list, got {each!r}")
    if not launchers:
        raise PlanError(f"{whose}: the list of launchers is empty")
    if len(launchers) > 1 and any(each.workers is None for each in launchers):
        raise PlanError(f"{whose}: of several launchers each must say how many workers it starts: workers=")
    return launchers


def workers_of(launchers: tuple[Launcher, ...], num_workers: int) -> int:
    """How many workers launchers may start together.

    Args:
        launchers: Those of a task.
        num_workers: What the task says itself; counts where its only launcher says nothing.
    """
    return sum(num_workers if each.workers is None else each.workers for each in launchers) or num_workers


def is_local(launchers: tuple[Launcher, ...]) -> bool:
    """Whether all workers of a task are processes of the driver's machine, as they are if it has no launcher."""
    return all(each.local for each in launchers)


def has_local(launchers: tuple[Launcher, ...]) -> bool:
    """Whether any worker of a task is a process of the driver's machine."""
    return not launchers or any(each.local for each in launchers)
