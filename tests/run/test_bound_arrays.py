"""A run directory vouches only for the arrays that its blocks have read and written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from blockflow import Roi, Task, map_blocks, run_blockwise
from blockflow.arrays import Array, open_ds, prepare_ds
from blockflow.errors import LedgerError, PlanChangedError, PlanError
from blockflow.ops import downsample, label, relabel

WHOLE, BLOCK = Roi((0, 0), (16, 16)), Roi((0, 0), (8, 8))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def double(values: Any) -> Any:
    return values * 2


def mapped(source: Any, out: Any = "o.zarr/a", **options: Any) -> Any:
    options = {"run_dir": "run", "grid": (8, 8), "num_workers": 0, "progress": False, **options}
    return np.asarray(map_blocks(double, source, out=out, **options))


def filled(path: str, value: int = 1, **options: Any) -> Any:
    options = {"chunks": (8, 8), "dtype": "u1", **options}
    array = zarr.create_array(path, shape=(16, 16), overwrite=True, **options)
    array[...] = value
    return array


def write_seven(block: Any) -> None:
    open_ds("o.zarr", "t", "r+")[block.write_roi] = 7


def written(outputs: Any = ("o.zarr/t",), function: Any = write_seven, **options: Any) -> bool:
    about = {name: options.pop(name) for name in ("inputs", "mask") if name in options}
    task = Task("w", WHOLE, BLOCK, BLOCK, function, read_write_conflict=False, outputs=list(outputs), **about)
    return bool(run_blockwise(task, False, run_dir="run", progress=False, summary=False, **options))


# --------------------------------------------------------------------------------------------------------- outputs


@pytest.mark.parametrize("out", ["o.zarr/a", "o.zarr", "o.zarr/deep/er", "o.npy"])
def test_an_output_that_was_deleted_is_not_made_anew(out: str) -> None:
    np.save("in.npy", np.ones((16, 16), "u1"))
    assert (mapped("in.npy", out) == 2).all()
    assert (mapped("in.npy", out) == 2).all()
    shutil.rmtree(out) if Path(out).is_dir() else Path(out).unlink()
    with pytest.raises(PlanChangedError, match="4 blocks of task 'map_blocks' are done, and their output is not there"):
        mapped("in.npy", out)
    assert not Path(out).exists()
    assert (mapped("in.npy", out, reset=True) == 2).all()


def test_an_output_that_was_put_back_is_the_same() -> None:
    np.save("in.npy", np.ones((16, 16), "u1"))
    mapped("in.npy")
    shutil.copytree("o.zarr", "backup")
    shutil.rmtree("o.zarr")
    with pytest.raises(PlanChangedError):
        mapped("in.npy")
    shutil.move("backup", "o.zarr")
    assert (mapped("in.npy") == 2).all()


def make_v3() -> None:
    prepare_ds("o.zarr", "t", WHOLE, dtype="u1", write_size=(8, 8))


def make_v2() -> None:
    prepare_ds("o.zarr", "t", WHOLE, dtype="u1", write_size=(8, 8), zarr_format=2)


def make_shards() -> None:
    prepare_ds("o.zarr", "t", WHOLE, dtype="u1", chunks=(4, 4), shards=(8, 8))


@pytest.mark.parametrize("make", [make_v2, make_v3, make_shards])
def test_an_array_of_the_user_that_was_made_again_is_refused(make: Any) -> None:
    make()
    assert written()
    assert written()  # nothing has changed
    shutil.rmtree("o.zarr")
    make()
    with pytest.raises(PlanChangedError, match="was deleted and made again"):
        written()
    assert not open_ds("o.zarr/t").to_ndarray().any()
    assert written(reset=True)
    assert (open_ds("o.zarr/t").to_ndarray() == 7).all()


def test_overwriting_an_array_makes_it_another_one() -> None:
    make_v3()
    assert written()
    prepare_ds("o.zarr", "t", WHOLE, dtype="u1", write_size=(8, 8), overwrite=True)
    with pytest.raises(PlanChangedError, match="made again"):
        written()


def test_whoever_knows_better_keeps_what_is_done() -> None:
    make_v3()
    assert written()
    shutil.rmtree("o.zarr")
    make_v3()
    assert written(accept_change=True)
    assert written()  # the record is about the new array from now on
    assert not open_ds("o.zarr/t").to_ndarray().any()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"write_size": (4, 8)}, r"chunks was \(8, 8\), and is \(4, 8\)"),
        ({"dtype": "u2"}, r"dtype was \|u1, and is <u2"),
        ({"fill_value": 3}, "stored in another way"),
        ({"compressors": None}, "stored in another way"),
        ({"total_roi": Roi((0, 0), (24, 16))}, r"shape was \(16, 16\), and is \(24, 16\)"),
    ],
)
def test_an_output_of_another_layout_is_refused_with_what_differs(change: dict[str, Any], says: str) -> None:
    make_v3()
    assert written()
    shutil.rmtree("o.zarr")
    prepare_ds("o.zarr", "t", **{"total_roi": WHOLE, "dtype": "u1", "write_size": (8, 8), **change})
    with pytest.raises(PlanChangedError, match=says):
        written()


def test_one_of_two_outputs_that_was_made_again_is_named() -> None:
    for name in "tu":
        prepare_ds("o.zarr", name, WHOLE, dtype="u1", write_size=(8, 8))
    assert written(["o.zarr/t", "o.zarr/u"])
    shutil.rmtree("o.zarr/u")
    prepare_ds("o.zarr", "u", WHOLE, dtype="u1", write_size=(8, 8))
    with pytest.raises(PlanChangedError, match=r"output 1 .*o.zarr/u.* made again") as error:
        written(["o.zarr/t", "o.zarr/u"])
    assert "output 0" not in str(error.value)


def test_another_output_with_the_same_record_is_refused() -> None:
    np.save("in.npy", np.ones((16, 16), "u1"))
    mapped("in.npy")
    with pytest.raises(PlanChangedError, match=r"nothing at o\.zarr/b"):
        mapped("in.npy", "o.zarr/b")
    filled("o.zarr/b", 0)
    with pytest.raises(PlanChangedError, match=r"output 0 was .*o\.zarr/a, and is .*o\.zarr/b"):
        mapped("in.npy", "o.zarr/b")
    make_v3()
    with pytest.raises(PlanChangedError, match=r"output 1 .* is new"):
        map_blocks(lambda a: (a, a), "in.npy", out=["o.zarr/a", "o.zarr/t"], grid=(8, 8), run_dir="run", num_workers=0)


def test_a_link_that_leads_elsewhere_is_another_output() -> None:
    for name in ("one", "two"):
        filled(f"{name}.zarr", 0)
    np.save("in.npy", np.ones((16, 16), "u1"))
    os.symlink("one.zarr", "o.zarr")
    mapped("in.npy", "o.zarr")
    os.unlink("o.zarr")
    os.symlink("two.zarr", "o.zarr")
    with pytest.raises(PlanChangedError, match=r"was .*one\.zarr, and is .*two\.zarr"):
        mapped("in.npy", "o.zarr")


def test_a_path_counts_from_where_the_task_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_v3()
    path = str(tmp_path / "o.zarr/t")

    def work(block: Any) -> None:
        open_ds(path, mode="r+")[block.write_roi] = 7

    task = Task("w", WHOLE, BLOCK, BLOCK, work, read_write_conflict=False, outputs=["o.zarr/t"])
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert run_blockwise(task, False, run_dir="../run", progress=False, summary=False)
    monkeypatch.chdir(tmp_path)
    assert written(function=work)


def test_a_project_that_is_moved_or_copied_as_a_whole_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkdir("one")
    monkeypatch.chdir("one")
    filled("in.zarr")
    mapped("in.zarr")
    monkeypatch.chdir("..")
    shutil.copytree("one", "two")
    monkeypatch.chdir("two")
    assert (mapped("in.zarr") == 2).all()
    monkeypatch.chdir("..")
    os.rename("one", "three")
    monkeypatch.chdir("three")
    assert (mapped("in.zarr") == 2).all()


def test_a_copy_of_the_data_alone_is_told_what_to_do() -> None:
    filled("in.zarr")
    mapped("in.zarr")
    shutil.copytree("o.zarr", "copy.zarr")
    with pytest.raises(PlanChangedError, match="accept_change=True"):
        mapped("in.zarr", "copy.zarr/a")
    assert (mapped("in.zarr", "copy.zarr/a", accept_change=True) == 2).all()


def test_nothing_is_vouched_for_as_long_as_nothing_is_done() -> None:
    make_v3()

    def fail(block: Any) -> None:
        raise ValueError("not yet")

    with pytest.raises(ValueError, match="not yet"):
        written(function=fail)
    shutil.rmtree("o.zarr")
    make_v3()
    assert written()


@pytest.mark.filterwarnings("ignore:the function .* has changed")  # it is another one than before
def test_what_was_in_memory_of_another_process_is_not_there_any_more() -> None:
    one, other = np.zeros((16, 16), "u1"), np.zeros((16, 16), "u1")

    def note(block: Any) -> None:
        one[0] = 1

    assert written([one], note)
    assert written([one], note)
    with pytest.raises(PlanChangedError, match="output 0 was in the memory of a process that has ended"):
        written([other], note)


def test_an_output_in_an_hdf5_file_that_was_made_again_is_refused() -> None:
    h5py = pytest.importorskip("h5py")
    source = np.ones((16, 16), "u1")
    with h5py.File("o.h5", "w") as file:
        dataset = file.create_dataset("a", (16, 16), "u1", chunks=(8, 8))
        for _ in range(2):
            mapped(source, dataset)
        del file["a"]
        dataset = file.create_dataset("a", (16, 16), "u1", chunks=(8, 8))
        with pytest.raises(PlanChangedError, match="made again"):
            mapped(source, dataset)


def test_a_run_in_workers_is_bound_as_well() -> None:
    np.save("in.npy", np.ones((16, 16), "u1"))
    assert (mapped("in.npy", num_workers=1) == 2).all()
    shutil.rmtree("o.zarr")
    filled("o.zarr/a", 0)
    with pytest.raises(PlanChangedError, match=r"another array|is stored in another way"):
        mapped("in.npy", num_workers=1)


# --------------------------------------------------------------------------------------------------------- sources


def test_another_source_is_refused() -> None:
    for name, value in (("a", 1), ("b", 5)):
        np.save(f"{name}.npy", np.full((16, 16), value, "u1"))
    mapped("a.npy")
    with pytest.raises(PlanChangedError, match=r"source 0 was .*a\.npy, and is .*b\.npy"):
        mapped("b.npy")
    assert (mapped("b.npy", reset=True) == 10).all()


@pytest.mark.parametrize("path", ["in.npy", "in.zarr"])
def test_a_source_with_other_voxels_under_its_name_is_refused(path: str) -> None:
    def make(value: int) -> None:
        np.save(path, np.full((16, 16), value, "u1")) if path.endswith("npy") else filled(path, value)

    make(1)
    mapped(path)
    make(1)  # the same voxels
    assert (mapped(path) == 2).all()
    make(5)
    with pytest.raises(PlanChangedError, match=r"source 0 .* has other voxels"):
        mapped(path)


@pytest.mark.parametrize("change", [{"chunks": (4, 8)}, {"dtype": "u2"}, {"zarr_format": 2}, {"fill_value": 9}])
def test_a_source_of_another_layout_is_refused(change: dict[str, Any]) -> None:
    filled("in.zarr", 1)
    mapped("in.zarr", dtype="u1")
    filled("in.zarr", 2, **change)
    with pytest.raises(PlanChangedError, match="source 0"):
        mapped("in.zarr", dtype="u1")


def test_the_same_voxels_elsewhere_in_the_world_are_another_source() -> None:
    make_v3()
    data = filled("in.zarr")
    assert written(inputs=[Array(data)])
    with pytest.raises(PlanChangedError, match=r"offset was \(0, 0\), and is \(8, 0\)"):
        written(inputs=[Array(data, offset=(8, 0))])


def test_sources_in_memory_are_told_by_their_voxels() -> None:
    mapped(np.ones((16, 16), "u1"))
    assert (mapped(np.ones((16, 16), "u1")) == 2).all()
    with pytest.raises(PlanChangedError, match="source 0"):
        mapped(np.zeros((16, 16), "u1"))


def test_masks_count_as_sources() -> None:
    make_v3()
    mask = np.array([[True, False], [True, True]])
    assert written(mask=mask)
    assert written(mask=mask.copy())
    with pytest.raises(PlanChangedError, match="mask"):
        written(mask=~mask)
    with pytest.raises(PlanChangedError, match=r"mask .* is not given any more"):
        written()


def test_masks_over_the_volume_count_as_sources() -> None:
    make_v3()
    mask = filled("mask.zarr", 1)
    assert written(mask=Array(mask))
    mask[:8] = 0
    with pytest.raises(PlanChangedError, match=r"mask .*has other voxels"):
        written(mask=Array(mask))


def test_inputs_of_tasks_count_as_sources() -> None:
    make_v3()
    filled("in.zarr", 1)
    assert written(inputs=["in.zarr"])
    filled("in.zarr", 2)
    with pytest.raises(PlanChangedError, match=r"source 0 .*other voxels"):
        written(inputs=["in.zarr"])


def test_what_one_task_writes_another_may_read() -> None:
    for name in "tu":
        prepare_ds("o.zarr", name, WHOLE, dtype="u1", write_size=(8, 8))

    def copy(block: Any) -> None:
        open_ds("o.zarr", "u", "r+")[block.write_roi] = open_ds("o.zarr", "t").to_ndarray(block.write_roi)

    first = Task("w", WHOLE, BLOCK, BLOCK, write_seven, read_write_conflict=False, outputs=["o.zarr/t"])
    second = Task("c", WHOLE, BLOCK, BLOCK, copy, inputs=["o.zarr/t"], outputs=["o.zarr/u"], upstream_tasks=[first])
    for _ in range(2):
        assert run_blockwise(second, False, run_dir="run", progress=False, summary=False)
    assert (open_ds("o.zarr/u").to_ndarray() == 7).all()


# ------------------------------------------------------------------------------------------------------ operations


OPTIONS: dict[str, Any] = {"run_dir": "run", "num_workers": 0, "progress": False}


def test_label_is_bound_to_its_mask_and_output() -> None:
    pytest.importorskip("scipy")
    mask = filled("in.zarr", 1)
    for _ in range(2):
        labels, count = label("in.zarr", "o.zarr/l", grid=(8, 8), **OPTIONS)
        assert (count, int(labels.to_ndarray().max())) == (1, 1)
    shutil.rmtree("o.zarr")
    with pytest.raises(PlanChangedError, match="output is not there"):
        label("in.zarr", "o.zarr/l", grid=(8, 8), **OPTIONS)
    mask[4:6] = 0
    with pytest.raises(PlanChangedError):
        label("in.zarr", "o.zarr/l", grid=(8, 8), **OPTIONS)
    assert label("in.zarr", "o.zarr/l", grid=(8, 8), reset=True, **OPTIONS)[1] == 2


def test_relabel_is_bound_to_its_table() -> None:
    filled("in.zarr", 3)
    for _ in range(2):
        assert (relabel("in.zarr", "o.zarr/l", mapping={3: 4}, **OPTIONS)[0].to_ndarray() == 4).all()
    with pytest.raises(PlanChangedError, match="source"):
        relabel("in.zarr", "o.zarr/l", mapping={3: 5}, **OPTIONS)
    assert (relabel("in.zarr", "o.zarr/l", mapping={3: 5}, reset=True, **OPTIONS)[0].to_ndarray() == 5).all()


@pytest.mark.parametrize("inside", [False, True])
def test_pyramids_are_bound_to_each_level(inside: bool) -> None:
    path = "p.zarr/s0" if inside else "in.zarr"
    image = filled(path, 3)
    for _ in range(2):
        levels = downsample(path, "p.zarr", levels=3, **OPTIONS)
    shutil.rmtree("p.zarr/2")
    with pytest.raises(PlanChangedError, match="made again"):
        downsample(path, "p.zarr", levels=3, **OPTIONS)
    downsample(path, "p.zarr", levels=3, reset=True, **OPTIONS)
    image[...] = 5
    with pytest.raises(PlanChangedError, match=r"source 0 .* has other voxels"):
        downsample(path, "p.zarr", levels=3, **OPTIONS)
    levels = downsample(path, "p.zarr", levels=3, reset=True, **OPTIONS)
    assert (levels[-1].to_ndarray() == 5).all()


def test_collected_results_are_those_of_the_run() -> None:
    np.save("in.npy", np.ones((16, 16), "u1"))
    options = {**OPTIONS, "grid": (8, 8), "collect": True}
    assert map_blocks(np.sum, "in.npy", **options) == [64] * 4
    np.save("in.npy", np.full((16, 16), 2, "u1"))
    with pytest.raises(PlanChangedError, match="source 0"):
        map_blocks(np.sum, "in.npy", **options)
    assert map_blocks(np.sum, "in.npy", reset=True, **options) == [128] * 4
    assert map_blocks(np.sum, "in.npy", **options) == [128] * 4


def test_options_of_a_run_directory_need_one() -> None:
    for option in ("reset", "accept_change", "take_over"):
        with pytest.raises(PlanError, match="there is none"):
            mapped(np.ones((16, 16), "u1"), None, run_dir=None, **{option: True})
    with pytest.raises(PlanError, match="no meaning"):
        mapped(np.ones((16, 16), "u1"), reset=True, accept_change=True)


def test_the_loss_of_the_record_of_arrays_is_noticed() -> None:
    filled("in.zarr")
    mapped("in.zarr")
    os.unlink("run/arrays.json")
    with pytest.raises(LedgerError, match=r"arrays\.json is missing"):
        mapped("in.zarr")
