"""Another user puts files, links and folders where a run keeps its own: each is refused, and nothing is touched."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from blockflow.launch.handover import write_handover
from blockflow.net.connection_file import private_directory
from tests.strangers import STRANGER, needs_two_accounts, open_to_all, stranger_does

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_two_accounts

JOB = """
import sys
from blockflow import Roi, Task, run_blockwise
def note(block):
    print("block", block.index)
whole, one = Roi((0,), (3,)), Roi((0,), (1,))
task = Task("t", whole, one, one, note, read_write_conflict=False, num_workers=1)
options = {"run_dir": "run"} if "run_dir" in sys.argv else {}
options |= {"host": "127.0.0.1"} if "network" in sys.argv else {}
print(bool(run_blockwise(task, progress=False, summary=False, **options)))
"""


def job(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a task in a folder, as the victim."""
    words = [sys.executable, "-c", JOB, *options]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    full = [sys.executable, "-m", "blockflow", *words]
    return subprocess.run(full, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


class Executed:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that everybody can write, beside something of the victim's."""
    (tmp_path / "diary").write_text("mine")
    return open_to_all(tmp_path / "shared")


def is_refused(done: subprocess.CompletedProcess[str], *says: str) -> None:
    assert done.returncode != 0, done.stdout
    assert "True" not in done.stdout
    for text in says:
        assert text in done.stderr, done.stderr


@pytest.mark.parametrize("options", [(), ("network",)])
def test_a_folder_of_logs_that_somebody_else_made(shared: Path, options: tuple[str, ...]) -> None:
    stranger_does("import os, sys; os.umask(0); os.makedirs(sys.argv[1] + '/daisy_logs/t', 0o777)", shared)
    before = snapshot(shared)
    is_refused(job(shared, *options), f"daisy_logs' belongs to user {STRANGER}")
    assert snapshot(shared) == before
    assert (shared.parent / "diary").read_text() == "mine"


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """All names in a folder, with mode and owner."""
    found = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_uid)
    return found


def test_logs_that_are_links_to_something_of_the_victims(shared: Path) -> None:
    """The folder of a task is writable by all, as an older version made it; somebody has put links there."""
    open_to_all(shared / "daisy_logs", 0o755)
    open_to_all(shared / "daisy_logs" / "t")
    code = """
        import os, sys
        for number in range(5):
            for suffix in ("out", "err"):
                os.symlink(sys.argv[2], f"{sys.argv[1]}/worker_{number}.{suffix}")
    """
    stranger_does(code, shared / "daisy_logs" / "t", shared.parent / "diary")
    is_refused(job(shared), "daisy_logs/t' can be written by everybody")
    assert (shared.parent / "diary").read_text() == "mine"


def test_logs_that_are_links_in_an_own_folder_cost_the_log_only(shared: Path) -> None:
    (shared / "daisy_logs" / "t").mkdir(parents=True, mode=0o755)
    for suffix in ("out", "err"):
        (shared / "daisy_logs" / "t" / f"worker_0.{suffix}").symlink_to(shared.parent / "diary")
    done = job(shared)
    assert done.stdout.splitlines()[-1] == "True", done.stderr
    assert "worker_0.out' is a link" in done.stderr
    assert (shared.parent / "diary").read_text() == "mine"


def test_a_private_folder_that_is_a_link(shared: Path) -> None:
    """The link is in a folder of logs that everybody can write; it leads to the victim's own private folder."""
    (shared.parent / "keys").mkdir(mode=0o700)
    (shared.parent / "keys" / "old.connection").write_text("mine")
    open_to_all(shared / "daisy_logs")
    stranger_does(
        "import os, sys; os.symlink(sys.argv[2], sys.argv[1] + '/.runs')", shared / "daisy_logs", shared.parent / "keys"
    )
    is_refused(job(shared), "daisy_logs' can be written by everybody")
    (shared / "daisy_logs").chmod(0o755)
    is_refused(job(shared), f".runs' is a link that belongs to user {STRANGER}")
    assert [path.name for path in (shared.parent / "keys").iterdir()] == ["old.connection"]
    assert (shared.parent / "keys" / "old.connection").read_text() == "mine"


def test_a_run_directory_that_somebody_else_made(shared: Path) -> None:
    stranger_does("import os, sys; os.umask(0); os.mkdir(sys.argv[1] + '/run', 0o777)", shared)
    is_refused(job(shared, "run_dir"), f"run' belongs to user {STRANGER}")
    assert list((shared / "run").iterdir()) == []


def test_a_private_folder_that_somebody_else_made(shared: Path) -> None:
    stranger_does("import os, sys; os.umask(0); os.makedirs(sys.argv[1] + '/daisy_logs/.runs', 0o777)", shared)
    is_refused(job(shared, "network"), "belongs to user")
    assert list((shared / "daisy_logs" / ".runs").iterdir()) == []


@pytest.mark.parametrize("words", [("invite", "."), ("worker", "."), ("scale", ".", "t", "3")])
def test_connection_and_task_files_of_somebody_else(shared: Path, words: tuple[str, ...]) -> None:
    """The task file would run code of the other user; the connection file is a link to a real one."""
    own = private_directory(shared.parent / "own")
    (own / "x.connection").write_text('{"version":1,"run":"x","addresses":[["127.0.0.1",9]]}\nKEY\n')
    (own / "x.connection").chmod(0o600)
    payload = pickle.dumps(Executed(shared / "executed"))
    (shared.parent / "payload").write_bytes(payload)
    (shared.parent / "payload").chmod(0o644)
    stranger_does(
        """
        import os, shutil, sys
        shared, connection, payload = sys.argv[1:]
        os.symlink(connection, f"{shared}/x.connection")
        shutil.copy(payload, f"{shared}/x.task-0")
        os.chmod(f"{shared}/x.task-0", 0o600)
        """,
        shared,
        own / "x.connection",
        shared.parent / "payload",
    )
    is_refused(command(shared, *words), "can be read by others")
    shared.chmod(0o700)
    is_refused(command(shared, *words), "x.connection' is a link")
    assert not (shared / "executed").exists()


def test_a_task_file_that_was_replaced(tmp_path: Path) -> None:
    """Whatever way it got there: in a folder of the victim's own, the file belongs to somebody else."""
    own = private_directory(tmp_path / "own")
    (own / "x.connection").write_text('{"version":1,"run":"x","addresses":[["127.0.0.1",9]]}\nKEY\n')
    (own / "x.connection").chmod(0o600)
    write_handover(own / "x.task-0", [{"task": "t"}])
    (own / "x.task-0").write_bytes(pickle.dumps(Executed(tmp_path / "executed")))
    os.chown(own / "x.task-0", STRANGER, STRANGER)
    for words in (("invite", "own"), ("worker", "own")):
        is_refused(command(tmp_path, *words), f"x.task-0' belongs to user {STRANGER}")
    done = subprocess.run(
        [sys.executable, "-m", "blockflow.launch.job", str(own / "x.task-0"), "0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    is_refused(done, f"x.task-0' belongs to user {STRANGER}")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("bits", [0o666, 0o620])
def test_records_of_jobs_that_others_can_write(tmp_path: Path, bits: int) -> None:
    program = textwrap.dedent("""
        #!/bin/sh
        touch called
    """).lstrip()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "scancel").write_text(program)
    (tmp_path / "bin" / "scancel").chmod(0o755)
    (tmp_path / "r.jobs").write_text('{"run":"r","host":"h","pid":1}\n{"system":"Slurm","submitted":"12"}\n')
    (tmp_path / "r.jobs").chmod(bits)
    environment = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    words = [sys.executable, "-m", "blockflow", "cancel", "."]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False, env=environment)
    is_refused(done, f"mode {bits:04o}")
    assert not (tmp_path / "called").exists()


def test_a_sticky_folder_and_a_home_that_is_a_link_go_on_working(tmp_path: Path) -> None:
    sticky = open_to_all(tmp_path / "sticky", 0o1777)
    (sticky / "mine").mkdir()
    (tmp_path / "home").symlink_to(sticky / "mine")
    for options in ((), ("network",), ("run_dir",)):
        done = job(tmp_path / "home", *options)
        assert done.stdout.splitlines()[-1] == "True", done.stderr


def test_a_folder_of_a_lab_goes_on_working(tmp_path: Path) -> None:
    """It belongs to somebody else, and its group can write it; so new folders belong to that group too."""
    lab = open_to_all(tmp_path / "lab", 0o2775)
    os.chown(lab, STRANGER, STRANGER)
    done = subprocess.run(
        [sys.executable, "-c", f"import os; os.umask(0o002)\n{JOB}"],
        cwd=lab,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.splitlines()[-1] == "True", done.stderr
    modes = [path.lstat().st_mode & 0o022 for path in lab.rglob("*")]
    assert modes
    assert not any(modes)
