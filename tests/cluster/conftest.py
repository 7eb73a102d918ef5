"""A real Slurm on this machine. After each test its queue is empty, and no process of the test is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from blockflow.logging import get_log_basedir, set_log_basedir
from tests.cluster import slurm_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator


MARK = "BLOCKFLOW_TEST_MARK"


@pytest.fixture(scope="session")
def one_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The cluster of all tests."""
    reason = slurm_cluster.missing()
    if reason is not None:
        pytest.skip(f"no Slurm: {reason}")
    with slurm_cluster.SlurmCluster(tmp_path_factory.mktemp("slurm") / "c") as started:
        yield started


@pytest.fixture
def cluster(one_cluster: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The cluster, for this process and all that it starts; nothing is left in its queue."""
    for name, value in one_cluster.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DAISY_HOST", "127.0.0.1")  # its nodes are on this machine
    yield one_cluster
    left = one_cluster.queue()
    one_cluster.call("scancel", "--user=root", "--full", check=False)
    one_cluster.wait(lambda: not one_cluster.queue(), "the queue to be empty")
    assert left == [], "jobs were left behind"


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory of logs of this test; everything started here ends with it, and leaves no key behind."""
    before = get_log_basedir()
    directory = tmp_path / "logs"
    set_log_basedir(directory)
    monkeypatch.setenv(MARK, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield directory
    set_log_basedir(before)
    left = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if f"{MARK}={tmp_path}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    left.append(int(entry.name))
    said = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in left if Path(f"/proc/{pid}").exists()]
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert left == [], f"a process was left behind: {said}"
    for file in directory.glob(".runs/*"):
        assert file.suffix in (".connection", ".jobs", ".cancelled"), f"{file} was left behind"
        assert b"PRIVATE" not in file.read_bytes(), "a key was left behind"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where block functions leave what they have seen."""
    made = tmp_path / "seen"
    made.mkdir()
    return made


@pytest.fixture
def lsf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stand-ins for the commands of LSF, and the directory of their state; no job is left."""
    programs, state = tmp_path / "bin", tmp_path / "lsf"
    programs.mkdir()
    state.mkdir()
    source = Path(__file__).with_name("lsf_standin.py")
    for name in ("bsub", "bjobs", "bkill"):
        (programs / name).write_text(f"#!{sys.executable}\n{source.read_text()}")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("LSF_STANDIN", str(state))
    monkeypatch.setenv("DAISY_HOST", "127.0.0.1")
    yield state
    left = subprocess.run(["bjobs", "-noheader", "-o", "jobid delimiter='|'"], capture_output=True, check=True).stdout
    assert left == b"", "jobs were left behind"
