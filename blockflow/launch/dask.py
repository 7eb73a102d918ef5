"""Workers as long-running tasks on a dask.distributed cluster that exists already.

Each occupies a thread of a dask worker, and is a process of its own beside it. It is told what to do, and where its run
is, through dask, so that no file system has to be shared: whoever owns the dask cluster can read that anyway, as it
holds code to be run. The two sides of this file run on different machines.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from blockflow.launch.base import JobEnd, Standing, words_of_exit
from blockflow.launch.handover import write_handover
from blockflow.launch.interpreter import environment_with_package
from blockflow.launch.last_lines import tail
from blockflow.launch.launchers import Dask
from blockflow.launch.queue import worker_words
from blockflow.net.context import Context
from blockflow.secret import Secret
from blockflow.trusted_files import open_folder, read_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blockflow.launch.base import Order

_LOOK_SECONDS = 0.5
"""How often a dask worker looks whether a worker has ended, or the run."""

_STOP_SECONDS = 5.0

_KEPT_LINES = 20
_LONGEST_LINE = 1000
"""Of what a worker prints: for a message about its end."""


def run_worker(payload: dict[str, Any], connection: Secret, gone: str) -> tuple[int, str]:
    """Be a worker; runs in a dask worker, and returns the worker's exit code and the last lines that it printed.

    What it prints to its standard errors goes to those of the dask worker as well, unless it has a log of its own.

    Args:
        payload: What it is told.
        connection: The text of the connection file.
        gone: Name of a dask event that is set when the run is over.
    """
    from distributed import Event

    over = Event(gone)
    with tempfile.TemporaryDirectory(prefix="blockflow-") as name:
        handover = Path(name, "worker")
        write_handover(handover, [_moved(payload, connection, Path(name))])
        words = [*worker_words(sys.executable, str(handover)), "0"]
        worker = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment_with_package()
        )
        printed: deque[bytes] = deque(maxlen=_KEPT_LINES)
        copying = threading.Thread(target=_copy, args=(worker.stderr, printed), daemon=True)
        copying.start()
        try:
            while worker.poll() is None:
                if over.wait(timeout=_LOOK_SECONDS):
                    worker.kill()
        finally:
            worker.kill()
            worker.wait()
        copying.join(_LOOK_SECONDS)  # what the worker has started may hold the pipe for longer
    return worker.returncode, tail(b"".join(printed.copy()))


def _copy(pipe: IO[bytes], printed: deque[bytes]) -> None:
    """Pass on what a worker prints, and keep the last lines."""
    for line in pipe:
        printed.append(line[-_LONGEST_LINE:])
        with contextlib.suppress(Exception):
            sys.stderr.write(line.decode(errors="replace"))


def _moved(payload: dict[str, Any], connection: Secret, here: Path) -> dict[str, Any]:
    """What a worker is told, on a machine that may not see the driver's files."""
    context = Context.from_text(payload["environment"][Context.ENV_VARIABLE])
    file = here / Path(context["connection"]).name
    with open_folder(here, private=True) as folder:
        folder.write(file.name, connection.reveal().encode())
    context["connection"] = file
    log, directory = payload["log"], payload["directory"]
    return {
        **payload,
        "environment": {Context.ENV_VARIABLE: context.to_env()},
        "log": log if log is not None and os.path.isdir(os.path.dirname(log)) else None,
        "directory": directory if os.path.isdir(directory) else str(here),
    }


class DaskFleet:
    """Long-running tasks on dask clusters.

    Args:
        directory: Private directory of the run's files.
        run: Id of the run.
    """

    def __init__(self, *, directory: Path, run: str) -> None:
        self._connection = directory / f"{run}.connection"
        self._run = run
        self._futures: dict[int, Any] = {}
        self._tasks: dict[int, str] = {}
        self._clients: list[Any] = []

    def __len__(self) -> int:
        return len(self._futures)

    def start(self, order: Order) -> None:
        """Start a worker, as soon as a thread of the cluster is free."""
        launcher = order.launcher
        assert isinstance(launcher, Dask)
        client = launcher.client
        if not any(client is known for known in self._clients):
            self._clients.append(client)
        self._tasks[order.process] = order.task
        self._futures[order.process] = client.submit(
            run_worker,
            order.payload,
            Secret(read_file(self._connection, private=True).decode()),
            self._gone,
            key=f"blockflow-{self._run}-{order.process}",
            pure=False,
            retries=0,
            resources=launcher.resources,
        )

    def ended(self) -> list[JobEnd]:
        """The workers that have ended since the last call."""
        ended = []
        for process, future in list(self._futures.items()):
            if future.done():
                del self._futures[process], self._tasks[process]
                ended.append(_end(process, future))
        return ended

    def look(self) -> None:
        """Nothing to be done: dask tells by itself."""

    def standing(self) -> dict[str, Standing]:
        """By task: how many workers were asked for; which of them have begun, dask does not tell."""
        tasks = list(self._tasks.values())
        return {task: Standing(waiting=0, running=tasks.count(task)) for task in tasks}

    def release(self, processes: Sequence[int], most: int) -> int:
        """Nothing to be done: which have not begun is not known."""
        return 0

    def dismiss(self) -> None:
        """Nothing to be done: those that begin now are told at once that there is nothing to do."""

    def kill(self) -> None:
        """See :class:`~blockflow.launch.base.Fleet`."""
        self.stop(grace=0.0)

    def stop(self, *, grace: float) -> None:
        """End all workers.

        Args:
            grace: Seconds between asking and killing; not needed here, as their run is over.
        """
        if not self._futures:
            return
        from distributed import Event

        for client in self._clients:
            with contextlib.suppress(Exception):  # the cluster is gone, and its workers with it
                Event(self._gone, client).set()
        deadline = time.monotonic() + _STOP_SECONDS
        while self._futures and time.monotonic() < deadline:
            self.ended()
            time.sleep(0.05)
        for client in self._clients:
            with contextlib.suppress(Exception):
                client.cancel(list(self._futures.values()), force=True)

    @property
    def _gone(self) -> str:
        return f"blockflow-{self._run}-over"


def _end(process: int, future: Any) -> JobEnd:
    if future.status == "finished":
        code, output = future.result()
        return JobEnd(process=process, code=code, how=words_of_exit(code), output=output)
    error = future.exception() if future.status == "error" else future.status
    return JobEnd(process=process, code=1, how=f"ended in dask: {error}", certain=False)
