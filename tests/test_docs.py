"""Does what README and docs show work?

Blocks of a page that are marked as ``python`` belong together: those with prompts are run as doctests, the others as
one script in a process of its own, as a reader would who copies them into a file.
"""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOT_RUN = {
    "docs/howto/dask.md": "needs a dask cluster; tests/cluster/test_pages.py runs it",
    "docs/howto/lsf.md": "needs LSF; tests/cluster/test_pages.py runs it with stand-ins",
    "docs/howto/slurm.md": "needs Slurm; tests/cluster/test_pages.py runs it",
    "docs/recipes/background.md": "reads a measurement; tests/test_examples.py runs examples/background.py",
}
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#:]+)(#[^)]*)?\)")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def kept(page: Path, *, prompts: bool) -> str:
    """The code of a page with or without prompts, on the lines where it is there; all other lines are empty."""
    text = page.read_text(encoding="utf-8")
    lines = [""] * (text.count("\n") + 1)
    for block in _BLOCK.finditer(text):
        if block[1].startswith(">>>") is prompts:
            first = text.count("\n", 0, block.start(1))
            code = block[1].splitlines()
            lines[first : first + len(code)] = code
    return "\n".join(lines)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_code_of_the_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name(page) in NOT_RUN:
        pytest.skip(NOT_RUN[name(page)])
    script, examples = kept(page, prompts=False), kept(page, prompts=True)
    if "scipy" in script:
        pytest.importorskip("scipy", reason="the page needs the extra 'demo'")
    monkeypatch.chdir(tmp_path)
    test = doctest.DocTestParser().get_doctest(examples, {}, page.name, str(page), 0)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    assert doctest.DocTestRunner(optionflags=flags).run(test).failed == 0
    if script.strip():
        (tmp_path / "page.py").write_text(script, encoding="utf-8")
        ran = subprocess.run(
            [sys.executable, "-W", "error", "page.py"],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_of_the_page_lead_somewhere(page: Path) -> None:
    for target, _ in _LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_code_is_found() -> None:
    assert "assert run_blockwise([task])" in kept(ROOT / "README.md", prompts=False)
    assert ">>> " in kept(ROOT / "docs" / "index.md", prompts=True)
