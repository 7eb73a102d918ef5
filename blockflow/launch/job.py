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
from typing import TYPE_CHECKING, Any

from blockflow.launch.handover import read_handover
from blockflow.worker import be_worker

if TYPE_CHECKING:
    from collections.abc import Mapping

MARGIN = 5.0
"""Seconds that are left for leaving, before the end of the job."""


def grace_of(environment: Mapping[str, str], now: float, *, notice: float, patience: float) -> float:
    """How long a worker that is told to go may take to finish its block, in seconds.

    If the job's time limit is near, that is the reason, and there is time until then; else it is preempted.

    >>> grace_of({"SLURM_JOB_END_TIME": "1100"}, 1000.0, notice=90, patience=25)
    95.0
    >>> grace_of({"SLURM_JOB_END_TIME": "9999"}, 1000.0, notice=90, patience=25)
    25

    Args:
        environment: That of the job.
        now: The time, as seconds of the Unix epoch.
        notice: Seconds before the time limit at which the cluster warns.
        patience: Seconds between SIGTERM and SIGKILL, if it is not about the time limit.
    """
    end = environment.get("SLURM_JOB_END_TIME", "")
    left = float(end) - now if end.isdecimal() else 0.0
    is_limit = 0 < left <= notice + 70  # Slurm may be a minute early
    return max(left - MARGIN, 0.0) if is_limit else patience


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
        sys.stderr.write(f"blockflow: {path} does not say what worker {index} has to do: {error}\n")
        return 1
    return be_worker(_settled(payload))


def _settled(payload: dict[str, Any]) -> dict[str, Any]:
    """A payload that fits this job: its own interpreter's places of modules, and its own time."""
    own = [place for place in sys.path if place not in payload["path"]]

    def grace() -> float:
        return grace_of(os.environ, time.time(), notice=payload["notice"], patience=payload["patience"])

    return {**payload, "path": [*payload["path"], *own], "grace": grace}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
