"""Backgrounds with workers and run directories: the same results, and errors that arrive."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from blockflow.errors import ArrayError, PlanError, RunError
from blockflow.recipes.background import Background, rolling_median_background, sparse_median_background
from blockflow.recipes.background_run import images_per_block

if TYPE_CHECKING:
    from numpy.typing import NDArray

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs of workers go to the working directory."""
    monkeypatch.chdir(tmp_path)


def frames_of(count: int = 600, dtype: type[np.generic] = np.uint8) -> NDArray[Any]:
    return np.random.default_rng(0).integers(90, 120, (count, 24, 20)).astype(dtype)


def sparse(stack: Any, **arguments: Any) -> Background:
    return sparse_median_background(stack, 40, 0.01, **arguments)


def assert_same(one: Background, other: Background) -> None:
    for name in ("images", "index", "offset", "times", "used"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.images.dtype == other.images.dtype
    assert one.identifier == other.identifier


def write_rtdc(path: Path, frames: NDArray[Any]) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file.create_dataset("events/image", data=frames, chunks=(17, *frames.shape[1:]), compression="gzip")
        file["events/time"] = np.linspace(0, 0.25, len(frames))
    return path


@pytest.mark.parametrize("kind", ["array", "part of a memory map", "zarr", "file"])
def test_workers_compute_the_same_from_every_kind_of_stack(kind: str) -> None:
    frames = frames_of()
    stack: Any = frames
    if kind == "part of a memory map":
        np.save("frames.npy", np.repeat(frames[::-1], 2, axis=2))
        stack = np.load("frames.npy", mmap_mode="r")[::-1, :, ::2]
    elif kind == "zarr":
        stack = zarr.create_array("frames.zarr", data=frames, chunks=(7, 24, 20))
    elif kind == "file":
        stack = write_rtdc(Path("frames.rtdc"), frames)
    expected = sparse(stack)
    assert len(expected.used) > 16
    assert_same(sparse(stack, num_workers=2), expected)


def test_workers_compute_the_same_rolling_median() -> None:
    frames = frames_of(300, np.float32)
    assert_same(rolling_median_background(frames, 40, num_workers=2), rolling_median_background(frames, 40))


def saved(frames: NDArray[Any]) -> type[Any]:
    """A class of stacks that are neither in memory nor in a file that anybody else knows.

    A local one, so that workers need not import this module with all that it imports.
    """
    np.save("frames.npy", frames)

    class Saved:
        path, shape, dtype = Path("frames.npy").resolve(), frames.shape, frames.dtype

        def __getitem__(self, key: Any) -> NDArray[Any]:
            return np.asarray(np.load(self.path, mmap_mode="r")[key])

    return Saved


def test_a_killed_worker_is_replaced() -> None:
    class KillsOnce(saved(frames_of())):  # type: ignore[misc]
        def __getitem__(self, key: Any) -> NDArray[Any]:
            try:
                self.path.with_suffix(".killed").mkdir()
            except FileExistsError:
                return np.asarray(super().__getitem__(key))
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

    assert_same(sparse(KillsOnce(), num_workers=2), sparse(frames_of()))
    assert Path("frames.killed").exists()


def test_frames_that_kill_every_worker_are_an_error() -> None:
    class Kills(saved(frames_of(40))):  # type: ignore[misc]
        def __getitem__(self, key: Any) -> NDArray[Any]:
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

    with pytest.raises(
        RunError, match=r"1 of 1 blocks of background .* workers ended while they ran .* in daisy_logs.background"
    ):
        rolling_median_background(Kills(), 40, num_workers=2)


def test_a_file_that_vanishes_in_the_middle_is_an_error() -> None:
    class Vanishes(saved(frames_of())):  # type: ignore[misc]
        def __getitem__(self, key: Any) -> NDArray[Any]:
            read = np.asarray(super().__getitem__(key))
            if key[0].stop > 300:
                self.path.unlink(missing_ok=True)
            return read

    with pytest.raises(RunError, match=r"FileNotFoundError: .*frames.npy(.|\n)*Traceback"):
        sparse(Vanishes(), num_workers=2)


def test_a_mapped_file_without_a_name_any_more_is_an_error() -> None:
    np.save("frames.npy", frames_of())
    stack = np.load("frames.npy", mmap_mode="r")
    Path("frames.npy").unlink()
    with pytest.raises(RunError, match=r"FileNotFoundError: .*frames.npy"):
        sparse(stack, num_workers=2)


INTERRUPTED = """
import os, signal
import numpy as np
from blockflow.recipes.background import sparse_median_background

class Blocks:
    shape, dtype = (600, 24, 20), np.dtype(np.uint8)
    def __getitem__(self, key):
        with open("pids", "w") as pids:
            pids.write(f"{os.getpid()} ")
        signal.pause()

sparse_median_background(Blocks(), 40, 0.01, num_workers=2)
"""


def test_ctrl_c_leaves_no_process_and_no_scratch() -> None:
    os.mkfifo("pids")
    Path("tmp").mkdir()
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "TMPDIR": str(Path("tmp").resolve())}
    driver = subprocess.Popen([sys.executable, "-c", INTERRUPTED], env=environment, stderr=subprocess.PIPE, text=True)
    pids: list[int] = []
    while len(pids) < 2:
        pids += [int(pid) for pid in Path("pids").read_text().split()]
    driver.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in driver.communicate(timeout=60)[1]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert list(Path("tmp").iterdir()) == []


def kept(name: str, mode: Any = "r+") -> NDArray[Any]:
    return np.asarray(np.load(f"run/background/{name}.npy", mmap_mode=mode))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_what_a_run_directory_keeps_is_not_computed_again(num_workers: int) -> None:
    np.save("frames.npy", frames_of())
    expected = sparse("frames.npy", frac_cleansing=1)
    assert_same(sparse("frames.npy", frac_cleansing=1, run_dir="run"), expected)
    np.testing.assert_array_equal(kept("images"), expected.images)
    assert kept("done").all()
    kept("images")[:] = 77
    kept("brightness")[:] = 0
    kept("done")[10:13] = False
    again = sparse("frames.npy", frac_cleansing=1, run_dir="run", num_workers=num_workers)
    computed = np.flatnonzero((again.images != 77).any(axis=(1, 2)))
    assert {10, 11, 12} <= set(computed.tolist())
    np.testing.assert_array_equal(again.images[computed], expected.images[computed])
    assert (len(computed) < len(expected.images)) is (num_workers == 2)  # one block, or eight
    assert kept("done").all()
    assert not again.images.flags.writeable


def test_blocks_that_were_done_before_a_failure_are_kept() -> None:
    frames = frames_of(dtype=np.float32)
    np.save("frames.npy", frames)
    with_nan = np.load("frames.npy", mmap_mode="r+")
    with_nan[500, 2, 2] = np.nan
    with_nan.flush()
    before = os.stat("frames.npy")
    with pytest.raises(RunError, match="ArrayError: stack must hold finite values: frame 500 has NaN"):
        sparse("frames.npy", run_dir="run", num_workers=2)
    done = kept("done").copy()
    assert 0 < done.sum() < len(done)
    with pytest.raises(ArrayError, match="frame 500 has NaN"):
        sparse("frames.npy", run_dir="run")
    with_nan[500, 2, 2] = frames[500, 2, 2]
    with_nan.flush()
    os.utime("frames.npy", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert_same(sparse("frames.npy", run_dir="run"), sparse(frames))


def test_a_rolling_median_stays_in_the_run_directory() -> None:
    frames = frames_of(100)
    background = rolling_median_background(frames, 10, run_dir="run")
    assert_same(background, rolling_median_background(frames, 10))
    kept("images")[3] = 1
    assert (background.at(3) == 1).all()
    assert not Path("run/background/brightness.npy").exists()


def test_another_job_is_refused() -> None:
    np.save("frames.npy", frames_of())
    sparse("frames.npy", run_dir="run")
    sparse("frames.npy", run_dir="run", thresh_cleansing=3)  # cleansing is done afterwards
    job: dict[str, Any] = {"stack": "frames.npy", "kernel_size": 40, "split_time": 0.01, "run_dir": "run"}
    for change, message in (
        ({"kernel_size": 41}, "kernel was 40 and is 41 now; choose another run_dir, or delete that folder"),
        ({"split_time": 0.02}, "images was 25 and is 13 now"),
        ({"frame_rate": 3601}, "windows was"),
        ({"offset_correction": False}, "brightness was True and is False now"),
        ({"stack": frames_of()}, "frames was '.*frames.npy' and is 'in memory' now"),
        ({"stack": frames_of(599)}, r"shape was \[600, 24, 20\] and is \[599, 24, 20\] now"),
    ):
        with pytest.raises(PlanError, match=f"run_dir keeps another job in .*background: {message}"):
            sparse_median_background(**job | change)
    os.utime("frames.npy")
    with pytest.raises(PlanError, match=r"version was .* changed at"):
        sparse("frames.npy", run_dir="run")


def test_a_directory_with_something_else_is_refused() -> None:
    Path("run/background").mkdir(parents=True)
    with pytest.raises(PlanError, match=r"run_dir must be new or keep a background, .* no usable job.json"):
        sparse(frames_of(), run_dir="run")


@given(st.integers(1, 300), st.integers(0, 400), st.integers(1, 300), st.integers(1, 9))
def test_blocks_read_few_frames_twice_and_are_enough_for_all_workers(
    count: int, step: int, kernel: int, workers: int
) -> None:
    starts = range(0, count * step, step) if step else [0] * count
    size = images_per_block(starts, kernel, workers)
    assert 1 <= size <= count
    blocks = -(-count // size)
    if workers == 1:
        assert blocks == 1 or size * max(1, min(step, kernel)) >= 16 * kernel
    else:
        assert blocks >= min(count, 2 * workers)
