"""The record of a run's jobs: whole lines count, whoever wrote them."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING

import pytest

from blockflow.errors import ConnectionFileError
from blockflow.launch.records import JobRecords, read_records

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    records = JobRecords(tmp_path, "r")
    assert list(tmp_path.iterdir()) == []
    assert records.begin("Slurm") == ()
    records.submitted("Slurm", "12", task="ü", count=3)
    records.submitted("LSF", "12", task="t", count=1)
    records.over("Slurm", "12")
    found = read_records(tmp_path / "r.jobs")
    assert (found.run, found.host, found.pid) == ("r", socket.gethostname(), os.getpid())
    assert found.jobs == (("LSF", "12"),)
    assert (tmp_path / "r.jobs").stat().st_mode & 0o777 == 0o600
    assert JobRecords(tmp_path, "r").begin("LSF") == ("12",)
    assert not records.cancelled
    (tmp_path / "r.cancelled").touch()
    assert records.cancelled


def test_a_last_line_that_was_cut_does_not_count(tmp_path: Path) -> None:
    JobRecords(tmp_path, "r").submitted("Slurm", "12", task="t", count=3)
    path = tmp_path / "r.jobs"
    path.write_bytes(path.read_bytes() + b'{"system": "Slurm", "subm')
    assert read_records(path).jobs == (("Slurm", "12"),)


@pytest.mark.parametrize("content", ["", "{}\n", "x\n{}\n", '{"run": "r"}\nx\n{}\n'])
def test_damage_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "r.jobs"
    path.write_text(content)
    with pytest.raises(ConnectionFileError, match=r"r\.jobs"):
        read_records(path)


def test_no_record(tmp_path: Path) -> None:
    with pytest.raises(ConnectionFileError, match="cannot be read"):
        read_records(tmp_path / "r.jobs")


@pytest.mark.parametrize(
    "job", ["--user=somebody", "1 2", "$(reboot)", "12;13", "-1", "12\n", "0x1", "*", "12_[1-3] --me", "12[a]"]
)
@pytest.mark.parametrize("key", ["submitted", "over"])
def test_what_is_no_job_id_is_refused(tmp_path: Path, job: str, key: str) -> None:
    path = tmp_path / "r.jobs"
    lines = [{"run": "r", "host": "h", "pid": 1}, {"system": "Slurm", key: job}, {"system": "Slurm", "over": "1"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    path.chmod(0o600)
    with pytest.raises(ConnectionFileError, match="is damaged in line 2"):
        read_records(path)


@pytest.mark.parametrize("job", ["4711", "4711_3", "4711_[0-5,7]", "4711[1-9]"])
def test_job_ids_of_batch_systems_are_read(tmp_path: Path, job: str) -> None:
    records = JobRecords(tmp_path, "r")
    records.submitted("Slurm", job, task="t", count=1)
    assert read_records(tmp_path / "r.jobs").jobs == (("Slurm", job),)
    records.over("Slurm", job)
    assert read_records(tmp_path / "r.jobs").jobs == ()


def test_records_that_others_can_write_are_refused(tmp_path: Path) -> None:
    JobRecords(tmp_path, "r").submitted("Slurm", "12", task="t", count=1)
    (tmp_path / "r.jobs").chmod(0o666)
    with pytest.raises(ConnectionFileError, match=r"the record of a run's jobs is not used: .*mode 0666"):
        read_records(tmp_path / "r.jobs")
    with pytest.raises(ConnectionFileError, match="is not used"):
        JobRecords(tmp_path, "r").begin("Slurm")
