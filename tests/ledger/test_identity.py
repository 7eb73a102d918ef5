"""Identity: the same plan is the same in every process; another one is told apart, in words."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given

from blockflow.geometry import Roi
from blockflow.ledger.identity import decode_identity, differences, encode_identity, identity_of, same_blocks
from blockflow.testing.strategies import plans
from tests.ledger.runs import RUN, identity, plan_of, task

if TYPE_CHECKING:
    from blockflow.plan.plan import Plan


@given(plans())
def test_a_plan_survives_its_file(plan: Plan) -> None:
    found = identity_of(plan)
    again = decode_identity(encode_identity(found, RUN), "plan.json").plan
    assert again == found
    assert differences(found, again) == []
    assert [each.grid for each in again.tasks] == [planned.grid for planned in plan.tasks]
    assert all(map(same_blocks, found.tasks, again.tasks))


BASE = task("smooth", voxel_size=(5, 5))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (replace(BASE, total_roi=Roi((0, 0), (40, 40))), "total_roi was [0:40, 0:50], and is [0:40, 0:40]"),
        (replace(BASE, write_roi=Roi((0, 0), (5, 10))), "write_roi was [0:10, 0:10], and is [0:5, 0:10]"),
        (replace(BASE, read_roi=Roi((-5, 0), (15, 10))), "read_roi was [0:10, 0:10], and is [-5:10, 0:10]"),
        (replace(BASE, fit="shrink"), "fit was 'valid', and is 'shrink'"),
        (replace(BASE, read_write_conflict=False), "read_write_conflict was True, and is False"),
        (replace(BASE, voxel_size=None), "voxel_size was (5, 5), and is None"),
        (replace(BASE, upstream_tasks=[task("raw")]), "upstream_tasks were none, and are raw"),
    ],
)
def test_what_has_changed_is_said(changed: object, said: str) -> None:
    found = differences(identity(BASE), identity(changed))  # type: ignore[arg-type]
    assert f"task 'smooth': {said}" in found
    assert len(found) == 1 + ("upstream" in said), "nothing else is said"


def test_what_does_not_matter_is_no_change() -> None:
    moved = replace(BASE, read_roi=Roi((70, 30), (10, 10)), write_roi=Roi((70, 30), (10, 10)))
    busy = replace(moved, num_workers=7, max_retries=0, timeout=3.0, process_function=print)
    assert differences(identity(BASE), identity(busy)) == []
    assert same_blocks(identity(BASE).tasks[0], identity(busy).tasks[0])


def test_order_is_no_change_but_names_are() -> None:
    one, two = task("one"), task("two")
    assert differences(identity(one, two), identity(two, one)) == []
    assert differences(identity(one), identity(two)) == ["task 'one' is not there any more", "task 'two' is new"]
    assert identity_of(plan_of(one, two)) != identity(two, one)
