"""A worker process: run a task's function on every block that the driver hands out.

Started as ``python -m blockflow.worker``; what it has to do arrives on standard input from the process that started
it, never over the network. This module imports only what a worker needs: start-up time is paid for every worker.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from typing import TYPE_CHECKING, Any

from blockflow.errors import BlockflowError
from blockflow.net.client import SAID_FAILED, Link, open_link
from blockflow.net.context import Context
from blockflow.plan.block import BlockStatus
from blockflow.wire.failures import describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from blockflow.plan.block import Block


def work(link: Link, function: Callable[[Block], Any]) -> None:
    """Run a function on every block, until there are no more.

    A failure is printed and reported; it ends the block, not the process.

    Raises:
        UnreachableError: The driver is gone.
    """
    clock = time.perf_counter
    while (found := link.next_block()) is not None:
        given, block = found
        failure = None
        began = clock()
        try:
            function(block)
        except (Exception, SystemExit) as error:
            failure = describe(error)
            sys.stderr.write(f"block {block.block_id}, attempt {block.attempt}:\n{failure.traceback}")
        else:
            if block.status is BlockStatus.FAILED:
                failure = SAID_FAILED
        link.block_done(given, failure, clock() - began, asks=True)


def main() -> int:
    """Read the payload, do the work, and return the exit code."""
    raw = sys.stdin.buffer.read()
    if not raw:
        return 0  # the driver ended before it had work for this process
    payload = pickle.loads(raw)
    _take_over(payload)
    try:
        function = pickle.loads(payload["function"])
    except Exception as error:
        sys.stderr.write(
            f"{describe(error).traceback}"
            f"the process function of task {payload['task']!r} cannot be loaded in a worker process ({error}): "
            "whatever it refers to must be importable there. Import inside the function, or put the module on "
            "PYTHONPATH\n"
        )
        return 1
    if not payload["takes_block"]:
        function()
        return 0
    try:
        link = open_link(Context.from_env())
        if link is not None:
            work(link, function)
            link.close()
    except BlockflowError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _take_over(payload: dict[str, Any]) -> None:
    """Make this process look like the one that started it: working directory, import path, environment."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - standard input stays open as long as the process lives
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.chdir(payload["directory"])
    sys.path[:] = payload["path"]
    os.environ.update(payload["environment"])
    # What the launcher changed so that this module is found; processes that the user's code starts need not see it.
    os.environ.pop("PYTHONPATH", None)
    if payload["python_path"] is not None:
        os.environ["PYTHONPATH"] = payload["python_path"]


if __name__ == "__main__":
    sys.exit(main())
