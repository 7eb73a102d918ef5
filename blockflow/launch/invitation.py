"""How do workers join a run from a machine that sees none of its files?

By an invitation: the value of one environment variable, which holds what the connection file says, key and all, and
what a worker of a task has to do. It is the context that every worker gets, so that a script with ``Client()`` needs
nothing else. Only processes of the same user can read an environment; nothing is written to a file. It is good until
the run ends, or its driver is started again.
"""

from __future__ import annotations

import base64
import contextlib
import os
import pickle
import shlex
import subprocess
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockflow.errors import ConnectionFileError
from blockflow.launch.by_hand import find_run, find_task, wait_for_workers, work_by_hand
from blockflow.launch.handover import STDIN, pack_handover, read_handover
from blockflow.launch.interpreter import environment_with_package
from blockflow.launch.queue import worker_words
from blockflow.net.context import INVITATION, WORK, Context
from blockflow.trusted_files import read_file

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST_BYTES = 127 * 1024
"""Of the variable: Linux takes 128 KiB, name included."""


def invite(place: Path, task: str | None, *, script: bool = False) -> str:
    """What to say in a shell of another machine, so that it can start workers.

    Args:
        place: The run, as for :func:`~blockflow.launch.by_hand.find_run`.
        task: Id of the task; may be None if there is only one.
        script: For a script of the user's own that opens ``Client()``, which does not need the task's function.

    Raises:
        ConnectionFileError: There is no such run, or no such task, or too much to say.
    """
    connection = find_run(place, ".connection")
    payload = read_handover(str(find_task(connection, task)), 0)
    told = Context.from_text(payload.pop("environment")[Context.ENV_VARIABLE])
    context = Context(task_id=told["task_id"], hostname=told["hostname"], port=told["port"])
    context[INVITATION] = read_file(connection, private=True).decode()
    if not script:
        context[WORK] = base64.b85encode(zlib.compress(pickle.dumps(payload))).decode()
    text = context.to_env()
    if len(text) > _MOST_BYTES:
        raise ConnectionFileError(
            f"an invitation to task {told['task_id']!r} takes {len(text)} bytes, and an environment variable holds "
            f"{_MOST_BYTES}: its process function brings much data along; load that inside of the function. A script "
            "that opens Client() does without it: --script"
        )
    return f"export {Context.ENV_VARIABLE}={shlex.quote(text)}"


def work_as_invited(task: str | None, count: int, environment: Mapping[str, str]) -> int:
    """Start workers for the run that the environment names, and wait until they have ended; returns the exit code.

    Args:
        task: Id of the task, to be sure; None for that of the invitation.
        count: Number of workers.
        environment: That of this process.

    Raises:
        ConnectionFileError: It names no run, or another task.
    """
    if not environment.get(Context.ENV_VARIABLE):
        raise ConnectionFileError(
            f"name a run, or set {Context.ENV_VARIABLE} to what `blockflow invite` prints where the run can be seen"
        )
    context = Context.from_env(environment)
    if task not in (None, context.get("task_id")):
        raise ConnectionFileError(f"this is an invitation to task {context.get('task_id')!r}, not to {task!r}")
    connection = context.get("connection")
    if connection is not None:  # that of a worker, which sees the files
        return work_by_hand(Path(connection), context.get("task_id"), count)
    handover = pack_handover([_work(context)])
    words = [*worker_words(sys.executable, STDIN), "0"]
    workers = []
    for _ in range(count):
        worker = subprocess.Popen(words, stdin=subprocess.PIPE, env=environment_with_package())
        workers.append(worker)
        assert worker.stdin is not None
        with contextlib.suppress(BrokenPipeError), worker.stdin:  # its exit code tells what was wrong
            worker.stdin.write(handover)
    return wait_for_workers(workers)


def _work(context: Context) -> dict[str, Any]:
    """What a worker has to do, by an invitation."""
    if WORK not in context or INVITATION not in context:
        raise ConnectionFileError(
            f"{Context.ENV_VARIABLE} does not say what a worker has to do: it is for scripts that open Client(); "
            "`blockflow invite` without --script prints one that does"
        )
    try:
        payload: dict[str, Any] = pickle.loads(zlib.decompress(base64.b85decode(context.reveal(WORK))))
    except Exception as error:
        raise ConnectionFileError(f"{Context.ENV_VARIABLE} is damaged: {error}") from None
    own = Context(**{key: context.reveal(key) for key in context if key != WORK})
    directory = payload["directory"]
    return {
        **payload,
        "environment": {Context.ENV_VARIABLE: own.to_env()},
        "directory": directory if os.path.isdir(directory) else os.getcwd(),
    }
