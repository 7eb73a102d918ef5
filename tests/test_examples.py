from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="the examples need the extra 'demo'")
pytest.importorskip("skimage", reason="the examples need the extra 'demo'")

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def run_script(path: Path, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script as a user does, with this package, in a folder of its own, where every warning is an error."""
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-W", "error", str(path), *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": python_path, "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_tutorial_keeps_its_promises(tmp_path: Path) -> None:
    ran = run_script(EXAMPLES / "tutorial.py", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    counts = [(int(found), int(real)) for found, real in re.findall(r"(\d+) labels for (\d+) nuclei", ran.stdout)]
    (cut, nuclei), (whole, _) = counts
    assert cut > nuclei == whole == 90
    pictures = sorted(path.name for path in (tmp_path / "tutorial_output").glob("*.png"))
    assert pictures == ["half_done.png", "nuclei.png", "smoothing.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["daisy_logs", "tutorial_output"]
    logs = {path.name for path in (tmp_path / "daisy_logs").iterdir() if not path.name.startswith(".")}
    assert logs == {"alone", "smooth", "script", "luck", "smooth again", "nuclei", "whole nuclei"}


def test_the_worker_script_says_that_it_needs_a_run(tmp_path: Path) -> None:
    from blockflow import Roi
    from blockflow.arrays import prepare_ds

    for name in ("raw", "smooth_by_script"):
        prepare_ds(tmp_path / "tutorial_output/tissue.zarr", name, Roi((0, 0, 0), (8, 8, 8)), dtype="float32")
    ran = run_script(EXAMPLES / "tutorial_worker.py", str(EXAMPLES / "tutorial_config.json"), folder=tmp_path)
    assert ran.returncode != 0
    assert "DAISY_CONTEXT is not set" in ran.stderr


def test_the_background_example_draws(tmp_path: Path) -> None:
    ran = run_script(EXAMPLES / "background.py", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "background.png").stat().st_size > 10_000


def test_the_tutorial_is_a_notebook() -> None:
    """Cells begin with a marker, and everything in a text cell is a comment."""
    cells = re.split(r"^# %%(.*)\n", (EXAMPLES / "tutorial.py").read_text(), flags=re.MULTILINE)
    texts = [body for head, body in zip(cells[1::2], cells[2::2], strict=True) if "[markdown]" in head]
    assert len(texts) > 15
    for text in texts:
        assert all(line.startswith("#") for line in text.strip().splitlines()), text
