"""Are objects that many blocks hold parts of numbered as if there were no blocks?"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from blockflow import Grid, Local, Roi
from blockflow.arrays import Array, open_ds, prepare_ds
from blockflow.errors import ArrayError, PlanError, RunError, ValueLossError
from blockflow.ops import label, relabel
from blockflow.ops.labels import _write
from blockflow.ops.seams import Joined, Seams, faces_of

if TYPE_CHECKING:
    from pathlib import Path

ndimage = pytest.importorskip("scipy.ndimage", reason="needs the extra 'label'")

HERE: dict[str, Any] = {"num_workers": 0, "progress": False}
THERE: dict[str, Any] = {"launcher": Local(2), "progress": False}


def assert_same_objects(ours: Any, theirs: Any) -> None:
    """The same labels but for their numbers, which are consecutive."""
    pairs = np.unique(np.stack([np.ravel(ours), np.ravel(theirs)]).astype(np.int64), axis=1)
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
    assert_array_equal(np.asarray(ours) > 0, np.asarray(theirs) > 0)
    assert_array_equal(np.setdiff1d(ours, [0]), np.arange(1, np.max(ours, initial=0) + 1))


def spiral(edge: int) -> Any:
    """One line that passes through every block many times."""
    mask = np.zeros((edge, edge), bool)
    mask[::2] = True
    mask[1::4, -1] = True
    mask[3::4, 0] = True
    return mask


class TestLabel:
    @given(
        data=st.data(), shape=st.lists(st.integers(1, 9), min_size=1, max_size=3), part=st.sampled_from([0.3, 0.5, 0.7])
    )
    def test_equals_scipy_on_the_whole(self, data: Any, shape: list[int], part: float) -> None:
        mask = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))).random(shape) < part
        connectivity = data.draw(st.integers(1, len(shape)))
        grid: Any = [data.draw(st.integers(1, 6)) for _ in shape]
        if data.draw(st.booleans()):
            grid = Grid.balanced(shape, max_size=grid)
        labels, count = label(mask, connectivity=connectivity, grid=grid, **HERE)
        expected, number = ndimage.label(mask, ndimage.generate_binary_structure(len(shape), connectivity))
        assert count == number
        assert_same_objects(labels, expected)

    @pytest.mark.parametrize("block", [1, 2, 3, 5, 16])
    def test_objects_of_any_length(self, block: int) -> None:
        labels, count = label(spiral(15), grid=block, **HERE)
        assert count == 1
        assert_array_equal(labels, spiral(15))

    def test_a_structure_of_flags(self) -> None:
        structure = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]])
        mask = np.random.default_rng(0).random((12, 12)) < 0.5
        labels, count = label(mask, connectivity=structure, grid=(5, 4), **HERE)
        expected, number = ndimage.label(mask, structure)
        assert count == number
        assert_same_objects(labels, expected)

    def test_in_workers_from_zarr_to_zarr_and_resumed(self, tmp_path: Path) -> None:
        mask = np.random.default_rng(0).random((20, 24, 16)) < 0.4
        stored = prepare_ds(
            tmp_path / "a.zarr", "mask", Roi((40, 0, 0), (160, 48, 32)), (8, 2, 2), "u1", chunks=(8, 8, 8)
        )
        stored[stored.roi] = mask
        options: dict[str, Any] = {"grid": 8, "run_dir": tmp_path / "run", **THERE}
        label(stored, tmp_path / "a.zarr" / "labels", **options)
        labels, count = label(stored, tmp_path / "a.zarr" / "labels", **options)
        expected, number = ndimage.label(mask)
        assert count == number
        out = open_ds(tmp_path / "a.zarr", "labels")
        assert (out.roi, out.voxel_size, str(out.dtype)) == (stored.roi, stored.voxel_size, "uint32")
        assert_same_objects(labels.to_ndarray(), expected)
        in_memory, _ = label(mask, grid=8, **THERE)
        assert_array_equal(in_memory, labels.to_ndarray())

    def test_values_other_than_zero_belong_to_objects(self) -> None:
        assert label(np.array([0.0, -2, 3, 0, np.nan]), grid=2, **HERE)[0].tolist() == [0, 1, 1, 0, 2]
        assert label(np.zeros((3, 3)), grid=2, **HERE)[1] == 0

    def test_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        mask = np.eye(20, dtype=bool)
        for connectivity in (0, 3, True, 1.5):
            with pytest.raises(PlanError, match="connectivity must be a whole number from 1 to 2"):
                label(mask, connectivity=connectivity, **HERE)
        with pytest.raises(PlanError, match="a connectivity of flags must be symmetric"):
            label(mask, connectivity=[[1, 0, 0], [0, 1, 0], [0, 0, 0]], **HERE)
        with pytest.raises(PlanError, match="mask must have no channels, got 1"):
            label(Array(mask, voxel_size=(1,)), grid=4, **HERE)
        with pytest.raises(PlanError, match="labels must be integers, got an array of float32"):
            label(mask, np.zeros((20, 20), "f4"), **HERE)
        out = np.zeros((20, 20), "i1")
        many = np.indices((20, 20)).sum(axis=0) % 2
        with pytest.raises(ValueLossError, match=r"out must hold labels up to 200, and its dtype int8 ends at 127"):
            label(many, out, **HERE)
        assert not out.any()
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(
            ArrayError, match=r"^label needs scipy, which is not installed: pip install scipy \(or .*-nd\[label\]'\)$"
        ):
            label(mask, **HERE)

    def test_a_mask_that_changes_is_noticed(self) -> None:
        joined = Joined(np.array([0, 2]), *[np.empty(0, np.int64)] * 3)
        block = Grid.regular((4,), 4)[0]
        with pytest.raises(RunError, match="the mask has changed: block 0 had 2 objects, and now has 1"):
            _write(np.ones(3, bool), block, Array(np.ones(4)), Array(np.zeros(4, "u4")), joined)


class TestSeams:
    def test_faces_are_given_up_when_all_neighbours_have_come(self) -> None:
        grid = Grid.regular((40, 4), (4, 4))
        seams = Seams(grid, np.ones((3, 3), bool))
        for index in range(grid.size):
            seams.add(index, 1, faces_of(np.ones((4, 4), int)))
            assert len(seams._faces) <= 1
        assert seams.joined().count == 1

    def test_blocks_that_do_not_come_have_no_objects(self) -> None:
        seams = Seams(Grid.regular((12,), 4), np.ones(3, bool))
        for index in (0, 2):
            seams.add(index, 1, faces_of(np.ones(4, int)))
        joined = seams.joined()
        assert (joined.count, joined.table(1).tolist(), joined.table(2).tolist()) == (2, [0], [0, 2])


class TestRelabel:
    @given(data=st.data(), shape=st.lists(st.integers(1, 9), min_size=1, max_size=2))
    def test_consecutive(self, data: Any, shape: list[int]) -> None:
        labels = np.random.default_rng(data.draw(st.integers(0, 99))).choice([-7, 0, 3, 4, 2**40], shape)
        new, old = relabel(labels, grid=data.draw(st.integers(1, 5)), **HERE)
        assert_array_equal(old[new], labels)
        assert_array_equal(np.unique(new[labels != 0]), np.arange(1, len(np.setdiff1d(labels, [0])) + 1))
        assert not new[labels == 0].any()

    @pytest.mark.parametrize("where", [HERE, THERE], ids=["here", "workers"])
    def test_mapped(self, where: Any) -> None:
        labels = np.array([[0, 1, 2], [3, 2, 1]], np.uint8)
        assert relabel(labels, mapping={1: 5, 9: 1}, grid=(1, 2), **where)[0].tolist() == [[0, 5, 2], [3, 2, 5]]
        new, old = relabel(labels, mapping=([2, 1], [7, 6]), missing="zero", grid=(1, 2), **where)
        assert (new.tolist(), old.tolist()) == ([[0, 6, 7], [0, 7, 6]], [1, 2])
        assert relabel(labels, mapping={}, **where)[0].tolist() == labels.tolist()
        wide = relabel(labels, mapping={1: 2**40}, dtype="u8", **where)[0]
        assert wide.max() == 2**40

    def test_refused(self) -> None:
        labels = np.array([0, 1], np.uint8)
        with pytest.raises(PlanError, match="the mapping must name all labels, it does not name 1"):
            relabel(labels, mapping={0: 0}, missing="error", **HERE)
        with pytest.raises(PlanError, match="missing must be one of 'keep', 'zero', 'error', got 'drop'"):
            relabel(labels, mapping={}, missing="drop", **HERE)  # type: ignore[arg-type]
        with pytest.raises(ValueLossError, match="from 0 to 255"):
            relabel(labels, mapping={1: 256}, **HERE)
        for mapping, message in [
            (([1, 1], [2, 3]), "must name each label once, got 1 twice"),
            (([1], [2, 3]), "as many new labels as old ones"),
            (([1.5], [2]), "must map integers to integers"),
            (7, "must be a mapping, or two arrays"),
        ]:
            with pytest.raises(PlanError, match=message):
                relabel(labels, mapping=mapping, **HERE)  # type: ignore[arg-type]
        with pytest.raises(PlanError, match="labels must be integers, got an array of float64"):
            relabel(np.zeros(3), **HERE)
        with pytest.raises(ValueLossError, match="have no common dtype"):
            relabel(np.array([1, 2**63], np.uint64), mapping={1: -1}, **HERE)
