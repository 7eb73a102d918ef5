"""What does a worker process need to be told, and can it be sent?

Functions travel by cloudpickle through the standard input of the process, so that scripts without a ``__main__``
guard, lambdas, closures and functions of a notebook work. They are packed before anything starts: what cannot be sent
is refused at once, by name.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import threading
import warnings
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

import cloudpickle

from blockflow.errors import NotShippableError
from blockflow.freshness import SWITCH
from blockflow.launch.interpreter import module_path, places_of_modules
from blockflow.launch.pickler import dumps, pack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.machinery import ModuleSpec
    from pathlib import Path

    from blockflow.launch.job import Timing
    from blockflow.net.context import Context
    from blockflow.plan.task import Task

_BY_VALUE = threading.Lock()
"""What cloudpickle sends by value is one list for the whole process; runs in other threads must not see it change."""

_DEEPEST = 3
"""How many names lead to a culprit at most."""


def pack_functions(task: Task) -> bytes:
    """A task's process function, setup and teardown as bytes.

    Raises:
        NotShippableError: It refers to something that exists in this process only.
    """
    function = task.process_function
    assert function is not None
    functions = (function, task.setup, task.teardown)
    with _BY_VALUE:
        known = cloudpickle.list_registry_pickle_by_value()
        modules = {_unimportable_module(each) for each in functions}
        registered = [module for module in modules if module is not None and module.__name__ not in known]
        for module in registered:
            cloudpickle.register_pickle_by_value(module)
        try:
            packed, generators = pack(functions)
        except Exception as error:
            culprits = [name for each in functions for name in _culprits(each)]
            named = f" because of {', '.join(culprits)}" if culprits else ""
            raise NotShippableError(
                f"the process_function of task {task.task_id!r} cannot be sent to a worker process{named} ({error}). "
                "Open files, locks, connections, GPU handles and generators live in one process only: make them "
                "inside the function, or pass a path or a name from which it can make them"
            ) from error
        finally:
            for module in registered:
                cloudpickle.unregister_pickle_by_value(module)
    if generators:
        warnings.warn(
            f"the functions of task {task.task_id!r} bring a random generator along ({', '.join(generators)}): every "
            "worker begins with the same copy of it, and draws the same numbers. Make one in the function: "
            "numpy.random.default_rng([seed, block.index])",
            stacklevel=2,
        )
    return packed


def payload_for(task: Task, context: Context, log: Path | None, *, adds: bool) -> dict[str, Any]:
    """Everything that a worker process of this machine is told, but for its functions.

    Args:
        task: What it works for.
        context: What it has to know about the run.
        log: Its output goes to this path with ``.out`` and ``.err`` added; None for the terminal.
        adds: What is there already stays in front of it.
    """
    return {
        "task": task.task_id,
        "log": None if log is None else str(log.resolve()),
        "adds": adds,
        "counted": _counted_places(task) if adds else [],  # there is a run directory then
        "takes_block": task.takes_block,
        "most_blocks": task.blocks_per_process,
        "directory": os.getcwd(),
        "path": module_path(),
        "environment": {context.ENV_VARIABLE: context.to_env(), **_switches()},
        "reads_others": bool(task.read_write_conflict or task.upstream_tasks),
        "python_path": os.environ.get("PYTHONPATH"),
        "logging": log_levels(),
    }


def _switches() -> dict[str, str]:
    """Choices of this process that its workers elsewhere have to follow."""
    return {name: os.environ[name] for name in (SWITCH,) if name in os.environ}


def log_levels() -> tuple[dict[str, int], str | None]:
    """Return the levels of the loggers of this process, by name, and the format of its root logger's first handler.

    The second is None where it has no handler, and warnings only are printed.
    """
    root = logging.getLogger()
    named = {name: each.level for name, each in root.manager.loggerDict.items() if isinstance(each, logging.Logger)}
    levels = {"": root.level} | {name: level for name, level in named.items() if level != logging.NOTSET}
    if not root.handlers:
        return levels, None
    return levels, getattr(root.handlers[0].formatter, "_fmt", None) or logging.BASIC_FORMAT


def _counted_places(task: Task) -> list[str]:
    """Places of the outputs of a task whose chunks are counted when blocks write to them."""
    if not task.stored_outputs:
        return []
    from blockflow.arrays.writing import places_of

    return places_of(each.array for each in task.stored_outputs)


def payload_for_job(payload: dict[str, Any], functions: bytes, timing: Timing, *, output: str) -> dict[str, Any]:
    """What a worker is told that another machine starts, with an interpreter of its own.

    Args:
        payload: What a process of this machine would be told.
        functions: The task's functions, packed.
        timing: What it has to know about time.
        output: Path, without suffix, of what its job prints before it takes over.
    """
    return {
        **payload,
        "functions": functions,
        "path": places_of_modules(),
        "timing": tuple(timing),
        "job_log": output,
    }


def _unimportable_module(function: Any) -> ModuleType | None:
    """The module of a function if a new process could not import it, as pytest's often are."""
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__module__", None)
    if name is None or name == "__main__" or name not in sys.modules:
        return None
    module = sys.modules[name]
    try:
        found = _spec_of(name)
    except (ImportError, ValueError, AttributeError, KeyError):
        found = None
    # Python has some of its own modules in frozen form, and tells their files nevertheless.
    if found is not None and found.origin in (getattr(module, "__file__", None), "frozen"):
        return None
    return module if getattr(module, "__file__", None) else None


def _spec_of(name: str) -> ModuleSpec | None:
    """Where a new process would find a module; `importlib.util.find_spec` tells where this one has found it."""
    parts = name.split(".")
    found: ModuleSpec | None = None
    for depth in range(1, len(parts) + 1):
        path = None if found is None else found.submodule_search_locations
        inner = ".".join(parts[:depth])
        specs = (finder.find_spec(inner, path) for finder in sys.meta_path)
        found = next((spec for spec in specs if spec is not None), None)
        if found is None:
            return None
    return found


def _culprits(value: Any, deepest: int = _DEEPEST) -> list[str]:
    """The parts of a value that cannot be sent, by name, as deep inside as they can be named."""
    named: list[str] = []
    for name, part in _parts(value) if deepest else ():
        if not _can_be_packed(part):
            named += [f"{inner} of {name}" for inner in _culprits(part, deepest - 1)] or [name]
    return named


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Everything that is sent along with a function or an object, by name."""
    if isinstance(value, functools.partial):
        for place, argument in enumerate(value.args):
            yield f"argument {place} of the partial ({_kind(argument)})", argument
        for name, argument in value.keywords.items():
            yield f"argument {name!r} of the partial ({_kind(argument)})", argument
        yield from _parts(value.func)
        return
    owner = getattr(value, "__self__", None)
    if owner is not None:
        yield f"the object whose method it is ({_kind(owner)})", owner
    code = getattr(value, "__code__", None)
    if isinstance(code, CodeType):
        for name, cell in zip(code.co_freevars, value.__closure__ or (), strict=False):
            try:
                yield f"variable {name!r} ({_kind(cell.cell_contents)})", cell.cell_contents
            except ValueError:
                continue  # it has no value yet
        for name, default in _defaults(value, code):
            yield f"default of argument {name!r} ({_kind(default)})", default
        for name in sorted(_names(code)):
            if name in value.__globals__:
                yield f"global {name!r} ({_kind(value.__globals__[name])})", value.__globals__[name]
    elif not isinstance(value, type | ModuleType):
        for name, attribute in getattr(value, "__dict__", {}).items():
            yield f"attribute {name!r} ({_kind(attribute)})", attribute


def _defaults(function: Any, code: CodeType) -> Iterator[tuple[str, Any]]:
    """The arguments of a function that have defaults."""
    defaults = function.__defaults__ or ()
    yield from zip(code.co_varnames[code.co_argcount - len(defaults) :], defaults, strict=False)
    yield from (function.__kwdefaults__ or {}).items()


def _names(code: CodeType) -> set[str]:
    """The names that a function and the functions inside it may look up among the globals."""
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inner)


def _kind(value: Any) -> str:
    return type(value).__name__


def _can_be_packed(value: Any) -> bool:
    try:
        dumps(value)
    except Exception:
        return False
    return True
