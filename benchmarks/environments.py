"""With which python does a contender run?

Every contender, blockflow included, has a virtual environment of its own under ``.benchmark-envs``, made by plain pip,
with the same numpy, zarr and scipy. It is used again as long as what was asked for does not change.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".benchmark-envs"

COMMON = ("numpy==2.4.6", "scipy==1.17.1", "zarr==3.1.6")
"""What cases use beside the library they measure; the same for all."""

PEERS = {
    "daisy2": ("daisy==2.0.0",),
    "daisy1": ("daisy==1.2.3",),
    "dask": ("dask[array]==2026.8.0", "distributed==2026.8.0"),
}

TITLES = {
    "blockflow": "blockflow",
    **{peer: wanted[0].replace("[array]", "").replace("==", " ") for peer, wanted in PEERS.items()},
}
"""What contenders are called in reports, in the order of their rows."""

INSTALL_SECONDS = 900.0


class EnvironmentFailedError(RuntimeError):
    """An environment could not be made; the text ends with what pip said last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Where a contender lives."""

    contender: str
    python: Path
    variables: dict[str, str]
    """The whole environment of its processes."""

    def versions(self) -> dict[str, str]:
        """Every distribution in it."""
        program = (
            "import importlib.metadata as m, json;"
            "print(json.dumps({d.metadata['Name']: d.version for d in m.distributions()}, sort_keys=True))"
        )
        said = subprocess.run(
            [self.python, "-c", program], env=self.variables, capture_output=True, text=True, check=True
        )
        return dict(json.loads(said.stdout))


def requirements(contender: str) -> list[str]:
    """What is installed for a contender; blockflow itself is imported from this repository."""
    if contender == "blockflow":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        return [*project["dependencies"], *COMMON]
    return [*PEERS[contender], *COMMON]


def ensure(contender: str, home: Path = HOME) -> Environment:
    """The environment of a contender; made if it is missing or out of date.

    Raises:
        EnvironmentFailedError: Python or pip failed.
    """
    place = home / contender
    wanted = "\n".join([sys.version, *requirements(contender)])
    ready = place / "ready.txt"
    if not ready.exists() or ready.read_text() != wanted:
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        _call([sys.executable, "-m", "venv", str(place)])
        _call([str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", *requirements(contender)])
        ready.write_text(wanted)
    return environment(contender, place / "bin" / "python")


def environment(contender: str, python: Path) -> Environment:
    """The environment around a python that has what a contender needs."""
    # Without the last one, contenders whose modules are not compiled yet would compile them in every run.
    hidden = ("PYTHONPATH", "VIRTUAL_ENV", "DAISY_CONTEXT", "DAISY_HOST", "PYTHONDONTWRITEBYTECODE")
    variables = {name: value for name, value in os.environ.items() if name not in hidden}
    if contender == "blockflow":
        variables["PYTHONPATH"] = str(ROOT)
    return Environment(contender=contender, python=python, variables=variables)


def _call(command: Iterable[str]) -> None:
    words = list(command)
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise EnvironmentFailedError(f"{' '.join(words)} took more than {INSTALL_SECONDS:.0f} s") from error
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise EnvironmentFailedError(f"{' '.join(words)} ended with code {done.returncode}:\n{last}")
