"""How do people start workers for a run, ask for more or fewer of them, or end its jobs, from another shell?

A run that listens on the network leaves a file for each task beside its connection file, from which any machine that
sees it can start workers. They belong to no launcher, and may come and go at any time.
"""

from __future__ import annotations

import subprocess
import sys
from numbers import Integral
from typing import TYPE_CHECKING, Any

from blockflow.errors import ConnectionFileError, PlanError, RemoteProtocolError, RunError, UnreachableError
from blockflow.launch.fleets import batch_system
from blockflow.launch.handover import read_handover, write_handover
from blockflow.launch.interpreter import environment_with_package
from blockflow.launch.queue import Silence, worker_words
from blockflow.launch.records import CANCELLED_SUFFIX, JOBS_SUFFIX, read_records
from blockflow.net.connection_file import read_connection
from blockflow.net.dial import dial
from blockflow.trusted_files import folder_of
from blockflow.wire.framing import frame
from blockflow.wire.messages import PROTOCOL, Scale, Scaled, decode_from_driver, encode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MOST_WORKERS = 10**6
"""More than this is a mistake."""

_PLACES = ("", "connection", ".runs", "daisy_logs/.runs")
"""Where the files of a run may be, below the directory that people name."""


def write_tasks(directory: Path, run: str, payloads: Sequence[dict[str, Any]]) -> list[Path]:
    """Write what workers by hand have to be told, one file for each task.

    Args:
        directory: Private directory of the run's files.
        run: Id of the run.
        payloads: One for each task.
    """
    paths = [directory / f"{run}.task-{number}" for number in range(len(payloads))]
    for path, payload in zip(paths, payloads, strict=True):
        write_handover(path, [payload])
    return paths


def find_run(place: Path, suffix: str) -> Path:
    """A file of a run.

    Args:
        place: That file or another one of the run, or a directory: that of the run, of its logs, or where it was
            started. Its last part may also be the id of the run.
        suffix: Which file, by the end of its name.

    Raises:
        ConnectionFileError: There is none, or there are several.
    """
    if place.is_dir():
        found = sorted({file for below in _PLACES for file in (place / below).glob(f"*{suffix}")})
    else:
        run = place.name.partition(".")[0]
        found = [file for below in _PLACES if (file := place.parent / below / f"{run}{suffix}").is_file()]
    live, refused = [], None
    for file in found:
        try:
            if not _is_over(file):
                live.append(file)
        except ConnectionFileError as error:
            refused = error
    if not live and refused is not None:
        raise refused
    if not live:
        over = f"; {', '.join(file.stem for file in found)} is over" if found else ""
        raise ConnectionFileError(
            f"no run that goes on is found at {place}{over}. Name the run directory, or the directory where the run "
            "was started, on a file system that this machine shares with it; and workers can join a run only if it "
            "listens on the network (host=), or has a launcher that needs it"
        )
    if len(live) > 1:
        names = ", ".join(str(file.parent / file.stem) for file in live)
        raise ConnectionFileError(f"there are several runs at {place}; name one of them: {names}")
    return live[0]


def find_task(connection: Path, task: str | None) -> Path:
    """What workers of a task have to be told.

    Args:
        connection: The connection file of the run.
        task: Id of the task; may be None if there is only one.

    Raises:
        ConnectionFileError: The run has no such task, or does not say.
    """
    files = sorted(connection.parent.glob(f"{connection.stem}.task-*"))
    known = {str(read_handover(str(file), 0)["task"]): file for file in files}
    if task is None and len(known) == 1:
        return next(iter(known.values()))
    if task in known:
        return known[task]
    if not known:
        raise ConnectionFileError(
            f"the run of {connection} is for this machine alone: start it with host= and an address of its machine"
        )
    asked = "name one with --task" if task is None else f"there is no task {task!r}"
    raise ConnectionFileError(f"{asked}; the tasks of this run are {', '.join(map(repr, known))}")


def work_by_hand(place: Path, task: str | None, count: int) -> int:
    """Start workers, and wait until they have ended; returns the exit code.

    Raises:
        ConnectionFileError: There is no such run, or no such task.
    """
    handover = find_task(find_run(place, ".connection"), task)
    words = [*worker_words(sys.executable, str(handover)), "0"]
    environment = environment_with_package()
    return wait_for_workers([subprocess.Popen(words, stdin=subprocess.DEVNULL, env=environment) for _ in range(count)])


def wait_for_workers(workers: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait until workers have ended; returns the exit code."""
    try:
        try:
            codes = [worker.wait() for worker in workers]
        except KeyboardInterrupt:  # the workers have heard it as well: they finish their blocks, and go
            codes = [worker.wait() for worker in workers]
        return int(any(codes))
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def scale_run(place: Path, task: str, workers: Any) -> int:
    """Have another number of workers for a task of a run that goes on, beside those that were started by hand.

    Those that are too many finish the blocks they have begun, and go; 0 pauses the task.

    Args:
        place: The run, as for :func:`find_run`.
        task: Id of the task.
        workers: How many.

    Returns:
        How many were wanted before.

    Raises:
        PlanError: `workers` is not a whole number of at least 0.
        ConnectionFileError: There is no such run, or no such task.
        UnreachableError: Its driver does not answer.
    """
    if isinstance(workers, bool) or not isinstance(workers, Integral) or not 0 <= int(workers) < MOST_WORKERS:
        raise PlanError(f"workers must be a whole number from 0 to {MOST_WORKERS - 1}, got {workers!r}")
    connection = read_connection(str(find_run(place, ".connection")))
    pipe = dial(connection)
    try:
        pipe.send(frame(encode(Scale(PROTOCOL, connection.run, task, int(workers)))))
        answer = decode_from_driver(next(pipe.converse()))
    except (OSError, RemoteProtocolError) as error:
        raise UnreachableError(f"the driver of run {connection.run} does not answer: {error}") from error
    finally:
        pipe.close()
    if isinstance(answer, Scaled):
        return answer.before
    raise ConnectionFileError(f"run {connection.run} refuses: {getattr(answer, 'reason', answer)}")


def cancel_run(place: Path) -> list[str]:
    """End all jobs of a run on clusters, and the run itself if it goes on; returns what was done, in words.

    Raises:
        ConnectionFileError: There is no such run, or it has no jobs.
        RunError: A cluster does not answer.
    """
    path = find_run(place, JOBS_SUFFIX)
    recorded = read_records(path)
    folder, _ = folder_of(path, private=True)
    with folder:
        folder.write(path.with_suffix(CANCELLED_SUFFIX).name, b"")  # before its jobs end, or they would be replaced
    said = [f"run {recorded.run} ends as soon as its driver on {recorded.host} (process {recorded.pid}) looks"]
    for name in sorted({system for system, _ in recorded.jobs}):
        jobs = [job for system, job in recorded.jobs if system == name]
        try:
            batch_system(name).cancel(jobs)
        except Silence as silence:
            raise RunError(f"{name} does not answer ({silence}); its jobs {', '.join(jobs)} are still there") from None
        said.append(f"{name} jobs {', '.join(jobs)} are cancelled")
    return said


def _is_over(file: Path) -> bool:
    """Whether a run has ended, and has left nothing.

    Raises:
        ConnectionFileError: The file is damaged, or another user could have written it.
    """
    if file.name.endswith(JOBS_SUFFIX):
        return not read_records(file).jobs
    return read_connection(str(file)).finished
