"""A driver on another host takes over while the one before it goes on: nothing that was acknowledged is lost."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest

from blockflow import Ledger, Roi, Task
from blockflow.errors import LedgerError
from blockflow.ledger.records import BlocksDone
from blockflow.ledger.rundir import open_run
from blockflow.plan.plan import compile_plan

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = 3
FIRST = 20
"""Commits before the other driver begins."""
BLOCKS = 100_000

UNIT = Roi((0,), (1,))
PLAN = compile_plan([Task("t", Roi((0,), (BLOCKS,)), UNIT, UNIT)])


def commit_on_and_on(path: Path, acknowledged: Any, most: int) -> None:
    """Commit a block at a time, until this driver is not the owner any more."""
    store = open_run(path, PLAN)
    for block in range(most):
        store.append([BlocksDone(task=0, runs=(block, 1), attempt=1 + block, microseconds=1)])
        try:
            store.commit()
        except LedgerError:
            break
        acknowledged.value = block + 1
    os._exit(0)  # it does not let go


@pytest.mark.parametrize("looks", [False, True], ids=["unseen", "seen before"])
@pytest.mark.parametrize("alive", [False, True], ids=["dead", "alive"])
@pytest.mark.parametrize("kind", ["hosts", "forgetful_hosts"])
def test_what_the_owner_before_has_acknowledged_is_known(
    request: pytest.FixtureRequest, kind: str, alive: bool, looks: bool
) -> None:
    here, there = request.getfixturevalue(kind)
    for _ in range(ROUNDS):
        name = f"owned-{os.urandom(4).hex()}"
        acknowledged = multiprocessing.get_context("fork").Value("q", 0)
        before = multiprocessing.get_context("fork").Process(
            target=commit_on_and_on, args=(here / name, acknowledged, BLOCKS if alive else 2 * FIRST)
        )
        before.start()
        try:
            while acknowledged.value < FIRST:
                assert before.is_alive() or acknowledged.value
                time.sleep(0.001)
            if looks:
                Ledger.open(there / name).counts("t")
            if not alive:
                before.join()
            store = open_run(there / name, PLAN, take_over=alive)
            known = store.history[0].done
            before.join(30)
            assert acknowledged.value <= known
            store.close()
            assert Ledger.open(here / name).counts("t")["done"] == known
        finally:
            before.kill()
            before.join()
        shutil.rmtree(here / name)
