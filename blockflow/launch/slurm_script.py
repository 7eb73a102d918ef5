"""What is said to Slurm, and what does it answer? Text in both directions; nothing is run here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from blockflow.launch.launchers import Slurm
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
"""Seconds. Slurm sends the signal before the time limit up to a minute early: a short job would get it at its start."""
USUAL_NOTICE = 60

NAME = "Slurm"

PATIENCE = 25.0
"""Seconds that a worker has which is told to go: Slurm kills it 30 s later (KillWait)."""

_FORMAT = "%F|%K|%T|%r"
"""Id of the array, index in it, state, reason."""

_WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
_RUNNING = {"RUNNING", "COMPLETING", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED"}
_EVICTED = {"BOOT_FAIL", "PREEMPTED"}
_LOST = {"NODE_FAIL", "REVOKED"}

_KEPT = {"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT"}

_SILENT = (
    "unable to contact slurm controller",
    "socket timed out",
    "connection refused",
    "communication connection failure",
    "transport endpoint is not connected",
    "zero bytes were transmitted or received",
    "slurm backup controller in standby",
    "unexpected message received",
    "protocol authentication error",
)
_FULL = (
    "resource temporarily unavailable",
    "temporarily unable to accept job",
    "job violates accounting/qos policy",
    "submitjobsperuserlimit",
    "maxsubmit",
    "maximum job count",
    "too many requests",
)


def notice_of(launcher: Slurm) -> int:
    """Seconds before the time limit at which Slurm tells the workers; 0 for not at all."""
    if launcher.notice is not None:
        return launcher.notice
    return USUAL_NOTICE if launcher.time is not None and seconds(launcher.time) >= SHORTEST_TO_NOTIFY else 0


def submit_words(submission: Submission) -> list[str]:
    """The command that submits jobs; the script comes on its standard input.

    Options are words of the command, not comments of the script, where Slurm has rules of its own for quotes.
    """
    launcher = _launcher(submission)
    words = [
        "sbatch",
        "--parsable",
        f"--job-name={submission.task}",
        f"--comment={mark_of(submission.run)}",
        f"--output={_pattern(submission.output)}-%A_%a.log"
        if launcher.array
        else f"--output={_pattern(submission.output)}-%j.log",
        "--open-mode=append",
        "--no-requeue",  # lost jobs are replaced; a requeued one may meet itself, on a node that was cut off
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={launcher.cpus}",
    ]
    if launcher.array:
        throttle = "" if submission.throttle is None else f"%{submission.throttle}"
        words.append(f"--array=0-{submission.count - 1}{throttle}")
    for name in ("partition", "account", "qos"):
        value = getattr(launcher, name)
        if value is not None:
            words.append(f"--{name}={value}")
    if launcher.gpus:
        words.append(f"--gres=gpu:{launcher.gpus}")
    if launcher.memory is not None:
        words.append(f"--mem={mebibytes(launcher.memory)}M")
    if launcher.time is not None:
        words.append(f"--time={seconds(launcher.time) // 60}")
    if notice := notice_of(launcher):
        words.append(f"--signal={'' if launcher.step else 'B:'}TERM@{notice}")
    return [*words, *launcher.extra]


def submit_script(submission: Submission, *, python: str, path: str | None) -> str:
    """The script of the jobs.

    Args:
        submission: What is to be done.
        python: The interpreter.
        path: Directory where the worker finds blockflow; None if its interpreter does by itself.
    """
    launcher = _launcher(submission)
    words = worker_words(python, submission.payload)
    if launcher.step:
        words = ["srun", "--ntasks=1", f"--cpus-per-task={launcher.cpus}", *words]
    index = '"$SLURM_ARRAY_TASK_ID"' if launcher.array else "0"
    about = f"workers of blockflow run {submission.run}, task {submission.task!r}"
    return worker_script(words, index, about=about, setup=launcher.setup, path=path)


def look_words(jobs: Sequence[str]) -> list[str]:
    """The command that asks how far jobs have come."""
    return ["squeue", "--noheader", "--array", "--states=all", f"--format={_FORMAT}", f"--jobs={','.join(jobs)}"]


def strays_words() -> list[str]:
    """The command that asks for all jobs of this user, with their comments."""
    return ["squeue", "--noheader", "--me", "--format=%F|%k"]


def cancel_words(jobs: Collection[str | Member], *, waiting: bool, kill: bool) -> list[str]:
    """The command that ends jobs."""
    names = [job if isinstance(job, str) else f"{job[0]}_{job[1]}" for job in jobs]
    return [
        "scancel",
        "--quiet",
        *(["--state=PENDING"] if waiting else []),
        *(["--signal=KILL", "--full"] if kill else []),
        *names,
    ]


def parse_submitted(text: str) -> str:
    r"""The id of what was submitted; ``sbatch --parsable`` says it, and perhaps the cluster's name.

    >>> parse_submitted("4711;cluster\n")
    '4711'

    Raises:
        Silence: It says something else, so that nobody knows what has become of the jobs.
    """
    for line in text.splitlines():
        if found := re.fullmatch(r"(\d+)(?:;.*)?", line.strip()):
            return found[1]
    raise Silence(f"sbatch does not say which id the job has, but {text!r}")


def parse_looked(text: str) -> dict[Member, Seen]:
    r"""How far jobs have come.

    >>> parse_looked("12|3|FAILED|NonZeroExitCode\n12|4|RUNNING|None\n")[("12", 3)].said
    'FAILED (NonZeroExitCode)'
    """
    found: dict[Member, Seen] = {}
    whole: dict[Member, Seen] = {}
    for line in text.splitlines():
        parts = line.split("|", 3)
        if len(parts) != 4 or not parts[0].isdecimal():
            continue  # such as CLUSTER: name
        job, indices, state, reason = (part.strip() for part in parts)
        said = state if reason in ("", "None") else f"{state} ({reason})"
        seen = Seen(_phase(state), said)
        for index in _indices(indices):
            found[job, index] = seen
        if indices == "N/A":  # a job that is no array; or what was left of an array that was cancelled
            whole[job, 0] = seen
    return {**whole, **found}


def is_of_a_job(variable: str) -> bool:
    """Whether an environment variable is about the job in which a driver runs, and not for the jobs it submits.

    >>> is_of_a_job("SLURM_MEM_PER_CPU"), is_of_a_job("SLURM_CONF"), is_of_a_job("SBATCH_ACCOUNT")
    (True, False, False)
    """
    return variable.startswith(("SLURM_", "SQUEUE_", "SCANCEL_")) and variable not in _KEPT


def is_unknown_job(said: str) -> bool:
    """Whether squeue or scancel means that there are no such jobs any more."""
    return "invalid job id" in said.lower()


def complaint(said: str, *, words: Sequence[str]) -> Silence | Full | Rejected:
    """What a failed command means."""
    text = on_one_line(said)
    if passing := passing_trouble(text, full=_FULL, silent=_SILENT):
        return passing
    options = " ".join(word for word in words[1:] if not word.startswith(("--parsable", "--comment", "--output")))
    return Rejected(
        f"Slurm does not take the jobs: {text}. It was asked for {options}; change the arguments of Slurm(...) to "
        "what `sinfo` and your site's documentation offer"
    )


def _launcher(submission: Submission) -> Slurm:
    assert isinstance(submission.launcher, Slurm)
    return submission.launcher


def _pattern(path: str) -> str:
    """A path in which Slurm replaces nothing."""
    return path.replace("%", "%%")


def _phase(state: str) -> Phase:
    word = state.split()[0].rstrip("+") if state else ""
    if word in _WAITING:
        return Phase.WAITING
    if word in _RUNNING:
        return Phase.RUNNING
    if word in _EVICTED:
        return Phase.EVICTED
    if word in _LOST:
        return Phase.LOST
    return Phase.DONE if word == "COMPLETED" else Phase.FAILED


def _indices(text: str) -> list[int]:
    """Indices of an array as squeue writes them: ``3``, or ``0-4,7%2`` for those that wait."""
    found: list[int] = []
    for part in text.partition("%")[0].split(","):
        first, _, last = part.partition("-")
        if first.isdecimal():
            found += range(int(first), int(last if last.isdecimal() else first) + 1)
    return found
