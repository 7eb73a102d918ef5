"""Do the scripts of the pages about clusters run on clusters, and the example?"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blockflow.arrays import open_ds

ROOT = Path(__file__).parents[2]


def run_script(text: str, folder: Path, *arguments: str) -> str:
    (folder / "page.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "page.py", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def script_of(page: str) -> str:
    text = (ROOT / "docs/howto" / page).read_text(encoding="utf-8")
    return "".join(re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


def run_page(page: str, folder: Path) -> None:
    printed = run_script(script_of(page), folder)
    assert "invert: 8/8" in printed
    assert (open_ds(folder / "volume.zarr", "inverted").to_ndarray() == 255).all()


@pytest.mark.cluster
def test_the_page_about_slurm(cluster: Any, tmp_path: Path) -> None:
    run_page("slurm.md", tmp_path)


@pytest.mark.usefixtures("lsf")
def test_the_page_about_lsf(tmp_path: Path) -> None:
    run_page("lsf.md", tmp_path)


@pytest.mark.cluster
@pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="dask.distributed is not installed")
def test_the_page_about_dask(tmp_path: Path) -> None:
    run_page("dask.md", tmp_path)


@pytest.mark.cluster
def test_the_example_on_slurm(cluster: Any, tmp_path: Path) -> None:
    example = (ROOT / "examples/cluster/smooth.py").read_text(encoding="utf-8")
    run_script(example, tmp_path, "--on", "slurm", "--workers", "4", "--partition", "main")
    smooth = open_ds(tmp_path / "volume.zarr", "smooth").to_ndarray()
    assert smooth.shape == (96, 96, 96)
    assert np.abs(smooth[8:-8, 8:-8, 8:-8] - 0.5).max() < 0.2


def test_the_example_without_a_cluster(tmp_path: Path) -> None:
    example = (ROOT / "examples/cluster/smooth.py").read_text(encoding="utf-8")
    run_script(example, tmp_path)
    assert open_ds(tmp_path / "volume.zarr", "smooth").to_ndarray().all()
