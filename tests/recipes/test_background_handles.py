"""Handles of frames: the same frames elsewhere, and the same frames later."""

from __future__ import annotations

import os
import pickle
import re
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.storage import MemoryStore, ZipStore

from blockflow.arrays.handles import DatasetHandle, MemmapHandle, portable
from blockflow.arrays.shared import SharedArray
from blockflow.errors import ArrayError, ArrayNotFoundError
from blockflow.recipes.background_handles import identity, reopened, shipped
from blockflow.recipes.background_input import Stack

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FRAMES: NDArray[np.uint16] = np.random.default_rng(0).integers(0, 60000, (30, 6, 8)).astype(np.uint16)


def elsewhere(data: Any) -> NDArray[Any]:
    """The frames as another process would read them."""
    with ExitStack() as context:
        handle = context.enter_context(shipped(Stack(data)))
        stack = context.enter_context(reopened(pickle.loads(pickle.dumps(handle))))
        return stack.frames(0, stack.shape[0]).copy()


def h5_file(path: Path, mode: str = "r", **arguments: Any) -> Any:
    h5py = pytest.importorskip("h5py")
    if not path.exists():
        with h5py.File(path, "w") as file:
            file.create_dataset("frames", data=FRAMES, chunks=(4, 6, 8))
    return h5py.File(path, mode, **arguments)


@pytest.mark.parametrize("order", ["C", "F"])
def test_every_view_of_a_mapped_file_is_mapped_again(tmp_path: Path, order: Any) -> None:
    np.save(tmp_path / "f.npy", np.asarray(FRAMES, order=order))
    mapped = np.load(tmp_path / "f.npy", mmap_mode="r")

    @given(st.tuples(*[st.slices(extent) for extent in FRAMES.shape]))
    def check(view: tuple[slice, ...]) -> None:
        part = mapped[view]
        if part.size:
            for data in (part, np.asarray(part)):
                assert isinstance(portable(data), MemmapHandle)
                np.testing.assert_array_equal(elsewhere(data), FRAMES[view])

    check()


def test_raw_files_with_an_offset_and_another_byte_order(tmp_path: Path) -> None:
    with (tmp_path / "raw").open("wb") as file:
        file.write(b"header!" + FRAMES.astype(">u2").tobytes())
    mapped: Any = np.memmap(tmp_path / "raw", ">u2", "r+", 7, FRAMES.shape)
    mapped[3] = 5
    assert isinstance(portable(mapped), MemmapHandle)
    np.testing.assert_array_equal(elsewhere(mapped), mapped)


def test_arrays_in_memory_are_shared_once(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", FRAMES)
    private = np.load(tmp_path / "f.npy", mmap_mode="c")  # copy-on-write: has what no file has
    private[2] = 9
    for data in (FRAMES, FRAMES[::-2, 1:], np.asfortranarray(FRAMES), FRAMES.astype(">u2"), private):
        with shipped(Stack(data)) as handle:
            assert isinstance(handle, SharedArray)
            assert len(pickle.dumps(handle)) < 1000
        np.testing.assert_array_equal(elsewhere(data), data)
        with pytest.raises(ArrayError, match="cannot attach"):
            pickle.loads(pickle.dumps(handle)).view()
    mine = SharedArray.from_array(FRAMES)
    np.testing.assert_array_equal(elsewhere(mine), FRAMES)
    assert mine.owned


def test_stored_arrays_are_opened_again(tmp_path: Path) -> None:
    stored = zarr.open_group(tmp_path / "g.zarr").create_array("frames", data=FRAMES, chunks=(4, 6, 8))
    np.testing.assert_array_equal(elsewhere(stored), FRAMES)
    with h5_file(tmp_path / "f.h5") as file:
        assert portable(file["frames"]) == DatasetHandle(str(tmp_path / "f.h5"), "/frames")
        np.testing.assert_array_equal(elsewhere(file["frames"]), FRAMES)


def test_a_stack_of_this_process_is_itself() -> None:
    stack = Stack(FRAMES)
    with reopened(stack) as again:
        assert again is stack


def test_what_no_other_process_can_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArrayError, match="a zarr array in memory cannot be sent"):
        elsewhere(zarr.create_array(MemoryStore(), data=FRAMES))
    for mode, arguments in (("r+", {}), ("r", {"driver": "core"})):
        with (
            h5_file(tmp_path / "f.h5", mode, **arguments) as file,
            pytest.raises(
                ArrayError, match=f"must be in a file opened with mode 'r' .* '{re.escape(mode)}' and driver"
            ),
        ):
            elsewhere(file["frames"])


def test_files_that_are_gone_or_changed_are_errors(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", FRAMES)
    stored = zarr.create_array(tmp_path / "f.zarr", data=FRAMES)
    with h5_file(tmp_path / "f.h5") as file:
        handles = [portable(data) for data in (np.load(tmp_path / "f.npy", mmap_mode="r"), stored, file["frames"])]
    os.truncate(tmp_path / "f.npy", 1000)
    (tmp_path / "f.zarr" / "zarr.json").unlink()
    (tmp_path / "f.h5").unlink()
    for handle, error, message in zip(
        handles,
        (ArrayError, ArrayNotFoundError, FileNotFoundError),
        ("f.npy has changed since this handle was made", "f.zarr", "there is no file .*f.h5"),
        strict=True,
    ):
        with pytest.raises(error, match=message), reopened(handle):
            pass
    (tmp_path / "f.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"f\.npy"), reopened(handles[0]):
        pass


def test_the_identity_of_a_file_changes_with_it(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", FRAMES)
    mapped = np.load(tmp_path / "f.npy", mmap_mode="r")
    stored = zarr.create_array(tmp_path / "f.zarr", data=FRAMES, chunks=(4, 6, 8))
    with ZipStore(tmp_path / "f.zip", mode="w") as store:
        zarr.create_array(store, data=FRAMES)
    zipped = zarr.open_array(ZipStore(tmp_path / "f.zip", mode="r"), mode="r")
    with h5_file(tmp_path / "f.h5") as file:
        stacks = [Stack(data) for data in (mapped, mapped[:, ::-1], stored, zipped, file["frames"], FRAMES, FRAMES + 1)]
        facts = [identity(stack) for stack in stacks]
        assert [identity(stack) for stack in stacks] == facts
        assert [facts.index(each) for each in facts] == [0, 1, 2, 3, 4, 3, 6]  # in a zip or here: the same pixels
        for path in ("f.npy", "f.zarr/c/3/0/0", "f.h5"):
            os.utime(tmp_path / path)
        changed = [identity(stack) != fact for stack, fact in zip(stacks, facts, strict=True)]
        assert changed == [True, True, True, False, True, False, False]
