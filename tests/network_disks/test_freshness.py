"""What one host writes, another one sees at once: one directory, two clients of a network file system."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore

from blockflow import Block, Command, Roi, Task, run_blockwise
from blockflow.arrays import open_ds, prepare_ds
from blockflow.arrays.fresh_store import FreshStore
from blockflow.freshness import SWITCH, caching_of, refresh_folder, refresh_now

if TYPE_CHECKING:
    from pathlib import Path

Hosts = tuple["Path", "Path"]

LOOKS = 40
SIDE = 4


@pytest.fixture(params=["hosts", "forgetful_hosts"])
def two(request: pytest.FixtureRequest) -> Hosts:
    """One directory, as two hosts see it."""
    found: Hosts = request.getfixturevalue(request.param)
    return found


def both(two: Hosts, name: str) -> Hosts:
    """A path that nothing is at yet, as both hosts see it."""
    unused = f"{os.urandom(4).hex()}-{name}"
    return two[0] / unused, two[1] / unused


def replace(path: Path, data: bytes) -> None:
    draft = path.with_name(f"{path.name}.draft")
    draft.write_bytes(data)
    draft.replace(path)


def test_the_caches_of_the_file_system_are_recognised(two: Hosts, tmp_path: Path) -> None:
    assert caching_of(two[0] / "not" / "there") == "glusterfs"
    assert caching_of(tmp_path) == "none"


def test_a_file_that_was_replaced_is_seen_after_a_refresh(two: Hosts) -> None:
    here, there = both(two, "replaced")
    for look in range(LOOKS):
        data = b"%d" % look * (1 + look % 7)
        replace(here, data)
        refresh_now(there)
        assert there.read_bytes() == data


def test_a_file_and_folders_that_were_missing_are_seen_after_a_refresh(two: Hosts) -> None:
    top = f"missing{os.urandom(4).hex()}"
    for look in range(LOOKS):
        here, there = (host / top / str(look) / "a" / "b" for host in two)
        assert not there.exists()
        here.parent.mkdir(parents=True)
        replace(here, b"there")
        refresh_now(there)
        assert there.read_bytes() == b"there"


def test_looking_for_a_file_makes_none(two: Hosts) -> None:
    folder = two[0] / f"empty{os.urandom(4).hex()}"
    folder.mkdir()
    refresh_now(folder / "absent")
    refresh_folder(folder)
    assert os.listdir(folder) == []


def test_names_and_what_was_appended_are_seen_after_a_refresh_of_the_folder(two: Hosts) -> None:
    here, there = both(two, "journal")
    here.mkdir()
    size = 0
    with open(here / "0", "wb", buffering=0) as file:
        for look in range(LOOKS):
            size += file.write(b"x" * (1 + look))
            os.fsync(file.fileno())
            (here / f"more{look}").touch()
            refresh_folder(there)
            assert len((there / "0").read_bytes()) == size
            assert len(os.listdir(there)) == 2 + look


def test_an_array_shows_what_another_host_has_written(two: Hosts) -> None:
    here, there = both(two, "x.zarr")
    written = prepare_ds(here, "raw", Roi((0,), (4 * SIDE,)), dtype="u4", chunks=(SIDE,))
    read = open_ds(there / "raw")
    assert type(read.data.store) is FreshStore
    for look in range(LOOKS):
        written[written.roi] = np.random.default_rng(look).integers(0, 1 << 32, 4 * SIDE, dtype="u4")
        np.testing.assert_array_equal(read.to_ndarray(), written.to_ndarray())


def test_a_block_refreshes_what_its_function_opens_by_itself(two: Hosts) -> None:
    here, there = both(two, "y.zarr")
    written = zarr.create_array(str(here), shape=(4 * SIDE,), chunks=(SIDE,), dtype="u4", fill_value=0)
    read = zarr.open_array(str(there), mode="r")
    roi = Roi((0,), (4 * SIDE,))
    block = Block(roi, read_roi=roi, write_roi=roi)
    for look in range(LOOKS):
        written[:] = look
        block.refresh(read if look % 2 else there)
        assert set(np.asarray(read[:]).tolist()) == {look}


def test_arrays_on_local_disks_are_read_by_zarr_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = prepare_ds(tmp_path / "x.zarr", "raw", Roi((0,), (4,)), dtype="u1")
    assert type(array.data.store) is LocalStore
    monkeypatch.setenv(SWITCH, "always")
    assert type(open_ds(tmp_path / "x.zarr" / "raw").data.store) is FreshStore
    np.testing.assert_array_equal(open_ds(tmp_path / "x.zarr" / "raw").to_ndarray(), 0)


@pytest.mark.parametrize("kind", ["conflict", "chain"])
def test_a_block_sees_what_finished_blocks_of_other_hosts_have_written(two: Hosts, tmp_path: Path, kind: str) -> None:
    """Blocks of 1,000 + index replace what was there, and look at four neighbours on each side."""
    blocks, context = 40, 4
    name = f"z{os.urandom(4).hex()}.zarr"
    roi = Roi((0,), (blocks * SIDE,))
    image = prepare_ds(two[0] / name, "x", roi, dtype="u4", chunks=(SIDE,))
    image[roi] = 7
    assert set(open_ds(two[1] / name / "x").to_ndarray().tolist()) == {7}  # and remembers that
    notes = tmp_path / "notes"

    def work(block: Block, *, writes: bool, reads: bool) -> None:
        import os
        import time

        began, index = time.time(), block.index
        assert index is not None
        array = open_ds(f"{os.environ['SEEN_AT']}/{name}", "x", mode="r+")
        seen = {}
        if reads:
            for near in range(max(0, index - context), min(blocks, index + context + 1)):
                if near != index or not writes:
                    seen[near] = int(array.to_ndarray(Roi((near * SIDE,), (SIDE,))).min())
        if writes:
            array[Roi((index * SIDE,), (SIDE,))] = 1000 + index
        with notes.open("a") as file:
            file.write(f"{(began, time.time(), index, writes, seen)!r}\n")

    def task(task_id: str, *, writes: bool, reads: bool, upstream: list[Task]) -> Task:
        unit = Roi((0,), (SIDE,))
        grown = (context * SIDE, context * SIDE) if reads else (0, 0)
        launchers = [Command(f"env SEEN_AT={host} sh -c {{command}}", workers=1) for host in two]
        return Task(
            task_id,
            roi.grow(*grown),
            unit.grow(*grown),
            unit,
            lambda block: work(block, writes=writes, reads=reads),
            read_write_conflict=writes and reads,
            launcher=launchers,
            upstream_tasks=upstream,
        )

    if kind == "conflict":
        tasks = [task("both", writes=True, reads=True, upstream=[])]
    else:
        tasks = [
            task("read", writes=False, reads=True, upstream=[task("write", writes=True, reads=False, upstream=[])])
        ]
    assert run_blockwise(tasks, run_dir=two[0] / f"{name}.run", host="127.0.0.1", progress=False, summary=False)
    rows = [eval(line) for line in notes.read_text().splitlines()]
    ended = {index: end for _, end, index, writes, _ in rows if writes}
    looks = [(near, value) for began, _, _, _, seen in rows for near, value in seen.items() if ended[near] < began]
    assert len(looks) > blocks
    assert [look for look in looks if look[1] != 1000 + look[0]] == []


def test_threads_of_a_worker_refresh_by_themselves(two: Hosts) -> None:
    """One that reads what another is just refreshing must not rely on it."""
    here, there = both(two, "threads")
    replace(here, b"0")
    for look in range(10):
        replace(here, b"%d" % look)
        seen: list[bytes] = []

        def read(seen: list[bytes] = seen) -> None:
            refresh_now(there)
            seen.append(there.read_bytes())

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [b"%d" % look] * 3
