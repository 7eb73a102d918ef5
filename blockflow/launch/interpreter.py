"""How does an interpreter in a job find blockflow, and the user's modules?

What belongs to the driver's interpreter (its standard library, its site-packages) is not shown to the job's: that has
its own, and may be another version. All other places are.
"""

from __future__ import annotations

import os
import sys


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
    places = (entry or os.getcwd() for entry in sys.path)
    return [place for place in places if not is_installed(place)]


def is_installed(directory: str) -> bool:
    """Whether a directory belongs to this interpreter."""
    place = os.path.realpath(directory)
    roots = {os.path.realpath(root) for root in (sys.prefix, sys.base_prefix, sys.exec_prefix)}
    return any(place == root or place.startswith(root + os.sep) for root in roots)
