"""Workers as processes that a command of the user's starts: on other machines, in containers.

Their end is the end of the command. What a command has started elsewhere and cannot end (ssh leaves it behind) ends by
itself, when it notices that its connection or its run is gone.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from blockflow.background import BackgroundQueue
from blockflow.errors import RunError
from blockflow.launch.base import JobEnd, Standing, words_of_exit
from blockflow.launch.handover import write_handover
from blockflow.launch.interpreter import path_of_package
from blockflow.launch.launchers import Command
from blockflow.launch.queue import worker_words
from blockflow.trusted_files import appended, remove_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from blockflow.launch.base import Order

_POLL_SECONDS = 0.02
_UNKILLABLE_SECONDS = 5.0


def command_words(template: str, worker: list[str]) -> list[str]:
    """The words of a command.

    >>> command_words("ssh node {command}", ["python", "-m", "a b"])
    ['ssh', 'node', "python -m 'a b'"]
    >>> command_words("nice -n 19 {arguments}", ["python", "-m", "a b"])
    ['nice', '-n', '19', 'python', '-m', 'a b']

    Args:
        template: What the user gave.
        worker: The command line of the worker.
    """
    words: list[str] = []
    for word in shlex.split(template):
        if word == "{command}":
            words.append(shlex.join(worker))
        elif word == "{arguments}":
            words += worker
        else:
            words.append(word)
    return words


REMOVAL_SECONDS = 1.0
"""How long the removal of files is waited for; a disk that does not answer holds nothing up."""


class CommandFleet:
    """Processes that commands start.

    Args:
        directory: Private directory of the run's files; the workers must see it.
        run: Id of the run.
    """

    def __init__(self, *, directory: Path, run: str) -> None:
        self._directory = directory
        self._run = run
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._handovers: dict[int, Path] = {}
        self._tasks: dict[int, str] = {}
        self._logs: dict[int, str] = {}
        self._removals = BackgroundQueue("blockflow-removals")

    def __len__(self) -> int:
        return len(self._processes)

    def start(self, order: Order) -> None:
        """Start a worker.

        Raises:
            RunError: The command cannot be run.
        """
        launcher = order.launcher
        assert isinstance(launcher, Command)
        handover = self._directory / f"{self._run}.command-{order.process}"
        write_handover(handover, [order.payload])
        worker = [*worker_words(launcher.python or sys.executable, str(handover)), "0"]
        path = path_of_package()
        if path is not None:
            worker = ["env", f"PYTHONPATH={path}", *worker]
        words = command_words(launcher.command, worker)
        self._logs[order.process] = f"{order.payload['job_log']}-{order.process}.log"
        with appended(self._logs[order.process]) as log:
            try:
                process = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            except OSError as error:
                remove_file(handover)
                raise RunError(f"the command {launcher.command!r} cannot be run: {error}") from error
        self._processes[order.process] = process
        self._handovers[order.process] = handover
        self._tasks[order.process] = order.task

    def ended(self) -> list[JobEnd]:
        """The workers that have ended since the last call."""
        ended = []
        for number, process in list(self._processes.items()):
            code = process.poll()
            if code is not None:
                del self._processes[number], self._tasks[number]
                self._removals.call(partial(remove_file, self._handovers.pop(number)))
                # What ran elsewhere may outlive the command that started it.
                printed = self._logs.pop(number)
                how = words_of_exit(code)
                ended.append(JobEnd(process=number, code=code, how=how, certain=False, printed=printed))
        return ended

    def look(self) -> None:
        """Nothing to be done: every end is seen at once."""

    def standing(self) -> dict[str, Standing]:
        """By task: how far its workers have come."""
        tasks = list(self._tasks.values())
        return {task: Standing(waiting=0, running=tasks.count(task)) for task in tasks}

    def release(self, processes: Sequence[int], most: int) -> int:
        """Nothing to be done: all have begun."""
        return 0

    def dismiss(self) -> None:
        """Nothing to be done: all have begun, and leave when they are told to."""

    def stop(self, *, grace: float) -> None:
        """End all workers.

        Args:
            grace: Seconds between asking and killing.
        """
        deadline = time.monotonic() + grace
        self._signal(signal.SIGTERM)
        while self._processes and time.monotonic() < deadline + _UNKILLABLE_SECONDS:
            self.ended()
            if time.monotonic() >= deadline:
                self._signal(signal.SIGKILL)
            time.sleep(_POLL_SECONDS)

        self._removals.finish(REMOVAL_SECONDS)

    def kill(self) -> None:
        """End all workers at once."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
