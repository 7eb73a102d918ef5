"""What does a worker process need to be told, and can it be sent?

Functions travel by cloudpickle through the standard input of the process, so that scripts without a ``__main__``
guard, lambdas, closures and functions of a notebook work. They are packed before anything starts: what cannot be sent
is refused at once, by name.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import pickle
import sys
from typing import TYPE_CHECKING, Any

import cloudpickle

from blockflow.errors import NotShippableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

    from blockflow.net.context import Context
    from blockflow.plan.task import Task


def pack_functions(task: Task) -> bytes:
    """A task's process function, setup and teardown as bytes.

    Raises:
        NotShippableError: It refers to something that exists in this process only.
    """
    function = task.process_function
    assert function is not None
    functions = (function, task.setup, task.teardown)
    modules = {module for each in functions if (module := _unimportable_module(each)) is not None}
    try:
        for module in modules:
            cloudpickle.register_pickle_by_value(module)
        return bytes(cloudpickle.dumps(functions))
    except Exception as error:
        culprits = [name for each in functions for name, value in _parts(each) if not _can_be_packed(value)]
        named = f" because of {', '.join(culprits)}" if culprits else ""
        raise NotShippableError(
            f"the process_function of task {task.task_id!r} cannot be sent to a worker process{named} ({error}). "
            "Open files, locks, connections, GPU handles and generators live in one process only: make them inside "
            "the function, or pass a path or a name from which it can make them"
        ) from error
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def payload_for(task: Task, functions: bytes, context: Context, log: Path | None) -> bytes:
    """Everything that a worker process is told.

    Args:
        task: What it works for.
        functions: The task's functions, packed.
        context: What it has to know about the run.
        log: Its output goes to this path with ``.out`` and ``.err`` added; None for the terminal.
    """
    return pickle.dumps(
        {
            "task": task.task_id,
            "log": None if log is None else str(log.resolve()),
            "takes_block": task.takes_block,
            "functions": functions,
            "directory": os.getcwd(),
            "path": [entry or os.getcwd() for entry in sys.path],
            "environment": {context.ENV_VARIABLE: context.to_env()},
            "python_path": os.environ.get("PYTHONPATH"),
        }
    )


def _unimportable_module(function: Any) -> ModuleType | None:
    """The module of a function if a new process could not import it, as pytest's often are."""
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__module__", None)
    if name is None or name == "__main__" or name not in sys.modules:
        return None
    module = sys.modules[name]
    top = name.partition(".")[0]
    try:
        found = importlib.util.find_spec(name if top in sys.modules else top)
    except (ImportError, ValueError, AttributeError):
        found = None
    if found is not None and found.origin == getattr(module, "__file__", None):
        return None
    return module if getattr(module, "__file__", None) else None


def _parts(function: Any) -> Iterator[tuple[str, Any]]:
    """Everything that is sent along with a function, by name."""
    if isinstance(function, functools.partial):
        for place, value in enumerate(function.args):
            yield f"argument {place} of the partial ({type(value).__name__})", value
        for name, value in function.keywords.items():
            yield f"argument {name!r} of the partial ({type(value).__name__})", value
        yield from _parts(function.func)
        return
    owner = getattr(function, "__self__", None)
    if owner is not None:
        yield f"the object whose method it is ({type(owner).__name__})", owner
    code = getattr(function, "__code__", None)
    if code is None:
        return
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        yield f"variable {name!r} ({type(cell.cell_contents).__name__})", cell.cell_contents
    for name in code.co_names:
        if name in function.__globals__:
            value = function.__globals__[name]
            yield f"global {name!r} ({type(value).__name__})", value


def _can_be_packed(value: Any) -> bool:
    try:
        cloudpickle.dumps(value)
    except Exception:
        return False
    return True
