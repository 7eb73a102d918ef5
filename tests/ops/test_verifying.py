"""Verification finds blocks whose chunks are missing or unreadable, and tells them from chunks that are empty."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from blockflow import Ledger, Roi, Task, map_blocks, run_blockwise
from blockflow.arrays import open_ds, prepare_ds
from blockflow.cli import main
from blockflow.errors import DriverAliveError, PlanChangedError, RunDirectoryError
from blockflow.ledger.rundir import reopen_run
from blockflow.ops import verify

OPTIONS: dict[str, Any] = {"run_dir": "run", "progress": False}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def picture() -> Any:
    """16 x 16 voxels in blocks of 4 x 4, those of the first two rows of blocks empty but for one voxel."""
    values = np.zeros((16, 16), "u1")
    values[8:] = 1
    values[1, 2] = 1
    return values


def same(values: Any) -> Any:
    return values


def out(**options: Any) -> Any:
    options = {"chunks": (4, 4), "dtype": "u1", **options}
    return zarr.create_array("o.zarr", shape=(16, 16), **options)


def mapped(workers: int = 0, block: Any = (4, 4), **options: Any) -> Any:
    return map_blocks(same, picture(), out="o.zarr", grid=block, num_workers=workers, **OPTIONS, **options)


def chunk(*position: int, zarr_format: int = 3) -> Path:
    path = "/".join(map(str, position)) if zarr_format == 3 else ".".join(map(str, position))
    return Path("o.zarr", "c" if zarr_format == 3 else "", path)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_missing_is_not_empty_on_purpose(workers: int, zarr_format: Any) -> None:
    out(zarr_format=zarr_format)
    mapped(workers)
    found = verify("run")
    assert found
    assert (found.tasks[0].done, found.tasks[0].uncounted) == (16, 0)
    assert not chunk(0, 1, zarr_format=zarr_format).exists()
    chunk(0, 0, zarr_format=zarr_format).unlink()
    chunk(3, 2, zarr_format=zarr_format).unlink()
    found = verify("run")
    assert not found
    assert found.tasks[0].missing == {0: 1, 14: 1}
    assert "block 14 of task 'map_blocks': 1 chunk is missing" in str(found)


@pytest.mark.parametrize(("block", "lost"), [((8, 8), {2: 1}), ((4, 16), {3: 1}), ((16, 16), {0: 1})])
def test_blocks_of_several_chunks_know_how_many_they_have_stored(block: Any, lost: dict[int, int]) -> None:
    out()
    mapped(block=block)
    stored = Ledger.open("run").stored("map_blocks")
    assert stored.sum() == 9
    assert verify("run")
    chunk(3, 1).unlink()
    assert verify("run").tasks[0].missing == lost


def test_shards_count_where_there_are_any() -> None:
    out(chunks=(2, 2), shards=(4, 4))
    mapped()
    assert Ledger.open("run").stored("map_blocks").ravel().tolist() == [1] + [0] * 7 + [1] * 8
    chunk(2, 2).unlink()
    assert verify("run").tasks[0].missing == {10: 1}


def test_empty_chunks_count_where_they_are_stored() -> None:
    with zarr.config.set({"array.write_empty_chunks": True}):
        out()
        mapped()
    assert (Ledger.open("run").stored("map_blocks") == 1).all()
    chunk(0, 1).unlink()
    assert verify("run").tasks[0].missing == {1: 1}


def test_fill_values_count_as_empty() -> None:
    out(fill_value=1)
    mapped()
    assert Ledger.open("run").stored("map_blocks").ravel().tolist() == [1] * 8 + [0] * 8
    assert verify("run")


@pytest.mark.parametrize("workers", [0, 1])
def test_blocks_that_are_put_back_are_done_again_and_no_others(workers: int) -> None:
    out()
    mapped(workers)
    before = {path: path.stat().st_mtime_ns for path in Path("o.zarr/c").rglob("*") if path.is_file()}
    chunk(0, 0).unlink()
    chunk(3, 3).unlink()
    found = verify("run", requeue=True)
    assert not found
    assert "2 blocks were put back" in str(found)
    assert Ledger.open("run").counts("map_blocks")["done"] == 14
    mapped(workers)
    assert (zarr.open_array("o.zarr", mode="r")[...] == picture()).all()
    assert Ledger.open("run").counts("map_blocks")["done"] == 16
    assert Ledger.open("run").attempts("map_blocks").sum() == 18
    assert verify("run")
    after = {path: path.stat().st_mtime_ns for path in before}
    assert [path for path in before if before[path] != after[path]] == [chunk(0, 0), chunk(3, 3)] or sorted(
        path for path in before if before[path] != after[path]
    ) == [chunk(0, 0), chunk(3, 3)]


def test_files_without_bytes_cannot_be_read() -> None:
    out()
    mapped()
    chunk(2, 1).write_bytes(b"")
    found = verify("run", requeue=True)
    assert list(found.tasks[0].unreadable) == [9]
    assert "c/2/1 is empty" in str(found)
    mapped()
    assert verify("run")


def test_whoever_reads_finds_what_is_damaged() -> None:
    out()
    mapped()
    chunk(2, 1).write_bytes(b"rubbish")
    assert verify("run")
    found = verify("run", read=True)
    assert list(found.tasks[0].unreadable) == [9]
    assert "c/2/1 cannot be read" in str(found)


def write_raw(block: Any) -> None:
    begin, end = block.write_roi.begin, block.write_roi.end
    zarr.open_array("o.zarr", mode="r+")[begin[0] : end[0], begin[1] : end[1]] = 1


def write_some(block: Any) -> None:
    array = open_ds("o.zarr", mode="r+")
    array[block.write_roi] = int(block.index % 2)
    open_ds("scratch.zarr", mode="r+")[block.write_roi] = 1


def task(function: Any) -> Task:
    block = Roi((0, 0), (4, 4))
    return Task("w", Roi((0, 0), (16, 16)), block, block, function, read_write_conflict=False, outputs=["o.zarr"])


@pytest.mark.parametrize("workers", [False, True])
def test_functions_that_write_by_themselves_are_counted_and_only_outputs_are(workers: bool) -> None:
    out()
    prepare_ds("scratch.zarr", total_roi=Roi((0, 0), (16, 16)), dtype="u1", chunks=(4, 4))
    assert run_blockwise(task(write_some), workers, run_dir="run", progress=False, summary=False)
    assert Ledger.open("run").stored("w").ravel().tolist() == [0, 1] * 8
    assert verify("run")
    chunk(0, 1).unlink()
    assert verify("run").tasks[0].missing == {1: 1}


def test_of_what_nobody_counted_nothing_is_said_to_be_missing() -> None:
    out()
    assert run_blockwise(task(write_raw), False, run_dir="run", progress=False, summary=False)
    assert (Ledger.open("run").stored("w") == -1).all()
    found = verify("run")
    assert (found.tasks[0].uncounted, bool(found)) == (0, True)
    chunk(0, 1).unlink()
    found = verify("run")
    assert (found.tasks[0].uncounted, bool(found)) == (1, True)
    assert "may be empty on purpose" in str(found)


def test_an_output_that_is_another_one_is_refused() -> None:
    out()
    mapped()
    shutil.rmtree("o.zarr")
    with pytest.raises(PlanChangedError, match="is gone"):
        verify("run")
    out()
    with pytest.raises(PlanChangedError, match="made again"):
        verify("run", requeue=True)
    assert Ledger.open("run").counts("map_blocks")["done"] == 16


def test_a_project_that_was_moved_is_verified_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkdir("one")
    monkeypatch.chdir("one")
    out()
    mapped()
    chunk(3, 3).unlink()
    monkeypatch.chdir("..")
    os.rename("one", "two")
    assert verify("two/run").tasks[0].missing == {15: 1}


def test_channels_and_offsets_are_understood() -> None:
    prepare_ds("o.zarr", "t", Roi((40, 80), (160, 160)), (10, 10), "u1", chunks=(1, 4, 4), num_channels=3)

    def work(block: Any) -> None:
        open_ds("o.zarr", "t", "r+")[block.write_roi] = 1

    block = Roi((40, 80), (40, 80))
    again = Task("w", Roi((40, 80), (160, 160)), block, block, work, read_write_conflict=False, outputs=["o.zarr/t"])
    assert run_blockwise(again, False, run_dir="run", progress=False, summary=False)
    assert (Ledger.open("run").stored("w") == 6).all()
    Path("o.zarr/t/c/2/3/1").unlink()
    assert verify("run").tasks[0].missing == {6: 1}


def test_nothing_is_put_back_while_a_driver_is_at_work() -> None:
    out()
    mapped()
    store = reopen_run("run")
    with pytest.raises(DriverAliveError):
        verify("run", requeue=True)
    assert verify("run")
    store.close()


def test_the_command_says_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    out()
    mapped()
    assert main(["verify", "run"]) == 0
    chunk(3, 3).unlink()
    assert main(["verify", "run", "--requeue", "--read"]) == 1
    said = capsys.readouterr().out
    assert "block 15 of task 'map_blocks': 1 chunk is missing" in said
    assert "1 blocks were put back" in said
    mapped()
    assert main(["verify", "run"]) == 0
    assert main(["verify", "nowhere"]) == 1


def test_a_place_without_a_run_is_refused() -> None:
    with pytest.raises(RunDirectoryError, match="no run directory"):
        verify("nowhere")
