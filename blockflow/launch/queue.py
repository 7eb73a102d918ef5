"""What does a batch system do for us, and what does it say about jobs? The same words for Slurm and LSF.

A job that was submitted is known by the batch system's id and, as one of an array, by an index, counted from 0 here.
A batch system that does not answer says nothing about its jobs: that is :class:`Silence`, never the end of a job.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol, TypeAlias

from blockflow.errors import BlockflowError, RunError
from blockflow.escaping import escape_line

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from blockflow.launch.launchers import Batch

Member: TypeAlias = tuple[str, int]
"""Id of a job, and index in its array; 0 if it is none."""


class Silence(BlockflowError):
    """The batch system does not answer; the jobs may be as they were."""


class Full(BlockflowError):
    """The batch system takes no more jobs at the moment."""


class Rejected(RunError):
    """The batch system does not take such jobs."""


class Phase(Enum):
    """How far a job has come."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    """It ended by itself and without an error."""
    FAILED = "failed"
    """It ended in another way."""
    EVICTED = "evicted"
    """It was ended for others, or its node did not start."""
    LOST = "lost"
    """Its node is not heard of; the job may run on there for a while."""


ENDED = (Phase.DONE, Phase.FAILED, Phase.EVICTED, Phase.LOST)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the batch system says of a job."""

    phase: Phase
    said: str
    """State and reason in its own words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """Jobs that differ in their index only."""

    launcher: Batch
    """What to ask for."""
    run: str
    """Id of the run."""
    task: str
    """Id of the task."""
    payload: str
    """Path of the file that says what to do."""
    output: str
    """What the jobs print before their workers take over goes to this path; the id is added."""
    count: int
    throttle: int | None
    """Jobs that may run at once."""


class BatchSystem(Protocol):
    """The commands of a batch system."""

    name: str
    """What people call it."""

    def submit(self, submission: Submission) -> str:
        """Submit jobs; returns the id they have in common.

        Raises:
            Silence: It does not answer; the jobs may have been taken all the same.
            Full: It takes no more jobs at the moment.
            Rejected: It does not take such jobs.
        """

    def look(self, jobs: Sequence[str]) -> Mapping[Member, Seen]:
        """How far jobs have come; those that are not mentioned are gone.

        Raises:
            Silence: It does not answer.
        """

    def cancel(self, jobs: Collection[str | Member], *, waiting: bool = False, kill: bool = False) -> None:
        """End jobs, or single members of arrays; those that have ended already do not matter.

        Args:
            jobs: Which ones.
            waiting: Only those that have not begun.
            kill: At once, without a warning.

        Raises:
            Silence: It does not answer.
        """

    def strays(self, run: str, known: Collection[str]) -> list[str]:
        """Ids of jobs of a run that nobody has heard of, because the answer to their submission was lost.

        Raises:
            Silence: It does not answer.
        """


def mark_of(run: str) -> str:
    """What shows that a job belongs to a run.

    >>> mark_of("4f2a")
    'blockflow run 4f2a'
    """
    return f"blockflow run {run}"


def marked_jobs(text: str, run: str, known: Collection[str]) -> list[str]:
    r"""Ids of jobs that carry the mark of a run, and are not known.

    Args:
        text: Lines of ``id|mark``, among others.
        run: Id of the run.
        known: Ids of its jobs that are known.

    >>> marked_jobs("12|blockflow run 4f2a\n13|other\n14|blockflow run 4f2a\n", "4f2a", ["14"])
    ['12']
    """
    rows = (line.strip().split("|", 1) for line in text.splitlines())
    return sorted({row[0] for row in rows if len(row) == 2 and row[1] == mark_of(run) and row[0] not in known})


def on_one_line(said: str) -> str:
    r"""What a command has said, for a message.

    >>> on_one_line("error: no\n such thing\n")
    'error: no / such thing'
    """
    return " / ".join(escape_line(line.strip()) for line in said.splitlines() if line.strip()) or "no word"


def passing_trouble(said: str, *, full: Collection[str], silent: Collection[str]) -> Full | Silence | None:
    """What a complaint means if it may be another one a while later.

    Args:
        said: The complaint.
        full: Lower-case words that mean that no more jobs are taken for now.
        silent: Those that mean that the batch system did not answer.
    """
    lower = said.lower()
    if any(words in lower for words in full):
        return Full(said)
    return Silence(said) if any(words in lower for words in silent) else None


def worker_words(python: str, payload: str) -> list[str]:
    """The command line of a worker, up to its index."""
    # -P: a socket.py in the working directory must not stand in for Python's own.
    return [python, "-P", "-m", "blockflow.launch.job", payload]


def worker_script(words: Sequence[str], index: str, *, about: str, setup: str, path: str | None) -> str:
    """The shell script of a job.

    Args:
        words: The worker's command line up to its index.
        index: Shell expression of the index in the array.
        about: What it is, for people who read it.
        setup: The user's shell commands.
        path: Directory where the worker finds blockflow; None if its interpreter does by itself.

    >>> print(worker_script(["python", "a b"], "0", about="a worker", setup="module load x", path=None))
    #!/bin/bash
    # a worker
    module load x
    exec python 'a b' 0
    <BLANKLINE>
    """
    lines = ["#!/bin/bash", f"# {about}"]
    if setup.strip():
        lines.append(setup.rstrip("\n"))
    if path is not None:
        lines.append(f'export PYTHONPATH={shlex.quote(path)}"${{PYTHONPATH:+:$PYTHONPATH}}"')
    lines.append(f"exec {shlex.join(words)} {index}")
    return "\n".join(lines) + "\n"
