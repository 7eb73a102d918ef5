"""Which fleet starts the workers of which launcher? One of each kind for a run, made when it is first needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockflow.launch.launchers import Slurm

if TYPE_CHECKING:
    from pathlib import Path

    from blockflow.launch.base import Fleet
    from blockflow.plan.launcher import Launcher


def notice_of(launcher: Launcher) -> int:
    """Seconds before the end of its time at which a cluster tells a worker to go; 0 if it does not."""
    if isinstance(launcher, Slurm):
        from blockflow.launch.slurm_script import notice_of as slurm_notice

        return slurm_notice(launcher)
    return 0


def make_fleet(launcher: Launcher, *, directory: Path, run: str) -> Fleet:
    """A fleet for all launchers of one kind.

    Args:
        launcher: One of them.
        directory: Private directory of the run's files.
        run: Id of the run.
    """
    match launcher:
        case Slurm():
            from blockflow.launch.batch import BatchFleet
            from blockflow.launch.slurm import SlurmSystem

            return BatchFleet(SlurmSystem(), directory=directory, run=run)
        case _:
            raise AssertionError(f"{launcher!r} has no fleet")
