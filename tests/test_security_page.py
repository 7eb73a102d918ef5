"""SECURITY.md: what it says is tested by what it names."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "SECURITY.md"
ROWS = [line for line in PAGE.read_text().splitlines() if line.startswith("|") and not line.startswith("|---")]
CLAIMS = [row for row in ROWS if not row.rstrip("| ").endswith("Tests")]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def functions_of(file: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.strip("| ")[:50])
def test_each_claim_names_tests_that_exist(claim: str) -> None:
    cells = claim.strip("| ").split(" | ")
    named = NAMED.findall(cells[-1])
    assert named, f"names no test: {claim}"
    assert NAMED.sub("", cells[-1]).strip(" ,") == "", "nothing but tests in the last column"
    for file, test in named:
        assert test in functions_of(ROOT / file), f"{file} has no {test}"


def test_claims_are_made_in_tables() -> None:
    """Text outside of tables says how to report, and what is not protected."""
    sections = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]
    free = {"Report a hole", "What is not protected"}
    for section in sections:
        title, _, body = section.partition("\n")
        if title not in free:
            assert all(line.startswith("|") for line in body.splitlines() if line.strip()), title


def imports_of(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    plain = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    return plain | {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


def test_what_speaks_on_sockets_knows_no_pickle() -> None:
    for package in ("wire", "net", "state", "ledger"):
        for file in (ROOT / "blockflow" / package).glob("*.py"):
            assert not {"pickle", "marshal", "shelve", "cloudpickle", "dill"} & imports_of(file), file


LOADS = {
    "blockflow/launch/handover.py": "a private file, or the standard input",
    "blockflow/launch/invitation.py": "the environment of this process",
    "blockflow/launch/pickler.py": "code of this user",
    "blockflow/worker.py": "the standard input, from the process that started it",
    "blockflow/ops/results.py": "private files of workers of this user",
}
"""Modules that unpickle, and what."""


def test_what_unpickles_is_known() -> None:
    found = set()
    for file in sorted((ROOT / "blockflow").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            name = node.func if isinstance(node, ast.Call) else None
            if isinstance(name, ast.Attribute) and name.attr in ("load", "loads", "Unpickler"):
                owner = ast.unparse(name.value)
                if "pickle" in owner:
                    found.add(file.relative_to(ROOT).as_posix())
    assert found <= set(LOADS), f"one more place unpickles: {found - set(LOADS)}; is what it loads checked?"
