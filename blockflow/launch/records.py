"""Which jobs does a run have on clusters, so that they can be ended even if its driver is gone?

A file of JSON lines beside the connection file, mode 0600: who drives the run, each job that was submitted, and each
that is over. It is written before anything else is done with a job. ``blockflow cancel`` reads it, and tells a driver
that lives by putting another file beside it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import msgspec

from blockflow.errors import ConnectionFileError, UntrustedFileError
from blockflow.trusted_files import appended, folder_of, read_file, remove_file

if TYPE_CHECKING:
    from pathlib import Path

JOBS_SUFFIX = ".jobs"
CANCELLED_SUFFIX = ".cancelled"


_JobId: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^(?:[0-9]+(?:_?\[[0-9,-]+\]|_[0-9]+)?)?\Z", max_length=200)]
"""Digits and brackets: it becomes an argument of a program that ends jobs, which must not take it for an option."""


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    """What one line may say: who drives the run, or that a job was submitted or is over."""

    run: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_.-]*\Z", max_length=255)] = ""
    host: Annotated[str, msgspec.Meta(max_length=255)] = ""
    pid: Annotated[int, msgspec.Meta(ge=0)] = 0
    system: Annotated[str, msgspec.Meta(max_length=50)] = ""
    submitted: _JobId = ""
    over: _JobId = ""
    task: str = ""
    count: int = 0


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
        remove_file(self._path.with_suffix(CANCELLED_SUFFIX))
        try:
            known = read_records(self._path)
        except ConnectionFileError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return ()
            raise
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
        with contextlib.suppress(FileNotFoundError):
            folder, name = folder_of(self._path.with_suffix(CANCELLED_SUFFIX), private=True)
            with folder:
                return folder.status(name) is not None
        return False

    def _write(self, line: dict[str, Any]) -> None:
        lines = [line]
        if not self._written:
            lines.insert(0, {"run": self._run, "host": socket.gethostname(), "pid": os.getpid()})
            self._written = True
        with appended(self._path, private=True) as file:
            file.write(b"".join(msgspec.json.encode(each) + b"\n" for each in lines))
            file.flush()
            os.fsync(file.fileno())


def read_records(path: Path) -> Recorded:
    """What the record of a run says; a last line that was not written to its end does not count.

    Raises:
        ConnectionFileError: There is no record, or it is damaged.
    """
    try:
        raw = read_file(path, private=True).splitlines()
    except UntrustedFileError as error:
        raise ConnectionFileError(f"the record of a run's jobs is not used: {error}") from error
    except OSError as error:
        raise ConnectionFileError(f"the record of a run's jobs {path} cannot be read: {error}") from error
    lines: list[_Line] = []
    for number, line in enumerate(raw):
        try:
            lines.append(msgspec.json.decode(line, type=_Line))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if number < len(raw) - 1 or isinstance(error, msgspec.ValidationError):
                raise ConnectionFileError(f"{path} is damaged in line {number + 1}: {error}") from None
    drivers = [line for line in lines if line.run]
    if not drivers:
        raise ConnectionFileError(f"{path} is no record of a run's jobs")
    jobs = {(line.system, line.submitted): None for line in lines if line.submitted}
    for each in lines:
        jobs.pop((each.system, each.over), None)
    last = drivers[-1]
    return Recorded(run=last.run, host=last.host, pid=last.pid, jobs=tuple(jobs))
