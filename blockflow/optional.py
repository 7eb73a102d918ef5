"""Messages about packages that blockflow can do without, and that are not installed."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["not_installed"]


class _Package(NamedTuple):
    """How to install what provides a module."""

    name: str
    """Name of its distribution, which pip knows."""
    extra: str | None
    """The extra of blockflow that has it; None if no extra has."""


_PACKAGES = {
    "distributed": _Package("distributed", "dask"),
    "h5py": _Package("h5py", "hdf5"),
    "hdf5plugin": _Package("hdf5plugin", "hdf5"),
    "hypothesis": _Package("hypothesis", None),
    "imagecodecs": _Package("imagecodecs", None),
    "matplotlib": _Package("matplotlib", "demo"),
    "scipy": _Package("scipy", "label"),
    "skimage": _Package("scikit-image", "demo"),
    "tifffile": _Package("tifffile", "tiff"),
}
"""By the name with which each is imported."""


def not_installed(what: str, module: str, *, extra: str | None = None) -> str:
    """Return the message that a package is missing, with the commands that install it.

    Args:
        what: What needs the package, with a verb: ``"label needs"``.
        module: Name with which the package is imported; only the part before the first dot counts.
        extra: The extra of blockflow that has all that `what` needs; the one that has the package if not given.

    >>> not_installed("reading this needs", "yaml")
    'reading this needs yaml, which is not installed: pip install yaml'
    >>> print(not_installed("label needs", "scipy.ndimage"))
    label needs scipy, which is not installed: pip install scipy (or pip install 'blockflow-nd[label]')
    """
    root = module.partition(".")[0]
    package = _PACKAGES.get(root, _Package(root, None))
    extra = extra or package.extra
    own = None if extra is None else _own_distribution()
    advice = f"pip install {package.name}"
    if own is not None:
        advice += f" (or pip install '{own}[{extra}]')"
    return f"{what} {package.name}, which is not installed: {advice}"


def _own_distribution() -> str | None:
    """Return the name under which blockflow is installed; None where it is not, but only lies on the path.

    It is found by the command that it installs: a distribution of another project may well be called blockflow.
    """
    from importlib.metadata import entry_points

    for command in entry_points(group="console_scripts", name="blockflow"):
        if command.value == "blockflow.cli:main" and command.dist is not None:
            return command.dist.name
    return None
