"""Coroutines of stores are waited for, whether or not zarr's own function for it is where it was."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import pytest
from zarr.buffer import cpu
from zarr.storage import LocalStore

from blockflow.arrays.store_calls import wait_for

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["zarr's own", "ours"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "ours":
        monkeypatch.setitem(sys.modules, "zarr.core.sync", None)


def test_values_come_back(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    wait_for(store.set("a/b", cpu.Buffer.from_bytes(b"x")))
    assert wait_for(store.exists("a/b"))
    assert (tmp_path / "a" / "b").read_bytes() == b"x"


def test_errors_come_back() -> None:
    async def fail() -> None:
        raise KeyError("no such key")

    with pytest.raises(KeyError, match="no such key"):
        wait_for(fail())


def test_it_works_inside_a_loop(tmp_path: Path) -> None:
    """As in a notebook."""

    async def cell() -> bool:
        return wait_for(LocalStore(tmp_path).exists("a"))

    assert asyncio.run(cell()) is False
