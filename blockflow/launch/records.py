"""Which jobs does a run have on clusters, so that they can be ended even if its driver is gone?

A file of JSON lines beside the connection file, mode 0600: who drives the run, each job that was submitted, and each
that is over. It is written before anything else is done with a job. ``blockflow cancel`` reads it, and tells a driver
that lives by putting another file beside it.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from blockflow.errors import ConnectionFileError

if TYPE_CHECKING:
    from pathlib import Path

JOBS_SUFFIX = ".jobs"
CANCELLED_SUFFIX = ".cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What a record says."""

    run: str
    host: str
    """Where the driver runs, or ran."""
    pid: int
    jobs: tuple[tuple[str, str], ...]
    """Batch system and id of each job that is not known to be over."""


class JobRecords:
    """Writes the record of a run.

    Args:
        directory: A private directory.
        run: Id of the run.
    """

    def __init__(self, directory: Path, run: str) -> None:
        self._path = directory / f"{run}{JOBS_SUFFIX}"
        self._run = run
        self._written = False

    def begin(self, system: str) -> tuple[str, ...]:
        """Jobs of a batch system that an earlier life of the driver has left; nobody wants the run to end any more."""
        self._path.with_suffix(CANCELLED_SUFFIX).unlink(missing_ok=True)
        try:
            known = read_records(self._path)
        except ConnectionFileError:
            return ()
        return tuple(job for name, job in known.jobs if name == system)

    def submitted(self, system: str, job: str, *, task: str, count: int) -> None:
        """Record a job before anything else is done with it."""
        self._write({"system": system, "submitted": job, "task": task, "count": count})

    def over(self, system: str, job: str) -> None:
        """Record that a job is not there any more."""
        self._write({"system": system, "over": job})

    @property
    def cancelled(self) -> bool:
        """Whether somebody wants the run to end."""
        return self._path.with_suffix(CANCELLED_SUFFIX).exists()

    def _write(self, line: dict[str, Any]) -> None:
        lines = [line]
        if not self._written:
            lines.insert(0, {"run": self._run, "host": socket.gethostname(), "pid": os.getpid()})
            self._written = True
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(b"".join(msgspec.json.encode(each) + b"\n" for each in lines))
            file.flush()
            os.fsync(file.fileno())


def read_records(path: Path) -> Recorded:
    """What the record of a run says; a last line that was not written to its end does not count.

    Raises:
        ConnectionFileError: There is no record, or it is damaged.
    """
    try:
        raw = path.read_bytes().splitlines()
    except OSError as error:
        raise ConnectionFileError(f"the record of a run's jobs {path} cannot be read: {error}") from error
    lines: list[dict[str, Any]] = []
    for number, line in enumerate(raw):
        try:
            lines.append(msgspec.json.decode(line, type=dict[str, Any]))
        except msgspec.DecodeError as error:
            if number < len(raw) - 1:
                raise ConnectionFileError(f"{path} is damaged in line {number + 1}: {error}") from None
    drivers = [line for line in lines if "run" in line]
    if not drivers:
        raise ConnectionFileError(f"{path} is no record of a run's jobs")
    jobs = {(line["system"], line["submitted"]): None for line in lines if "submitted" in line}
    for said in lines:
        if "over" in said:
            jobs.pop((said["system"], said["over"]), None)
    last = drivers[-1]
    return Recorded(run=last["run"], host=last["host"], pid=last["pid"], jobs=tuple(jobs))
