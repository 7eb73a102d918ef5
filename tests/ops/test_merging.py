from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from hypothesis import assume, given
from hypothesis import strategies as st

from blockflow.arrays.shared import SharedArray
from blockflow.errors import GeometryError, PlanError
from blockflow.ops.merging import merge, merged_shape
from blockflow.plan.balance import balanced_axis
from blockflow.plan.regular import regular_axis
from blockflow.plan.tiling import tile
from tests.plan.axes import Irregular, spans, widths

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from blockflow.plan.axis import AxisLike

ORACLES = Path(__file__).parents[2].parent / "shared" / "oracles" / "magmap"
needs_oracles = pytest.mark.skipif(not ORACLES.is_dir(), reason="recorded results of other libraries are not here")


@dataclass(frozen=True)
class Grid:
    axes: Sequence[AxisLike]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(axis.write_end(axis.count - 1) - axis.write_begin(0) for axis in self.axes)

    @property
    def counts(self) -> tuple[int, ...]:
        return tuple(axis.count for axis in self.axes)


@st.composite
def axes(draw: st.DrawFn) -> AxisLike:
    """Regular, balanced or irregular; with an origin that may be anywhere."""
    size, block = draw(st.integers(1, 14)), draw(st.integers(1, 16))
    match draw(st.sampled_from(["regular", "balanced", "irregular"])):
        case "regular":
            before, after = draw(st.integers(0, 5)), draw(st.integers(0, 5))
            return regular_axis(size, block, before=before, after=after)
        case "balanced":
            overlap = draw(st.integers(0, block - 1))
            return balanced_axis(size, block, overlap=overlap, exact=draw(st.booleans()))
    cuts = sorted(draw(st.sets(st.integers(-9, 9), min_size=2, max_size=5)))
    return Irregular(tuple(cuts), before=draw(st.integers(0, 4)), after=draw(st.integers(0, 4)))


grids = st.lists(axes(), min_size=1, max_size=3).map(Grid)


def whole(grid: Grid, *more: int) -> np.ndarray[Any, Any]:
    shape = grid.shape + more
    return np.arange(np.prod(shape), dtype=np.int64).reshape(shape)


def split(array: np.ndarray[Any, Any], grid: Grid, what: str = "read") -> list[np.ndarray[Any, Any]]:
    origin = [axis.write_begin(0) for axis in grid.axes]
    return [
        array[
            tuple(
                slice(getattr(span, f"{what}_begin") - begin, getattr(span, f"{what}_end") - begin)
                for span, begin in zip(along, origin, strict=True)
            )
        ].copy()
        for along in product(*map(spans, grid.axes))
    ]


@given(grid=grids, more=st.lists(st.integers(0, 3), max_size=2), what=st.sampled_from(["read", "write"]))
def test_merge_undoes_split(grid: Grid, more: list[int], what: str) -> None:
    array = whole(grid, *more)
    pieces = split(array, grid, what)
    assert merged_shape(pieces, grid) == array.shape
    assert merged_shape([piece.shape for piece in pieces], grid) == array.shape
    merged = merge(pieces, grid)
    assert merged.dtype == array.dtype
    np.testing.assert_array_equal(merged, array)
    np.testing.assert_array_equal(merge(iter(pieces), grid), array)
    out = np.full(array.shape, -1)
    assert merge(pieces, grid, out) is out
    np.testing.assert_array_equal(out, array)


@given(grid=grids, factor=st.integers(1, 3))
def test_enlarged_pieces_merge_to_the_enlarged_array(grid: Grid, factor: int) -> None:
    def enlarged(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.kron(array, np.ones((factor,) * array.ndim, np.int64))

    array = whole(grid)
    pieces = [enlarged(piece) for piece in split(array, grid)]
    assert merged_shape(pieces, grid, rescaled=True) == tuple(factor * n for n in grid.shape)
    np.testing.assert_array_equal(merge(pieces, grid, rescaled=True), enlarged(array))


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=2),
    factor=st.integers(1, 4),
    block=st.integers(1, 4),
    context=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
def test_thinned_pieces_merge_to_the_thinned_array_where_context_and_longest_piece_are_whole(
    sizes: list[int], factor: int, block: int, context: tuple[int, int]
) -> None:
    before, after = (factor * n for n in context)
    grid = Grid([regular_axis(size, factor * block, before=before, after=after) for size in sizes])
    thin = (slice(None, None, factor),) * len(sizes)
    for axis in grid.axes:
        assume(max(widths(axis)) % factor == 0)
    array = whole(grid)
    pieces = [piece[thin] for piece in split(array, grid)]
    np.testing.assert_array_equal(merge(pieces, grid, rescaled=True), array[thin])


def test_rescaled_pieces_without_context_are_put_end_to_end() -> None:
    grid = Grid([regular_axis(10, 4), regular_axis(4, 2)])
    pieces = [np.full((rows, columns), 10 * rows + columns) for rows in (3, 1, 2) for columns in (2, 5)]
    merged = merge(pieces, grid, rescaled=True)
    assert merged.shape == merged_shape(pieces, grid, rescaled=True) == (6, 7)
    np.testing.assert_array_equal(merged[:, 1], [32, 32, 32, 12, 22, 22])
    np.testing.assert_array_equal(merged[0], [32, 32, 35, 35, 35, 35, 35])


def test_rescaled_pieces_may_be_empty() -> None:
    grid = Grid([regular_axis(6, 2), regular_axis(2, 1)])
    pieces = [np.full((rows, 1), rows) for rows in (0, 3, 0) for _ in range(2)]
    assert merge(pieces, grid, rescaled=True).tolist() == [[3, 3]] * 3


def test_context_that_vanishes_at_a_small_scale_is_no_error() -> None:
    grid = Grid([regular_axis(32, 16, after=1)])
    assert merge([np.ones(1), np.ones(1)], grid, rescaled=True).shape == (2,)


GRID = Grid([regular_axis(5, 2, before=1), regular_axis(4, 3, after=1)])


@pytest.mark.parametrize("kind", ["memmap", "zarr", "shared", "view", "strided"])
def test_any_array_is_a_sink(kind: str, tmp_path: Path) -> None:
    array = whole(GRID, 2)
    room = np.full((2, 5, 4, 4), -1)
    np.save(tmp_path / "out.npy", np.zeros_like(array))
    make: dict[str, Callable[[], Any]] = {
        "memmap": lambda: np.load(tmp_path / "out.npy", "r+"),
        "zarr": lambda: zarr.create_array(tmp_path / "out.zarr", shape=array.shape, chunks=(2, 2, 1), dtype="i8"),
        "shared": lambda: SharedArray.create(array.shape, array.dtype),
        "view": lambda: room[1, ..., :2],
        "strided": lambda: room[0, ..., ::-2],
    }
    out = make[kind]()
    assert merge(split(array, GRID), GRID, out) is out
    np.testing.assert_array_equal(out[...], array)


def test_pieces_may_be_an_object_array_of_the_grids_shape_or_zarr_arrays() -> None:
    array = whole(GRID)
    pieces = np.empty(GRID.counts, object)
    for position, piece in zip(np.ndindex(pieces.shape), split(array, GRID), strict=True):
        pieces[position] = piece
    np.testing.assert_array_equal(merge(pieces, GRID), array)
    assert merged_shape(pieces, GRID) == array.shape
    stored = [zarr.create_array({}, data=piece) for piece in pieces.ravel()]
    np.testing.assert_array_equal(merge(stored, GRID), array)
    with pytest.raises(GeometryError, match=r"shape of the grid, \(3, 2\), got \(2, 3\)"):
        merge(pieces.T, GRID)


def test_the_grid_of_a_task_is_merged_from_where_it_begins_to_write() -> None:
    grid = tile(total=((0, 12), (5, 20)), read=((0, 6), (0, 5)), write=((2, 5), (0, 4)), fit="shrink")
    array = np.arange(12 * 20).reshape(12, 20)
    pieces = [array[tuple(slice(*interval) for interval in grid.read_box(i))] for i in range(grid.size)]
    np.testing.assert_array_equal(merge(pieces, grid), array[2:11, 5:19])


def test_pieces_may_be_nested_lists() -> None:
    assert merge([[1, 2], [3]], Grid([regular_axis(3, 2)])).tolist() == [1, 2, 3]


def test_a_generator_is_consumed_as_it_goes() -> None:
    array = whole(GRID)
    out = np.full(array.shape, -1)

    def pieces() -> Any:
        for position, piece in enumerate(split(array, GRID)):
            assert position == 0 or out[0, 0] == 0
            yield piece

    np.testing.assert_array_equal(merge(pieces(), GRID, out), array)


def bad(change: str) -> list[Any]:
    pieces: list[Any] = split(whole(GRID, 2), GRID)
    match change:
        case "few":
            del pieces[-1]
        case "many":
            pieces.append(pieces[0])
        case "none":
            pieces[3] = None
        case "shape":
            pieces[3] = pieces[3][:1]
        case "mixed":
            pieces[2] = pieces[2][:, :3]
        case "trailing":
            pieces[3] = pieces[3][..., :1]
        case "dtype":
            pieces[3] = pieces[3].astype(float)
    return pieces


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ("few", GeometryError, r"one piece for each of the 6 blocks of a grid of \(3, 2\), got 5"),
        ("many", GeometryError, r"got more than 6"),
        (
            "none",
            GeometryError,
            r"block \(1, 1\) must cover what that reads, \(3, 1\), or writes, \(2, 1\), got shape \(\)",
        ),
        ("shape", GeometryError, r"block \(1, 1\) .* got shape \(1, 1, 2\)"),
        ("mixed", GeometryError, r"reads, \(3, 4\), or writes, \(2, 3\), got shape \(3, 3, 2\)"),
        ("trailing", GeometryError, r"the first has \(2,\), that of block \(1, 1\) has \(1,\)"),
        ("dtype", PlanError, r"dtype float64 may lose values in an out of int64"),
    ],
)
def test_wrong_pieces_are_refused_and_a_list_before_anything_is_written(
    stream: bool, change: str, error: type[Exception], message: str
) -> None:
    out = np.full((5, 4, 2), -1)
    pieces: Any = bad(change)
    with pytest.raises(error, match=message):
        merge(iter(pieces) if stream else pieces, GRID, out)
    assert (out == -1).all() or stream


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("few", "got 5"),
        ("many", "got 7"),
        ("none", r"block \(1, 1\) must have 2 axes, got shape \(\)"),
        ("shape", "position 1 of axis 0 must have one length along it: that of block .1, 1. has 1, others 3"),
        ("trailing", r"the first has \(2,\)"),
    ],
)
def test_wrong_rescaled_pieces_are_refused(change: str, message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        merge(bad(change), GRID, rescaled=True)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3), (5, 3, 2), (6, 4, 2)])
def test_an_out_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match=r"shape of the merged pieces, \(5, 4, 2\), got"):
        merge(bad("nothing"), GRID, np.zeros(shape, np.int64))


def test_a_read_only_out_is_refused(tmp_path: Path) -> None:
    out = np.zeros((5, 4, 2), np.int64)
    out.flags.writeable = False
    zarr.create_array(tmp_path / "out.zarr", shape=out.shape, dtype=out.dtype)
    for sink in (out, zarr.open_array(tmp_path / "out.zarr", mode="r")):
        with pytest.raises(PlanError, match="read-only"):
            merge(bad("nothing"), GRID, sink)


def test_a_lossy_cast_is_done_when_asked() -> None:
    out = np.zeros((5, 4, 2), np.float32)
    with pytest.raises(PlanError, match="int64 may lose values in an out of float32"):
        merge(bad("nothing"), GRID, out)
    merge(bad("nothing"), GRID, out, casting="same_kind")
    np.testing.assert_array_equal(out, whole(GRID, 2))


@needs_oracles
def test_magmaps_round_trips() -> None:
    """Equal to the input in all cases, which its first way of merging gets right, its second not."""
    cases = json.loads((ORACLES / "split_merge_cases.json").read_text())
    for case in cases:
        shape, dims = case["shape"], len(case["grid"])
        overlap = case["overlap"] or [0] * dims
        grid = Grid(
            [regular_axis(*each[:2], after=each[2]) for each in zip(shape, case["max_pixels"], overlap, strict=False)]
        )
        assert list(grid.counts) == case["grid"]
        array = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
        pieces = [array[z0:z1, y0:y1, x0:x1] for z0, z1, y0, y1, x0, x1 in case["slices"]]
        merged = merge(pieces, grid)
        assert merged_shape(pieces, grid) == merged.shape == tuple(case["merge1"]["shape"])
        assert hashlib.sha256(merged.tobytes()).hexdigest().startswith(case["merge1"]["sha"])
        if case["merge2"].get("equal"):
            assert case["merge2"]["sha"] == case["merge1"]["sha"]


@needs_oracles
def test_magmaps_rescaled_merges() -> None:
    for case in json.loads((ORACLES / "rescaled_merge_cases.json").read_text()):
        shape, step = case["shape"], case["step"]
        grid = Grid([regular_axis(*each) for each in zip(shape, case["max_pixels"], strict=False)])
        array = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
        pieces = [piece[::step, ::step, ::step] for piece in split(array, grid)]
        assert list(merged_shape(pieces, grid, rescaled=True)) == case["total_shape"]
        movie = np.full((2, *case["total_shape"]), -1, np.int32)
        merge(pieces, grid, movie[0], rescaled=True)  # a leading axis of the sink is chosen by indexing it
        assert movie[0].ravel().tolist() == case["result"]
        assert (movie[1] == -1).all()


@given(grid=grids, dtype=st.sampled_from(["u8", "i8"]), order=st.sampled_from("CF"), data=st.data())
def test_large_ids_come_through_in_any_memory_order(grid: Grid, dtype: str, order: Any, data: st.DataObject) -> None:
    bounds = np.iinfo(dtype)
    ids = whole(grid).astype(dtype) + np.array(data.draw(st.integers(bounds.min, bounds.max - whole(grid).size)), dtype)
    pieces = [
        np.asarray(piece, order=order) for piece in split(ids, grid, data.draw(st.sampled_from(["read", "write"])))
    ]
    expected = ids.tolist()
    assert merge(pieces, grid).tolist() == expected
    out = np.zeros(ids.shape, dtype, order=order)
    assert merge(iter(pieces), grid, out) is out
    assert out.tolist() == expected
    for narrow in ("f8", "f4", "c16", "i8" if dtype == "u8" else "u8"):
        with pytest.raises(PlanError, match=r"pieces of dtype u?int64 may lose values in an out of "):
            merge(pieces, grid, np.zeros(ids.shape, narrow))


@pytest.mark.parametrize("kind", [list, iter])
def test_masks_are_refused(kind: Any) -> None:
    grid, image = Grid([regular_axis(4, 2)]), np.arange(4)
    with pytest.raises(PlanError, match="pieces must have no masks"):
        merge(kind([np.ma.masked_equal(image[:2], 1), image[2:]]), grid)
    with pytest.raises(PlanError, match="out must have no masks"):
        merge(kind([image[:2], image[2:]]), grid, np.ma.zeros(4, image.dtype))
