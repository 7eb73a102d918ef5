"""Arguments of a task: may it be called that, where do its blocks come from, and what do its functions take?"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Literal

from blockflow.errors import PlanError, TaskGraphError
from blockflow.geometry import Roi
from blockflow.plan.grid import Grid

if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST_NAME = 200
"""Bytes in a task id: it names a log folder, file systems allow 255, and suffixes need some."""


class RoiOfGrid(Roi):
    """A ROI that a task took from its grid: `dataclasses.replace` hands it on, but nobody gave it."""


def is_from_grid(grid: Any, total: Any, read: Any, write: Any, task_id: str) -> bool:
    """Whether a task is made from its grid, or else from its ROIs.

    Raises:
        PlanError: It is given both, or neither, or something else as a grid.
    """
    rois = {"total_roi": total, "read_roi": read, "write_roi": write}
    given = [name for name, roi in rois.items() if roi is not None and not isinstance(roi, RoiOfGrid)]
    if grid is not None and not isinstance(grid, Grid):
        raise PlanError(f"task {task_id!r}: grid must be a blockflow.Grid, got {type(grid).__name__}: {grid!r}")
    if grid is None or (grid.tiled and given):
        missing = [name for name, roi in rois.items() if roi is None]
        if missing:
            raise PlanError(
                f"task {task_id!r} needs a grid, or total_roi, read_roi and write_roi; "
                f"{' and '.join(missing)} not given"
            )
        return False
    if given:
        raise PlanError(
            f"task {task_id!r}: a grid says what ROIs say, so give one or the others: got grid and {', '.join(given)}"
        )
    return True


def checked_name(name: Any) -> str:
    """The id of a task as a plain string.

    Raises:
        TaskGraphError: It cannot name a folder.
    """
    if not isinstance(name, str):
        raise TaskGraphError(f"a task id must be a string, got {name!r}")
    wrong: Literal[False] | str = (
        (not name and "it is empty")
        or (name != name.strip() and "it begins or ends with a space")
        or (name.startswith(".") and "it begins with a dot")
        or (any(sign in name for sign in "/\\") and "it holds a path separator")
        or (not name.isprintable() and "it holds a control character")
        or (len(name.encode(errors="replace")) > _LONGEST_NAME and f"it is longer than {_LONGEST_NAME} bytes")
    )
    if wrong:
        raise TaskGraphError(f"a task id names a folder for logs, and {name!r} cannot: {wrong}")
    return str.__str__(name)  # numpy's strings do not go over the wire


def check_callable(task_id: str, name: str, function: Any) -> None:
    """Refuse what is not a plain function, or None.

    Raises:
        PlanError: It cannot be called, or calling it would run nothing.
    """
    if function is None:
        return
    if not callable(function):
        raise PlanError(f"task {task_id!r}: {name} must be callable, got {function!r}")
    lazy = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)
    if any(is_lazy(code) for is_lazy in lazy for code in (function, type(function).__call__)):
        raise PlanError(
            f"task {task_id!r}: {name} must be a plain function; calling an async or generator function runs nothing"
        )


def takes_block(task_id: str, function: Callable[..., Any]) -> bool:
    """Whether a process function takes a block; if not it is a worker of its own.

    It does if it requires one argument, takes any number, or has one called ``block``. An argument of another name
    with a default (``lambda path=path: ...``) is how people keep a value.

    Raises:
        PlanError: It requires other arguments.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return True  # builtins without a signature
    parameters = signature.parameters.values()
    needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(needed) > 1 or any(p.kind is p.KEYWORD_ONLY for p in needed):
        bare = inspect.Signature([p.replace(annotation=p.empty) for p in needed])
        raise PlanError(
            f"task {task_id!r}: process_function must take one block, or nothing; it requires {bare}. "
            "Bind the others with functools.partial, the block last"
        )
    return bool(needed) or any(
        p.kind is p.VAR_POSITIONAL or (p.name == "block" and p.kind is p.POSITIONAL_OR_KEYWORD) for p in parameters
    )


def check_takes_state(task_id: str, function: Callable[..., Any]) -> None:
    """Refuse a process function that does not take a block and what setup returned.

    Raises:
        PlanError: It does not.
    """
    try:
        inspect.signature(function).bind("block", "state")
    except TypeError:
        raise PlanError(
            f"task {task_id!r}: with setup, process_function must take a block and what setup returned"
        ) from None
    except ValueError:
        pass  # builtins without a signature
