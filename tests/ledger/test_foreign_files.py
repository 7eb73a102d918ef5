"""Files of a run directory name their run: what comes from another one, or from before a reset, is refused."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from blockflow.errors import DamagedLedgerError
from blockflow.ledger import layout
from blockflow.ledger.disk import LocalDisk
from blockflow.ledger.reading import Ledger
from blockflow.ledger.rundir import open_run
from tests.ledger.runs import done, plan_of, task

if TYPE_CHECKING:
    from pathlib import Path


def recorded(path: Path, *blocks: int, fold: bool = False, reset: bool = False) -> None:
    """A run directory of a driver that was killed."""
    store = open_run(path, plan_of(task(blocks=(9,))), reset=reset, arrays=())
    store.bind(())
    store.append([done(*blocks)])
    store.commit()
    if fold:
        store.fold()
        store.append([done(*blocks)])
        store.commit()
    store.close()


def refused(path: Path, name: str) -> None:
    """Nobody goes on here, and nothing has changed afterwards."""
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and "owner" not in file.name}
    for _ in range(2):
        with pytest.raises(DamagedLedgerError, match=name) as error:
            open_run(path, plan_of(task(blocks=(9,))))
        assert "reset=True" in str(error.value)
    after = {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and "owner" not in file.name}
    assert after == before


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("name", ["journal", "ledger.zarr", "plan.json", "arrays.json", "journal.json"])
def test_what_belongs_to_another_run_is_refused(tmp_path: Path, name: str, fold: bool) -> None:
    recorded(tmp_path / "a", 0, 1, 2, 3, fold=fold)
    recorded(tmp_path / "b", 0, fold=fold)
    if not (tmp_path / "a" / name).exists():
        return  # there is no snapshot
    if (tmp_path / "a" / name).is_dir():
        shutil.rmtree(tmp_path / "b" / name, ignore_errors=True)
        shutil.copytree(tmp_path / "a" / name, tmp_path / "b" / name)
    else:
        shutil.copy(tmp_path / "a" / name, tmp_path / "b" / name)
    refused(tmp_path / "b", f"{name}.* belongs to another run")


def test_a_snapshot_of_another_run_beside_the_journal_of_this_one_is_refused(tmp_path: Path) -> None:
    recorded(tmp_path / "a", 0, 1, 2, fold=True)
    recorded(tmp_path / "b", 0)
    shutil.copytree(tmp_path / "a" / "ledger.zarr", tmp_path / "b" / "ledger.zarr")
    refused(tmp_path / "b", "snapshot .* belongs to another run")


def test_what_is_from_before_a_reset_is_refused(tmp_path: Path) -> None:
    recorded(tmp_path / "a", 0, 1, 2)
    shutil.copytree(tmp_path / "a", tmp_path / "backup")
    recorded(tmp_path / "a", 0, reset=True)
    shutil.rmtree(tmp_path / "a" / "journal")
    shutil.copytree(tmp_path / "backup" / "journal", tmp_path / "a" / "journal")
    refused(tmp_path / "a", "belongs to another run")


def test_those_who_read_refuse_it_as_well(tmp_path: Path) -> None:
    recorded(tmp_path / "a", 0, 1, 2)
    recorded(tmp_path / "b", 0)
    for file in (tmp_path / "a" / "journal").iterdir():
        shutil.copy(file, tmp_path / "b" / "journal")
    ledger = Ledger.open(tmp_path / "b")
    with pytest.raises(DamagedLedgerError, match="belongs to another run"):
        ledger.states("smooth")
    with pytest.raises(DamagedLedgerError, match="belongs to another run"):
        list(ledger.records())


def test_a_copy_of_the_whole_directory_is_the_same_run(tmp_path: Path) -> None:
    recorded(tmp_path / "a", 0, 1, 2, fold=True)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    store = open_run(tmp_path / "b", plan_of(task(blocks=(9,))))
    assert store.history[0].done == 3
    store.close()


@pytest.mark.parametrize("fold", [False, True])
def test_the_loss_of_the_last_file_of_the_journal_is_noticed(tmp_path: Path, fold: bool) -> None:
    recorded(tmp_path / "a", 0, 1)
    recorded(tmp_path / "a", 2, 3, fold=fold)
    max((tmp_path / "a" / "journal").iterdir()).unlink()
    refused(tmp_path / "a", "is missing, the last file of the journal")


def test_the_loss_of_the_whole_journal_is_noticed(tmp_path: Path) -> None:
    recorded(tmp_path / "a", 0, 1)
    shutil.rmtree(tmp_path / "a" / "journal")
    refused(tmp_path / "a", "is missing, the last file of the journal")


def test_the_loss_of_the_file_that_names_the_last_one_is_noticed(tmp_path: Path) -> None:
    recorded(tmp_path / "a", 0, 1)
    (tmp_path / "a" / "journal.json").unlink()
    refused(tmp_path / "a", "journal.json is missing")


def test_a_reset_is_the_way_out(tmp_path: Path) -> None:
    recorded(tmp_path / "a", 0, 1)
    shutil.rmtree(tmp_path / "a" / "journal")
    recorded(tmp_path / "a", 0, reset=True)
    assert int((Ledger.open(tmp_path / "a").states("smooth") != 0).sum()) == 1


def test_a_reset_is_another_run_and_going_on_is_not(tmp_path: Path) -> None:
    runs = []
    for reset in (False, False, True, False):
        recorded(tmp_path / "a", 0, reset=reset)
        runs.append(layout.run_of(LocalDisk(tmp_path / "a")))
    assert runs[0] == runs[1] != runs[2] == runs[3]
    assert len(set(runs)) == 2
