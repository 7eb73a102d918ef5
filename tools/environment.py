"""Make a virtual environment for the tests, anew whenever what it is made of has changed.

    python3 -m tools.environment {locked,oldest,newest} FOLDER

- ``locked`` has exactly the packages of ``requirements/locked.txt``.
- ``oldest`` has those of ``requirements/oldest.txt``: the lowest versions that pyproject.toml allows; on the oldest
  Python only.
- ``newest`` has what pip finds today. It is made anew each time, since what is newest changes by itself.

blockflow is installed in editable form, with all extras. Needs Python's standard library and pip's configuration alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
READY = "blockflow-ready.txt"
"""In the folder of an environment that is complete: the fingerprint of what it was made of."""


def main() -> None:
    """Make the environment that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kind", choices=("locked", "oldest", "newest"))
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    kind, folder = arguments.kind, arguments.folder.resolve()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    check_python(kind, project["project"]["requires-python"])
    wanted = fingerprint(kind, project)
    ready = folder / READY
    if kind != "newest" and ready.exists() and ready.read_text() == wanted:
        return
    if folder.exists() and not (folder / "pyvenv.cfg").exists():
        sys.exit(f"{folder} is in the way: it is no virtual environment; move it, or name another folder")
    sys.stderr.write(f"making {folder.name}, with {kind} packages for Python {sys.version.partition(' ')[0]}\n")
    shutil.rmtree(folder, ignore_errors=True)
    call([sys.executable, "-m", "venv", str(folder)])
    install(kind, [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"], project)
    ready.write_text(wanted)


def check_python(kind: str, requires: str) -> None:
    """Refuse a Python with which this environment cannot be made.

    Args:
        kind: Of environment.
        requires: What pyproject.toml says of Python, such as ``">=3.11"``.
    """
    oldest = tuple(map(int, requires.removeprefix(">=").split(".")))
    have = sys.version.partition(" ")[0]
    if sys.version_info[:2] < oldest:
        sys.exit(f"blockflow needs Python {requires}, {sys.executable} is {have}: make ... PYTHON=/path/to/python3")
    if kind == "oldest" and sys.version_info[:2] != oldest:
        sys.exit(
            f"the oldest packages are tested with Python {requires.removeprefix('>=')}, {sys.executable} is {have}: "
            "make test-oldest OLDEST_PYTHON=/path/to/python3"
        )


def fingerprint(kind: str, project: dict[str, Any]) -> str:
    """Return what tells environments apart that are made of different things.

    Args:
        kind: Of environment.
        project: What pyproject.toml says. Settings of tools are left out: they change nothing that is installed.
    """
    said = {table: project[table] for table in ("build-system", "project", "dependency-groups")}
    said["hatch"] = project["tool"]["hatch"]
    version = (
        (ROOT / project["tool"]["hatch"]["version"]["path"]).read_text(encoding="utf-8").partition("__version__ = ")[2]
    )
    said["version"] = version.partition("\n")[0]
    made_of = [kind, str(ROOT), sys.base_prefix, sys.version, json.dumps(said, sort_keys=True)]
    if kind != "newest":
        made_of.append((ROOT / "requirements" / f"{kind}.txt").read_text(encoding="utf-8"))
    return hashlib.sha256("\0".join(made_of).encode()).hexdigest() + "\n"


def install(kind: str, pip: list[str], project: dict[str, Any]) -> None:
    """Install the packages, and blockflow itself.

    Args:
        kind: Of environment.
        pip: The command of the environment's own pip.
        project: What pyproject.toml says.
    """
    if kind == "newest":
        extras = ",".join(project["project"]["optional-dependencies"])
        call([*pip, "install", "--quiet", "--upgrade", "pip"])
        call([*pip, "install", "--quiet", "--editable", f".[{extras}]", "--group", "test"])
    else:
        call([*pip, "install", "--quiet", "--no-deps", "--require-hashes", "-r", f"requirements/{kind}.txt"])
        call([*pip, "install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", "."])


def call(command: list[str]) -> None:
    """Run a command at the root of the project; end with its exit code if it fails."""
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code:
        sys.exit(f"this command ended with code {code}: {' '.join(command)}")


if __name__ == "__main__":
    main()
