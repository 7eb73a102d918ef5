"""How is a batch system asked to run workers? One call submits many, one call looks at all, one call ends all.

What is said and what is answered is the business of a dialect, a module without side effects; here the commands are
run.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

from blockflow.launch.interpreter import path_of_package
from blockflow.launch.queue import Full, Rejected, Silence, marked_jobs
from blockflow.launch.shell import Answer, call

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from blockflow.launch.queue import Member, Seen, Submission

_MOST_AT_ONCE = 500
"""Ids in one command line."""


class Dialect(Protocol):
    """What is said to a batch system, and what its answers mean; implemented by modules."""

    NAME: str
    """What people call it."""

    def submit_words(self, submission: Submission) -> list[str]:
        """The command that submits jobs; the script comes on its standard input."""

    def submit_script(self, submission: Submission, *, python: str, path: str | None) -> str:
        """The script of the jobs."""

    def look_words(self, jobs: Sequence[str]) -> list[str]:
        """The command that asks how far jobs have come."""

    def cancel_words(self, jobs: Collection[str | Member], *, waiting: bool, kill: bool) -> list[str]:
        """The command that ends jobs."""

    def strays_words(self) -> list[str]:
        """The command that asks for all jobs of this user, as lines of ``id|mark``."""

    def parse_submitted(self, text: str) -> str:
        """The id of what was submitted."""

    def parse_looked(self, text: str) -> dict[Member, Seen]:
        """How far jobs have come."""

    def is_unknown_job(self, said: str) -> bool:
        """Whether a complaint means that there are no such jobs."""

    def is_of_a_job(self, variable: str) -> bool:
        """Whether an environment variable is about the job in which a driver runs."""

    def complaint(self, said: str, *, words: Sequence[str]) -> Silence | Full | Rejected:
        """What a failed command means."""


class CommandLine:
    """A batch system that is spoken to by commands.

    Args:
        dialect: What is said to it.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self.name = dialect.NAME

    def submit(self, submission: Submission) -> str:
        """Submit jobs; returns the id they have in common.

        Raises:
            Silence: It does not answer; the jobs may have been taken all the same.
            Full: It takes no more jobs at the moment.
            Rejected: It does not take such jobs.
        """
        words = self._dialect.submit_words(submission)
        python = submission.launcher.python or sys.executable
        script = self._dialect.submit_script(submission, python=python, path=path_of_package())
        answer = self._call(words, given=script)
        if answer.code:
            raise self._dialect.complaint(answer.err or answer.out, words=words)
        return self._dialect.parse_submitted(answer.out)

    def look(self, jobs: Sequence[str]) -> Mapping[Member, Seen]:
        """How far jobs have come; those that are not mentioned are gone.

        Raises:
            Silence: It does not answer.
        """
        seen: dict[Member, Seen] = {}
        for first in range(0, len(jobs), _MOST_AT_ONCE):
            seen.update(self._dialect.parse_looked(self._ask(self._dialect.look_words(jobs[first:][:_MOST_AT_ONCE]))))
        return seen

    def cancel(self, jobs: Collection[str | Member], *, waiting: bool = False, kill: bool = False) -> None:
        """End jobs, or single members of arrays.

        Args:
            jobs: Which ones.
            waiting: Only those that have not begun.
            kill: At once, without a warning.

        Raises:
            Silence: It does not answer.
        """
        chosen = list(jobs)
        for first in range(0, len(chosen), _MOST_AT_ONCE):
            words = self._dialect.cancel_words(chosen[first:][:_MOST_AT_ONCE], waiting=waiting, kill=kill)
            answer = self._call(words)
            # Jobs that have ended already, or are about to, make it fail as well: that is no complaint.
            complaint = self._dialect.complaint(answer.err or answer.out, words=words)
            if answer.code and isinstance(complaint, Silence):
                raise complaint

    def strays(self, run: str, known: Collection[str]) -> list[str]:
        """Ids of jobs of a run that nobody has heard of, because the answer to their submission was lost.

        Raises:
            Silence: It does not answer.
        """
        return marked_jobs(self._ask(self._dialect.strays_words()), run, known)

    def _ask(self, words: Sequence[str]) -> str:
        answer = self._call(words)
        if answer.code and not self._dialect.is_unknown_job(answer.err):
            raise Silence(f"{words[0]} says: {answer.err.strip()}")
        return answer.out

    def _call(self, words: Sequence[str], *, given: str = "") -> Answer:
        """Run a command as if this process were in no job: what a driver in a job has got is not for others."""
        return call(words, given=given, without=self._dialect.is_of_a_job)
