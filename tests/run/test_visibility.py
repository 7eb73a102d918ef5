"""Is a run refused, before it starts, if nobody would see what its workers write?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore, LoggingStore, MemoryStore, WrapperStore, ZipStore

from blockflow import Command, Grid, Local, Server, Task, iter_blocks, map_blocks, run_blockwise
from blockflow.arrays import Array, open_ds, prepare_ds
from blockflow.arrays.shared import SharedArray
from blockflow.errors import ArrayError, PlanError
from blockflow.geometry import Roi

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GRID = Grid.regular((8, 8), block=4)
QUIET: dict[str, Any] = {"progress": False, "summary": False}


class Elsewhere(LocalStore):
    """Files, by a store of a kind that is not known."""


class Private(LocalStore):
    """Files for the process that has made it; another one finds nothing."""

    def __reduce__(self) -> Any:
        return Private, (f"{self.root}-copy",)


class Stuck(LocalStore):
    """Cannot be sent."""

    def __reduce__(self) -> Any:
        raise TypeError("it is part of this process")


def stored(store: Any) -> zarr.Array[Any]:
    return zarr.create_array(store, name="a", shape=(8, 8), chunks=(4, 4), dtype="i8")


def part(data: Any) -> Array:
    array = Array(data)
    piece: Array = array[array.roi]
    return piece


UNSEEN: dict[str, Callable[[Path], Any]] = {
    "an ndarray": lambda path: np.zeros((8, 8)),
    "an Array over an ndarray": lambda path: Array(np.zeros((8, 8))),
    "a part of one": lambda path: part(np.zeros((8, 8))),
    "a zarr array in memory": lambda path: stored(MemoryStore()),
    "a part of one in wrapped memory": lambda path: part(stored(WrapperStore(LoggingStore(MemoryStore())))),
    "a zip file": lambda path: stored(ZipStore(path / "x.zip", mode="w")),
    "a store that others do not see": lambda path: stored(Private(path / "private")),
    "a store that cannot be sent": lambda path: stored(Stuck(path / "stuck")),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_tasks_that_write_where_others_do_not_see_it_are_refused(tmp_path: Path, name: str) -> None:
    ran = tmp_path / "ran"
    task = Task("t", grid=GRID, process_function=lambda block: ran.touch(), outputs=[UNSEEN[name](tmp_path)])
    for run in (
        lambda: run_blockwise(task, **QUIET),
        lambda: run_blockwise(task, run_dir=tmp_path / "run", **QUIET),
        lambda: Server().run_blockwise([task]),
        lambda: run_blockwise(Task("u", grid=GRID, process_function=len, upstream_tasks=[task]), **QUIET),
    ):
        with pytest.raises(PlanError, match=r"outputs\[0\] of task 't' (is|cannot)"):
            run()
    assert not ran.exists()
    assert not (tmp_path / "run").exists()
    if name != "a zip file":
        assert run_blockwise(task, multiprocessing=False, **QUIET), "in this process it is seen"


def test_what_others_see_is_taken(tmp_path: Path) -> None:
    shared = SharedArray.create((8, 8), "i8")
    mapped = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", "i8", (8, 8))
    files = stored(LoggingStore(LocalStore(tmp_path / "logged")))
    tried = stored(Elsewhere(tmp_path / "tried"))
    prepared = prepare_ds(tmp_path / "x.zarr", "a", Roi((0, 0), (8, 8)), dtype="i8", write_size=(4, 4))
    outputs = [shared, Array(mapped), files, part(tried), prepared, tmp_path / "x.zarr" / "a"]

    def write(block: Any) -> None:
        key = tuple(slice(begin, end) for begin, end in zip(block.write_roi.begin, block.write_roi.end, strict=True))
        prepared[block.write_roi] = 7
        for array in (shared.view(), files, tried):
            array[key] = 7

    assert run_blockwise(Task("t", grid=GRID, process_function=write, outputs=outputs), **QUIET)
    for array in (shared, files, tried, prepared.data):
        assert (np.asarray(array[...]) == 7).all()
    names = {path.name for path in (tmp_path / "tried" / "a").iterdir()}
    assert names == {"zarr.json", "c"}, "nothing of the trial is left"


def test_shared_memory_is_not_seen_on_other_machines() -> None:
    task = Task(
        "t",
        grid=GRID,
        process_function=len,
        outputs=[SharedArray.create((8, 8), "i8")],
        launcher=Command("ssh node {command}"),
    )
    with pytest.raises(PlanError, match="in shared memory of this machine, and workers are on others"):
        run_blockwise(task, **QUIET)


@pytest.mark.parametrize("call", [map_blocks, lambda *args, **more: list(iter_blocks(*args, call="block", **more))])
class TestMaps:
    def test_memory_inside_anything_is_shared(self, call: Any) -> None:
        image = np.arange(64).reshape(8, 8)
        for wrap in (lambda store: store, WrapperStore, lambda store: LoggingStore(WrapperStore(store))):
            source, out = stored(wrap(MemoryStore())), stored(wrap(MemoryStore()))
            source[:] = image
            if call is map_blocks:
                call(lambda block: block + 1, source, out=out, grid=4, launcher=Local(2), progress=False)
            else:

                def write(block: Any, read: Array, written: Array) -> None:
                    written[block.write_roi] = read.to_ndarray(block.write_roi) + 1

                call(write, source, out=out, grid=4, launcher=Local(2), progress=False)
            np.testing.assert_array_equal(out[:], image + 1)

    def test_stores_that_others_cannot_write_are_refused(self, call: Any, tmp_path: Path) -> None:
        image = np.zeros((8, 8))
        cases = (
            (ZipStore(tmp_path / "x.zip", mode="w"), ArrayError, "a zip file that is open for writing"),
            (Private(tmp_path / "private"), PlanError, "is not seen by worker processes.*store of a kind"),
        )
        for store, error, message in cases:
            out = stored(store)
            for where in ({"launcher": Local(2)}, {}):
                with pytest.raises(error, match=message):
                    call(np.copy, image, out=out, grid=4, progress=False, **where)


def test_a_zip_file_is_read_by_workers(tmp_path: Path) -> None:
    image = np.arange(64).reshape(8, 8)
    with ZipStore(tmp_path / "x.zip", mode="w") as store:
        stored(store)[:] = image
    with ZipStore(tmp_path / "x.zip", mode="r") as store:
        read = map_blocks(np.copy, open_ds(store, "a"), grid=4, launcher=Local(2), progress=False)
    np.testing.assert_array_equal(read, image)
