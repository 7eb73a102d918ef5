"""Where do workers come from? Launchers as values.

Each says what to ask for, is checked when it is made, and does nothing by itself: the run that uses it starts the
workers, watches them and ends them. ``Task(..., launcher=Slurm(workers=50, memory="32G"))`` is all there is to write;
a list of launchers gives one task several pools.
"""

from __future__ import annotations

import re
from dataclasses import KW_ONLY, dataclass
from math import inf
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from blockflow.errors import PlanError
from blockflow.launch.limits import mebibytes, seconds
from blockflow.plan.launcher import Launcher

if TYPE_CHECKING:
    from datetime import timedelta

_GPUS = re.compile(r"(?:([\w.-]+):)?(\d+)")

_OURS = ("--array", "-a", "--parsable", "--wait", "-W", "--wrap", "--test-only")
"""Options of sbatch that would take the jobs out of our hands."""

_OURS_IN_LSF = ("-J", "-K", "-I", "-Ip", "-Is")


@dataclass(frozen=True, slots=True)
class Local(Launcher):
    """Processes of the driver's own machine; ``num_workers=8`` is short for ``launcher=Local(8)``.

    >>> from blockflow import Local
    >>> Local(8)
    Local(workers=8)

    Raises:
        PlanError: `workers` is not a whole number of at least 1.
    """

    workers: int | None = None
    """Greatest number of processes; None for the task's `num_workers`."""
    local = True

    def __post_init__(self) -> None:
        _check_workers(self)


@dataclass(frozen=True, slots=True)
class Batch(Launcher):
    """What the launchers of all batch systems have in common: jobs in a queue, one worker in each."""

    workers: int | None = None
    """Greatest number of jobs, waiting or running; None for the task's `num_workers`."""
    _: KW_ONLY
    gpus: int | str = 0
    """GPUs of each worker: a number, or with the type, as in ``"a100:1"``."""
    cpus: int = 1
    """CPUs of each worker."""
    memory: str | None = None
    """Memory of each worker, such as ``"32G"``; None for what the cluster gives by default."""
    time: str | timedelta | None = None
    """How long a job may run, such as ``"8:00:00"``; jobs that end there are replaced while there is work."""
    array: bool = True
    """Submit jobs as arrays: one call for all."""
    max_jobs: int | None = None
    """Greatest number of jobs that run at once; the others wait in the queue."""
    setup: str = ""
    """Shell commands to run in each job before the worker, such as ``"module load cuda"``."""
    python: str | None = None
    """The interpreter; by default the driver's own, by its path."""
    extra: tuple[str, ...] | list[str] = ()
    """More words for the command that submits, such as ``["--constraint=zen4"]``."""
    poll: float = 10.0
    """Seconds between two looks at the queue when nothing changes: so late a lost job is noticed at most."""

    def __post_init__(self) -> None:
        _check_workers(self)
        _check_job(self)


@dataclass(frozen=True, slots=True)
class Slurm(Batch):
    """Jobs on a Slurm cluster, one worker in each.

    >>> from blockflow import Slurm
    >>> Slurm(50, partition="gpu", gpus="a100:1", cpus=4, memory="32G", time="8:00:00").workers
    50

    Raises:
        PlanError: An argument that cannot be right.
    """

    _: KW_ONLY
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    notice: int | None = None
    """Seconds before the time limit at which workers are told to finish. By default 60 if `time` is 10 minutes or
    more; else only the time that the cluster leaves between SIGTERM and SIGKILL."""
    step: bool = True
    """Start the worker with ``srun``, so that it is told early when its job is preempted."""

    def __post_init__(self) -> None:
        Batch.__post_init__(self)
        _check_words(self, "partition", "account", "qos")
        _check_flags(self, "step")
        _check_extra(self, _OURS)
        if self.notice is not None:
            _check_count(self, "notice", 0)


@dataclass(frozen=True, slots=True)
class LSF(Batch):
    """Jobs on an LSF cluster, one worker in each.

    Made after IBM's documentation, and tested with stand-ins for its commands: no real LSF has run it.

    >>> from blockflow import LSF
    >>> LSF(50, queue="gpu", gpus=1, memory="32G", time="8:00:00").workers
    50

    Raises:
        PlanError: An argument that cannot be right.
    """

    _: KW_ONLY
    queue: str | None = None
    project: str | None = None

    def __post_init__(self) -> None:
        Batch.__post_init__(self)
        _check_words(self, "queue", "project")
        _check_extra(self, _OURS_IN_LSF)


@dataclass(frozen=True, slots=True)
class Command(Launcher):
    """Processes that a command of yours starts, one worker in each: on other machines by ssh, in containers.

    In the command, ``{command}`` stands for the worker's whole command line as one word, for programs that hand it to
    a shell (``ssh node {command}``, ``sh -c {command}``); ``{arguments}`` stands for its words, for programs that do
    not (``nice {arguments}``). The command must last as long as the worker.

    >>> from blockflow import Command
    >>> Command("ssh node {command}", workers=4).workers
    4

    Raises:
        PlanError: An argument that cannot be right.
    """

    command: str
    workers: int | None = None
    """Greatest number of processes; None for the task's `num_workers`."""
    _: KW_ONLY
    python: str | None = None
    """The interpreter; by default the driver's own, by its path."""

    def __post_init__(self) -> None:
        _check_workers(self)
        command: Any = self.command
        if not isinstance(command, str) or not {"{command}", "{arguments}"} & set(command.split()):
            raise PlanError(
                "Command: the command must have {command} or {arguments} as a word of its own, where the worker's "
                f"command line belongs, as in 'ssh node {{command}}', got {command!r}"
            )


@dataclass(frozen=True, slots=True)
class Dask(Launcher):
    """Long-running tasks on a dask.distributed cluster that exists: Kubernetes, clouds, YARN, whatever it reaches.

    Each worker occupies one thread of a dask worker, and runs in a process of its own beside it.

    Raises:
        PlanError: An argument that cannot be right.
    """

    client: Any
    """A ``distributed.Client``."""
    workers: int | None = None
    """Greatest number of workers; None for the task's `num_workers`."""
    _: KW_ONLY
    resources: dict[str, float] | None = None
    """What each worker needs, in the words of the dask cluster, such as ``{"GPU": 1}``."""

    def __post_init__(self) -> None:
        _check_workers(self)
        if not all(hasattr(self.client, name) for name in ("submit", "scheduler_info", "cancel")):
            raise PlanError(f"Dask: client must be a distributed.Client, got {self.client!r}")


def _check_workers(launcher: Launcher) -> None:
    if launcher.workers is not None:
        _check_count(launcher, "workers", 1)


def _check_count(launcher: Launcher, name: str, least: int) -> None:
    value = getattr(launcher, name)
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise PlanError(f"{type(launcher).__name__}: {name} must be a whole number >= {least}, got {value!r}")
    object.__setattr__(launcher, name, int(value))


def _check_words(launcher: Launcher, *names: str) -> None:
    for name in names:
        value = getattr(launcher, name)
        if value is not None and not (isinstance(value, str) and value.strip() and value.isprintable()):
            raise PlanError(f"{type(launcher).__name__}: {name} must be a name, got {value!r}")


def _check_flags(launcher: Launcher, *names: str) -> None:
    for name in names:
        value = getattr(launcher, name)
        if value not in (True, False):
            raise PlanError(f"{type(launcher).__name__}: {name} must be True or False, got {value!r}")


def _check_job(launcher: Batch) -> None:
    kind = type(launcher).__name__
    _check_count(launcher, "cpus", 1)
    _check_flags(launcher, "array")
    _check_words(launcher, "python")
    if launcher.max_jobs is not None:
        _check_count(launcher, "max_jobs", 1)
    if isinstance(launcher.gpus, str):
        if not _GPUS.fullmatch(launcher.gpus):
            raise PlanError(f"{kind}: gpus must be a number, or 'type:number' such as 'a100:1', got {launcher.gpus!r}")
    else:
        _check_count(launcher, "gpus", 0)
    try:
        if launcher.memory is not None:
            mebibytes(launcher.memory)
        if launcher.time is not None:
            seconds(launcher.time)
    except PlanError as error:
        raise PlanError(f"{kind}: {error}") from None
    poll: Any = launcher.poll
    if isinstance(poll, bool) or not isinstance(poll, Real) or not 0 < float(poll) < inf:
        raise PlanError(f"{kind}: poll must be a number of seconds > 0, got {poll!r}")
    setup: Any = launcher.setup
    if not isinstance(setup, str) or "\0" in setup:
        raise PlanError(f"{kind}: setup must be shell commands, got {setup!r}")


def _check_extra(launcher: Batch, ours: tuple[str, ...]) -> None:
    """Check that more options leave the jobs in our hands; and keep them as a tuple."""
    kind = type(launcher).__name__
    extra: Any = launcher.extra
    if not isinstance(extra, list | tuple) or not all(isinstance(word, str) for word in extra):
        raise PlanError(f"{kind}: extra must be a list of words, such as ['--exclusive'], got {extra!r}")
    for word in extra:
        if word.partition("=")[0] in ours:
            raise PlanError(f"{kind}: extra must not have {word!r}, which blockflow sets itself, or needs unset")
    object.__setattr__(launcher, "extra", tuple(extra))
