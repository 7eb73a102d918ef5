"""Is what is no path of this machine refused before it becomes a local folder?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from blockflow import Grid, Ledger, Roi, Task, iter_blocks, map_blocks, run_blockwise
from blockflow.arrays import open_ds, prepare_ds
from blockflow.arrays.tiff_stack import TiffStack
from blockflow.arrays.tiffs import list_tiffs, read_voxel_size
from blockflow.cli import main
from blockflow.errors import ArrayError, BlockflowError, PlanError
from blockflow.logging import set_log_basedir
from blockflow.ops import downsample, label, relabel
from blockflow.paths import local_path
from blockflow.recipes.background import sparse_median_background

if TYPE_CHECKING:
    from collections.abc import Callable

ELSEWHERE = [
    "s3://bucket/x.zarr",
    "S3://bucket/x.zarr",
    "https://host/x.tif",
    "memory://x",
    "simplecache::s3://bucket/x.zarr",
    "own+scheme://x",
    "file:///data/x.zarr",
    "file:/data/x.zarr",
    "s3:/bucket/x.zarr",
    "whatever:/bucket/x",
    "/data/s3:/bucket/x.zarr",
    "/data/gs://bucket/x.zarr",
    Path("s3://bucket/x.zarr"),
    Path("gs://bucket/x.zarr").absolute(),
    "C:\\data\\x.zarr",
    "c:/data/x.zarr",
    "\\\\server\\share\\x.zarr",
    "~/x.zarr",
    "~",
    "",
    " ",
    "x\0.zarr",
]

HERE = [
    "x.zarr",
    "/data/x.zarr",
    "a:b",
    "a:b/c",
    "x:",
    "~x",
    "data/~/x",
    "2024-01-01T10:30:00/x.zarr",
    "x y",
]


@pytest.mark.parametrize("path", ELSEWHERE, ids=repr)
def test_paths_that_are_meant_for_elsewhere(path: Any) -> None:
    with pytest.raises(PlanError) as info:
        local_path(path, "out", PlanError)
    assert str(info.value).startswith("out must be a path of a local or mounted file system, got ")
    assert repr(os.fspath(path)) in str(info.value), "as it was given"


@pytest.mark.parametrize("path", HERE)
def test_paths_of_this_machine(path: str) -> None:
    assert local_path(path, "out") == local_path(Path(path), "out") == Path(path)


def test_a_local_folder_whose_name_ends_with_a_colon() -> None:
    assert local_path("./raw:/x", "out") == Path("raw:/x")


@pytest.mark.parametrize("path", [3, None, b"x.zarr", [1]])
def test_what_is_no_path(path: Any) -> None:
    with pytest.raises(ArrayError, match="out must be a path"):
        local_path(path, "out")


URL = "s3://bucket/x.zarr"
IMAGE = np.zeros((8, 8), np.uint8)
QUIET: dict[str, Any] = {"num_workers": 0, "progress": False}
MAP: dict[str, Any] = {"grid": 4, **QUIET}

DOORS: dict[str, Callable[[], Any]] = {
    "source": lambda: map_blocks(np.copy, URL, **MAP),
    "out": lambda: map_blocks(np.copy, IMAGE, out=URL, **MAP),
    "out of workers": lambda: map_blocks(np.copy, IMAGE, out=[URL], grid=4, progress=False),
    "mask": lambda: map_blocks(np.copy, IMAGE, mask=URL, **MAP),
    "run_dir of a map": lambda: map_blocks(np.copy, IMAGE, out="a.npy", run_dir=URL, **MAP),
    "iter_blocks": lambda: iter_blocks(np.copy, URL, **MAP),
    "label": lambda: label(URL, **MAP),
    "label out": lambda: label(IMAGE, out=URL, **MAP),
    "label run_dir": lambda: label(IMAGE, run_dir=URL, **MAP),
    "relabel": lambda: relabel(URL, **MAP),
    "relabel out": lambda: relabel(IMAGE, out=URL, **MAP),
    "relabel run_dir": lambda: relabel(IMAGE, run_dir=URL, **MAP),
    "downsample": lambda: downsample(URL, "x.zarr", **QUIET),
    "downsample group": lambda: downsample(IMAGE, URL, **QUIET),
    "downsample run_dir": lambda: downsample(IMAGE, "x.zarr", run_dir=URL, **QUIET),
    "Task inputs": lambda: Task("t", grid=Grid.regular((8,), 4), inputs=[URL]),
    "Task outputs": lambda: Task("t", grid=Grid.regular((8,), 4), outputs=[URL]),
    "Task mask": lambda: Task("t", grid=Grid.regular((8,), 4), mask=URL),
    "run_blockwise": lambda: run_blockwise(
        Task("t", grid=Grid.regular((8,), 4), process_function=lambda block: None), run_dir=URL, progress=False
    ),
    "Ledger": lambda: Ledger.open(URL),
    "open_ds": lambda: open_ds(URL),
    "prepare_ds": lambda: prepare_ds(URL, total_roi=Roi((0,), (8,)), dtype="u1"),
    "TiffStack": lambda: TiffStack(URL),
    "list_tiffs": lambda: list_tiffs(URL),
    "read_voxel_size": lambda: read_voxel_size(URL),
    "logs": lambda: set_log_basedir(URL),
    "background": lambda: sparse_median_background(URL),
    "background run_dir": lambda: sparse_median_background(np.zeros((9, 3, 3), "u1"), run_dir=URL),
}


@pytest.mark.parametrize("door", DOORS)
def test_no_door_makes_a_folder_of_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, door: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BlockflowError, match=r"got the URL 's3://bucket/x\.zarr'"):
        DOORS[door]()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "s3://bucket/x.py"],
        ["worker", "s3://bucket/run"],
        ["invite", "s3://bucket/run"],
        ["scale", "s3://bucket/run", "t", "2"],
        ["cancel", "s3://bucket/run"],
        ["demo", "--output", "s3://bucket/run"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_the_command_line_refuses_urls(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = main(arguments)
    except SystemExit as ended:  # how argparse refuses
        code = int(ended.code or 0)
    assert code == 2
    assert "got the URL 's3://bucket/" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_workers_and_the_core_load_nothing_for_it() -> None:
    code = "import sys, blockflow.worker; print('blockflow.paths' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
