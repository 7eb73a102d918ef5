"""A worker in a job: started by a cluster, or by hand, as ``python -m blockflow.launch.job FILE INDEX``.

The file was written by the driver, and says what to do (:mod:`blockflow.launch.handover`). The worker connects to the
driver by itself, and ends by itself when there are no more blocks, when it is told to go, or when its run is gone.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from blockflow.escaping import escape
from blockflow.launch.handover import read_handover
from blockflow.worker import be_worker

if TYPE_CHECKING:
    from collections.abc import Mapping

MARGIN = 5.0
"""Seconds that are left for leaving, before the end of the job."""


class Timing(NamedTuple):
    """What a worker in a job has to know about time, in seconds."""

    limit: float | None
    """How long the job may run; None if nobody has said it."""
    notice: float
    """How long before that the cluster tells it to go."""
    patience: float
    """How long it has when it is told to go at any other time."""


def grace_of(timing: Timing, end: float | None, now: float) -> float:
    """How long a worker that is told to go may take to finish its block, in seconds.

    If the end of the job is near, that is the reason, and there is time until then; else it is preempted.

    >>> grace_of(Timing(limit=None, notice=90, patience=25), 1100.0, 1000.0)
    95.0
    >>> grace_of(Timing(limit=None, notice=90, patience=25), 9999.0, 1000.0)
    25

    Args:
        timing: What is known about time.
        end: When the time of the job is up, as seconds of the Unix epoch; None if nobody knows.
        now: The time.
    """
    left = 0.0 if end is None else end - now
    is_limit = 0 < left <= timing.notice + 70  # Slurm may be a minute early
    return max(left - MARGIN, 0.0) if is_limit else timing.patience


def end_of(timing: Timing, environment: Mapping[str, str], started: float) -> float | None:
    """When the time of a job is up, as seconds of the Unix epoch; None if nobody knows.

    >>> end_of(Timing(limit=600, notice=0, patience=25), {}, 1000.0)
    1600.0

    Args:
        timing: What is known about time.
        environment: That of the job; newer versions of Slurm say it there.
        started: When its worker started, a moment after the job.
    """
    said = environment.get("SLURM_JOB_END_TIME", "")
    if said.isdecimal():
        return float(said)
    return None if timing.limit is None else started + timing.limit


def main(arguments: list[str]) -> int:
    """Be a worker; returns the exit code.

    Args:
        arguments: The file, and the index of this worker in it.
    """
    path, index = arguments[0], int(arguments[1])
    try:
        payload = read_handover(path, index)
    except FileNotFoundError:
        sys.stderr.write(
            f"blockflow: {socket.gethostname()} sees no file {path}: the run is over, or this node does not see the "
            "directory in which it was started; then start it in one that all nodes share\n"
        )
        return 0 if os.path.isdir(os.path.dirname(path)) else 1
    except (OSError, pickle.UnpicklingError, EOFError, IndexError) as error:
        sys.stderr.write(f"blockflow: {path} does not say what worker {index} has to do: {escape(str(error))}\n")
        return 1
    return be_worker(_settled(payload))


def _settled(payload: dict[str, Any]) -> dict[str, Any]:
    """A payload that fits this job: its own interpreter's places of modules, and its own time."""
    own = [place for place in sys.path if place not in payload["path"]]

    timing = Timing(*payload["timing"])
    end = end_of(timing, os.environ, time.time())

    def grace() -> float:
        return grace_of(timing, end, time.time())

    return {**payload, "path": [*payload["path"], *own], "grace": grace}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
