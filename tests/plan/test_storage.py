"""Do blocks touch the chunks and shards that they touch, by listing every one of them?"""

from __future__ import annotations

from itertools import combinations, product
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from blockflow.arrays import Array, prepare_ds
from blockflow.errors import ArrayNotFoundError, GeometryError, PlanError
from blockflow.geometry import Roi
from blockflow.plan import storage
from blockflow.plan.alignment import advice, apart_for, safe_axes, verdict_on
from blockflow.plan.balance import BalancedAxis, balanced_axis
from blockflow.plan.conflicts import levels_of
from blockflow.plan.grid import Grid
from blockflow.plan.regular import FITS, RegularAxis, regular_axis
from blockflow.plan.slices import positions_of
from blockflow.plan.storage import Stored, lengths, shared_distances, stored
from blockflow.plan.tiling import tile
from tests.plan.axes import planned_axes
from tests.plan.oracle import ancestors

if TYPE_CHECKING:
    from pathlib import Path

    from blockflow.plan.conflicts import Levels
    from blockflow.plan.grid import Axis


@st.composite
def stored_arrays(draw: st.DrawFn, dims: int, *, most: int = 60) -> Stored:
    """Anywhere, of any voxel size; chunks counted from the begin or from in front of it; with shards or without."""
    voxel = [draw(st.integers(1, 3)) for _ in range(dims)]
    begin = [draw(st.integers(-20, 20)) for _ in range(dims)]
    extent = [draw(st.integers(1, most // v)) * v for v in voxel]
    chunk = [draw(st.integers(1, 12)) * v for v in voxel]
    shard = [draw(st.integers(1, 3)) * c for c in chunk]
    return Stored(
        name="out",
        box=tuple((b, b + n) for b, n in zip(begin, extent, strict=True)),
        voxel_size=tuple(voxel),
        voxel_bytes=draw(st.integers(1, 8)),
        origin=tuple(b - draw(st.integers(0, 5)) * v for b, v in zip(begin, voxel, strict=True)),
        chunk=tuple(chunk),
        shard=draw(st.none() | st.just(tuple(shard))),
    )


@st.composite
def cases(draw: st.DrawFn, most: int = 40) -> tuple[Grid, Stored]:
    dims = draw(st.integers(1, 2))
    axes = draw(
        st.lists(planned_axes(), min_size=dims, max_size=dims).filter(
            lambda axes: prod(axis.count for axis in axes) <= most
        )
    )
    return Grid(tuple(axes)), draw(stored_arrays(dims))


def units(box: Any, array: Stored, extent: tuple[int, ...]) -> set[tuple[int, ...]]:
    """Every chunk (or shard) that a box touches, by going through its world units."""
    along = [
        {(place - origin) // size for place in range(max(begin, low), min(end, high))}
        for (begin, end), (low, high), origin, size in zip(box, array.box, array.origin, extent, strict=True)
    ]
    return set(product(*along))


def sharing(grid: Grid, array: Stored) -> list[tuple[int, int]]:
    """All pairs of blocks that touch one unit of writing."""
    touched = [units(grid.write_box(index), array, array.unit) for index in range(grid.size)]
    return [(i, j) for i, j in combinations(range(grid.size), 2) if touched[i] & touched[j]]


def earlier(grid: Grid, levels: Levels) -> list[set[int]]:
    slices = levels.upstream(positions_of(np.arange(grid.size), grid.shape))
    ends = np.cumsum(slices.sizes())[:-1]
    return ancestors([part.tolist() for part in np.split(slices.flat(grid.shape), ends)])


@given(case=cases(), batch=st.sampled_from([1, 3, 2**18]))
def test_distances_are_those_of_blocks_that_share_a_unit(case: tuple[Grid, Stored], batch: int) -> None:
    grid, array = case
    before, storage._BATCH = storage._BATCH, batch
    try:
        distances = shared_distances(grid, array)
    finally:
        storage._BATCH = before
    for number, axis in enumerate(grid.axes):
        line = Grid((axis,))
        part = Stored(
            name="",
            box=(array.box[number],),
            voxel_size=(1,),
            voxel_bytes=1,
            origin=(array.origin[number],),
            chunk=(array.unit[number],),
        )
        apart = max((j - i for i, j in sharing(line, part)), default=0)
        inside = [i for i in range(axis.count) if units(line.write_box(i), part, part.chunk)]
        if inside and len(inside) == axis.count:
            assert distances[number] == apart
        else:  # what lies outside of the array counts for nothing, or for as much as if it were inside
            assert distances[number] >= apart
    positions = [grid.position(index) for index in range(grid.size)]
    for i, j in sharing(grid, array):
        steps = [abs(x - y) for x, y in zip(positions[i], positions[j], strict=True)]
        assert all(step <= distance for step, distance in zip(steps, distances, strict=True))


@given(case=cases(), conflict=st.booleans())
def test_only_blocks_that_run_one_after_the_other_share_unless_refused(
    case: tuple[Grid, Stored], conflict: bool
) -> None:
    grid, array = case
    levels = levels_of(grid, read_write_conflict=conflict)
    pairs = sharing(grid, array)
    verdict = verdict_on(grid, levels, array)
    if verdict == "aligned":
        assert not pairs
    if verdict == "in turn":
        before = earlier(grid, levels)
        assert all(i in before[j] or j in before[i] for i, j in pairs)
    serialized = levels_of(grid, read_write_conflict=conflict, apart=apart_for(grid, [array]))
    assert verdict_on(grid, serialized, array) != "shared"
    before = earlier(grid, serialized)
    assert all(i in before[j] or j in before[i] for i, j in pairs)


@st.composite
def regular_cases(draw: st.DrawFn) -> tuple[Grid, list[Stored]]:
    """Regular blocks in one or two arrays."""
    dims = draw(st.integers(1, 2))
    axes = draw(
        st.lists(planned_axes(), min_size=dims, max_size=dims).filter(
            lambda axes: all(isinstance(axis, RegularAxis) for axis in axes)
        )
    )
    return Grid(tuple(axes)), draw(st.lists(stored_arrays(dims), min_size=1, max_size=2))


@given(regular_cases())
def test_blocks_that_are_called_safe_are(case: tuple[Grid, list[Stored]]) -> None:
    grid, arrays = case
    axes = safe_axes(grid, arrays)
    total = tuple((safe.begin, end) for safe, (_, end) in zip(axes, grid.region, strict=True))
    for steps in ([safe.smaller for safe in axes], [safe.larger for safe in axes]):
        template = tuple((0, step) for step in steps)
        moved = tile(total=total, read=template, write=template, fit="shrink")
        assert not any(sharing(moved, array) for array in arrays)
    for safe, cut, (begin, end) in zip(axes, grid.axes, grid.region, strict=True):
        block, whole = cut.template.write_end - cut.template.write_begin, end - begin
        assert safe.begin <= cut.begin < safe.begin + safe.unit
        assert safe.smaller <= max(block, min(safe.unit, whole)) or safe.smaller == whole
        assert safe.larger >= min(block, whole)
    assert "safe" in advice(grid, arrays)


@given(case=cases(), batch=st.sampled_from([1, 3, 2**18]), read=st.booleans())
def test_lengths_are_counted_voxel_by_voxel(case: tuple[Grid, Stored], batch: int, read: bool) -> None:
    grid, array = case
    before, storage._BATCH = storage._BATCH, batch
    try:
        along = lengths(grid, array, read=read)
    finally:
        storage._BATCH = before
    extent = array.chunk if read else array.unit
    asked, moved = [], []
    for index in range(grid.size):
        box = grid.read_box(index) if read else grid.write_box(index)
        asked.append(len(units(box, array, array.voxel_size)))
        touched = units(box, array, extent)
        moved.append(
            sum(
                prod(
                    (min(high, origin + (k + 1) * size) - max(low, origin + k * size)) // voxel
                    for k, (low, high), origin, size, voxel in zip(
                        unit, array.box, array.origin, extent, array.voxel_size, strict=True
                    )
                )
                for unit in touched
            )
        )
    assert prod(axis.asked for axis in along) == sum(asked)
    assert prod(axis.moved for axis in along) == sum(moved)
    assert prod(axis.longest for axis in along) == max(asked)


# -- what zarr does ----------------------------------------------------------------------------------------------


def files_of(array: Any, store: dict[str, Any], box: Any) -> set[str]:
    """The chunks or shards that zarr makes when a box is written."""
    before = set(store)
    array[tuple(slice(*pair) for pair in box)] = 1
    made = set(store) - before
    for key in made:
        del store[key]
    return made


@settings(max_examples=40)
@given(st.data())
def test_blocks_share_a_unit_just_if_zarr_puts_them_into_one_file(data: st.DataObject) -> None:
    dims = data.draw(st.integers(1, 2))
    shape = [data.draw(st.integers(1, 14)) for _ in range(dims)]
    chunks = [data.draw(st.integers(1, 5)) for _ in range(dims)]
    shards = tuple(n * data.draw(st.integers(1, 2)) for n in chunks) if data.draw(st.booleans()) else None
    block = [data.draw(st.integers(1, 8)) for _ in range(dims)]
    store: dict[str, Any] = {}
    array = zarr.create_array(store, shape=shape, chunks=tuple(chunks), shards=shards, dtype="u1", fill_value=0)
    grid = Grid.regular(shape, block)
    files = [files_of(array, store, grid.write_box(index)) for index in range(grid.size)]
    shared = any(one & other for one, other in combinations(files, 2))
    levels = levels_of(grid, read_write_conflict=False)
    found = stored(array, "out", dims)
    assert verdict_on(grid, levels, found) == ("shared" if shared else "aligned")
    safe = Grid.regular(shape, [axis.smaller for axis in safe_axes(grid, [found])])
    files = [files_of(array, store, safe.write_box(index)) for index in range(safe.size)]
    assert not any(one & other for one, other in combinations(files, 2))


# -- arrays as they come -----------------------------------------------------------------------------------------


def test_zarr_arrays_say_how_they_are_cut(tmp_path: Path) -> None:
    array = prepare_ds(
        f"{tmp_path}/out.zarr",
        "smooth",
        total_roi=Roi((40, -8), (400, 64)),
        voxel_size=(4, 1),
        dtype="uint16",
        num_channels=3,
        chunks=(3, 10, 8),
        shards=(3, 50, 16),
    )
    found = stored(array, "outputs[0]", 2)
    assert found.name == f"outputs[0] ({array.data.store_path})"
    assert found.box == ((40, 440), (-8, 56))
    assert (found.voxel_size, found.voxel_bytes, found.origin) == ((4, 1), 6, (40, -8))
    assert (found.chunk, found.shard, found.kind, found.unit) == ((40, 8), (200, 16), "shard", (200, 16))
    for same in (array.data, f"{tmp_path}/out.zarr/smooth", tmp_path / "out.zarr" / "smooth"):
        assert stored(same, "outputs[0]", 2) == found
    part = stored(array[Roi((80, 0), (200, 16))], "outputs[0]", 2)
    assert (part.box, part.origin, part.shard) == (((80, 280), (0, 16)), (40, -8), found.shard)
    inner = array[Roi((80, 0), (200, 16))][Roi((120, 8), (80, 8))]
    assert stored(inner, "outputs[0]", 2).origin == (40, -8)


def test_what_has_no_chunks_is_written_by_voxels() -> None:
    found = stored(Array(np.zeros((2, 10, 10), "f4"), voxel_size=(2, 5)), "inputs[0]", 2)
    assert (found.kind, found.unit, found.voxel_bytes) == ("voxel", (2, 5), 8)
    assert stored(np.zeros((4, 4)), "inputs[0]", 2).box == ((0, 4), (0, 4))
    memory = zarr.create_array({}, shape=(10, 10), chunks=(3, 4), dtype="u1")
    assert stored(memory, "inputs[0]", 2).chunk == (3, 4)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (3, PlanError, "out must be an array or the path of one, got int: 3"),
        (np.zeros(4), GeometryError, r"out must have the 2 axes of the blocks, got 1 spatial axes and shape \(4,\)"),
        (Array(np.zeros((2, 2, 2))), GeometryError, "the 2 axes of the blocks, got 3 spatial axes"),
        ("nowhere.zarr/raw", ArrayNotFoundError, "nowhere.zarr"),
    ],
)
def test_what_is_no_array_of_the_blocks_is_refused(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        stored(value, "out", 2)


@st.composite
def long_axes(draw: st.DrawFn) -> Axis:
    """Axes of many more blocks than their pattern has."""
    voxel, offset = draw(st.integers(1, 2)), draw(st.integers(-9, 9))
    unit = draw(st.integers(1, 3))
    if draw(st.booleans()):
        return regular_axis(
            draw(st.integers(60, 400)),
            draw(st.integers(1, 4)),
            before=draw(st.integers(0, 9)),
            after=draw(st.integers(0, 9)),
            fit=draw(st.sampled_from(FITS)),
            clip=draw(st.booleans()),
            offset=offset,
            voxel_size=voxel,
        )
    exact, overlap, share = draw(st.booleans()), draw(st.integers(0, 6)), draw(st.integers(1, 4))
    return balanced_axis(
        draw(st.integers(100, 400)),
        overlap + share * unit,
        overlap=overlap,
        exact=exact,
        min_size=None if exact else draw(st.none() | st.integers(overlap + 1, overlap + share * unit)),
        multiple_of=unit,
        offset=offset,
        voxel_size=voxel,
    )


@given(long_axes(), st.integers(1, 9), st.integers(-20, 40), st.integers(1, 900), st.integers(0, 5), st.booleans())
def test_patterns_are_counted_once(axis: Axis, chunk: int, begin: int, extent: int, before: int, read: bool) -> None:
    voxel = axis.unit if isinstance(axis, BalancedAxis) and axis.unit % 2 == 0 else 1
    array = Stored(
        name="x",
        box=((begin, begin + extent * voxel),),
        voxel_size=(voxel,),
        voxel_bytes=1,
        origin=(begin - before * voxel,),
        chunk=(chunk * voxel,),
    )
    (found,) = lengths(Grid((axis,)), array, read=read)
    asked, moved = [], []
    (low, high), unit, origin = array.box[0], array.chunk[0], array.origin[0]
    for position in range(axis.count):
        ends = (axis.read_begin, axis.read_end) if read else (axis.write_begin, axis.write_end)
        first, last = max(ends[0](position), low) - origin, min(ends[1](position), high) - origin
        if first < last:
            asked.append(-(-last // voxel) - first // voxel)
            whole = min(-(-last // unit) * unit, high - origin) - max(first // unit * unit, low - origin)
            moved.append(whole // voxel)
    assert found == (sum(asked), sum(moved), max(asked, default=0))


@given(long_axes())
def test_axes_repeat_themselves(axis: Axis) -> None:
    period, extent = axis.period
    reach = axis.longest_read
    for position in range(axis.count - period - 2):
        later = position + period
        if axis.write_begin(position) - reach > axis.begin and axis.write_end(later) + reach < axis.end:
            for edge in (axis.write_begin, axis.write_end, axis.read_begin, axis.read_end):
                assert edge(later) == edge(position) + extent


def test_a_billion_blocks_on_one_axis_are_counted_at_once() -> None:
    array = Stored(name="x", box=((0, 3 * 10**9),), voxel_size=(1,), voxel_bytes=1, origin=(0,), chunk=(64,))
    (along,) = lengths(Grid.regular((3 * 10**9,), 3, context=1), array, read=True)
    assert along.asked == 5 * 10**9 - 2
    assert along.longest == 5
