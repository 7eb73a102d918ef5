"""The record of a run's jobs: whole lines count, whoever wrote them."""

from __future__ import annotations

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
