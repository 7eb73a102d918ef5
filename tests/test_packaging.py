"""The name under which blockflow is installed, messages about missing packages, and the exact versions of the tests."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import blockflow
from blockflow.optional import not_installed

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]


def locked(name: str) -> list[tuple[Requirement, list[str]]]:
    """The requirements of a file, with their hashes."""
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8").replace("\\\n", " ")
    found = []
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            required, *hashes = line.split("--hash=")
            found.append((Requirement(required.strip()), [each.strip() for each in hashes]))
    return found


def wanted(*groups: str) -> list[Requirement]:
    """What pyproject.toml asks for: the library, all extras, and some groups of developers' tools."""
    tables = PROJECT["dependency-groups"]

    def members(group: str) -> list[str]:
        found: list[str] = []
        for each in tables[group]:
            found += members(each["include-group"]) if isinstance(each, dict) else [each]
        return found

    texts = [*PROJECT["project"]["dependencies"], *itertools.chain(*EXTRAS.values())]
    for group in groups:
        texts += members(group)
    return [Requirement(text) for text in texts]


def version_for(python: str, name: str, requirements: list[tuple[Requirement, list[str]]]) -> str:
    """The version that a file chooses for a Python on Linux."""
    here = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux", "os_name": "posix"}
    found = {
        str(requirement.specifier).removeprefix("==")
        for requirement, _ in requirements
        if canonicalize_name(requirement.name) == canonicalize_name(name)
        and (requirement.marker is None or requirement.marker.evaluate(here))
    }
    assert len(found) == 1, f"{name} for Python {python}: {found}"
    return found.pop()


def test_it_is_installed_under_a_name_that_is_ours() -> None:
    found = distribution("blockflow-nd")
    assert found.version == blockflow.__version__
    assert [command.value for command in found.entry_points if command.name == "blockflow"] == ["blockflow.cli:main"]


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_messages_name_the_package_and_our_extra(extra: str) -> None:
    known = {"dask": "distributed", "demo": "skimage", "hdf5": "h5py", "label": "scipy", "tiff": "tifffile"}
    module = known[extra]
    package = {"skimage": "scikit-image"}.get(module, module)
    assert package in {Requirement(text).name for text in EXTRAS[extra]}
    ours = f"{PROJECT['project']['name']}[{extra}]"
    assert not_installed("this needs", module) == (
        f"this needs {package}, which is not installed: pip install {package} (or pip install '{ours}')"
    )


def test_messages_name_the_package_where_blockflow_is_not_installed() -> None:
    code = "from blockflow.optional import not_installed; print(not_installed('label needs', 'scipy'))"
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"
    said = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout == "label needs scipy, which is not installed: pip install scipy\n"


def test_no_message_or_page_names_a_package_of_another_project() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.py")]
    for path in [*pages, *(ROOT / "blockflow").rglob("*.py")]:
        assert not re.search(r"pip install '?blockflow(?!-nd)", path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize("python", PYTHONS)
def test_the_locked_versions_are_what_pyproject_allows(python: str) -> None:
    requirements = locked("locked.txt")
    for each in wanted("dev"):
        assert each.specifier.contains(version_for(python, each.name, requirements)), f"{each}: make update"


def test_the_oldest_versions_are_the_lowest_that_pyproject_allows() -> None:
    """A bound that is raised in pyproject.toml must be raised there as well; versions that do not exist round up."""
    requirements = locked("oldest.txt")
    for each in wanted("test"):
        (bound,) = each.specifier
        assert bound.operator == ">=", each
        assert re.match(rf"{re.escape(bound.version)}(\.\d+)*$", version_for("3.11", each.name, requirements)), (
            f"{each}: make update"
        )


@pytest.mark.parametrize("name", ["locked.txt", "oldest.txt", "uv.txt"])
def test_exact_versions_have_hashes_and_name_no_index(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    assert not re.search(r"://|^\s*-", text.replace("    --hash", "    hash"), re.MULTILINE)
    for requirement, hashes in locked(name):
        assert requirement.url is None
        assert re.match(r"==[^*]+$", str(requirement.specifier))
        assert hashes
        assert all(re.match(r"sha256:[0-9a-f]{64}$", each) for each in hashes)
