"""Flags: arguments that are True or False, and nothing that merely counts as one of them."""

from __future__ import annotations

from typing import Any

from blockflow.errors import PlanError

__all__ = ["check_flags", "checked_flag"]


def checked_flag(name: str, value: Any) -> bool:
    """Return a flag that is True or False, of Python or numpy.

    Raises:
        PlanError: It is anything else: the text ``"no"`` and an array would count as true.

    >>> checked_flag("reset", False)
    False
    """
    if isinstance(value, bool) or type(value).__name__ == "bool":  # numpy's, which need not be imported here
        return bool(value)
    raise PlanError(f"{name} must be True or False, got {value!r}")


def check_flags(**flags: Any) -> None:
    """Refuse arguments that must be flags and are none.

    Args:
        flags: Values by the names of the arguments.

    Raises:
        PlanError: One is not True or False.

    >>> check_flags(reset=False, progress=True)
    """
    for name, value in flags.items():
        checked_flag(name, value)
