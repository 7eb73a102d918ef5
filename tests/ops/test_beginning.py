"""Do maps that begin in this process and go on in workers give the same, whenever that happens, and whatever fails?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import blockflow
from blockflow import BlockStatus, Grid, Local
from blockflow.errors import ArrayError, BlockError, NotShippableError, PlanError
from blockflow.ops import beginning, iter_blocks, map_blocks
from blockflow.ops.beginning import START_SECONDS, first_for_workers
from blockflow.ops.request import MapRequest

HERE = os.getpid()
IMAGE = np.arange(40 * 10, dtype=np.int64).reshape(40, 10)
GRID = (4, 10)
ANY: dict[str, Any] = {"grid": GRID, "progress": False}


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers seem to start in no time, so that they pay at once."""
    monkeypatch.setattr(beginning, "START_SECONDS", 0.001)
    monkeypatch.setattr(beginning, "MEANWHILE_SECONDS", 0.001)
    monkeypatch.setattr(beginning, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)


def slow(block: Any) -> Any:
    time.sleep(0.02)
    return block + 1


def slow_and_where(block: Any) -> Any:
    time.sleep(0.02)
    return block + 1, os.getpid()


class TestWhenWorkersPay:
    @given(st.integers(1, 10**6), st.integers(0, 10**6), st.floats(1e-6, 1e6), st.integers(1, 64))
    def test_they_save_more_than_they_cost(self, size: int, done: int, seconds: float, workers: int) -> None:
        first = first_for_workers(size, done, seconds, workers)
        if first is not None:
            assert done < first < size
            assert (size - first) * seconds / max(1, done) * (1 - 1 / workers) > START_SECONDS

    @given(st.integers(1, 10**6), st.integers(1, 10**6), st.floats(1e-6, 1e6))
    def test_one_worker_never_pays(self, size: int, done: int, seconds: float) -> None:
        assert first_for_workers(size, done, seconds, 1) is None

    def test_what_has_to_be_copied_counts(self) -> None:
        assert first_for_workers(1000, 10, 0.05, 2) is not None
        assert first_for_workers(1000, 10, 0.05, 2, copying=3.0) is None

    def test_a_few_long_blocks(self) -> None:
        assert first_for_workers(2, 0, START_SECONDS / 2, 2) is None
        assert first_for_workers(2, 0, 2.1 * START_SECONDS, 2) == 1

    @pytest.mark.parametrize(
        "options",
        [
            {"num_workers": 0},
            {"launcher": Local(2)},
            {"blocks_per_process": 3},
            {"timeout": 5.0},
            {"setup": dict},
            {"host": "127.0.0.1"},
            {"mask": np.ones((10, 1), bool)},
            {"run_dir": "somewhere"},
            {"shared_chunks": "serialize"},
        ],
    )
    def test_what_is_for_workers_from_the_first_block_on(self, options: dict[str, Any]) -> None:
        assert not MapRequest(function=slow, sources=(IMAGE,), **options).begins_here
        assert MapRequest(function=slow, sources=(IMAGE,)).begins_here
        assert MapRequest(function=slow, sources=(IMAGE,), num_workers=2).begins_here


class TestResults:
    def test_short_work_stays_here(self) -> None:
        out = np.zeros_like(IMAGE)
        where = map_blocks(lambda block: (block + 1, os.getpid()), IMAGE, out=out, collect=True, **ANY)
        assert_array_equal(out, IMAGE + 1)
        assert where == [HERE] * 10

    @pytest.mark.usefixtures("eager")
    def test_long_work_moves(self) -> None:
        out = np.zeros_like(IMAGE)
        where = map_blocks(slow_and_where, IMAGE, out=out, collect=True, **ANY)
        assert_array_equal(out, IMAGE + 1)
        assert where[0] == HERE
        assert where[-1] != HERE

    @pytest.mark.usefixtures("eager")
    def test_what_other_processes_see_as_well_is_written_where_it_is(self, tmp_path: Path) -> None:
        stored = zarr.create_array(tmp_path / "out.zarr", shape=IMAGE.shape, chunks=GRID, dtype="i8")
        mapped = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", "i8", IMAGE.shape)
        for out in (stored, mapped):
            map_blocks(slow, IMAGE, out=out, **ANY)
            assert_array_equal(out[...], IMAGE + 1)
        assert_array_equal(map_blocks(slow, IMAGE, **ANY), IMAGE + 1)

    @pytest.mark.usefixtures("eager")
    def test_in_place(self) -> None:
        image = IMAGE.copy()
        map_blocks(slow, image, out=image, **ANY)
        assert_array_equal(image, IMAGE + 1)

    @pytest.mark.usefixtures("eager")
    def test_functions_that_write_by_themselves(self) -> None:
        def copy(block: Any, source: Any, sink: Any) -> None:
            time.sleep(0.02)
            sink[block.write_roi] = source.to_ndarray(block.write_roi) + 1

        out = np.zeros_like(IMAGE)
        map_blocks(copy, IMAGE, out=out, grid=Grid.regular(IMAGE.shape, GRID), call="block", progress=False)
        assert_array_equal(out, IMAGE + 1)

    @pytest.mark.usefixtures("eager")
    @pytest.mark.parametrize("ordered", [True, False])
    def test_iterating(self, ordered: bool) -> None:
        got = {block.index: int(result[0, 0]) for block, result in iter_blocks(slow, IMAGE, ordered=ordered, **ANY)}
        assert got == {index: 40 * index + 1 for index in range(10)}
        assert not ordered or list(got) == list(range(10))

    @pytest.mark.usefixtures("eager")
    def test_progress_ends_with_all_blocks(self, capsys: pytest.CaptureFixture[str]) -> None:
        map_blocks(slow, IMAGE, grid=GRID)
        assert capsys.readouterr().err.splitlines()[-1].startswith("map_blocks: 10/10 done")

    def test_progress_of_short_work(self, capsys: pytest.CaptureFixture[str]) -> None:
        map_blocks(lambda block: block, IMAGE, grid=GRID)
        assert capsys.readouterr().err == "map_blocks: 10/10 done\n"


class TestFailures:
    def test_what_fails_once_is_tried_again_by_workers(self, tmp_path: Path) -> None:
        def fail_once(block: Any) -> Any:
            if block[0, 0] == 120 and not (tmp_path / "failed").exists():
                (tmp_path / "failed").touch()
                raise OSError("once")
            return block

        assert_array_equal(map_blocks(fail_once, IMAGE, **ANY), IMAGE)

    @pytest.mark.usefixtures("eager")
    def test_the_first_block_fails_here_when_workers_are_at_work(self, tmp_path: Path) -> None:
        def fail_here(block: Any) -> Any:
            time.sleep(0.1)
            if os.getpid() == HERE:
                raise SystemExit(3)
            return block

        assert_array_equal(map_blocks(fail_here, IMAGE, **ANY), IMAGE)

    def test_the_others_are_done_before_it_is_raised(self) -> None:
        out = np.zeros(8, int)
        with pytest.raises(ZeroDivisionError) as info:
            map_blocks(lambda block: block - 4 // (int(block[0]) - 4), np.arange(8), out=out, grid=2, progress=False)
        assert out.tolist() == [1, 2, 4, 5, 0, 0, 4, 5]
        assert isinstance(info.value.__cause__, BlockError)

    def test_blocks_that_say_they_failed(self) -> None:
        def fail(block: Any, source: Any) -> None:
            block.status = BlockStatus.FAILED

        with pytest.raises(BlockError, match="status was set to FAILED"):
            map_blocks(fail, np.arange(8), grid=4, call="block", collect=True, progress=False)

    def test_what_cannot_be_sent_is_refused_however_short(self) -> None:
        lock = threading.Lock()
        with pytest.raises(NotShippableError, match="lock"):
            map_blocks(lambda block: lock.locked(), np.arange(4), grid=2, collect=True, progress=False)

    def test_what_workers_cannot_open_is_refused_however_short(self, tmp_path: Path) -> None:
        h5py = pytest.importorskip("h5py")
        with h5py.File(tmp_path / "file.h5", "w") as file:
            data = file.create_dataset("data", data=np.arange(8))
            with pytest.raises(PlanError, match="to be written by other processes"):
                map_blocks(slow, np.arange(8), out=data, grid=4, progress=False)
            with pytest.raises(ArrayError, match="opened with mode 'r' to be read"):
                map_blocks(slow, data, grid=4, progress=False)

    @pytest.mark.usefixtures("eager")
    def test_what_goes_wrong_with_workers_ends_the_map(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*args: object, **options: object) -> None:
            raise OSError("no room")

        monkeypatch.setattr(beginning, "run_in_processes", refuse)
        with pytest.raises(OSError, match="no room"):
            map_blocks(slow, IMAGE, **ANY)

    def test_a_process_that_is_told_to_end_ends(self, tmp_path: Path) -> None:
        script = textwrap.dedent(
            """
            import time
            import numpy as np
            from blockflow.ops import map_blocks

            def work(block):
                print("at work", flush=True)
                time.sleep(3600)

            map_blocks(work, np.arange(2), grid=2, collect=True, progress=False)
            """
        )
        environment = {**os.environ, "PYTHONPATH": str(Path(blockflow.__file__).parents[1])}
        run = subprocess.Popen(
            [sys.executable, "-c", script], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
        )
        with run:
            assert run.stdout is not None
            assert run.stdout.readline() == "at work\n"
            run.terminate()
            assert run.wait(60) == 128 + signal.SIGTERM

    @pytest.mark.usefixtures("eager")
    def test_leaving_the_loop_ends_it(self) -> None:
        results = iter_blocks(slow, IMAGE, grid=(1, 1), progress=False)
        for number, _ in enumerate(results):
            if number == 20:
                break
        results.close()  # type: ignore[attr-defined]
        assert not [thread for thread in threading.enumerate() if thread.name == "blockflow-map"]
