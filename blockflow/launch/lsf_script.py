"""What is said to LSF, and what does it answer? Text in both directions, after IBM's documentation; nothing is run.

LSF counts the members of an array from 1, we from 0.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from blockflow.launch.launchers import LSF
from blockflow.launch.limits import mebibytes, seconds
from blockflow.launch.queue import (
    Full,
    Member,
    Phase,
    Rejected,
    Seen,
    Silence,
    mark_of,
    on_one_line,
    passing_trouble,
    worker_script,
    worker_words,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from blockflow.launch.queue import Submission

SHORTEST_TO_NOTIFY = 600
"""Seconds; of a shorter job the notice would be a large part."""
USUAL_NOTICE = 120

PATIENCE = 8.0
"""Seconds that a worker has which is told to go: LSF sends SIGINT, SIGTERM and SIGKILL 10 s apart."""

NAME = "LSF"

_WAITING = {"PEND", "PROV", "PSUSP", "WAIT"}
_RUNNING = {"RUN", "SSUSP", "USUSP"}
_LOST = {"UNKWN", "ZOMBI"}

_SILENT = (
    "lsf is down",
    "cannot connect to lsf",
    "batch daemon not responding",
    "batch library internal error",
    "communication time out",
    "failed in an lsf library call",
    "master lim is down",
    "slave lim",
    "please wait",
)
_FULL = ("pending job threshold", "job limit", "too many jobs", "retrying in")


def notice_of(launcher: LSF) -> int:
    """Seconds before the time limit at which LSF tells the workers; 0 for not at all."""
    return USUAL_NOTICE if launcher.time is not None and seconds(launcher.time) >= SHORTEST_TO_NOTIFY else 0


def submit_words(submission: Submission) -> list[str]:
    """The command that submits jobs; the script comes on its standard input."""
    launcher = _launcher(submission)
    name = re.sub(r"[^\w.-]", "_", submission.task)  # brackets, commas, % and more mean something there
    output = f"{submission.output}-%J{'_%I' if launcher.array else ''}.log"
    if "%" in submission.output:  # LSF knows no way to write one that means nothing
        output = "/dev/null"
    words = ["bsub", "-Jd", mark_of(submission.run), "-rn"]
    if launcher.array:
        throttle = "" if submission.throttle is None else f"%{submission.throttle}"
        words += ["-J", f"{name}[1-{submission.count}]{throttle}", "-o", output]
    else:
        words += ["-J", name, "-o", output]
    words += ["-n", str(launcher.cpus), "-R", "span[hosts=1]"]
    if launcher.queue is not None:
        words += ["-q", launcher.queue]
    if launcher.project is not None:
        words += ["-P", launcher.project]
    if launcher.gpus:
        kind, _, number = str(launcher.gpus).rpartition(":")
        words += ["-gpu", f"num={number}:gmodel={kind}" if kind else f"num={number}"]
    if launcher.memory is not None:
        memory = f"{mebibytes(launcher.memory)}MB"
        words += ["-M", memory, "-R", f"rusage[mem={memory}]"]
    if launcher.time is not None:
        minutes = seconds(launcher.time) // 60
        words += ["-W", f"{minutes // 60}:{minutes % 60:02}"]
        if notice := notice_of(launcher):
            words += ["-wa", "TERM", "-wt", str(notice // 60)]
    return [*words, *launcher.extra]


def submit_script(submission: Submission, *, python: str, path: str | None) -> str:
    """The script of the jobs.

    Args:
        submission: What is to be done.
        python: The interpreter.
        path: Directory where the worker finds blockflow; None if its interpreter does by itself.
    """
    launcher = _launcher(submission)
    index = '"$((LSB_JOBINDEX - 1))"' if launcher.array else "0"
    about = f"workers of blockflow run {submission.run}, task {submission.task!r}"
    words = worker_words(python, submission.payload)
    return worker_script(words, index, about=about, setup=launcher.setup, path=path)


def look_words(jobs: Sequence[str]) -> list[str]:
    """The command that asks how far jobs have come."""
    return ["bjobs", "-a", "-noheader", "-o", "jobid jobindex stat exit_reason delimiter='|'", *jobs]


def strays_words() -> list[str]:
    """The command that asks for all jobs of this user that have not ended, with their descriptions."""
    return ["bjobs", "-noheader", "-o", "jobid job_description delimiter='|'"]


def cancel_words(jobs: Collection[str | Member], *, waiting: bool, kill: bool) -> list[str]:
    """The command that ends jobs."""
    names = [job if isinstance(job, str) else f"{job[0]}[{job[1] + 1}]" for job in jobs]
    return ["bkill", *(["-stat", "pend"] if waiting else []), *(["-s", "KILL"] if kill else []), *names]


def parse_submitted(text: str) -> str:
    """The id of what was submitted.

    >>> parse_submitted("Job <930> is submitted to default queue <normal>.")
    '930'

    Raises:
        Silence: It says something else, so that nobody knows what has become of the jobs.
    """
    if found := re.search(r"Job <(\d+)> is submitted", text):
        return found[1]
    raise Silence(f"bsub does not say which id the job has, but {text!r}")


def parse_looked(text: str) -> dict[Member, Seen]:
    """How far jobs have come.

    >>> parse_looked("930|2|EXIT|TERM_RUNLIMIT: job killed after reaching LSF run time limit")[("930", 1)].phase
    <Phase.FAILED: 'failed'>
    """
    found = {}
    for line in text.splitlines():
        parts = [part.strip() for part in line.split("|", 3)]
        if len(parts) < 3 or not parts[0].isdecimal() or not parts[1].isdecimal():
            continue
        state = parts[2]
        reason = parts[3] if len(parts) == 4 and parts[3] not in ("", "-") else ""
        found[parts[0], max(int(parts[1]) - 1, 0)] = Seen(
            _phase(state, reason), f"{state} ({reason})" if reason else state
        )
    return found


def is_of_a_job(variable: str) -> bool:
    """Whether an environment variable is about the job in which a driver runs, and not for the jobs it submits.

    >>> is_of_a_job("LSB_JOBINDEX"), is_of_a_job("LSF_ENVDIR"), is_of_a_job("LSB_DEFAULTQUEUE")
    (True, False, False)
    """
    return variable.startswith(("LSB_JOB", "LSB_BATCH", "LSB_HOSTS", "LSB_MCPU", "LSB_SUB", "LSB_BJOBS_FORMAT"))


def is_unknown_job(said: str) -> bool:
    """Whether bjobs or bkill means that there are no such jobs, or none that have not ended."""
    lower = said.lower()
    return "is not found" in lower or "no unfinished job found" in lower or "no matching job found" in lower


def complaint(said: str, *, words: Sequence[str]) -> Silence | Full | Rejected:
    """What a failed command means."""
    text = on_one_line(said)
    if passing := passing_trouble(text, full=_FULL, silent=_SILENT):
        return passing
    return Rejected(
        f"LSF does not take the jobs: {text}. It was asked for {' '.join(words[1:])}; change the arguments of LSF(...) "
        "to what `bqueues` and your site's documentation offer"
    )


def _launcher(submission: Submission) -> LSF:
    assert isinstance(submission.launcher, LSF)
    return submission.launcher


def _phase(state: str, reason: str) -> Phase:
    if state in _WAITING:
        return Phase.WAITING
    if state in _RUNNING:
        return Phase.RUNNING
    if state in _LOST:
        return Phase.LOST
    if reason.startswith("TERM_PREEMPT"):
        return Phase.EVICTED
    return Phase.DONE if state == "DONE" else Phase.FAILED
