"""Is one array under two names found, as two outputs or as source and output, and is nothing adopted?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from blockflow import Local, Roi
from blockflow.arrays import Array, open_ds, prepare_ds
from blockflow.arrays.shared import SharedArray
from blockflow.errors import PlanError
from blockflow.ops import label, map_blocks, relabel

if TYPE_CHECKING:
    from pathlib import Path

HERE: dict[str, Any] = {"num_workers": 0, "progress": False}
WHERE = pytest.mark.parametrize("where", [HERE, {"launcher": Local(2), "progress": False}, {"progress": False}])
IMAGE = np.arange(64).reshape(8, 8)


def two(block: Any) -> Any:
    return block, block * 2


@WHERE
class TestTwoOutputs:
    def test_of_one_array_are_refused(self, tmp_path: Path, where: dict[str, Any]) -> None:
        one, wide, shared = np.zeros((8, 8), int), np.zeros((8, 12), int), SharedArray.create((8, 8), int)
        np.save(tmp_path / "x.npy", one)
        mapped = [np.load(tmp_path / "x.npy", mmap_mode="r+") for _ in range(2)]
        stored = prepare_ds(tmp_path / "a.zarr", "x", Roi((0, 0), (8, 8)), dtype=int, write_size=(4, 4))
        (tmp_path / "link.zarr").symlink_to("a.zarr")
        for out in (
            [one, one],
            [one, Array(one)],
            [wide[:, :8], wide[:, 4:]],
            [shared, shared],
            [shared, shared.view()],
            mapped,
            [tmp_path / "x.npy", mapped[0]],
            [stored, tmp_path / "a.zarr" / "x"],
            [stored, tmp_path / "link.zarr" / "x"],
            [tmp_path / "new.zarr" / "x", tmp_path / "new.zarr" / "x"],
            [tmp_path / "a.zarr" / "new", tmp_path / "link.zarr" / "new"],
            [tmp_path / "new.npy", tmp_path / "b" / ".." / "new.npy"],
        ):
            with pytest.raises(PlanError, match="out 0 and out 1 must be different arrays, and they share voxels"):
                map_blocks(two, IMAGE, out=out, grid=4, **where)
        assert {path.name for path in tmp_path.iterdir()} == {"x.npy", "a.zarr", "link.zarr"}
        assert not stored.to_ndarray().any()

    def test_of_two_arrays_are_taken(self, tmp_path: Path, where: dict[str, Any]) -> None:
        wide = np.zeros((8, 16), int)
        for out in (
            [wide[:, :8], wide[:, 8:]],
            [wide[:, ::2], wide[:, 1::2]],
            [tmp_path / "a.zarr" / "x", tmp_path / "a.zarr" / "y"],
            [tmp_path / "x.npy", tmp_path / "y.npy"],
            [None, None],
        ):
            first, second = map_blocks(two, IMAGE, out=out, grid=4, **where)
            assert_array_equal(np.asarray(first), IMAGE)
            assert_array_equal(np.asarray(second), IMAGE * 2)


@WHERE
def test_an_output_that_is_the_source_by_another_name_is_refused(tmp_path: Path, where: dict[str, Any]) -> None:
    np.save(tmp_path / "x.npy", IMAGE)
    (tmp_path / "y.npy").symlink_to("x.npy")
    stored = prepare_ds(tmp_path / "a.zarr", "x", Roi((0, 0), (8, 8)), dtype=int, write_size=(4, 4))
    stored[stored.roi] = IMAGE
    (tmp_path / "link.zarr").symlink_to("a.zarr")
    for source, out in (
        (tmp_path / "x.npy", tmp_path / "y.npy"),
        (tmp_path / "a.zarr" / "x", tmp_path / "link.zarr" / "x"),
        (open_ds(tmp_path / "link.zarr", "x"), stored),
    ):
        with pytest.raises(PlanError, match="out must not be source 0, under whatever name"):
            map_blocks(lambda block: block + 1, source, out=out, grid=4, **where)
    with pytest.raises(PlanError, match="out must not be source 0"):
        relabel(tmp_path / "a.zarr" / "x", tmp_path / "link.zarr" / "x", grid=4, **where)
    with pytest.raises(PlanError, match="out must not be source 0"):
        label(tmp_path / "a.zarr" / "x", tmp_path / "link.zarr" / "x", grid=4, **where)
    assert_array_equal(np.load(tmp_path / "x.npy"), IMAGE)
    assert_array_equal(stored.to_ndarray(), IMAGE)


@WHERE
def test_a_dtype_beside_an_output_that_is_there(tmp_path: Path, where: dict[str, Any]) -> None:
    np.save(tmp_path / "x.npy", IMAGE.astype("u1"))
    for out in (tmp_path / "x.npy", np.zeros((8, 8), "u1")):
        with pytest.raises(PlanError, match="out is there and has dtype uint8, and dtype=float32 was asked for"):
            map_blocks(np.copy, IMAGE, out=out, dtype="f4", grid=4, **where)
        assert_array_equal(np.asarray(map_blocks(np.copy, IMAGE, out=out, dtype="u1", grid=4, **where)), IMAGE)
    with pytest.raises(PlanError, match="out is there and has dtype uint8"):
        label(IMAGE, np.zeros((8, 8), "u1"), dtype="u2", grid=4, **where)
    assert label(IMAGE > 0, np.zeros((8, 8), "u1"), grid=4, **where)[1] == 1
