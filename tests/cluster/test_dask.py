"""Workers as tasks of a real dask.distributed cluster on this machine.

It is run in a process of its own, as dask starts threads that live as long as their process.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import blockflow

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="dask.distributed is not installed"),
]

SCRIPT = """
import os, pathlib, sys
import blockflow
from blockflow import Dask, Roi, Task, run_blockwise

def work(block):
    if block.index == 3 and not pathlib.Path("crashed").exists():
        pathlib.Path("crashed").touch()
        os._exit(9)
    pathlib.Path("seen", str(block.index)).touch()

def fail(block):
    raise ZeroDivisionError

if __name__ == "__main__":
    import distributed
    roi = Roi((0,), (10,))
    with distributed.LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster:
        with distributed.Client(cluster) as client:
            task = Task("t", Roi((0,), (200,)), roi, roi, work, launcher=Dask(client, 6))
            assert run_blockwise([task], progress=False)
            task = Task("u", Roi((0,), (200,)), roi, roi, fail, launcher=Dask(client, 2))
            assert not run_blockwise([task], progress=False, summary=False)
            assert not client.processing() or not any(client.processing().values())
"""


def test_a_dask_cluster_does_all_blocks(folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "run_on_dask.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(blockflow.__file__).parents[1]), "DAISY_HOST": "127.0.0.1"}
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(list(folder.iterdir())) == 20
