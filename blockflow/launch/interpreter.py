"""How does an interpreter in a job find blockflow, and the user's modules?

What belongs to the driver's interpreter (its standard library, its site-packages) is not shown to the job's: that has
its own, and may be another version. All other places are.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any


def path_of_package() -> str | None:
    """The directory that holds blockflow; None if the interpreter finds it by itself."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return None if is_installed(root) else root


def environment_with_package() -> dict[str, str]:
    """The environment for another process of this interpreter, which finds blockflow as this one does."""
    environment = dict(os.environ)
    root = path_of_package()
    if root is not None:
        known = environment.get("PYTHONPATH", "")
        environment["PYTHONPATH"] = f"{root}{os.pathsep}{known}" if known else root
    return environment


def places_of_modules() -> list[str]:
    """Where this process finds modules, but for those of its interpreter."""
    return [place for place in module_path() if not is_installed(place)]


def module_path() -> list[str]:
    """Return where another process looks for modules so that it finds those of this one.

    An entry that is relative, as the empty one of notebooks and of ``python -c``, stood for the working directory of
    the moment of an import; that may have changed since. So the places of what was imported come before it.
    """
    absolute = [os.path.abspath(entry) for entry in sys.path]
    relative = next((place for place, entry in enumerate(sys.path) if not os.path.isabs(entry)), None)
    if relative is None:
        return absolute
    known = set(absolute)
    moved: dict[str, None] = {}
    loaded: dict[str, Any] = dict(sys.modules)  # programs put into it what is no module
    for name, module in loaded.items():
        file = vars(module).get("__file__") if isinstance(module, ModuleType) else None
        if "." in name or name == "__main__" or not isinstance(file, str) or not os.path.isabs(file):
            continue
        place = os.path.dirname(file)
        if os.path.basename(file).startswith("__init__."):
            place = os.path.dirname(place)
        if place not in known and not is_installed(place):
            moved[place] = None
    return [*absolute[:relative], *moved, *absolute[relative:]]


def interpreter_flags() -> list[str]:
    """Return the options that another process of this interpreter needs to run code as this one does.

    They are ``-O``, ``-W`` and ``-X``; those that change where modules are found are left out.
    """
    flags = [f"-{'O' * sys.flags.optimize}"] if sys.flags.optimize else []
    flags += [f"-W{option}" for option in sys.warnoptions]
    for name, value in getattr(sys, "_xoptions", {}).items():
        flags.append(f"-X{name}" if value is True else f"-X{name}={value}")
    return flags


def is_installed(directory: str) -> bool:
    """Whether a directory belongs to this interpreter."""
    place = os.path.realpath(directory)
    roots = {os.path.realpath(root) for root in (sys.prefix, sys.base_prefix, sys.exec_prefix)}
    return any(place == root or place.startswith(root + os.sep) for root in roots)
