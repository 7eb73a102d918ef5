"""How is Slurm asked to run workers? One call submits many, one call looks at all, one call ends all."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from blockflow.launch import slurm_script as text
from blockflow.launch.interpreter import path_of_package
from blockflow.launch.launchers import Slurm
from blockflow.launch.queue import Member, Seen, Silence, Submission
from blockflow.launch.shell import Answer, call

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


_MOST_AT_ONCE = 500
"""Ids in one command line."""


class SlurmSystem:
    """The commands of Slurm."""

    name = "Slurm"

    def submit(self, submission: Submission) -> str:
        """Submit jobs; returns the id they have in common.

        Raises:
            Silence: Slurm does not answer; the jobs may have been taken all the same.
            Full: Slurm takes no more jobs at the moment.
            Rejected: Slurm does not take such jobs.
        """
        launcher = submission.launcher
        assert isinstance(launcher, Slurm)
        words = text.sbatch_words(submission, launcher)
        script = text.sbatch_script(
            submission, launcher, python=launcher.python or sys.executable, path=path_of_package()
        )
        answer = _call(words, given=script)
        if answer.code:
            raise text.complaint(answer.err or answer.out, words=words)
        return text.parse_sbatch(answer.out)

    def look(self, jobs: Sequence[str]) -> Mapping[Member, Seen]:
        """How far jobs have come; those that are not mentioned are gone.

        Raises:
            Silence: Slurm does not answer.
        """
        seen: dict[Member, Seen] = {}
        for first in range(0, len(jobs), _MOST_AT_ONCE):
            answer = _call(text.squeue_words(jobs[first : first + _MOST_AT_ONCE]))
            if answer.code and not text.is_unknown_job(answer.err):
                raise Silence(f"squeue says: {answer.err.strip()}")
            seen.update(text.parse_squeue(answer.out))
        return seen

    def cancel(self, jobs: Collection[str | Member], *, waiting: bool = False, kill: bool = False) -> None:
        """End jobs, or single members of arrays.

        Args:
            jobs: Which ones.
            waiting: Only those that have not begun.
            kill: At once, without a warning.

        Raises:
            Silence: Slurm does not answer.
        """
        chosen = list(jobs)
        for first in range(0, len(chosen), _MOST_AT_ONCE):
            words = text.scancel_words(chosen[first : first + _MOST_AT_ONCE], waiting=waiting, kill=kill)
            answer = _call(words)
            # Jobs that have ended already, or are about to, make it fail as well: that is no complaint.
            if answer.code and isinstance(complaint := text.complaint(answer.err, words=words), Silence):
                raise complaint

    def strays(self, run: str, known: Collection[str]) -> list[str]:
        """Ids of jobs of a run that nobody has heard of, because the answer to their submission was lost.

        Raises:
            Silence: Slurm does not answer.
        """
        answer = _call(text.strays_words())
        if answer.code:
            raise Silence(f"squeue says: {answer.err.strip()}")
        return text.parse_strays(answer.out, run, known)


def _call(words: Sequence[str], *, given: str = "") -> Answer:
    """Run a command of Slurm as if this process were in no job: what a driver in a job has got is not for others."""
    inherited = tuple(name for name in os.environ if name.startswith("SLURM_") and name not in _KEPT)
    return call(words, given=given, without=(*inherited, "SQUEUE_", "SCANCEL_"))


_KEPT = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT", "SLURM_CONF_SERVER")
