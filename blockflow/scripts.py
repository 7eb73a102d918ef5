"""Scripts: which tasks does a script define, without running them?

The script is executed, as that is what makes its tasks, but not as ``__main__``; and where it would run tasks it is
stopped, and these are the ones that count. Else its tasks are the :class:`~blockflow.Task` objects at its top level.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from blockflow.errors import PlanError
from blockflow.paths import local_path
from blockflow.plan import plan
from blockflow.plan.task import Task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blockflow.plan.plan import Plan

_NAME = "__blockflow_plan__"
"""What ``__name__`` is in a script."""


def tasks_in(target: str) -> list[Task]:
    """The tasks of a script or module.

    Args:
        target: ``script.py`` or ``package.module``; with ``:name`` behind it what has that name: a task, a list of
            tasks, or a function that takes no argument and returns them.

    Raises:
        PlanError: There are none.
        Exception: Whatever the script raises.

    >>> tasks_in("nowhere.py")
    Traceback (most recent call last):
    ...
    blockflow.errors.PlanError: there is no script nowhere.py
    """
    if "://" in target or "\\" in target:
        local_path(target, "the script", PlanError)
    place, _, name = target.partition(":")
    names: dict[str, Any] = {}
    try:
        with _held():
            names = _names_in(place)
            if name and name not in names:
                raise PlanError(f"{place} has no {name!r}; it has {_listed(names)}")
            found = names.get(name)
            if callable(found) and not isinstance(found, Task):
                found = found()
    except _Stopped as stopped:
        return stopped.tasks
    if name:
        return _tasks(found, f"{name} of {place}")
    tasks = [value for value in names.values() if isinstance(value, Task)]
    if not tasks:
        raise PlanError(
            f"{place} has no task at its top level; name a list of tasks or a function that returns them, as in "
            f"{place}:make_tasks; it has {_listed(names)}"
        )
    return tasks


class _Stopped(BaseException):
    """A script was about to run tasks. Not an Exception, so that scripts do not catch it."""

    def __init__(self, tasks: list[Task]) -> None:
        super().__init__()
        self.tasks = tasks


@contextmanager
def _held() -> Iterator[None]:
    """Whatever would run tasks meanwhile stops instead: every run begins with :func:`check_runnable`."""

    def stop(checked: Plan) -> NoReturn:
        raise _Stopped([planned.task for planned in checked.tasks])

    original = plan.check_runnable
    loaded = [module for name, module in sys.modules.items() if name.startswith("blockflow.")]
    doors: list[Any] = [module for module in loaded if vars(module).get("check_runnable") is original]
    try:
        for door in doors:
            door.check_runnable = stop
        yield
    finally:
        for name, module in list(sys.modules.items()):
            if name.startswith("blockflow.") and vars(module).get("check_runnable") is stop:
                vars(module)["check_runnable"] = original


def _names_in(place: str) -> dict[str, Any]:
    """The names at the top level of a script or module."""
    if place.endswith(".py"):
        return _executed(Path(place))
    path = sys.path[:]
    sys.path.insert(0, str(Path.cwd()))
    try:
        return vars(import_module(place))
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise
        raise PlanError(f"there is no module {place}; the name of a script ends with .py") from None
    finally:
        sys.path[:] = path


def _executed(script: Path) -> dict[str, Any]:
    """The names of a script after it has been executed."""
    if not script.is_file():
        raise PlanError(f"there is no script {script}")
    module = ModuleType(_NAME)
    module.__file__ = str(script)
    path, arguments = sys.path[:], sys.argv
    sys.modules[_NAME] = module  # what dataclasses and pickle look up
    sys.path.insert(0, str(script.resolve().parent))
    sys.argv = [str(script)]
    try:
        exec(compile(script.read_bytes(), str(script), "exec"), vars(module))
    finally:
        sys.path[:], sys.argv = path, arguments
        del sys.modules[_NAME]
    return vars(module)


def _tasks(found: Any, what: str) -> list[Task]:
    tasks = [found] if isinstance(found, Task) else list(found) if isinstance(found, list | tuple) else []
    if not tasks or not all(isinstance(task, Task) for task in tasks):
        raise PlanError(f"{what} must be a task, or a list of tasks, or a function that returns them, got {found!r}")
    return tasks


def _listed(names: dict[str, Any]) -> str:
    own = [name for name, value in names.items() if not name.startswith("_") and not isinstance(value, ModuleType)]
    return ", ".join(own) or "nothing"
