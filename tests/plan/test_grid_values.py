"""Are grids values: lazy sequences of blocks, whatever they were made from?"""

from __future__ import annotations

import json
import pickle
import tracemalloc
from itertools import islice, product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow.errors import GeometryError
from blockflow.geometry import Roi
from blockflow.plan.block import Block
from blockflow.plan.grid import FITS, Grid, Reach
from blockflow.plan.task import Task
from blockflow.plan.tiling import tile
from tests.plan.axes import cuts, planned_axes, spans
from tests.plan.oracle import meet, volume

ORACLES = Path(__file__).parents[2].parent / "shared" / "oracles"
needs_oracles = pytest.mark.skipif(not ORACLES.is_dir(), reason="recorded results of other libraries are not here")

small = st.integers(0, 5)


@st.composite
def arrays(draw: st.DrawFn) -> dict[str, Any]:
    """The arguments that every grid has."""
    dims = draw(st.integers(1, 3))

    def some(low: int, high: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=dims, max_size=dims))

    return {"shape": some(1, 9), "offset": some(-9, 9), "voxel_size": some(1, 3)}


@st.composite
def regular_grids(draw: st.DrawFn) -> tuple[Grid, dict[str, Any]]:
    array = draw(arrays())
    shape = array["shape"]
    unit = [draw(st.integers(1, min(3, n))) for n in shape]
    block = [draw(st.integers(u, n)) for n, u in zip(shape, unit, strict=True)]
    given = {
        **array,
        "block": block,
        "context": [(draw(small), draw(small)) for _ in shape],
        "multiple_of": unit,
        "fit": draw(st.sampled_from(FITS)),
        "clip": draw(st.booleans()),
    }
    return Grid.regular(**given), given


@st.composite
def balanced_grids(draw: st.DrawFn) -> Grid:
    array = draw(arrays())
    largest = draw(st.integers(1, 9))
    return Grid.balanced(**array, max_size=largest, overlap=draw(st.integers(0, largest - 1)))


grids = regular_grids().map(lambda made: made[0]) | balanced_grids()


def inside(box: Any, region: Any) -> Any:
    return tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(box, region, strict=True))


# -- what every grid keeps ---------------------------------------------------------------------------------------


@given(grids)
def test_writes_partition_the_region_and_reads_contain_them(grid: Grid) -> None:
    writes = [grid.write_box(index) for index in range(grid.size)]
    assert not any(meet(one, other) for number, one in enumerate(writes) for other in writes[:number])
    assert all(volume(write) > 0 for write in writes)
    for index, write in enumerate(writes):
        read = grid.read_box(index)
        assert inside(write, read) == write
        assert inside(read, grid.total) == read
    task = Task("t", grid=grid)
    written = sum(volume(inside(write, grid.region)) for write in writes)
    assert (volume(grid.region) - written) == task.dropped_voxels() * prod(grid.voxel_size)


@given(regular_grids())
def test_regular_grids_are_tasks_shifted_over_the_array(made: tuple[Grid, dict[str, Any]]) -> None:
    """The same grid, said with ROIs; context ends at the borders if it is clipped."""
    grid, given = made
    dims = range(len(given["shape"]))
    voxel, context = given["voxel_size"], given["context"]
    cut = [
        block if block >= size else block // unit * unit
        for size, block, unit in zip(given["shape"], given["block"], given["multiple_of"], strict=True)
    ]
    step = [cut[a] * voxel[a] for a in dims]
    before, after = ([context[a][side] * voxel[a] for a in dims] for side in (0, 1))
    extent = [given["shape"][a] * voxel[a] for a in dims]
    tiled = tile(
        total=tuple((given["offset"][a] - before[a], given["offset"][a] + extent[a] + after[a]) for a in dims),
        read=tuple((0, before[a] + step[a] + after[a]) for a in dims),
        write=tuple((before[a], before[a] + step[a]) for a in dims),
        fit=given["fit"],
    )
    assert grid.shape == tiled.shape
    ends = tuple((axis.begin, max(end, axis.end)) for axis, (_, end) in zip(grid.axes, grid.region, strict=True))
    for index in range(grid.size):
        assert grid.write_box(index) == tiled.write_box(index)
        read = tiled.read_box(index)
        assert grid.read_box(index) == (inside(read, ends) if given["clip"] else read)
    if not given["clip"]:
        assert grid.axes == tiled.axes, "with the same ids"


@given(grids)
def test_blocks_come_by_index_position_and_id(grid: Grid) -> None:
    blocks = list(grid)
    assert len(blocks) == len(grid) == prod(grid.shape)
    for index, block in enumerate(blocks):
        assert (block.index, block.position, block.task_id) == (index, grid.position(index), None)
        assert block.write_roi == Roi([b for b, _ in grid.write_box(index)], [e - b for b, e in grid.write_box(index)])
        for same in (grid[index], grid[index - len(grid)], grid[grid.position(index)], grid.by_id(block.block_id)):
            assert (same.index, same.read_roi, same.block_id) == (index, block.read_roi, block.block_id)
        assert grid.by_id(block.block_id[1]).index == index
        assert [(begin, end) for begin, end in zip(block.total_roi.begin, block.total_roi.end, strict=True)] == list(
            grid.total
        )


@given(grids)
def test_starts_and_slices_are_where_blocks_read_and_write_in_voxels(grid: Grid) -> None:
    origin = [begin for begin, _ in grid.region]
    for read, box_of in ((False, grid.write_box), (True, grid.read_box)):
        expected = [
            tuple(((b - o) // v, (e - o) // v) for (b, e), o, v in zip(box_of(i), origin, grid.voxel_size, strict=True))
            for i in range(grid.size)
        ]
        assert list(grid.starts(read=read)) == [tuple(begin for begin, _ in box) for box in expected]
        if min(begin for box in expected for begin, _ in box) < 0:
            with pytest.raises(GeometryError, match="slices cannot begin in front of an array: axis"):
                grid.slices(read=read)
        else:
            assert list(grid.slices(read=read)) == [tuple(slice(*pair) for pair in box) for box in expected]


@given(grid=grids, reach=st.sampled_from(["faces", "full"]), data=st.data())
def test_neighbours_are_one_step_away(grid: Grid, reach: Reach, data: st.DataObject) -> None:
    block = grid[data.draw(st.integers(0, len(grid) - 1))]
    assert block.position is not None
    found = [other.position for other in grid.neighbours(block, reach)]
    steps = [[abs(x - y) for x, y in zip(block.position, other, strict=True)] for other in np.ndindex(grid.shape)]
    near = [(max(step) == 1 and sum(step) == 1) if reach == "faces" else max(step) == 1 for step in steps]
    assert found == [other for other, is_near in zip(np.ndindex(grid.shape), near, strict=True) if is_near]
    assert [other.position for other in grid.neighbours(block.position, reach)] == found
    assert [other.position for other in grid.neighbours(block.index or 0, reach)] == found


@given(grids)
def test_grids_are_values(grid: Grid) -> None:
    copy = pickle.loads(pickle.dumps(grid))
    assert copy == grid
    assert hash(copy) == hash(grid)


@given(st.lists(planned_axes(), min_size=1, max_size=2))
def test_a_grid_without_a_region_is_to_write_what_its_blocks_write(axes: Any) -> None:
    grid = Grid(tuple(axes))
    assert grid.region == tuple((cuts(axis)[0], cuts(axis)[-1]) for axis in axes)
    reads = tuple((spans(axis)[0].read_begin, spans(axis)[-1].read_end) for axis in axes)
    assert grid.total == reads
    assert grid.voxel_size == (1,) * len(axes)


def test_a_million_blocks_are_enumerated_without_being_listed() -> None:
    tracemalloc.start()
    try:
        for grid in (
            Grid.regular((10**7,), 10, context=3),
            Grid.regular((1000, 1000, 1000), 10),
            Grid.balanced((1200,) * 3, 13, overlap=1),
            Grid.balanced((10**12, 10, 10), 10**6, multiple_of=64),
        ):
            assert len(grid) >= 10**6
            assert next(iter(grid)).index == 0
            assert len(list(islice(grid.slices(), 100))) == 100
            assert grid[-1].write_roi.end == grid[-1].total_roi.end
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


# -- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": ()}, "shape must have at least one axis"),
        ({"shape": 5}, "shape must be a sequence of integers"),
        ({"shape": (0, 3)}, "shape must be positive: axis 0 has 0"),
        ({"block": (1, 2, 3)}, r"block must be one value, or one for each of 2 axes, got 3: \(1, 2, 3\)"),
        ({"block": 0}, "axis 0: block must be a whole number of at least 1, got 0"),
        ({"block": (2, -1)}, "axis 1: block must be a whole number of at least 1, got -1"),
        ({"context": -1}, "context of axis 0 must be a whole number of at least 0, got -1"),
        ({"context": (0, (1, -1))}, "context behind axis 1 must be a whole number of at least 0, got -1"),
        ({"context": ((1, 2, 3), 0)}, r"context of an axis is one number or \(before, after\): axis 0 has \(1, 2, 3\)"),
        ({"fit": "crop"}, "axis 0: fit must be one of 'valid', 'overhang', 'shrink', got 'crop'"),
        ({"block": 9, "fit": "valid"}, "axis 0: no whole block fits: fit is 'valid', size is 8, block is 9"),
        ({"multiple_of": (1, 4)}, "axis 1: cuts at multiples of 4 need a block of at least that, got 3"),
        ({"offset": (1,)}, r"offset must have one number for each of 2 axes, got \(1,\)"),
        ({"voxel_size": (1, 0)}, "voxel_size must be positive: axis 1 has 0"),
        ({"voxel_size": (1, 0.5)}, "voxel_size must hold whole numbers: axis 1 has 0.5"),
        ({"offset": (0, 2**53)}, r"the array must lie within \[-2\*\*53, 2\*\*53\]: axis 1 is"),
    ],
)
def test_bad_arguments_of_regular_grids_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(GeometryError, match=f"^{message}"):
        Grid.regular(**{"shape": (8, 8), "block": 3, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"axes": (0, 3)}, r"axes must be different numbers from 0 to 2, got \(0, 3\)"),
        ({"axes": -1}, "axes must be different numbers from 0 to 2, got -1"),
        ({"axes": (1, 1)}, "axes must be different numbers"),
        ({"axes": (0.5,)}, "axes must be different numbers"),
        ({"axes": (0, 1), "max_size": (3,)}, r"max_size must be one value, or one for each of 2 axes, got 1: \(3,\)"),
        ({"overlap": (0, 3, 0)}, "axis 1: overlap must be less than max_size: 3 against 3"),
        ({"min_size": 4}, "axis 0: min_size must be at most max_size: 4 against 3"),
        ({"multiple_of": 4}, "axis 0: cuts at multiples of 4 need max_size"),
        ({"workers": 0}, "axis 0: workers must be"),
        ({"shape": (2**53 + 1, 8, 8)}, "the array must lie within"),
        ({"shape": (2**50, 8, 8), "max_size": 1}, "axis 0: too many blocks on one axis"),
        ({"shape": (2**22,) * 3, "max_size": 1}, r"no more than 2\*\*63 - 1 blocks can be numbered"),
    ],
)
def test_bad_arguments_of_balanced_grids_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(GeometryError, match=f"^{message}"):
        Grid.balanced(**{"shape": (8, 8, 8), "max_size": 3, **arguments})


@pytest.mark.parametrize("key", [6, -7, (0, 2), (3, 0), (-1, 0), (0,), (0, 0, 0)])
def test_blocks_that_are_not_there_are_index_errors(key: Any) -> None:
    with pytest.raises(IndexError, match=r"^a grid of .+ has no (index|position)"):
        Grid.regular((6, 4), block=2)[key]


def test_neighbours_of_what_is_no_block_of_a_grid_are_refused() -> None:
    grid = Grid.regular((6, 4), block=2)
    with pytest.raises(GeometryError, match="reach must be one of 'faces', 'full', got 'edges'"):
        grid.neighbours(0, "edges")  # type: ignore[arg-type]
    roi = Roi((0, 0), (2, 2))
    with pytest.raises(GeometryError, match="a block made by hand has no neighbours"):
        grid.neighbours(Block(roi, roi, roi))


def test_numbers_of_axes_hold_for_the_axes_in_the_order_given() -> None:
    assert Grid.balanced((10, 10, 10), (5, 2), axes=(2, 1)).shape == (1, 5, 2)
    assert Grid.balanced((10, 10, 10), (None, 5, 10)).shape == (1, 2, 1)
    assert Grid.regular((10, 10), (None, 5)).shape == (1, 2)
    assert Grid.regular((10, 10), (None, 12), multiple_of=(4, 64)).shape == (1, 1), "what is not cut needs no multiple"


# -- what other libraries do -------------------------------------------------------------------------------------


@needs_oracles
def test_magmaps_chunks_are_blocks_with_context_behind_them() -> None:
    for case in json.loads((ORACLES / "magmap" / "split_merge_cases.json").read_text()):
        overlap = [n or 0 for n in case["overlap"] or (0, 0, 0)][:3]
        shape, block = case["shape"][:3], case["max_pixels"][:3]
        grid = Grid.regular(shape, block, context=[(0, n) for n in overlap])
        assert list(grid.shape) == case["grid"][:3]
        found = [[edge for part in where for edge in (part.start, part.stop)] for where in grid.slices(read=True)]
        assert found == case["slices"]
        assert [list(start) for start in grid.starts()] == [[int(n) for n in start[:3]] for start in case["offsets"]]


@needs_oracles
def test_scouts_chunks_are_blocks() -> None:
    for case in json.loads((ORACLES / "scout" / "chunk_geometry.json").read_text()):
        shape, chunks = case["shape"], case["chunks"]
        if len(shape) != len(chunks) or 0 in shape or not all(isinstance(c, int) and c > 0 for c in chunks):
            with pytest.raises(GeometryError):
                Grid.regular(shape, chunks)
            continue
        grid = Grid.regular(shape, chunks)
        assert list(grid.shape) == case["chunk_dims"]["result"]
        assert [list(start) for start in grid.starts()] == case["chunk_coordinates"]["result"]["data"]


@needs_oracles
def test_clearmaps_splits_are_balanced_grids() -> None:
    compared = equal = 0
    for case in json.loads((ORACLES / "clearmap" / "split_into_blocks_v30.json").read_text()):
        processes = case["kwargs"].get("processes", 1)
        names = {"size_max": "max_size", "size_min": "min_size", "axes": "axes", "overlap": "overlap"}
        options = {names[name]: value for name, value in case["kwargs"].items() if name in names}
        options = {"axes": case.get("block_axes", 0), "max_size": None, **options}
        options["workers"] = processes if isinstance(processes, int) else 1
        options["balance"] = "nearest"
        if "error" in case:
            with pytest.raises(GeometryError):
                Grid.balanced(case["shape"], **options)
            continue
        grid = Grid.balanced(case["shape"], **options)
        assert len(grid) == len(case["blocks"])
        for block, theirs in zip(grid, case["blocks"], strict=True):
            assert list(block.position or ()) == theirs["index"]
            ours = [*block.read_roi.begin, *block.read_roi.end, *block.write_roi.shape]
            difference = np.subtract(ours, [*theirs["lower"], *theirs["upper"], *theirs["valid_shape"]])
            assert np.abs(difference).max() <= 1, "sizes accumulated in floats are one voxel off"
            equal += not difference.any()
            if "neighbours" in theirs:
                near = [list(other.position or ()) for other in grid.neighbours(block)]
                assert sorted(near) == sorted(theirs["neighbours"])
            compared += 1
    assert compared > 30
    assert equal > 0.6 * compared, "and overlaps of odd width are cut half to even; see test_balance.py"


def test_the_corners_of_a_grid_have_fewer_neighbours() -> None:
    grid = Grid.regular((3, 3, 3), 1)
    assert sorted({len(grid.neighbours(position, "full")) for position in product(range(3), repeat=3)}) == [
        7,
        11,
        17,
        26,
    ]


@needs_oracles
def test_scouts_ghosted_chunks_are_what_blocks_read() -> None:
    compared = 0
    for case in json.loads((ORACLES / "scout" / "boxes.json").read_text())["ghosted"]:
        grid = Grid.regular((6, 7, 8), case["chunks"], context=case["overlap"])
        starts = list(grid.starts())
        if tuple(case["start"]) in starts:
            block = grid[starts.index(tuple(case["start"]))]
            assert list(block.read_roi.begin) == case["start_ghosted"]
            assert list(block.read_roi.end) == case["stop_ghosted"]
            compared += 1
    assert compared > 3


@pytest.mark.parametrize(
    "misused",
    [{"shape": (0, 4, 4)}, {"block": 0}, {"block": -1}, {"block": 1.5}, {"context": 0.5}, {"context": (0, -1, 0)}],
)
def test_what_magmap_takes_for_an_empty_grid_or_rounds_is_refused(misused: dict[str, Any]) -> None:
    """And what it cannot split is: two axes, and one size for all of them."""
    assert Grid.regular((5, 4), (1, 3)).shape == (5, 2)
    assert Grid.regular((6, 5, 4), 2).shape == (3, 3, 2)
    with pytest.raises(GeometryError, match=r"must (be|hold)"):
        Grid.regular(**{"shape": (6, 5, 4), "block": 2, **misused})
