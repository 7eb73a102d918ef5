"""Are the blocks of a regular axis where its arguments say, and does an axis answer for all positions alike?"""

from __future__ import annotations

import json
import pickle
from itertools import combinations, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow.errors import GeometryError
from blockflow.plan.axis import whole_numbers
from blockflow.plan.regular import regular_axis
from tests.plan.axes import cuts, planned_axes, spans

if TYPE_CHECKING:
    from blockflow.plan.grid import Axis
    from blockflow.plan.regular import RegularAxis

ORACLES = Path(__file__).parents[2].parent / "shared" / "oracles"

small = st.integers(0, 6)


def check_invariant(axis: Axis, begin: int, end: int) -> None:
    """Write intervals partition [begin, end) without an empty one; each read contains its write."""
    places = cuts(axis)
    assert (places[0], places[-1]) == (axis.begin, axis.end) == (begin, end)
    for span, following in zip(spans(axis), places[1:], strict=True):
        assert span.read_begin <= span.write_begin < span.write_end <= span.read_end
        assert span.write_end == following


# -- any axis ----------------------------------------------------------------------------------------------------


@given(planned_axes())
def test_writes_partition_and_reads_contain_them_and_never_move_back(axis: Axis) -> None:
    check_invariant(axis, axis.begin, axis.end)
    reads = [(span.read_begin, span.read_end) for span in spans(axis)]
    assert [begin for begin, _ in reads] == sorted(begin for begin, _ in reads)
    assert [end for _, end in reads] == sorted(end for _, end in reads)
    assert max(end - begin for begin, end in reads) <= axis.longest_read


@given(planned_axes())
def test_answers_are_the_same_one_by_one_and_as_arrays(axis: Axis) -> None:
    positions = np.arange(axis.count)
    for of in (axis.write_begin, axis.write_end, axis.read_begin, axis.read_end):
        assert of(positions).tolist() == [of(position) for position in range(axis.count)]


@given(axis=planned_axes(), far=st.integers(1, 30))
def test_positions_meeting_an_interval_are_those_that_do(axis: Axis, far: int) -> None:
    begins = np.arange(axis.begin - 40, axis.end + 40)
    ends = begins + far
    for meeting, lows, highs in (
        (axis.writing, [span.write_begin for span in spans(axis)], [span.write_end for span in spans(axis)]),
        (axis.reading, [span.read_begin for span in spans(axis)], [span.read_end for span in spans(axis)]),
    ):
        starts, stops = meeting(begins, ends)
        assert (starts <= stops).all()
        found = [list(range(*bounds)) for bounds in zip(starts.tolist(), stops.tolist(), strict=True)]
        assert found == [
            [i for i in range(axis.count) if max(lows[i], begin) < min(highs[i], end)]
            for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)
        ]
        assert meeting(int(begins[7]), int(ends[7])) == (starts[7], stops[7])
        if meeting == axis.writing:
            assert (stops - starts).max() <= axis.most_writing(far)


@given(planned_axes())
def test_positions_as_far_apart_as_the_conflict_distance_never_conflict(axis: Axis) -> None:
    blocks = spans(axis)
    far = [
        j - i
        for (i, one), (j, other) in combinations(enumerate(blocks), 2)
        if other.write_begin < one.read_end or other.read_begin < one.write_end
    ]
    assert axis.conflict_distance > max(far, default=0)


@given(planned_axes())
def test_an_axis_is_a_value(axis: Axis) -> None:
    copy = pickle.loads(pickle.dumps(axis))
    assert copy == axis
    assert hash(copy) == hash(axis)
    with pytest.raises(AttributeError):
        axis.count = 1  # type: ignore[misc]


# -- regular ones ------------------------------------------------------------------------------------------------


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
    def make() -> RegularAxis:
        return regular_axis(size, block, before=before, after=after, fit=fit, clip=clip, multiple_of=multiple_of)

    step = block if block >= size else block // multiple_of * multiple_of
    if step == 0 or (fit == "valid" and step > size):
        with pytest.raises(GeometryError, match=r"multiples of|no whole block"):
            make()
        return
    axis = make()
    end = {"shrink": size, "valid": size // step * step, "overhang": -(-size // step) * step}[fit]
    check_invariant(axis, 0, end)
    for i, span in enumerate(spans(axis)):
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
        ({"block": True}, "block must be a whole number of at least 1, got True"),
        ({"voxel_size": 0}, "voxel_size must be a whole number of at least 1, got 0"),
        ({"multiple_of": 0}, "multiple_of must be a whole number of at least 1"),
        ({"before": -1}, "before must be a whole number of at least 0, got -1"),
        ({"after": -2}, "after must be a whole number of at least 0, got -2"),
        ({"fit": "clip"}, "fit must be one of 'valid', 'overhang', 'shrink', got 'clip'"),
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
    assert axis.reading(5_000_000, 5_000_001) == (499_999, 500_001)


needs_oracles = pytest.mark.skipif(not ORACLES.is_dir(), reason="recorded results of other libraries are not here")


@needs_oracles
def test_chunks_that_overlap_forward_equal_magmaps() -> None:
    cases = dict(np.load(ORACLES / "magmap" / "axis_ranges.npz"))
    for i, (size, block, overlap, count) in enumerate(cases["params"].tolist()):
        axis = regular_axis(size, block, after=max(overlap, 0))
        expected = cases["ranges"][cases["ptr"][i] : cases["ptr"][i + 1]].tolist()
        assert axis.count == count
        assert [[span.read_begin, span.read_end] for span in spans(axis)] == expected


@needs_oracles
def test_chunk_starts_equal_scouts() -> None:
    compared = 0
    for case in json.loads((ORACLES / "scout" / "chunk_geometry.json").read_text()):
        shape, chunks = case["shape"], case["chunks"]
        if len(shape) != len(chunks) or 0 in shape or not all(isinstance(c, int) and c > 0 for c in chunks):
            continue  # refused here: lengths that differ, nothing to cut, chunks of no or no whole extent
        axes = [regular_axis(size, chunk) for size, chunk in zip(shape, chunks, strict=True)]
        assert [axis.count for axis in axes] == case["chunk_dims"]["result"]
        starts = [list(start) for start in product(*(cuts(axis)[:-1] for axis in axes))]
        assert starts == case["chunk_coordinates"]["result"]["data"]
        compared += 1
    assert compared > 5
