from __future__ import annotations

import json
import pickle
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow.errors import GeometryError
from blockflow.plan.cuts import CutAxis, Span, regular_axis, whole_numbers

if TYPE_CHECKING:
    from blockflow.plan.axis import AxisLike

ORACLES = Path(__file__).parents[2].parent / "shared" / "oracles"

small = st.integers(0, 6)


@st.composite
def cut_axes(draw: st.DrawFn) -> CutAxis:
    """Any axis at all: cuts anywhere, reads as irregular as they may be."""
    cuts = sorted(draw(st.sets(st.integers(-20, 20), min_size=2, max_size=8)))
    begins = [cut - draw(small) for cut in cuts[:-1]]
    ends = [cut + draw(small) for cut in cuts[1:]]
    begins = [min(begins[i:]) for i in range(len(begins))]
    ends = [max(ends[: i + 1]) for i in range(len(ends))]
    return CutAxis(tuple(cuts), tuple(begins), tuple(ends))


def check_invariant(axis: CutAxis, begin: int, end: int) -> None:
    """Write intervals partition [begin, end) without an empty one; each read contains its write."""
    assert axis.write_cuts[0] == begin
    assert axis.write_cuts[-1] == end
    for span in axis:
        assert span.read_begin <= span.write_begin < span.write_end <= span.read_end


@given(axis=cut_axes())
def test_methods_items_and_iteration_agree(axis: CutAxis) -> None:
    as_protocol: AxisLike = axis
    spans = [
        Span(
            as_protocol.read_begin(i),
            as_protocol.write_begin(i),
            as_protocol.write_end(i),
            as_protocol.read_end(i),
        )
        for i in range(as_protocol.count)
    ]
    assert spans == list(axis) == [axis[i] for i in range(len(axis))]
    check_invariant(axis, axis.write_begin(0), axis.write_end(axis.count - 1))


@given(axis=cut_axes(), begin=st.integers(-30, 30), extent=st.integers(-3, 60))
def test_queries_equal_brute_force(axis: CutAxis, begin: int, extent: int) -> None:
    end = begin + extent
    for positions, lows, highs in (
        (axis.writing(begin, end), axis.write_cuts[:-1], axis.write_cuts[1:]),
        (axis.reading(begin, end), axis.read_begins, axis.read_ends),
    ):
        expected = [i for i in range(axis.count) if max(lows[i], begin) < min(highs[i], end)]
        assert list(positions) == expected


@given(axis=cut_axes(), far=st.integers(0, 5))
def test_a_position_outside_is_refused(axis: CutAxis, far: int) -> None:
    for position in (-1 - far, axis.count + far):
        for ask in (axis.__getitem__, axis.write_begin, axis.write_end, axis.read_begin, axis.read_end):
            with pytest.raises(IndexError, match=rf"\[0, {axis.count}\), got {position}"):
                ask(position)


@given(axis=cut_axes())
def test_an_axis_is_a_value(axis: CutAxis) -> None:
    copy = pickle.loads(pickle.dumps(axis))
    assert copy == axis
    assert hash(copy) == hash(axis)
    with pytest.raises(AttributeError):
        axis.write_cuts = ()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("cuts", "begins", "ends", "message"),
    [
        ((0,), (), (), "n > 0 blocks"),
        ((0, 1, 2), (0,), (1, 2), "got 3, 1 and 2"),
        ((0, 3, 3), (0, 3), (3, 3), "write cuts must increase: block 1 has 3 against 3"),
        ((0, 3, 5), (0, 4), (3, 5), "begin at or before its write: block 1 has 4 against 3"),
        ((0, 3, 5), (0, 2), (2, 5), "end at or after its write: block 0 has 2 against 3"),
        ((0, 3, 5), (0, -1), (3, 5), "begin after the next one: block 0 has 0 against -1"),
        ((0, 3, 5), (0, 3), (6, 5), "end after the next one: block 0 has 6 against 5"),
    ],
)
def test_an_axis_that_breaks_the_invariant_is_refused(cuts: Any, begins: Any, ends: Any, message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        CutAxis(cuts, begins, ends)


def test_bounds_never_cut_into_what_is_written() -> None:
    axis = CutAxis.grown((0, 5, 12), before=3, after=3, bounds=(1, 10))
    assert list(axis) == [(0, 0, 5, 8), (2, 5, 12, 12)]


@given(
    size=st.integers(1, 40),
    block=st.integers(1, 45),
    before=small,
    after=small,
    fit=st.sampled_from(["shrink", "valid", "overhang"]),
    clip=st.booleans(),
    multiple_of=st.integers(1, 9),
)
def test_regular_axis(size: int, block: int, before: int, after: int, fit: Any, clip: bool, multiple_of: int) -> None:
    def make() -> CutAxis:
        return regular_axis(size, block, before=before, after=after, fit=fit, clip=clip, multiple_of=multiple_of)

    step = block // multiple_of * multiple_of
    if step == 0 or (fit == "valid" and step > size):
        with pytest.raises(GeometryError, match=r"multiples of|no whole block"):
            make()
        return
    axis = make()
    end = {"shrink": size, "valid": size // step * step, "overhang": -(-size // step) * step}[fit]
    check_invariant(axis, 0, end)
    for i, span in enumerate(axis):
        write = (i * step, min((i + 1) * step, end))
        read = (write[0] - before, write[1] + after)
        if clip:
            read = (max(read[0], 0), min(read[1], max(size, end)))
        assert span == (read[0], *write, read[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size must be a whole number of at least 1, got 0"),
        ({"block": -1}, "block must be a whole number of at least 1, got -1"),
        ({"block": 2.0}, "block must be a whole number of at least 1, got 2.0"),
        ({"block": None}, "block must be a whole number"),
        ({"multiple_of": 0}, "multiple_of must be a whole number of at least 1"),
        ({"before": -1}, "before must be a whole number of at least 0, got -1"),
        ({"after": -2}, "after must be a whole number of at least 0, got -2"),
        ({"fit": "clip"}, "fit must be one of valid, overhang, shrink, got 'clip'"),
        ({"multiple_of": 5}, "multiples of 5 need a block of at least that, got 4"),
        ({"block": 11, "fit": "valid"}, "size is 10, block is 11"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        regular_axis(**{"size": 10, "block": 4, **arguments})


def test_whole_numbers_become_plain_integers() -> None:
    (number,) = whole_numbers(0, number=cast("int", np.uint8(200)))
    assert type(number) is int
    assert number == 200


def test_a_million_blocks_cost_nothing_per_query() -> None:
    axis = regular_axis(10**7, 10, before=3, after=3)
    assert axis.count == 10**6
    assert axis.reading(5_000_000, 5_000_001) == range(499_999, 500_001)


needs_oracles = pytest.mark.skipif(not ORACLES.is_dir(), reason="recorded results of other libraries are not here")


@needs_oracles
def test_chunks_that_overlap_forward_equal_magmaps() -> None:
    cases = dict(np.load(ORACLES / "magmap" / "axis_ranges.npz"))
    for i, (size, block, overlap, count) in enumerate(cases["params"].tolist()):
        axis = regular_axis(size, block, after=max(overlap, 0))
        expected = cases["ranges"][cases["ptr"][i] : cases["ptr"][i + 1]].tolist()
        assert axis.count == count
        assert [[span.read_begin, span.read_end] for span in axis] == expected


@needs_oracles
def test_chunk_starts_equal_scouts() -> None:
    compared = 0
    for case in json.loads((ORACLES / "scout" / "chunk_geometry.json").read_text()):
        shape, chunks = case["shape"], case["chunks"]
        if len(shape) != len(chunks) or 0 in shape or not all(isinstance(c, int) and c > 0 for c in chunks):
            continue  # refused here: lengths that differ, nothing to cut, chunks of no or no whole extent
        axes = [regular_axis(size, chunk) for size, chunk in zip(shape, chunks, strict=True)]
        assert [axis.count for axis in axes] == case["chunk_dims"]["result"]
        starts = [list(start) for start in product(*(axis.write_cuts[:-1] for axis in axes))]
        assert starts == case["chunk_coordinates"]["result"]["data"]
        compared += 1
    assert compared > 5
