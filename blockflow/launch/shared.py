"""What do all workers of this machine have in common, before there is any of them?

Workers are forked from one process, the forge. What takes long to import, and most blocks need, is imported there once:
sixty workers that start together do not read a library sixty times from a file server. And they share the processors: a
numeric library takes as many threads as there are processors, so sixty workers on sixty processors would have 3,600.
"""

from __future__ import annotations

import functools
import os
import sys
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

__all__ = ["environment_of_threads", "modules_to_import", "processors"]

MODULES = ("zarr", "scipy.ndimage", "blockflow.ops.block_job")
"""They take long to import, start no threads then that a fork would break, and open no files."""

THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
"""Where numeric libraries look up how many threads they may take."""


def modules_to_import(functions: Iterable[Any], packed: Collection[bytes]) -> list[str]:
    """Those of `MODULES` that workers will import anyhow, as ``name=file``.

    On Linux only: elsewhere libraries of the system do not survive a fork.

    Args:
        functions: What workers will run; the modules in which they are defined are looked through.
        packed: The same, packed.
    """
    if not sys.platform.startswith("linux"):
        return []
    homes = {_home(function) for function in functions if function is not None}
    wanted = {name for name in MODULES if any(name.encode() in each for each in packed)}
    wanted |= {name for name in MODULES for home in homes if home is not None and _refers(home, name)}
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in MODULES if name in wanted}
    return [f"{name}={file}" for name, file in files.items() if file]


def environment_of_threads(workers: int) -> dict[str, str]:
    """Environment variables that give each worker its share of the processors; none if the user has set one of them.

    Args:
        workers: How many there are at once at most.
    """
    if any(name in os.environ for name in THREADS):
        return {}
    return dict.fromkeys(THREADS, str(max(1, processors() // max(1, workers))))


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _home(function: Any) -> ModuleType | None:
    """The module in which a function is defined."""
    while isinstance(function, functools.partial):
        function = function.func
    return sys.modules.get(str(getattr(function, "__module__", "")))


def _refers(home: ModuleType, name: str) -> bool:
    """Whether a module has imported another one, or something of it."""
    for value in tuple(vars(home).values()):
        if isinstance(value, ModuleType):
            of = value.__name__
        elif isinstance(value, FunctionType | type):
            of = value.__module__
        else:
            continue
        if of == name or of.startswith(f"{name}."):
            return True
    return False
