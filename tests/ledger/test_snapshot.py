"""Snapshots: a plain zarr group that anybody can open, whole or not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.codecs import GzipCodec

from blockflow.arrays import open_ds
from blockflow.errors import DamagedLedgerError, LedgerVersionError
from blockflow.geometry import Roi
from blockflow.ledger import chunks as chunks_module
from blockflow.ledger import snapshot as snapshot_module
from blockflow.ledger.chunks import Chunks
from blockflow.ledger.disk import LocalDisk
from blockflow.ledger.records import BlocksDone, BlocksSkipped
from blockflow.ledger.snapshot import PLACE, find_snapshot, settle_snapshot, task_folder
from blockflow.plan.task import Task
from blockflow.scheduler.block_states import BlockState
from tests.ledger.fake_disk import FakeDisk
from tests.ledger.runs import done, failed, identity, opened, task

if TYPE_CHECKING:
    from pathlib import Path

DONE, FAILED, ORPHANED, SKIPPED = BlockState.DONE, BlockState.FAILED, BlockState.ORPHANED, BlockState.SKIPPED


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small that every test has many."""
    monkeypatch.setattr(chunks_module, "CHUNK_BLOCKS", 6)


# ----------------------------------------------------------------------------------------------------------- chunks


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4).map(tuple), st.integers(1, 60))
def test_chunks_are_what_zarr_takes_them_for(shape: tuple[int, ...], largest: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks_module, "CHUNK_BLOCKS", largest)
        layout = Chunks(shape)
    size = int(np.prod(shape))
    values = np.arange(1, size + 1, dtype=np.uint16)
    store = zarr.storage.MemoryStore()
    array = zarr.create_array(
        store, shape=shape, chunks=layout.shape, dtype="uint16", compressors=GzipCodec(level=1),
        chunk_key_encoding={"name": "default", "separator": "."}, fill_value=0,
    )  # fmt: skip
    array[...] = values.reshape(shape)
    saved = {key: value.to_bytes() for key, value in store._store_dict.items() if key.startswith("c")}
    assert set(saved) == {layout.key(number) for number in range(len(layout.edges))}
    assert not size or np.prod(layout.shape) <= largest
    covered = 0
    for number, begin in enumerate(layout.edges.tolist()):
        here = values[begin : begin + layout.length(number)]
        covered += len(here)
        data = saved[layout.key(number)]
        assert (layout.decode(data, "attempts", number, "c") == here).all()
        assert chunks_module.decompress(layout.encode(here), "c") == chunks_module.decompress(data, "c")
    assert covered == size


def test_a_damaged_chunk_is_refused() -> None:
    layout = Chunks((10, 10))
    data = layout.encode(np.ones(100, dtype=np.uint8))
    for cut in range(len(data)):
        with pytest.raises(DamagedLedgerError, match="the/file is damaged"):
            layout.decode(data[:cut], "state", 0, "the/file")
    for changed in (data + b"x", Chunks((9, 10)).encode(np.ones(90, dtype=np.uint8))):
        with pytest.raises(DamagedLedgerError, match="the/file is damaged"):
            layout.decode(changed, "state", 0, "the/file")


# --------------------------------------------------------------------------------------------------- for everybody


@pytest.mark.usefixtures("small_chunks")
def test_zarr_opens_it_and_it_lies_where_the_blocks_write(tmp_path: Path) -> None:
    smooth = Task("smooth", Roi((-5, 100), (42, 24)), Roi((0, 0), (12, 6)), Roi((1, 0), (10, 4)), fit="shrink")
    strange = task("__zarr.json", blocks=(3,))
    assert smooth.grid.shape == (4, 6)
    store = opened(LocalDisk(tmp_path), identity(smooth, strange))
    store.append(
        [BlocksDone(0, (3, 2, 4, 1), 1, 3_000_000), failed(5), failed(5, final=True), BlocksSkipped(0, (7, 1))]
    )
    store.append([failed(10), done(10)])
    final = np.full(24, ORPHANED, dtype=np.uint8)
    final[:22] = DONE  # only what nobody recorded is taken from here
    store.fold([final, np.zeros(3, dtype=np.uint8)])
    group = zarr.open_group(tmp_path / PLACE, mode="r")
    assert sorted(group["tasks"].group_keys()) == ["%__zarr.json", "smooth"]  # type: ignore[union-attr]
    expected = np.zeros(24)
    expected[[3, 4, 9, 10]], expected[5], expected[7], expected[22:] = DONE, FAILED, SKIPPED, ORPHANED
    for name, values in (
        ("state", expected),
        ("attempts", np.bincount([3, 4, 9, 5, 5, 10, 10], minlength=24)),
        ("seconds", np.where(expected == DONE, np.where(np.arange(24) == 10, 0.001, 1), 0)),
    ):
        array = open_ds(tmp_path / PLACE, f"{task_folder('smooth')}/{name}")
        assert array.roi == Roi((-4, 100), (40, 24))
        assert array.voxel_size == (10, 4)
        assert array[...].dtype == {"state": np.uint8, "attempts": np.uint16, "seconds": np.float32}[name]
        assert np.allclose(array[...].ravel(), values), name
    assert zarr.open_array(tmp_path / PLACE / "tasks/smooth/state").attrs["states"]["done"] == DONE  # type: ignore[call-overload, index]
    assert zarr.open_array(tmp_path / PLACE / "notes")[:].dtype == np.uint8  # type: ignore[union-attr]


@given(st.text(min_size=1, max_size=5))
def test_no_two_tasks_share_a_folder(name: str) -> None:
    names = {name, f"%{name}", f"__{name}", "zarr.json", "%zarr.json"}
    assert len({task_folder(each) for each in names}) == len(names)


def test_zarr_is_not_needed_to_write_and_read_it() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from tests.ledger.fake_disk import FakeDisk; from tests.ledger.runs import opened, done;"
        "disk = FakeDisk(); s = opened(disk); s.append([done(1)]); s.fold(); opened(disk);"
        "sys.exit('zarr' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# ---------------------------------------------------------------------------------------------------------- damage


def folded() -> FakeDisk:
    disk = FakeDisk()
    store = opened(disk)
    store.append([done(1, 2), failed(3)])
    store.fold()
    return disk


@pytest.mark.parametrize("path", ["zarr.json", "notes/c.0", "tasks/smooth/state/c.0.0"])
@pytest.mark.parametrize("data", [b"", b"{}", b"rubbish"])
def test_damaged_files_are_named(path: str, data: bytes) -> None:
    disk = folded()
    disk.write(f"{PLACE}/{path}", data)
    with pytest.raises(DamagedLedgerError, match=f"{PLACE}/{path} is damaged"):
        opened(disk)


@pytest.mark.parametrize("path", ["zarr.json", "notes/c.0", "tasks/smooth/state/c.0.0"])
def test_missing_files_are_named(path: str) -> None:
    disk = folded()
    disk.remove(f"{PLACE}/{path}")
    with pytest.raises(DamagedLedgerError, match=f"{PLACE}/"):
        opened(disk)


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_module, "VERSION", 3)
    disk = folded()
    monkeypatch.undo()
    with pytest.raises(LedgerVersionError, match="format 3, this blockflow reads 2"):
        find_snapshot(disk)


def test_drafts_of_later_drivers_are_left_alone() -> None:
    disk = folded()
    for epoch in (1, 2, 3):
        disk.write(f"{PLACE}.new-{epoch}/tasks/zarr.json", b"{}")
    settle_snapshot(disk, 2)
    assert [name for name in disk.names("") if name.startswith(PLACE)] == [PLACE, f"{PLACE}.new-3"]
