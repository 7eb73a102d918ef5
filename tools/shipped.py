"""Build what is published, and try it as a user would, who has nothing else.

    make shipped [--links]

1. Builds the sdist, and the wheel from it, into ``dist``.
2. Checks the metadata: links, operating systems, Pythons, licence, and that they agree with pyproject.toml.
3. Installs the wheel by the line of the README that stands above its first example, into an empty environment, and runs
   the README's examples there.
4. Makes messages about missing packages appear there, does what each advises, and sees it work; with the packages of
   the extra ``demo``, runs ``blockflow demo``.
5. Unpacks the sdist: it must have every file that git knows, and its tests must run.

With ``--links``, the links in the metadata must answer. Packages have the versions of requirements/locked.txt.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import urllib.request
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.metadata import Metadata
from packaging.utils import canonicalize_name

from tools.other_python import RELEASES

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"

LABEL = """
import numpy as np
from blockflow.ops import label
labels = np.zeros((8, 8), "u4")
label(np.eye(8), labels, connectivity=2, grid=4, num_workers=0, progress=False)
assert labels.max() == 1
"""

TIFF = """
from pathlib import Path
from blockflow.arrays.tiff_stack import TiffStack
from blockflow.errors import MetadataError
Path("planes").mkdir(exist_ok=True)
Path("planes/z0.tif").write_text("no picture")
try:
    TiffStack("planes")
except MetadataError as error:
    assert "is no TIFF file" in str(error)
"""

HDF5 = """
from pathlib import Path
from blockflow.arrays.hdf5 import open_hdf5
from blockflow.errors import ArrayError
try:
    open_hdf5(Path("none.h5"), "r")
except FileNotFoundError:
    pass
"""

STRATEGIES = "import blockflow.testing.strategies"

ADVISED = {"label": LABEL, "tifffile": TIFF, "h5py": HDF5, "hypothesis": STRATEGIES}
"""Programs that say what is missing in an environment without extras, and run once that is installed."""


class Wrong(Exception):
    """What is shipped is not as it should be."""


def main() -> None:
    """Check everything, and end with 1 and a message at the first thing that is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--links", action="store_true", help="the links in the metadata must answer")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="blockflow-shipped-") as name:
        folder = Path(name)
        try:
            sdist, wheel = build()
            links = check_metadata(wheel)
            user = User(folder / "user", wheel)
            user.follows_the_readme()
            user.follows_advice()
            check_sdist(sdist, folder / "sdist")
            if arguments.links:
                check_links(links)
        except Wrong as wrong:
            sys.exit(f"what is shipped is wrong: {wrong}")
    say(f"{sdist.name} and {wheel.name} are good")


def say(text: str) -> None:
    """Tell what is done next."""
    sys.stdout.write(f"shipped: {text}\n")
    sys.stdout.flush()


def run(command: Sequence[str | Path], folder: Path, **variables: str) -> str:
    """Run a command that must succeed.

    Args:
        command: With arguments.
        folder: Where it runs.
        variables: Of the environment, beside those of this process.

    Returns:
        What it printed.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | variables
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise Wrong(f"{' '.join(map(str, command))} ended with code {done.returncode}:\n{done.stdout[-3000:]}")
    return done.stdout


def build() -> tuple[Path, Path]:
    """Build the sdist, and the wheel from it."""
    say("build")
    shutil.rmtree(DIST, ignore_errors=True)
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", DIST], ROOT)
    (sdist,), (wheel,) = DIST.glob("*.tar.gz"), DIST.glob("*.whl")
    return sdist, wheel


def check_metadata(wheel: Path) -> list[str]:
    """Check what the package index will show.

    Returns:
        The links.
    """
    say("metadata")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (place,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        found = Metadata.from_email(archive.read(place), validate=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (version,) = re.findall(r'^__version__ = "(.+)"$', (ROOT / "blockflow" / "__init__.py").read_text(), re.MULTILINE)
    classifiers = found.classifiers or []
    pythons = {each.rpartition(" ")[2] for each in classifiers if re.search(r"Python :: 3\.\d+$", each)}
    outside = sorted({name.partition("/")[0] for name in names} - {"blockflow", place.partition("/")[0]})
    for good, what in (
        (found.name == project["name"], f"the name is {found.name}"),
        (str(found.version) == version, f"the version is {found.version}, that of the package {version}"),
        (found.project_urls, "there are no links"),
        (any(each.startswith("Operating System ::") for each in classifiers), "no operating system is named"),
        (pythons == {"3.11", *RELEASES}, f"classifiers name the Pythons {sorted(pythons)}, tested are others"),
        (found.license_expression and found.license_files, "there is no licence"),
        (found.description_content_type == "text/markdown" and found.description, "the README is not in it"),
        ("blockflow/py.typed" in names, "py.typed is not in it"),
        (not outside, f"it would install {outside} beside blockflow"),
    ):
        if not good:
            raise Wrong(f"metadata of {wheel.name}: {what}")
    return list((found.project_urls or {}).values())


def check_links(links: Sequence[str]) -> None:
    """Open each link."""
    for link in links:
        say(link)
        try:
            urllib.request.urlopen(link, timeout=30).close()
        except OSError as error:
            raise Wrong(f"nothing answers at the link {link}: {error}") from error


class User:
    """A user with an empty virtual environment, who follows the README and what messages advise.

    Args:
        folder: An empty place for the user.
        wheel: What the user gets from the package index.
    """

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder = folder
        self.wheel = wheel
        self.home = folder / "home"

    def follows_the_readme(self) -> None:
        """Install as the README says above its first example, and run its examples."""
        text = (ROOT / "README.md").read_text(encoding="utf-8")
        code = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        lines = re.findall(r"^(pip install \S+)", text[: text.index(code[0])], re.MULTILINE)
        if lines[-1:] != ["pip install ."]:
            raise Wrong(f"above the first example of the README must stand 'pip install .', found {lines}")
        say(f"README: {lines[-1]}, with {self.wheel.name}")
        self.home.mkdir(parents=True)
        run([sys.executable, "-m", "venv", self.folder / "venv"], self.folder)
        (self.folder / "constraints.txt").write_text(constraints())
        self.pip(lines[-1].replace(" .", f" {self.wheel}"))
        base = {requirement.partition(">")[0] for requirement in self.requirements()}
        say(f"README: {len(code)} examples, with {', '.join(sorted(base))}")
        for count in (1, len(code)):
            program = self.folder / f"readme_{count}.py"
            program.write_text("\n".join(code[:count]))
            place = self.folder / f"readme_{count}"
            place.mkdir()
            run([self.folder / "venv/bin/python", "-W", "error", program], place, HOME=str(self.home))
        say(self.blockflow("--version").strip())

    def follows_advice(self) -> None:
        """Do what messages about missing packages advise; then what they are about works."""
        for name, program in ADVISED.items():
            command = self.advice(name, ["-c", program])
            say(f"advice about {name}: {command[0]}")
            self.pip(command[0])
            run([self.folder / "venv/bin/python", "-W", "error", "-c", program], self.folder, HOME=str(self.home))
        command = self.advice("demo", ["-m", "blockflow", "demo"])
        say(f"advice about demo: {command[-1]}")
        self.pip(command[-1])
        say(self.blockflow("demo", "--workers", "2").strip().splitlines()[-1])

    def advice(self, what: str, arguments: Sequence[str]) -> list[str]:
        """Return the commands that the message about a missing package advises; the last one names our extra."""
        failed = subprocess.run(
            [self.folder / "venv/bin/python", *arguments], cwd=self.folder, capture_output=True, text=True, check=False
        )
        found = re.findall(r"pip install [\w-]+|pip install '[^']+'", failed.stderr.strip().splitlines()[-1:][0])
        if not failed.returncode or not found:
            raise Wrong(f"without its package, {what} gives no advice: {failed.stderr[-1000:]}")
        return [command.replace("'", "") for command in found]

    def pip(self, command: str) -> None:
        """Run a pip command as the user would, who finds our wheel in the index."""
        options = ["--quiet", "--disable-pip-version-check", "--find-links", str(DIST), "-c", "constraints.txt"]
        python = self.folder / "venv" / "bin" / "python"
        run([python, "-m", *command.split(), *options], self.folder, HOME=str(self.home))

    def requirements(self) -> list[str]:
        """Return what is installed."""
        listed = run([self.folder / "venv/bin/python", "-m", "pip", "freeze"], self.folder, HOME=str(self.home))
        installed = {canonicalize_name(line.partition("==")[0].partition(" @")[0]) for line in listed.splitlines()}
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        optional = {"scipy", "h5py", "tifffile", "matplotlib", "scikit-image", "distributed", "hypothesis"}
        if installed & optional:
            raise Wrong(f"the environment should be without extras, and has {sorted(installed & optional)}")
        return list(project["dependencies"])

    def blockflow(self, *words: str) -> str:
        """Run the command that is installed, and return what it prints."""
        return run([self.folder / "venv/bin/blockflow", *words], self.folder, HOME=str(self.home), MPLBACKEND="agg")


def constraints() -> str:
    """Return the versions of requirements/locked.txt, without hashes, as there is none of our wheel."""
    text = (ROOT / "requirements" / "locked.txt").read_text(encoding="utf-8").replace("\\\n", "")
    lines = (
        re.sub(r"\s--hash=\S+", "", line).strip() for line in text.splitlines() if not line.lstrip().startswith("#")
    )
    return "\n".join(filter(None, lines)) + "\n"


def check_sdist(sdist: Path, folder: Path) -> None:
    """Compare the sdist with what git knows, and work in it as CONTRIBUTING.md says."""
    say("sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    if (ROOT / ".git").exists():
        known = run(["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"], ROOT).split("\0")
        missing = [name for name in known if name and not (unpacked / name).exists() and (ROOT / name).exists()]
        if missing:
            raise Wrong(f"the sdist lacks {', '.join(missing)}")
    for recipe in ("lint", "layers"):
        run(["make", "-o", "environment", recipe, f"VENV={Path(sys.prefix)}"], unpacked)
    tests = ["tests/test_public_api.py", "tests/test_geometry.py", "tests/test_packaging.py"]
    run([sys.executable, "-m", "pytest", "-q", *tests], unpacked, PYTHONPATH=str(unpacked))


if __name__ == "__main__":
    main()
