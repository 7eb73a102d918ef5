"""The command line: what can be done without writing Python?

Each command is a function that takes the parsed arguments and returns the exit code, and a few lines in
:func:`_parser` that say what its arguments are. Commands import what they need when they run.

Exit codes: 0 all is well; 1 the work was done and is not right; 2 it was not begun, as something asked for cannot be;
130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from blockflow import __version__
from blockflow.errors import ArrayError, BlockflowError, RunError
from blockflow.escaping import escape
from blockflow.optional import not_installed
from blockflow.paths import local_path

DONE, WRONG, REFUSED, INTERRUPTED = 0, 1, 2, 130


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Arguments without the program's name; those of this process if None.

    Returns:
        The exit code.

    >>> main([])
    usage: blockflow [-h] [--version] command ...
    ...
    2
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.run is None:
        parser.print_help()
        return REFUSED
    try:
        code: int = arguments.run(arguments)
    except KeyboardInterrupt:
        _complain("interrupted")
        return INTERRUPTED
    except BlockflowError as error:
        _complain(str(error))
        return WRONG if isinstance(error, RunError) else REFUSED
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="blockflow", description="Process volumes of terabytes block by block.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"blockflow {__version__}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="command")

    demo = commands.add_parser(
        "demo",
        help="smooth and segment a picture block by block, check the result, and draw it",
        description="Smooth and segment a picture in worker processes, compare the result with that of the whole "
        "picture at once, and draw it all. The exit code is 0 only if both are the same.",
    )
    demo.add_argument(
        "picture",
        nargs="?",
        help="an image file (PNG, TIFF, ...), a .npy file, or an array in a zarr store (x.zarr/raw); by default the "
        "picture of an astronaut that comes with scikit-image",
    )
    demo.add_argument("--output", type=_path, default=Path("blockflow_demo"), help="folder for results (%(default)s)")
    demo.add_argument(
        "--workers", type=_count, default=min(4, os.cpu_count() or 1), help="processes per task (%(default)s)"
    )
    demo.set_defaults(run=_demo)

    plan = commands.add_parser(
        "plan",
        help="say what the tasks of a script would do, without running them",
        description="Say of each task how many blocks it has, how many of these run at once, which bytes move, and "
        "whether blocks would write into one chunk at once. The script is executed up to where it would run tasks; no "
        "block is. The exit code is 0 only if all tasks could run.",
    )
    plan.add_argument(
        "target",
        metavar="FILE.py[:name]",
        help="a script, or a module as package.module; its tasks are those at its top level or those it runs, or else "
        "name a task, a list of tasks, or a function that returns them",
    )
    plan.set_defaults(run=_plan)

    verify = commands.add_parser(
        "verify",
        help="find blocks of a run whose results are missing or cannot be read, and put them back",
        description="List the chunks of all outputs of a run, and say which of those are missing that blocks have "
        "stored. The exit code is 0 only if nothing is missing or unreadable.",
    )
    verify.add_argument("run_dir", metavar="RUN", type=_path, help="the run directory")
    verify.add_argument("--requeue", action="store_true", help="put such blocks back: the run does them again")
    verify.add_argument("--read", action="store_true", help="read every chunk as well")
    verify.add_argument(
        "--take-over", action="store_true", help="the driver that seems to be at work there is certainly dead"
    )
    verify.set_defaults(run=_verify)
    _add_run_commands(commands)
    return parser


def _add_run_commands(commands: Any) -> None:
    """The commands for runs that go on."""
    where = "the run directory, the directory where the run was started, or its connection file"
    worker = commands.add_parser(
        "worker",
        help="start workers of a run, on any machine that sees its directory, or is invited",
        description="Start workers for a task of a run that listens on the network (host=), and wait for their end. "
        "They take part like those that the run has started. Ctrl-C lets them finish their blocks.",
    )
    worker.add_argument(
        "place",
        metavar="RUN",
        type=_path,
        nargs="?",
        help=f"{where}; by default the run of the invitation in the environment (see `blockflow invite`)",
    )
    worker.add_argument("--task", help="id of the task; needed if the run has several")
    worker.add_argument("--count", type=_count, default=1, help="number of workers (%(default)s)")
    worker.set_defaults(run=_worker)

    invite = commands.add_parser(
        "invite",
        help="print what lets a machine that does not see a run's directory start workers",
        description="Print a line for a shell of another machine, where `blockflow worker` and scripts with Client() "
        "then take part in the run. It holds the key of the run: hand it on as a secret, as in "
        "`blockflow invite RUN | ssh node '. /dev/stdin; blockflow worker'`.",
    )
    invite.add_argument("place", metavar="RUN", type=_path, help=where)
    invite.add_argument("--task", help="id of the task; needed if the run has several")
    invite.add_argument("--script", action="store_true", help="for scripts with Client(): leave out the function")
    invite.set_defaults(run=_invite)

    scale = commands.add_parser(
        "scale",
        help="change the number of workers of a task while its run goes on",
        description="Have another number of workers for a task, beside those that were started by hand. More are "
        "started as far as there are blocks for them; jobs that wait are called off, and workers that are too many "
        "finish the blocks they have begun. With 0 the task pauses. A driver that is started again has as many as its "
        "script says.",
    )
    scale.add_argument("place", metavar="RUN", type=_path, help=where)
    scale.add_argument("task", help="id of the task")
    scale.add_argument("workers", metavar="N", type=_whole, help="number of workers")
    scale.set_defaults(run=_scale)

    cancel = commands.add_parser(
        "cancel",
        help="end a run's jobs on clusters, and the run",
        description="End all jobs that a run has on clusters, by their recorded ids, also if its driver is gone. A "
        "driver that is there ends the run.",
    )
    cancel.add_argument("place", metavar="RUN", type=_path, help=where)
    cancel.set_defaults(run=_cancel)


def _demo(arguments: argparse.Namespace) -> int:
    """Run the demo and say what came out."""
    try:
        import matplotlib  # noqa: F401
        import scipy  # noqa: F401
        import skimage  # noqa: F401
    except ImportError as error:
        _complain(not_installed("the demo needs", error.name or "scikit-image", extra="demo"))
        return REFUSED
    from blockflow.demo.job import run_demo

    outcome = run_demo(arguments.picture, arguments.output, workers=arguments.workers)
    _say(f"\n{outcome.account()}")
    return DONE if outcome.verdict.passed else WRONG


def _verify(arguments: argparse.Namespace) -> int:
    from blockflow.ops.verifying import runs_below, verify

    right = True
    for run_dir in runs_below(arguments.run_dir):
        found = verify(run_dir, read=arguments.read, requeue=arguments.requeue, take_over=arguments.take_over)
        sys.stdout.write(f"{run_dir}:\n{found}\n")
        right = right and bool(found)
    return DONE if right else WRONG


def _plan(arguments: argparse.Namespace) -> int:
    """Print what tasks would do."""
    from blockflow.plan.plan import compile_plan
    from blockflow.scripts import tasks_in

    reports = [planned.task.plan() for planned in compile_plan(tasks_in(arguments.target)).tasks]
    _say("\n\n".join(map(str, reports)))
    return DONE if all(report.is_runnable for report in reports) else WRONG


def _worker(arguments: argparse.Namespace) -> int:
    """Be workers of a run."""
    if arguments.place is None:
        from blockflow.launch.invitation import work_as_invited

        return DONE if work_as_invited(arguments.task, arguments.count, os.environ) == 0 else WRONG
    from blockflow.launch.by_hand import work_by_hand

    return DONE if work_by_hand(arguments.place, arguments.task, arguments.count) == 0 else WRONG


def _invite(arguments: argparse.Namespace) -> int:
    """Print an invitation to a run."""
    from blockflow.launch.invitation import invite

    _say(invite(arguments.place, arguments.task, script=arguments.script))
    return DONE


def _scale(arguments: argparse.Namespace) -> int:
    """Change the number of a task's workers."""
    from blockflow.launch.by_hand import scale_run

    before = scale_run(arguments.place, arguments.task, arguments.workers)
    _say(f"{arguments.task}: {arguments.workers} workers are wanted now, {before} were before")
    return DONE


def _cancel(arguments: argparse.Namespace) -> int:
    """End the jobs of a run."""
    from blockflow.launch.by_hand import cancel_run

    _say("\n".join(cancel_run(arguments.place)))
    return DONE


def _path(text: str) -> Path:
    """A path of this machine's file systems."""
    try:
        return local_path(text, "it")
    except ArrayError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _count(text: str) -> int:
    """A number of things that there must be at least one of."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, got {text!r}")
    return int(text)


def _whole(text: str) -> int:
    """A number of things that there may be none of."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number >= 0, got {text!r}")
    return int(text)


def _complain(text: str) -> None:
    sys.stderr.write(f"blockflow: {escape(text)}\n")


def _say(text: str) -> None:
    sys.stdout.write(f"{escape(text)}\n")
