"""How many chunks a block has stored is part of what is recorded of it."""

from __future__ import annotations

from typing import Any

import pytest

from blockflow.errors import RemoteProtocolError
from blockflow.geometry import Roi
from blockflow.plan.task import Task
from blockflow.scheduler import events as ev
from blockflow.scheduler.events import RecordDone
from blockflow.scheduler.scheduler import Scheduler
from blockflow.wire.messages import pack_stored, unpack_stored
from tests.scheduler.desk import Desk


def recorded(stored: tuple[int, ...], *, checked: bool = False, fails: tuple[int, ...] = ()) -> list[int] | None:
    """What is recorded of a lease of four blocks."""
    block = Roi((0,), (1,))
    more: dict[str, Any] = {"check_function": (None, lambda block: True)} if checked else {}
    task = Task("t", Roi((0,), (8,)), block, block, print, read_write_conflict=False, max_retries=0, **more)
    desk = Desk(scheduler=Scheduler([task], largest_lease=4, recording=True))
    desk.join(1)
    grant = desk.ask(1)
    failures = tuple(ev.BlockFailure(index=index, error="ValueError: no") for index in fails)
    upto = len(grant.indices)
    desk.tell(
        ev.BlocksReported(worker=1, lease=grant.lease, upto=upto, seconds=1.0, failures=failures, stored=stored[:upto])
    )
    if checked:
        desk.tell(
            ev.BlocksChecked(
                task=0,
                phase=ev.CheckPhase.AFTER,
                passed=grant.indices,
                refused=grant.indices[:0],
                failures=(),
                seconds=0.1,
            )
        )
    (done,) = (record for record in desk.scheduler.take_records() if isinstance(record, RecordDone))
    return None if done.stored is None else done.stored.tolist()


def test_blocks_of_which_nobody_counted_are_unknown() -> None:
    assert recorded(()) is None


@pytest.mark.parametrize("checked", [False, True])
def test_numbers_are_those_of_the_blocks(checked: bool) -> None:
    found = recorded((3, 0, -1, 5), checked=checked)
    assert found == [3, 0, -1, 5][: len(found or ())]
    assert found


def test_a_report_that_says_less_speaks_of_the_last_blocks() -> None:
    found = recorded((7,))
    assert found
    assert found[-1] == 7
    assert set(found[:-1]) <= {-1}


@pytest.mark.parametrize("stored", [[], [8, 8, -1, 7], [0] * 5])
def test_what_is_packed_is_unpacked(stored: list[int]) -> None:
    assert unpack_stored(pack_stored(stored)) == stored


@pytest.mark.parametrize("packed", [(1,), (1, 2, 3), (1, 20_000)])
def test_no_pairs_are_refused(packed: tuple[int, ...]) -> None:
    with pytest.raises(RemoteProtocolError):
        unpack_stored(packed)
