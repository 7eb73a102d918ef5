from __future__ import annotations

from collections import Counter
from fractions import Fraction
from functools import cache
from itertools import pairwise
from math import ceil, floor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow.errors import GeometryError
from blockflow.plan.balance import balanced_axis
from tests.plan.axes import cuts, spans, widths

if TYPE_CHECKING:
    from blockflow.plan.balance import BalancedAxis

ORACLE = Path(__file__).parents[2].parent / "shared" / "oracles" / "clearmap" / "block_sizes_v30.npz"


@st.composite
def plans(draw: st.DrawFn, multiple_of: int = 1) -> dict[str, Any]:
    """Arguments that do not contradict one another, for an axis of more than one block."""
    max_size = draw(st.integers(1, 40))
    overlap = draw(st.integers(0, max_size - 1))
    return {
        "size": max_size + draw(st.integers(1, 200)),
        "max_size": max_size,
        "overlap": overlap,
        "multiple_of": draw(st.integers(1, min(multiple_of, max_size - overlap))),
    }


def check_invariant(axis: BalancedAxis, size: int, overlap: int, multiple_of: int) -> None:
    assert (cuts(axis)[0], cuts(axis)[-1]) == (0, size)
    assert all(cut % multiple_of == 0 for cut in cuts(axis)[:-1])
    for span in spans(axis):
        assert 0 <= span.read_begin <= span.write_begin < span.write_end <= span.read_end <= size
    for i in range(axis.count - 1):
        assert axis.read_end(i) - axis.read_begin(i + 1) >= overlap
        assert axis.write_begin(i + 1) - axis.read_begin(i + 1) >= (overlap + 1) // 2
        assert axis.read_end(i) - axis.write_end(i) >= overlap // 2


def fewest(size: int, max_size: int, overlap: int, multiple_of: int) -> int:
    """By trying every sequence of cuts: the fewest blocks that read no more than allowed."""
    before, after = (overlap + 1) // 2, overlap // 2

    @cache
    def blocks(cut: int) -> int:
        if size - max(0, cut - before) <= max_size:
            return 1
        further = range(cut - cut % multiple_of + multiple_of, size, multiple_of)
        return 1 + min(blocks(end) for end in further if end + after - max(0, cut - before) <= max_size)

    return blocks(0)


@given(plan=plans())
def test_as_few_blocks_as_the_bound_allows_of_nearly_equal_size(plan: dict[str, Any]) -> None:
    axis = balanced_axis(**plan)
    check_invariant(axis, plan["size"], plan["overlap"], 1)
    assert max(widths(axis)) <= plan["max_size"]
    assert max(widths(axis)) - min(widths(axis)) <= 1
    assert min(widths(axis)) > plan["overlap"]
    assert axis.count == fewest(plan["size"], plan["max_size"], plan["overlap"], 1)


@given(plan=plans(multiple_of=20))
def test_cuts_at_multiples(plan: dict[str, Any]) -> None:
    axis = balanced_axis(**plan)
    check_invariant(axis, plan["size"], plan["overlap"], plan["multiple_of"])
    assert max(widths(axis)) <= plan["max_size"]
    assert min(widths(axis)) > plan["overlap"]
    inner = np.diff(cuts(axis))[1:-1]
    assert inner.size == 0 or inner.max() - inner.min() <= plan["multiple_of"]
    assert axis.count <= fewest(**plan) + 2


@given(plan=plans(multiple_of=20), data=st.data())
def test_min_size_is_kept_by_reading_more_overlap(plan: dict[str, Any], data: st.DataObject) -> None:
    min_size = data.draw(st.integers(plan["overlap"] + 1, plan["max_size"]))
    workers = data.draw(st.integers(1, 9))
    axis = balanced_axis(**plan, min_size=min_size, workers=workers)
    check_invariant(axis, plan["size"], plan["overlap"], plan["multiple_of"])
    assert min(widths(axis)) >= min_size
    assert max(widths(axis)) <= plan["max_size"]
    assert axis.count >= balanced_axis(**plan).count


@given(plan=plans(multiple_of=20))
def test_exact_blocks_are_all_as_large_as_allowed(plan: dict[str, Any]) -> None:
    axis = balanced_axis(**plan, exact=True)
    check_invariant(axis, plan["size"], plan["overlap"], plan["multiple_of"])
    assert set(widths(axis)) == {plan["max_size"]}
    assert axis.count == balanced_axis(**plan).count


@given(plan=plans(multiple_of=5), workers=st.integers(2, 12))
def test_more_blocks_for_the_workers(plan: dict[str, Any], workers: int) -> None:
    axis = balanced_axis(**plan, workers=workers)
    check_invariant(axis, plan["size"], plan["overlap"], plan["multiple_of"])
    assert max(widths(axis)) <= plan["max_size"]
    needed = balanced_axis(**plan).count
    wanted = -(-needed // workers) * workers
    assert needed <= axis.count <= wanted
    if axis.count < wanted:  # one block more would leave one of them without a unit to write
        assert plan["size"] - plan["overlap"] <= axis.count * plan["multiple_of"] + plan["multiple_of"]


@given(plan=plans(), workers=st.integers(2, 12))
def test_fewer_blocks_for_the_workers_may_exceed_the_bound(plan: dict[str, Any], workers: int) -> None:
    needed = balanced_axis(**plan).count
    axis = balanced_axis(**plan, workers=workers, balance="fewer")
    check_invariant(axis, plan["size"], plan["overlap"], 1)
    assert axis.count == (needed // workers * workers or needed)
    assert max(widths(axis)) - min(widths(axis)) <= 1
    assert (max(widths(axis)) > plan["max_size"]) <= (axis.count < needed)


@given(plan=plans(), workers=st.integers(2, 12))
def test_nearest_is_one_of_the_two(plan: dict[str, Any], workers: int) -> None:
    rest = balanced_axis(**plan).count % workers
    nearer = "fewer" if rest < workers / 2 else "more"
    nearest = balanced_axis(**plan, workers=workers, balance="nearest")
    assert nearest == balanced_axis(**plan, workers=workers, balance=nearer)  # type: ignore[arg-type]


@given(size=st.integers(1, 30), data=st.data())
def test_a_short_axis_is_one_block(size: int, data: st.DataObject) -> None:
    max_size = data.draw(st.none() | st.integers(size, 40))
    overlap = data.draw(st.integers(0, 40))
    multiple_of = data.draw(st.integers(1, 9))
    axis = balanced_axis(size, max_size, overlap=overlap, workers=4, multiple_of=multiple_of)
    assert spans(axis) == [(0, 0, size, size)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size must be a whole number of at least 1, got 0"),
        ({"max_size": 0}, "max_size must be a whole number of at least 1, got 0"),
        ({"max_size": 2.5}, "max_size must be a whole number of at least 1, got 2.5"),
        ({"min_size": 0}, "min_size must be a whole number of at least 1, got 0"),
        ({"overlap": -1}, "overlap must be a whole number of at least 0, got -1"),
        ({"workers": 0}, "workers must be a whole number of at least 1, got 0"),
        ({"multiple_of": 0}, "multiple_of must be a whole number of at least 1, got 0"),
        ({"balance": "all"}, "balance must be one of 'more', 'fewer', 'nearest', got 'all'"),
        ({"overlap": 10}, "overlap must be less than max_size: 10 against 10"),
        ({"overlap": 12}, "overlap must be less than max_size: 12 against 10"),
        ({"overlap": 5, "min_size": 5}, "overlap must be less than min_size: 5 against 5"),
        ({"min_size": 11}, "min_size must be at most max_size: 11 against 10"),
        ({"multiple_of": 8, "overlap": 3}, "multiples of 8 need max_size - overlap of at least that: 10 - 3"),
        ({"exact": True, "workers": 2}, "drop workers=2"),
        ({"exact": True, "min_size": 5}, "min_size=5"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        balanced_axis(**{"size": 100, "max_size": 10, **arguments})


def derived(size: int, case: dict[str, Any]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """ClearMap's blocks and what is valid of each, in exact arithmetic; but cut upwards, not half to even."""
    widest = min(case["max_size"] or size, size)
    overlap = min(case["overlap"], size - 1)
    exact = case.get("exact", False)
    narrowest = widest if exact else min(case.get("min_size") or min(widest, overlap + 1), size)
    count = max(1, ceil(Fraction(size - widest, widest - overlap) + 1))
    if count == 1:
        return [(0, size)], [(0, size)]
    workers, balance = case.get("workers", 1), case.get("balance", "more")
    if rest := count % workers:
        if balance == "fewer" or (balance == "nearest" and rest < Fraction(workers, 2)):
            count -= rest if count > rest else 0
        else:
            count += workers - rest
    width = max(Fraction(widest) if exact else Fraction(size + (count - 1) * overlap, count), Fraction(narrowest))
    begins = [floor(j * width) - j * overlap for j in range(count)]
    ends = [floor((j + 1) * width) - j * overlap for j in range(count - 1)] + [size]
    if exact:
        begins[-1] = size - widest
    cuts = [0, *(ceil(Fraction(begins[j + 1] + ends[j], 2)) for j in range(count - 1)), size]
    return list(zip(begins, ends, strict=True)), list(pairwise(cuts))


def arguments(row: list[int]) -> dict[str, Any]:
    _, max_size, min_size, overlap, processes, optimise, fix = row
    case: dict[str, Any] = {"max_size": None if max_size == -1 else max_size, "overlap": max(overlap, 0)}
    if min_size == -2:
        return {**case, "exact": True}
    if min_size > 0:
        case["min_size"] = min_size
    if optimise:
        case |= {"workers": max(processes, 1), "balance": ("nearest", "fewer", "more", "nearest")[fix]}
    return case


def fault(blocks: list[list[int]], valid: list[list[int]], size: int, case: dict[str, Any]) -> str | None:
    """What is wrong with an upstream plan, the gravest first."""
    narrowest = min(case.get("min_size") or case["overlap"] + 1, size)
    if any(begin >= end for begin, end in blocks):
        return "an empty block"
    if any(begin >= end for begin, end in valid):
        return "a block with nothing to write"
    if any(end - begin < narrowest for begin, end in blocks):
        return "a block below min_size, or inside its neighbour"
    return None


@pytest.mark.skipif(not ORACLE.is_file(), reason="recorded results of other libraries are not here")
def test_clearmaps_plans_are_reproduced_where_they_are_right() -> None:
    """Every recorded plan is equal, or differs for one of the reasons that the documentation names."""
    oracle = dict(np.load(ORACLE))
    outcomes: Counter[str] = Counter()
    for i, row in enumerate(oracle["params"].tolist()):
        size, case = row[0], arguments(row)
        if oracle["error"][i]:
            with pytest.raises(GeometryError, match="must be"):
                balanced_axis(size, **case)
            outcomes["refused by both"] += 1
            continue
        blocks, valid = (
            oracle[f"{kind}_ranges"][oracle["ptr"][i] : oracle["ptr"][i + 1]].tolist() for kind in ("block", "valid")
        )
        axis = balanced_axis(size, **case)
        ours = [[span.read_begin, span.read_end] for span in spans(axis)]
        ours_valid = [[span.write_begin, span.write_end] for span in spans(axis)]
        check_invariant(axis, size, min(case["overlap"], size - 1), 1)
        reason = fault(blocks, valid, size, case)
        if ours == blocks and ours_valid == valid:
            outcomes["equal"] += 1
        elif ours == blocks:
            assert [tuple(span) for span in ours_valid] == derived(size, case)[1]
            assert case["overlap"] % 2 or case.get("exact"), row
            assert np.abs(np.subtract(ours_valid, valid)).max() == 1
            outcomes["odd overlap cut rounded up, not half to even"] += 1
        elif reason is not None:
            outcomes[f"upstream has {reason}"] += 1
        else:
            assert tuple([tuple(span) for span in spans] for spans in (ours, ours_valid)) == derived(size, case), row
            assert np.abs(np.subtract(ours, blocks)).max() == 1, row
            outcomes["sizes accumulated in floats, one voxel off"] += 1
    total = sum(outcomes.values())
    assert outcomes["equal"] + outcomes["refused by both"] > 0.85 * total, outcomes
    assert outcomes["sizes accumulated in floats, one voxel off"] < 0.01 * total, outcomes
    assert sum(n for outcome, n in outcomes.items() if outcome.startswith("upstream has")) < 0.02 * total, outcomes
    print(dict(outcomes))
