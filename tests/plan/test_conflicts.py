"""Do the levels of one task keep conflicting blocks apart, with as little waiting as they promise?"""

from __future__ import annotations

from itertools import combinations, product
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from blockflow.plan.conflicts import Levels, levels_of
from blockflow.plan.slices import Positions, positions_of
from blockflow.testing.strategies import tasks
from tests.plan.oracle import ancestors, conflict, inverse, places

if TYPE_CHECKING:
    from blockflow.plan.task import Task


def all_positions(levels: Levels) -> Positions:
    return positions_of(np.arange(prod(levels.shape)), levels.shape)


def relation(levels: Levels, *, upstream: bool) -> list[list[int]]:
    """What every block is related to, in its own task."""
    positions = all_positions(levels)
    slices = levels.upstream(positions) if upstream else levels.downstream(positions)
    ends = np.cumsum(slices.sizes())[:-1]
    return [sorted(part.tolist()) for part in np.split(slices.flat(levels.shape), ends)]


def levels_by_block(levels: Levels) -> list[int]:
    found: list[int] = levels.level(all_positions(levels)).tolist()
    return found


@given(tasks())
def test_blocks_of_one_level_never_conflict(task: Task) -> None:
    levels = levels_of(task.grid, read_write_conflict=True)
    found = zip(levels_by_block(levels), places(task), strict=True)
    assert not any(conflict(a, b) for (level, a), (other, b) in combinations(found, 2) if level == other)


@given(tasks())
def test_every_conflicting_pair_is_ordered_by_a_chain_of_dependencies(task: Task) -> None:
    levels = levels_of(task.grid, read_write_conflict=True)
    earlier = ancestors(relation(levels, upstream=True))
    for (one, a), (other, b) in combinations(enumerate(places(task)), 2):
        if conflict(a, b):
            assert one in earlier[other] or other in earlier[one]


@given(tasks(allow_empty=True))
def test_without_conflicts_there_is_one_level(task: Task) -> None:
    levels = levels_of(task.grid, read_write_conflict=False)
    assert levels.count == 1
    assert levels_by_block(levels) == [0] * task.grid.size
    assert not any(relation(levels, upstream=True))
    assert not any(relation(levels, upstream=False))


@st.composite
def all_levels(draw: st.DrawFn) -> Levels:
    """Any number of classes per axis, not only those that some context leads to."""
    shape: list[int] = []
    moduli: list[int] = []
    for _ in range(draw(st.integers(1, 6))):
        extent = draw(st.integers(1, max(1, min(12, 128 // prod(shape)))))
        shape.append(extent)
        moduli.append(draw(st.integers(1, extent)))
    return Levels(tuple(shape), tuple(moduli))


@given(all_levels())
def test_blocks_closer_than_the_moduli_are_ordered_and_those_of_a_level_are_not_so_close(levels: Levels) -> None:
    """The proof in conflicts.py, for any moduli: clamped to the number of positions, or not."""
    earlier = ancestors(relation(levels, upstream=True))
    level = levels_by_block(levels)
    blocks = list(product(*(range(extent) for extent in levels.shape)))
    for (one, a), (other, b) in combinations(enumerate(blocks), 2):
        if all(abs(x - y) < modulus for x, y, modulus in zip(a, b, levels.moduli, strict=True)):
            assert level[one] != level[other]
            first, last = sorted((one, other), key=lambda block: level[block])
            assert first in earlier[last]


@given(all_levels())
def test_levels_are_the_residues_counted_from_the_last(levels: Levels) -> None:
    classes = list(product(*(range(modulus) for modulus in levels.moduli)))
    blocks = product(*(range(extent) for extent in levels.shape))
    residues = [tuple(x % m for x, m in zip(block, levels.moduli, strict=True)) for block in blocks]
    assert levels.count == len(classes)
    assert levels_by_block(levels) == [len(classes) - 1 - classes.index(residue) for residue in residues]
    assert [levels.first_positions(level) for level in range(levels.count)] == classes[::-1]


@given(all_levels())
def test_upstream_are_the_nearest_blocks_of_the_level_before(levels: Levels) -> None:
    """Step 3 of conflicts.py, word by word."""
    level = levels_by_block(levels)
    blocks = list(product(*(range(extent) for extent in levels.shape)))
    for block, here, found in zip(blocks, level, relation(levels, upstream=True), strict=True):
        if here == 0:
            assert found == []
            continue
        wanted = levels.first_positions(here - 1)
        nearest = []
        for x, residue, modulus, extent in zip(block, wanted, levels.moduli, levels.shape, strict=True):
            candidates = range(residue, extent, modulus)
            left, right = [c for c in candidates if c <= x][-1:], [c for c in candidates if c >= x][:1]
            nearest.append(sorted({*left, *right}))
        assert [blocks[index] for index in found] == list(product(*nearest))
        assert found, "a block that is not of level 0 waits for something"
        assert {level[index] for index in found} == {here - 1}


@given(all_levels())
def test_upstream_and_downstream_are_inverse(levels: Levels) -> None:
    upstream, downstream = relation(levels, upstream=True), relation(levels, upstream=False)
    assert downstream == inverse(upstream, len(upstream))
