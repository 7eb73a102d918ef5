from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from blockflow.errors import GeometryError, PlanError
from blockflow.geometry import Roi
from blockflow.ops.points import dedupe_points, merge_points, own_points
from blockflow.plan.regular import regular_axis
from tests.plan.axes import spans

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blockflow.plan.axis import AxisLike

ORACLES = Path(__file__).parents[2].parent / "shared" / "oracles"
needs_oracles = pytest.mark.skipif(not ORACLES.is_dir(), reason="recorded results of other libraries are not here")

Table = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Grid:
    axes: Sequence[AxisLike]


@dataclass(frozen=True)
class Block:
    read_roi: Roi
    write_roi: Roi


def blocks_of(grid: Grid) -> list[Block]:
    return [
        Block(
            Roi([s.read_begin for s in along], [s.read_end - s.read_begin for s in along]),
            Roi([s.write_begin for s in along], [s.write_end - s.write_begin for s in along]),
        )
        for along in product(*map(spans, grid.axes))
    ]


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    def axis() -> AxisLike:
        size, block = draw(st.integers(1, 12)), draw(st.integers(1, 12))
        return regular_axis(size, block, before=draw(st.integers(0, 4)), after=draw(st.integers(0, 4)))

    return Grid([axis() for _ in range(draw(st.integers(1, 3)))])


TWO = Grid([regular_axis(8, 4), regular_axis(6, 2)])  # 2 x 3 blocks


# merge_points


@given(data=st.data(), grid=grids(), dtype=st.sampled_from([np.uint8, np.int64, np.float32, np.float64]))
def test_merging_stacks_and_tags(data: st.DataObject, grid: Grid, dtype: Any) -> None:
    counts = tuple(axis.count for axis in grid.axes)
    table: st.SearchStrategy[Any] = (
        st.none()
        | st.just([])
        | hnp.arrays(dtype, st.tuples(st.integers(0, 3), st.just(2)), elements=st.integers(0, 200))
    )
    tables = [data.draw(table) for _ in np.ndindex(counts)]
    rows = [(number, row) for number, table in enumerate(tables) for row in ([] if table is None else table)]
    untagged = merge_points(iter(tables), grid)
    if rows:
        assert untagged.dtype == dtype
        assert untagged.tolist() == [row.tolist() for _, row in rows]
    else:
        assert len(untagged) == 0
    indexed = merge_points(tables, grid, tag="index")
    assert indexed[:, -1].tolist() == [number for number, _ in rows]
    placed = merge_points(tables, grid, tag="position")
    assert placed[:, -len(counts) :].tolist() == [list(np.unravel_index(number, counts)) for number, _ in rows]
    np.testing.assert_array_equal(placed[:, : -len(counts)], untagged)


def test_no_points_at_all() -> None:
    assert merge_points([None] * 6, TWO).shape == (0, 2)
    assert merge_points([None] * 6, TWO, tag="position").shape == (0, 4)
    assert merge_points([None] * 5 + [np.empty((0, 7), int)], TWO, tag="index").shape == (0, 8)


def test_a_table_without_rows_does_not_make_integers_floats() -> None:
    assert merge_points([np.empty((0, 2)), [[1, 2]], *[None] * 4], TWO, tag="index").dtype == np.int64


def test_a_tag_never_wraps_and_never_costs_precision() -> None:
    line = Grid([regular_axis(300, 1)])
    small = merge_points([np.zeros((1, 1), np.int8)] * 300, line, tag="position")
    assert small[:, 1].tolist() == list(range(300))
    large = np.array([[2**63 + 1]], np.uint64)
    assert int(merge_points([large] * 300, line, tag="index")[0, 0]) == 2**63 + 1


@pytest.mark.parametrize(
    ("tables", "tag", "error", "message"),
    [
        ([None] * 5, None, GeometryError, r"each of the 6 blocks of a grid of \(2, 3\), got 5"),
        ([None] * 7, None, GeometryError, "got 7"),
        (
            [[1, 2], *[None] * 5],
            None,
            GeometryError,
            r"table 0 must have a row for each point .* got shape \(2,\)",
        ),
        ([[[1, 2]], [[1]], *[None] * 4], None, GeometryError, "got 2 in table 0, 1 in table 1"),
        ([[["a"]], *[None] * 5], None, PlanError, "table 0 must hold real numbers, got <U1"),
        ([[[True]], *[None] * 5], None, PlanError, "table 0 must hold real numbers, got bool"),
        ([None] * 6, "block", PlanError, "tag must be None or one of position, index, got 'block'"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tables: Any, tag: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        merge_points(tables, TWO, tag=tag)


# own_points


@given(data=st.data(), grid=grids(), dtype=st.sampled_from([np.int16, np.float64]))
def test_each_point_inside_is_owned_once_and_by_the_block_that_writes_it(
    data: st.DataObject, grid: Grid, dtype: Any
) -> None:
    dims = len(grid.axes)
    values = st.integers(-2, 14) if dtype == np.int16 else st.floats(-2, 14, width=32)
    points = data.draw(hnp.arrays(dtype, st.tuples(st.integers(0, 20), st.just(dims)), elements=values))
    points = np.column_stack([points, np.arange(len(points), dtype=dtype)])
    owned = np.concatenate([own_points(points, block) for block in blocks_of(grid)])
    assert owned.dtype == dtype
    size = [axis.write_end(axis.count - 1) for axis in grid.axes]
    inside = [row for row in points.tolist() if all(0 <= x < n for x, n in zip(row, size, strict=False))]
    assert sorted(owned.tolist(), key=lambda row: row[-1]) == inside
    for block in blocks_of(grid):
        local = points.copy()
        local[:, :dims] -= np.array(block.read_roi.begin, dtype)
        shifted = own_points(local, block, local=True)
        np.testing.assert_allclose(shifted, own_points(points, block), atol=1e-12)


def test_local_coordinates_have_room_for_the_place_of_the_block() -> None:
    block = Block(Roi((10**6, -5), (20, 10)), Roi((10**6 + 5, -5), (10, 10)))
    points = np.array([[250, 6, 3], [7, 1, 1], [4, 1, 2]], np.uint8)
    assert own_points(points, block, local=True).tolist() == [[10**6 + 7, -4, 1]]
    fine = own_points(np.array([[7.25, 1, 1]], np.float32), block, local=True)
    assert fine.tolist() == [[10**6 + 7.25, -4, 1]]
    assert points[1].tolist() == [7, 1, 1]


def test_columns_say_where_coordinates_are() -> None:
    block = Block(Roi((0, 0), (9, 9)), Roi((2, 4), (2, 2)))
    points = [[0, 5, 3], [0, 3, 5]]
    assert own_points(points, block, columns=[2, 1]).tolist() == [[0, 5, 3]]


@pytest.mark.parametrize(
    ("points", "columns", "error", "message"),
    [
        ([1, 2], None, GeometryError, r"got shape \(2,\)"),
        ([[1]], None, GeometryError, r"columns 0 to 0, coordinates should be in \[0, 1\]"),
        ([[1, 2]], [0, 2], GeometryError, r"columns 0 to 1, coordinates should be in \[0, 2\]"),
        ([[1, 2]], [-1, 0], GeometryError, r"coordinates should be in \[-1, 0\]"),
        ([[1, 2]], [0], GeometryError, "one different column for each of 2 axes"),
        ([[1, 2]], [0, 0], GeometryError, "one different column for each of 2 axes"),
        ([[1, np.nan]], None, PlanError, "must be finite"),
        ([[1j, 2]], None, PlanError, "real numbers, got complex128"),
    ],
)
def test_points_that_cannot_be_placed_are_refused(
    points: Any, columns: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        own_points(points, Block(Roi((0, 0), (9, 9)), Roi((0, 0), (9, 9))), columns=columns)


# dedupe_points


def brute_force(points: Table, tolerance: Table, groups: Table, blocks: Table) -> list[list[int]]:
    """Sets of duplicates, the kept one first."""
    sets: list[list[int]] = []
    for i in range(len(points)):
        for members in sets:
            kept = members[0]
            near = (np.abs(points[i] - points[kept]) <= tolerance).all()
            if near and groups[i] == groups[kept] and (blocks[i] != blocks[kept]).any():
                members.append(i)
                break
        else:
            sets.append([i])
    return sets


@given(data=st.data(), rows=st.integers(0, 20), how=st.sampled_from(["first", "mean"]))
def test_deduping_equals_brute_force(data: st.DataObject, rows: int, how: Any) -> None:
    points = data.draw(hnp.arrays(np.int64, (rows, 4), elements=st.integers(-3, 3)))
    tolerance = data.draw(hnp.arrays(float, (2,), elements=st.sampled_from([0, 0.5, 1, 2])))
    groups = data.draw(hnp.arrays("U1", (rows,), elements=st.sampled_from("ab")))
    blocks = data.draw(hnp.arrays(np.int64, (rows, 2), elements=st.integers(0, 1)))
    kept = dedupe_points(points, tolerance.tolist(), how=how, columns=[3, 1], groups=groups, blocks=blocks)
    sets = brute_force(points[:, [3, 1]], tolerance, groups, blocks)
    expected = points[[members[0] for members in sets]].astype(float)
    if how == "mean":
        for row, members in zip(expected, sets, strict=True):
            row[[3, 1]] = points[members][:, [3, 1]].mean(axis=0)
    np.testing.assert_allclose(kept, expected, rtol=1e-15)
    assert kept.dtype == (np.int64 if how == "first" else np.float64)


@given(points=hnp.arrays(float, st.tuples(st.integers(0, 30), st.just(2)), elements=st.floats(0, 9)))
def test_what_is_left_has_no_duplicates_and_what_is_gone_has_one_left(points: Table) -> None:
    left = dedupe_points(points, 1.5)
    distance = np.abs(points[:, None] - left[None]).max(axis=2)
    assert (distance.min(axis=1, initial=np.inf) <= 1.5).all()
    assert (np.abs(left[:, None] - left[None]).max(axis=2) <= 1.5).sum() == len(left)
    np.testing.assert_array_equal(dedupe_points(left, 1.5), left)


def test_a_number_is_the_tolerance_of_all_given_columns() -> None:
    points = [[0, 0, 9], [1, 1, 0], [1, 2, 0]]
    assert len(dedupe_points(points, 1)) == 2
    assert dedupe_points(points, 1, columns=[0, 1]).tolist() == [[0, 0, 9], [1, 2, 0]]
    assert dedupe_points(points, [1]).tolist() == [[0, 0, 9]]


def test_means_keep_single_floats() -> None:
    assert dedupe_points(np.array([[0, 1], [1, 1]], np.float32), 1, how="mean").dtype == np.float32


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"tolerance": -1}, GeometryError, "at least 0, or one for each axis, got -1"),
        ({"tolerance": [1, float("nan")]}, GeometryError, "finite number"),
        ({"tolerance": float("inf")}, GeometryError, "finite number"),
        ({"tolerance": []}, GeometryError, "finite number"),
        ({"tolerance": [[1, 1]]}, GeometryError, "finite number"),
        ({"tolerance": [1, 1, 1]}, GeometryError, r"columns 0 to 1, coordinates should be in \[0, 1, 2\]"),
        ({"tolerance": [1, 1], "columns": [0]}, GeometryError, "one different column for each of 2 axes"),
        (
            {"groups": [1]},
            GeometryError,
            r"groups must have a label for each of the 2 points, got shape \(1,\)",
        ),
        ({"blocks": 1}, GeometryError, r"blocks must have a label for each of the 2 points, got shape \(\)"),
        ({"how": "last"}, PlanError, "how must be one of first, mean, got 'last'"),
        ({"points": [[0, np.inf]]}, PlanError, "must be finite"),
        ({"points": [[0, 2**53 + 1]]}, PlanError, r"below 2\*\*53"),
    ],
)
def test_what_cannot_be_compared_is_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        dedupe_points(**{"points": [[0, 0], [0, 1]], "tolerance": 1, **arguments})


# What other libraries do


@needs_oracles
def test_magmaps_merged_blobs() -> None:
    for case in json.loads((ORACLES / "magmap" / "merge_blobs.json").read_text()):
        grid = Grid([regular_axis(count, 1) for count in case["grid"]])
        tables = [None if table is None else np.array(table, int).reshape(-1, 4) for table in case["blobs"]]
        merged = merge_points(tables, grid, tag="position")
        if case["merged"] is None:
            assert len(merged) == 0
        else:
            assert merged.tolist() == case["merged"]
            assert str(merged.dtype) == case["merged_dtype"]


@needs_oracles
def test_magmaps_pruned_blobs() -> None:
    """No fewer points are found to be duplicates, and none that upstream keeps is lost.

    Upstream compares only slabs of chunks that are next to each other along one axis at a time, and leaves
    duplicates; here none is left.
    """
    cases = json.loads((ORACLES / "magmap" / "prune_cases.json").read_text())
    arrays = dict(np.load(ORACLES / "magmap" / "prune_arrays.npz"))
    for k, case in enumerate(cases):
        found, pruned = arrays[f"in_{k}"], arrays[f"out_{k}"]
        chunks = np.repeat(np.arange(len(arrays[f"in_counts_{k}"])), arrays[f"in_counts_{k}"])
        tolerance = np.array(case["tol"])
        ours = dedupe_points(np.column_stack([found, chunks]), case["tol"], groups=found[:, 6], blocks=chunks)
        assert len(ours) <= len(pruned)
        near = (np.abs(pruned[:, None, :3] - ours[None, :, :3]) <= tolerance).all(axis=2)
        assert near.any(axis=1).all()
        close = (np.abs(ours[:, None, :3] - ours[None, :, :3]) <= tolerance).all(axis=2)
        assert not (close & (ours[:, None, -1] != ours[None, :, -1])).any()
        if case["n_in"] == case["n_out"]:
            np.testing.assert_array_equal(ours[:, :-1], pruned)


@needs_oracles
def test_scouts_points_of_ghosted_chunks() -> None:
    """Equal where every ghost is as wide as asked or absent; upstream takes no other width into account."""
    equal = 0
    for case in json.loads((ORACLES / "scout" / "boxes.json").read_text())["ghosted"]:
        begin, ghost = np.array(case["start"]), np.array(case["start_ghosted"])
        read = Roi(ghost, np.array(case["stop_ghosted"]) - ghost)
        owned = own_points(case["points"], Block(read, Roi(begin, case["chunks"])), local=True) - ghost
        if np.isin(begin - ghost, (0, case["overlap"])).all():
            assert owned.tolist() == case["filter_ghosted"]
            equal += 1
    assert equal > 5


@needs_oracles
def test_scouts_points_in_a_box() -> None:
    case = json.loads((ORACLES / "scout" / "boxes.json").read_text())["filter_points"]
    box = Roi(case["start"], np.subtract(case["stop"], case["start"]))
    owned = own_points(case["points"], Block(box, box))
    assert owned.tolist() == [case["points"][i] for i in case["idx"]]
