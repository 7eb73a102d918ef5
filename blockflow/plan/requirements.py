"""What does a worker of a task need while it has blocks, and is there enough of it?"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any

from blockflow.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blockflow.plan.task import Task


class Requirements(Mapping[str, int]):
    """Amounts of resources by name. Called, it gives the upstream tasks, as users of ``task.requires()`` expect.

    Raises:
        PlanError: A name is no string, or an amount is no whole number of at least 1.
    """

    def __init__(self, task_id: str, amounts: Any, upstream: Sequence[Task]) -> None:
        if isinstance(amounts, Requirements):
            amounts = dict(amounts)
        self._amounts = checked_amounts(f"task {task_id!r}: requires", amounts, least=1)
        self._upstream = upstream

    def __call__(self) -> list[Task]:
        """The tasks whose results the task reads."""
        return list(self._upstream)

    def __getitem__(self, name: str) -> int:
        return self._amounts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._amounts)

    def __len__(self) -> int:
        return len(self._amounts)

    def __repr__(self) -> str:
        return repr(self._amounts)


def checked_amounts(what: str, amounts: Any, *, least: int) -> dict[str, int]:
    """Amounts of resources as plain numbers.

    Raises:
        PlanError: They are none.
    """
    if amounts is None:
        return {}
    if not isinstance(amounts, Mapping):
        raise PlanError(f"{what} must say how much of what, as {{'gpu': 1}}, got {amounts!r}")
    for name, amount in amounts.items():
        whole = isinstance(amount, Integral) and not isinstance(amount, bool)
        if not isinstance(name, str) or not whole or amount < least:
            raise PlanError(f"{what} must be whole numbers >= {least} by name, got {name!r}: {amount!r}")
    return {str(name): int(amount) for name, amount in amounts.items()}


def check_resources(tasks: Sequence[Task], resources: Mapping[str, int]) -> None:
    """Refuse tasks whose workers need more than there is.

    Raises:
        PlanError: A task requires a resource that is not there, or more of it than there is.
    """
    for task in tasks:
        for name, amount in task.requires.items():
            if amount > resources.get(name, 0):
                have = ", ".join(f"{key}: {value}" for key, value in resources.items()) or "none"
                raise PlanError(
                    f"a worker of task {task.task_id!r} requires {amount} of {name!r}, and the resources of this run "
                    f"are {have}: pass run_blockwise(..., resources={{{name!r}: ...}})"
                )
