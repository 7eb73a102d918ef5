"""Are values what they are for the whole array in numpy, or refused: ids of 64 bits, floats, masks, flags, orders?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal

from blockflow import Grid, Local, Roi
from blockflow.arrays import Array, prepare_ds
from blockflow.arrays.casting import cast
from blockflow.arrays.shared import SharedArray
from blockflow.errors import ArrayError, GeometryError, PlanError, ValueLossError
from blockflow.ops import label, map_blocks, relabel
from blockflow.ops.reduction import reduced

if TYPE_CHECKING:
    from pathlib import Path

HERE: dict[str, Any] = {"num_workers": 0, "progress": False}
WHERE = pytest.mark.parametrize("where", [HERE, {"launcher": Local(2), "progress": False}, {"progress": False}])
BIG = 720_575_940_600_000_000

INTEGERS = st.sampled_from(["u1", "i1", "u4", "i4", "u8", "i8"])
FLOATS = st.sampled_from(["f2", "f4", "f8", "c8", "c16"])


class TestCasts:
    @given(data=st.data(), source=INTEGERS, target=FLOATS)
    def test_integers_into_floats_are_exact_or_refused(self, data: Any, source: str, target: str) -> None:
        bounds = np.iinfo(source)
        near = [2**n + d for n in (10, 11, 24, 25, 52, 53, 54, 62, 63, 64) for d in range(-3, 4)]
        usual = [n for each in near for n in (each, -each) if bounds.min <= n <= bounds.max]
        numbers = st.one_of(st.sampled_from(usual or [0]), st.integers(int(bounds.min), int(bounds.max)))
        values = np.array(data.draw(st.lists(numbers, min_size=1, max_size=5)), source)
        exact = []
        for value in values.tolist():
            with np.errstate(over="ignore"):
                rounded = np.array(value, source).astype(target).real
            exact.append(bool(np.isfinite(rounded)) and int(rounded) == value)
        if all(exact):
            assert [int(each) for each in cast(values, np.dtype(target), "values").real] == values.tolist()
        else:
            with pytest.raises(ValueLossError):
                cast(values, np.dtype(target), "values")

    @WHERE
    def test_on_every_path(self, where: dict[str, Any], tmp_path: Path) -> None:
        labels = np.array([2**53 + 1, 5, 6, 7])
        stored = prepare_ds(tmp_path / "a.zarr", "x", Roi((0,), (4,)), dtype="f8", write_size=(2,))
        for out in (np.zeros(4), np.zeros(4, "f4"), stored):
            with pytest.raises(ValueLossError, match=r"numbers that float\d\d holds exactly, got 9007199254740993"):
                map_blocks(np.copy, labels, out=out, grid=2, **where)
        with pytest.raises(ValueLossError, match="holds exactly"):
            stored[stored.roi] = labels
        assert_array_equal(
            map_blocks(np.copy, labels, out=np.zeros(4), casting="unsafe", grid=2, **where), labels * 1.0
        )


class TestLabels:
    @given(
        labels=hnp.arrays(st.sampled_from(["u8", "i8", "u4", "i4", "u1", "i1"]), st.integers(1, 12)),
        data=st.data(),
        missing=st.sampled_from(["keep", "zero"]),
    )
    def test_relabel_is_a_dictionary(self, labels: Any, data: Any, missing: Any) -> None:
        bounds = np.iinfo(labels.dtype)
        inside = st.integers(int(bounds.min), int(bounds.max))
        olds = st.one_of(st.sampled_from(labels.tolist()), st.integers(-(2**63), 2**64 - 1))
        mapping = data.draw(st.dictionaries(olds, inside, max_size=6))
        if mapping and min(mapping) < 0 and max(mapping) >= 2**63:
            with pytest.raises(PlanError, match="mapping must"):
                relabel(labels, mapping=mapping, grid=5, **HERE)
            return
        new, old = relabel(labels, mapping=mapping, missing=missing, grid=5, **HERE)
        expected = [mapping.get(each, each if missing == "keep" else 0) for each in labels.tolist()]
        assert new.tolist() == expected
        assert new.dtype == labels.dtype
        assert sorted(old.tolist()) == sorted(mapping)

    def test_a_mapping_that_no_integer_holds_is_refused(self) -> None:
        for mapping in ({-1: 0, 2**63: 0}, {0: -1, 1: 2**63}, {2**64: 0}, {0: 2**64}):
            with pytest.raises(PlanError, match="mapping must"):
                relabel(np.zeros(1, np.uint64), mapping=mapping, **HERE)

    @given(labels=hnp.arrays(st.sampled_from(["u8", "i8", "u1"]), st.integers(1, 12)))
    def test_consecutive_labels_lead_back(self, labels: Any) -> None:
        new, table = relabel(labels, grid=5, **HERE)
        assert table.dtype == labels.dtype
        assert_array_equal(table[new.astype(int)], labels)
        assert ((new == 0) == (labels == 0)).all()

    @WHERE
    def test_large_ids_on_every_path(self, where: dict[str, Any]) -> None:
        ids = BIG + np.arange(500, dtype=np.uint64) * 7
        expected = np.arange(1, 501)
        for mapping in (
            {int(old): new for new, old in enumerate(ids, 1)},
            (ids, expected),
            (ids.astype(np.int64), expected.astype(np.uint64)),
            None,
        ):
            new, _ = relabel(ids, mapping=mapping, grid=100, **where)
            assert_array_equal(new, expected)
        back, _ = relabel(expected.astype(np.uint64), mapping=(expected, ids), grid=100, **where)
        assert_array_equal(back, ids)
        with pytest.raises(PlanError, match=f"does not name {ids[-1]}"):
            relabel(ids, mapping=(ids[:-1], expected[:-1]), missing="error", grid=500, **where)

    def test_labels_that_do_not_fit_are_refused(self) -> None:
        with pytest.raises(ValueLossError):
            relabel(np.array([1, 2], np.uint8), mapping={1: 300}, grid=2, **HERE)
        with pytest.raises(ValueLossError):
            relabel(np.array([1, 2**63], np.uint64), mapping={1: -1}, grid=2, **HERE)
        with pytest.raises(PlanError, match="labels must be integers"):
            relabel(np.array([1.0, 2]), grid=2, **HERE)

    def test_label_counts_large_ids_and_nan_as_objects(self) -> None:
        for mask in (np.array([BIG, 0, 2**63, 1], np.uint64), np.array([np.nan, 0, 1, 1])):
            assert label(mask, grid=2, **HERE)[0].tolist() == [1, 0, 2, 2]


class TestReductions:
    @given(
        image=hnp.arrays(
            st.sampled_from(["u8", "i8", "u1", "i2", "?"]), hnp.array_shapes(min_dims=1, max_dims=2, max_side=6)
        ),
        factor=st.integers(1, 4),
    )
    def test_means_are_exact(self, image: Any, factor: int) -> None:
        result = reduced(image, (factor,) * image.ndim, "mean")
        for place in np.ndindex(result.shape):
            window = image[tuple(slice(i * factor, (i + 1) * factor) for i in place)].ravel().tolist()
            assert int(result[place]) == (sum(window) + len(window) // 2) // len(window)

    @given(image=hnp.arrays("u8", st.integers(1, 9)), factor=st.integers(1, 4))
    def test_modes_of_large_ids(self, image: Any, factor: int) -> None:
        result = reduced(image, (factor,), "mode").tolist()
        for place, value in enumerate(result):
            window = image[place * factor : (place + 1) * factor].tolist()
            assert value == min(window, key=lambda each: (-window.count(each), each))

    def test_nan_is_a_value_of_its_own(self) -> None:
        nan = np.nan
        image = np.array([nan, nan, 1, nan, nan, 2, 2, nan])
        assert_array_equal(reduced(image, (2,), "mode"), [nan, 1, 2, 2])
        assert_array_equal(reduced(image, (4,), "mode"), [nan, 2])
        assert_array_equal(reduced(image, (2,), "max"), [nan, nan, nan, nan])


@WHERE
class TestArrays:
    def test_masked_values_are_refused(self, where: dict[str, Any]) -> None:
        image = np.ma.masked_equal(np.arange(4), 1)
        for source in (image, [image, image]):
            sources = source if isinstance(source, list) else [source]
            with pytest.raises(ArrayError, match="source 0 is a masked array"):
                map_blocks(lambda *parts: parts[0], *sources, grid=2, **where)
        with pytest.raises(ArrayError, match="out is a masked array"):
            map_blocks(np.copy, np.arange(4), out=image, grid=2, **where)
        with pytest.raises(ValueLossError, match="result 0 has masked values"):
            map_blocks(lambda part: np.ma.masked_greater(part, 2), np.arange(4), grid=2, **where)
        found = map_blocks(lambda part: np.ma.masked_greater(part, 9), np.arange(4), grid=2, **where)
        assert found.tolist() == [0, 1, 2, 3]

    def test_outputs_keep_the_order_of_the_source(self, where: dict[str, Any], tmp_path: Path) -> None:
        image = np.arange(24.0).reshape(4, 6)
        np.save(tmp_path / "f.npy", np.asfortranarray(image))
        for source, in_fortran in (
            (image, False),
            (np.asfortranarray(image), True),
            (image.T.copy().T, True),
            (SharedArray.from_array(np.asfortranarray(image)), True),
            (tmp_path / "f.npy", True),
        ):
            found = map_blocks(np.copy, source, grid=3, **where)
            assert found.flags.f_contiguous == in_fortran
            assert_array_equal(found, image)
        kept = map_blocks(np.copy, np.asfortranarray(image), out=tmp_path / "new.npy", grid=3, **where)
        assert kept.flags.f_contiguous
        assert_array_equal(np.load(tmp_path / "new.npy"), image)

    def test_truth_values(self, where: dict[str, Any]) -> None:
        image = np.arange(16).reshape(4, 4)
        found = map_blocks(lambda part: part > 5, image, dtype=bool, grid=3, **where)
        assert found.dtype == bool
        assert_array_equal(found, image > 5)
        assert_array_equal(map_blocks(lambda part: part > 5, image, grid=3, **where), (image > 5).astype(int))
        assert_array_equal(map_blocks(np.copy, image > 5, grid=3, **where), image > 5)
        with pytest.raises(ValueLossError):
            map_blocks(lambda part: part + 1, image, dtype=bool, grid=3, **where)

    def test_a_grid_with_fewer_axes_than_a_plain_array(self, where: dict[str, Any]) -> None:
        image = np.arange(64).reshape(4, 4, 4)
        for grid in ((2, 2), Grid.regular((4, 4), 2)):
            with pytest.raises(GeometryError, match=r"source 0 has 3 axes, .*Array\(data, voxel_size=\(1, 1\)\)"):
                map_blocks(np.copy, image, grid=grid, **where)
            named = Array(image, voxel_size=(1, 1))
            assert_array_equal(map_blocks(np.copy, named, grid=grid, **where), image)
        assert_array_equal(map_blocks(np.copy, image, grid=(None, 2, 2), **where), image)

    def test_a_plain_image_beside_an_output_of_other_voxels(self, where: dict[str, Any]) -> None:
        image = np.arange(50.0 * 40).reshape(50, 40)
        for factor in (2, 5):
            out = Array(np.zeros((50 // factor, 40 // factor)), voxel_size=(factor,) * 2)
            map_blocks(lambda part, n=factor: part[::n, ::n], image, out=out, grid=10, **where)
            assert_array_equal(out.data, image[::factor, ::factor])
        larger = Array(np.zeros((100, 80)))
        map_blocks(lambda part: part.repeat(2, 0).repeat(2, 1), image, out=larger, grid=10, **where)
        assert_array_equal(larger.data, image.repeat(2, 0).repeat(2, 1))
        alike = Array(np.zeros((50, 40)), offset=(8, 4), voxel_size=(4, 2))
        map_blocks(np.copy, image, out=alike, grid=10, **where)
        assert_array_equal(alike.data, image)


class Liar:
    """Says one thing and gives another."""

    shape = (8, 8)
    dtype = np.dtype("f8")

    def __init__(self, part: Any) -> None:
        self.part = part

    def __getitem__(self, key: Any) -> Any:
        return self.part


@WHERE
class TestSources:
    image = np.arange(64.0).reshape(8, 8)

    def test_of_dask_and_xarray(self, where: dict[str, Any]) -> None:
        dask = pytest.importorskip("dask.array")
        sources = [dask.from_array(self.image, chunks=chunks) for chunks in (4, (3, 8))]
        for source in sources:
            for grid in (3, None):
                found = map_blocks(lambda part: part + 1, source, grid=grid, context=1, **where)
                assert_array_equal(found, self.image + 1)
        with pytest.raises(PlanError, match="a dask array is a recipe for one"):
            map_blocks(np.copy, self.image, out=sources[0], grid=4, **where)
        xarray = pytest.importorskip("xarray")
        for data in (self.image, sources[1]):
            source = xarray.DataArray(data, dims=("y", "x"))
            assert_array_equal(map_blocks(lambda part: part + 1, source, grid=3, **where), self.image + 1)

    def test_of_tensorstore(self, where: dict[str, Any], tmp_path: Path) -> None:
        tensorstore = pytest.importorskip("tensorstore")
        spec = {"driver": "zarr3", "kvstore": f"file://{tmp_path}/x"}
        source = tensorstore.open(spec, create=True, dtype="float64", shape=[8, 8]).result()
        source[...] = self.image
        for each in (source, Array(source, voxel_size=(4, 4))):
            assert_array_equal(map_blocks(lambda part: part + 1, each, grid=3, **where), self.image + 1)

    def test_that_only_pretend_are_found_at_the_first_block(self, where: dict[str, Any]) -> None:
        for part, said in (
            (np.zeros((2, 2)), r"float64 and \(2, 2\)"),
            (np.zeros((4, 4), "f4"), "float32"),
            (None, "object"),
        ):
            with pytest.raises(ArrayError, match=f"a source must give arrays of .*Liar gave {said}"):
                map_blocks(np.copy, Liar(part), grid=4, **where)
        with pytest.raises(ArrayError, match=r"data must give arrays .*Liar gave \(2, 2\)"):
            map_blocks(
                lambda block, source, out: source.to_ndarray(block.read_roi),
                Liar(np.zeros((2, 2))),
                out=np.zeros((8, 8)),
                call="block",
                grid=4,
                **where,
            )


def test_a_dtype_that_numpy_has_not() -> None:
    class Tensor:
        shape = (4,)
        dtype = "torch.bfloat16"

        def __getitem__(self, key: Any) -> Any:
            return None

    for make in (lambda: map_blocks(np.copy, Tensor(), grid=2, **HERE), lambda: Array(Tensor())):
        with pytest.raises(ArrayError, match=r"must have a dtype of numpy, got .*Tensor of torch\.bfloat16"):
            make()


SIZES: dict[str, Any] = {
    "block": lambda size: Grid.regular((50, 40), size((20, 30))),
    "one block size": lambda size: Grid.regular((50, 40), size(20)),
    "context": lambda size: Grid.regular((50, 40), (20, 30), context=size((2, 3))),
    "context of sides": lambda size: Grid.regular((50, 40), (20, 30), context=size(((2, 3), (0, 1)))),
    "multiple_of": lambda size: Grid.regular((50, 40), (20, 30), multiple_of=size((2, 3))),
    "offset": lambda size: Grid.regular(size((50, 40)), 20, offset=size((1, 2)), voxel_size=size((3, 4))),
    "max_size": lambda size: Grid.balanced((50, 40), size((20, 30))),
    "overlap": lambda size: Grid.balanced((50, 40), (20, 30), overlap=size((2, 3))),
    "axes": lambda size: Grid.balanced((50, 40), 20, axes=size([1])),
    "clip": lambda size: Grid.regular((50, 40), 20, 2, clip=size((True, False))),
    "exact": lambda size: Grid.balanced((50, 40), 20, exact=size((False, True))),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_and_flags_are_arrays_as_well(name: str) -> None:
    assert SIZES[name](np.array) == SIZES[name](lambda value: value)


def test_flags_hold_for_their_axes() -> None:
    grid = Grid.regular((50, 40), 20, 2, clip=(True, False))
    assert grid.total == ((0, 50), (-2, 42))
    wrong: Any
    for wrong in ("no", 1, (True, 1), (True, True, True), np.array([1, 0])):
        with pytest.raises(PlanError, match="clip must be"):
            Grid.regular((50, 40), 20, clip=wrong)


def test_sizes_of_a_map() -> None:
    image = np.arange(2000).reshape(50, 40)
    sizes: dict[str, Any] = {"grid": np.array((20, 30)), "context": np.array((2, 3))}
    found = map_blocks(np.copy, image, **sizes, **HERE)
    assert_array_equal(found, image)
