"""Which fleet starts the workers of which launcher? One of each kind for a run, made when it is first needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockflow.launch.job import Timing
from blockflow.launch.launchers import LSF, Command, Dask, Slurm
from blockflow.launch.limits import seconds

if TYPE_CHECKING:
    from pathlib import Path

    from blockflow.launch.base import Fleet
    from blockflow.launch.queue import BatchSystem
    from blockflow.plan.launcher import Launcher


USUAL_PATIENCE = 25.0
"""Seconds that a worker has which is told to go: Kubernetes and most others kill it 30 s later."""


def timing_of(launcher: Launcher | None) -> Timing:
    """What a worker has to know about time; None for one that somebody starts by hand."""
    match launcher:
        case Slurm():
            from blockflow.launch import slurm_script

            notice, patience = slurm_script.notice_of(launcher), slurm_script.PATIENCE
        case LSF():
            from blockflow.launch import lsf_script

            notice, patience = lsf_script.notice_of(launcher), lsf_script.PATIENCE
        case _:
            return Timing(limit=None, notice=0, patience=USUAL_PATIENCE)
    limit = None if launcher.time is None else seconds(launcher.time)
    return Timing(limit=limit, notice=notice, patience=patience)


def make_fleet(launcher: Launcher, *, directory: Path, run: str) -> Fleet:
    """A fleet for all launchers of one kind.

    Args:
        launcher: One of them.
        directory: Private directory of the run's files.
        run: Id of the run.
    """
    match launcher:
        case Slurm() | LSF():
            from blockflow.launch.batch import BatchFleet

            name = "Slurm" if isinstance(launcher, Slurm) else "LSF"
            return BatchFleet(batch_system(name), directory=directory, run=run)
        case Command():
            from blockflow.launch.command import CommandFleet

            return CommandFleet(directory=directory, run=run)
        case Dask():
            from blockflow.launch.dask import DaskFleet

            return DaskFleet(directory=directory, run=run)
        case _:
            raise AssertionError(f"{launcher!r} has no fleet")


def batch_system(name: str) -> BatchSystem:
    """A batch system by its name.

    Raises:
        KeyError: There is none of that name.
    """
    from blockflow.launch import lsf_script, slurm_script
    from blockflow.launch.dialects import CommandLine

    return {"Slurm": CommandLine(slurm_script), "LSF": CommandLine(lsf_script)}[name]
