"""Run directories on a real disk: made, refused, taken over from real processes, and full."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from blockflow.errors import (
    DamagedLedgerError,
    DriverAliveError,
    LedgerError,
    LedgerVersionError,
    PlanChangedError,
    RunDirectoryError,
    RunError,
)
from blockflow.ledger import layout
from blockflow.ledger.disk import LocalDisk
from blockflow.ledger.rundir import open_run
from tests.ledger.runs import done, failed, plan_of, task

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def open_handed() -> Iterator[None]:
    """A umask that hides nothing."""
    before = os.umask(0)
    yield
    os.umask(before)


# ------------------------------------------------------------------------------------------------------------ opening


@pytest.mark.usefixtures("open_handed")
def test_it_is_private_whatever_the_umask(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "x"
    store = open_run(folder, plan_of())
    assert (store.path, store.connection_directory, store.logs) == (folder, folder / "connection", folder / "logs")
    for path in (folder, store.connection_directory, store.logs):
        assert mode(path) == 0o700
    assert {mode(path) for path in folder.rglob("*") if path.is_file()} == {0o600}
    store.close()


def test_the_mode_of_a_directory_that_was_there_stays(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir(mode=0o755)
    open_run(folder, plan_of()).close()
    assert (mode(folder), mode(folder / "connection")) == (0o755, 0o700)


@pytest.mark.parametrize("bits", [0o775, 0o2775, 0o777])
def test_a_directory_that_others_can_write_is_refused(tmp_path: Path, bits: int) -> None:
    os.chown(tmp_path, -1, 54321)
    tmp_path.chmod(bits)
    with pytest.raises(RunDirectoryError, match=rf"can be written by .* \(mode {bits:04o}\).*`chmod go-w` it"):
        open_run(tmp_path, plan_of())
    assert (mode(tmp_path), contents(tmp_path)) == (bits, {})


@pytest.mark.parametrize("name", ["connection", "logs", "journal"])
def test_a_linked_folder_in_it_is_refused(tmp_path: Path, name: str) -> None:
    open_run(tmp_path / "x", plan_of()).close()
    (tmp_path / "x" / name).rename(tmp_path / "elsewhere")
    (tmp_path / "x" / name).symlink_to(tmp_path / "elsewhere")
    before = contents(tmp_path / "elsewhere")
    with pytest.raises(RunError, match=f"{name}' is a link"):
        open_run(tmp_path / "x", plan_of())
    assert contents(tmp_path / "elsewhere") == before


def test_a_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for life in range(4):
        store = open_run("x", plan_of())
        assert (store.epoch, store.history[0].done) == (life + 1, life)
        store.append([done(life), failed(10 + life)])
        store.commit()
        if life % 2:
            store.fold()
        store.close()
    assert (tmp_path / "x" / "ledger.zarr" / "zarr.json").exists()
    assert not [name for name in contents(tmp_path) if "draft" in name or ".new" in name or ".old" in name]


@pytest.mark.parametrize("name", ["thesis.tex", "results.zarr/zarr.json"])
def test_somebody_elses_directory_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    before = mode(tmp_path)
    for arguments in ({}, {"reset": True}, {"accept_change": True}, {"take_over": True}):
        with pytest.raises(RunDirectoryError, match=f"is not a run directory of blockflow.*holds {name[:7]}"):
            open_run(tmp_path, plan_of(), **arguments)  # type: ignore[arg-type]
    assert (contents(tmp_path), mode(tmp_path)) == ({name: b"mine"}, before)


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunDirectoryError, match="cannot be made"):
        open_run(tmp_path / "file", plan_of())
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("{", RunDirectoryError, "is damaged"),
        ('{"format": "something else", "version": 1}', RunDirectoryError, "says 'something else'"),
        ('{"format": "blockflow run directory", "version": 1}', LedgerVersionError, "layout 1, this blockflow reads 2"),
    ],
)
def test_another_format_is_refused(tmp_path: Path, text: str, error: type[Exception], says: str) -> None:
    (tmp_path / layout.FORMAT_FILE).write_text(text)
    with pytest.raises(error, match=says):
        open_run(tmp_path, plan_of(), reset=True)
    assert contents(tmp_path) == {layout.FORMAT_FILE: text.encode()}


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RunDirectoryError, match="cannot be made"):
        open_run(tmp_path / "x", plan_of())
    tmp_path.chmod(0o700)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give things away")
def test_what_does_not_belong_to_this_user_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, -1)
    with pytest.raises(RunDirectoryError, match="belongs to user 12345, not to you"):
        open_run(tmp_path, plan_of())
    assert not contents(tmp_path)


def test_a_directory_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: object) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", forbidden)
    with pytest.raises(RunDirectoryError, match="Permission denied"):
        open_run(tmp_path, plan_of())


@pytest.mark.parametrize("how", ["removed", "moved", "removed and made again"])
def test_a_journal_that_is_gone_in_the_middle_of_a_run_is_noticed_at_the_next_commit(tmp_path: Path, how: str) -> None:
    store = open_run(tmp_path / "x", plan_of())
    store.append([done(0)])
    store.commit()
    journal = tmp_path / "x" / "journal"
    names = [path.name for path in journal.iterdir()]
    if how == "moved":
        journal.rename(tmp_path / "elsewhere")
    else:
        shutil.rmtree(journal)
    if how == "removed and made again":
        journal.mkdir()
        for name in names:
            (journal / name).touch()
    store.append([done(1)])
    with pytest.raises(LedgerError, match="the journal is gone while the run goes on"):
        store.commit()
    with pytest.raises(LedgerError, match="the journal is gone"):
        store.commit()
    store.close()


def test_damage_in_the_middle_is_named_and_nothing_is_changed(tmp_path: Path) -> None:
    store = open_run(tmp_path, plan_of())
    for block in range(3):
        store.append([done(block)])
        store.commit()
    store.close()
    (journal,) = (tmp_path / "journal").iterdir()
    data = bytearray(journal.read_bytes())
    data[len(data) // 2] ^= 1
    journal.write_bytes(data)
    before = contents(tmp_path / "journal")
    with pytest.raises(DamagedLedgerError, match=rf"journal/{journal.name} is damaged at byte \d+.*reset=True"):
        open_run(tmp_path, plan_of())
    assert contents(tmp_path / "journal") == before
    journal.write_bytes(data[:-1] + b"?")  # two wrong commits are no better than one
    with pytest.raises(DamagedLedgerError):
        open_run(tmp_path, plan_of())
    store = open_run(tmp_path, plan_of(), reset=True)
    assert (store.history[0].done, store.epoch) == (0, 4)
    store.close()


def test_a_missing_plan_is_damage_if_there_is_a_journal(tmp_path: Path) -> None:
    open_run(tmp_path, plan_of()).close()
    (tmp_path / layout.PLAN_FILE).unlink()
    with pytest.raises(DamagedLedgerError, match=r"plan\.json is missing"):
        open_run(tmp_path, plan_of())


@pytest.mark.parametrize("text", ["{", '{"tasks": 3}', '{"tasks": [], "more": 1}'])
def test_a_damaged_plan_is_named(tmp_path: Path, text: str) -> None:
    open_run(tmp_path, plan_of()).close()
    (tmp_path / layout.PLAN_FILE).write_text(text)
    with pytest.raises(DamagedLedgerError, match=r"plan\.json is damaged"):
        open_run(tmp_path, plan_of())


def test_reset_leaves_what_is_not_ours(tmp_path: Path) -> None:
    store = open_run(tmp_path, plan_of())
    store.append([done(1)])
    store.fold()
    store.close()
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "logs" / "worker.out").write_text("log")
    with pytest.raises(PlanChangedError, match="or reset=True to start over"):
        open_run(tmp_path, plan_of(task(step=5)))
    store = open_run(tmp_path, plan_of(task(step=5)), reset=True)
    assert (store.history[0].done, store.epoch) == (0, 2)
    assert not (tmp_path / "ledger.zarr").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "logs" / "worker.out").read_text() == "log"
    store.close()


# ---------------------------------------------------------------------------------------------------------- processes

DRIVER = """
import sys
from blockflow.ledger.rundir import open_run
from tests.ledger.runs import done, plan_of
store = open_run(sys.argv[1], plan_of())
for block in range(int(sys.argv[2])):
    store.append([done(block)])
    store.commit()
print("ready", flush=True)
input()
"""


def driver(folder: Path, blocks: int = 3) -> subprocess.Popen[str]:
    """Another process that owns a run directory, and has recorded some blocks."""
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(folder), str(blocks)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_second_driver_is_refused_and_a_killed_one_is_replaced(tmp_path: Path) -> None:
    first = driver(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(DriverAliveError, match=rf"process {first.pid} on .*it is alive.*kill {first.pid}"):
        open_run(tmp_path, plan_of())
    with pytest.raises(DriverAliveError):
        open_run(tmp_path, plan_of(), reset=True)
    assert contents(tmp_path) == before
    first.send_signal(signal.SIGSTOP)
    with pytest.raises(DriverAliveError):
        open_run(tmp_path, plan_of())
    first.kill()
    first.communicate(timeout=PATIENCE)
    store = open_run(tmp_path, plan_of())
    assert (store.epoch, store.history[0].done) == (2, 3)
    store.close()


def test_two_runs_in_one_process_do_not_share_a_directory(tmp_path: Path) -> None:
    store = open_run(tmp_path, plan_of())
    with pytest.raises(DriverAliveError, match="this very process is at work"):
        open_run(tmp_path, plan_of())
    store.close()


FULL_DISK = """
import sys
from pathlib import Path
from blockflow.errors import LedgerFullError
from blockflow.ledger.rundir import open_run
from tests.ledger.runs import done, plan_of, task
folder = Path(sys.argv[1])
plan = plan_of(task(blocks=(100, 1000)))
store = open_run(folder / "run", plan)
acknowledged = number = -1
try:
    while True:
        store.append([done(*range(number + 1, number + 401, 2))])
        number += 400
        store.commit()
        acknowledged = number
except LedgerFullError as error:
    print(error)
for _ in range(3):
    try:
        store.commit()
        raise SystemExit("it was written to a full disk")
    except LedgerFullError:
        pass
try:
    store.fold()
    raise SystemExit("a snapshot was written to a full disk")
except LedgerFullError:
    pass
assert acknowledged > 0
(folder / "ballast").unlink()
store.append([done(99_999)])
store.commit()
store.fold()
store.close()
again = open_run(folder / "run", plan)
assert again.history[0].done == (number + 1) // 2 + 1, again.history[0].done
print("all there")
"""


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare to make a small disk with")
    script = (
        f"mount -t tmpfs -o size=256k none {tmp_path} && head -c 150000 /dev/zero > {tmp_path}/ballast && "
        f'exec "$0" -c "$1" {tmp_path}'
    )
    probe = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", str(tmp_path)], capture_output=True)
    if probe.returncode:
        pytest.skip(f"a small disk cannot be made here: {probe.stderr.decode().strip()}")
    result = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, sys.executable, FULL_DISK],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=PATIENCE,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "no space is left for the ledger" in result.stdout
    assert "all there" in result.stdout


def test_a_run_directory_cannot_begin_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: LocalDisk, path: str, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LocalDisk, "write", full)
    with pytest.raises(OSError, match="no space is left"):
        open_run(tmp_path, plan_of())
