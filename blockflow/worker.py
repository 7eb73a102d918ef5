"""Worker processes: run a task's function on every block that the driver hands out.

Started once per run as ``python -m blockflow.worker``. That process imports what every worker needs and then makes
one worker after another by forking, each in a millisecond instead of a new interpreter's fifty, with shared memory.
It runs no user code and opens no connection, so that forking is safe. What a worker has to do arrives on standard
input, from the process that started it, never over the network. This module imports only what a worker needs: start-up
time is paid for in every run.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import pickle
import select
import signal
import socket
import stat
import sys
import threading
import time
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NoReturn
from warnings import catch_warnings, simplefilter

from blockflow.errors import BlockflowError
from blockflow.freshness import expect_writers
from blockflow.logging import open_log
from blockflow.net.context import Context
from blockflow.net.link import SAID_FAILED, Link, open_link
from blockflow.plan.block import BlockStatus
from blockflow.wire.failures import describe
from blockflow.wire.orders import ENDED, FUNCTIONS, MODULES, ORDER_BYTES, STARTED, pack_report, unpack_order

if TYPE_CHECKING:
    from collections.abc import Callable

    from blockflow.plan.block import Block


def work(link: Link, function: Callable[[Block], Any], most: int | None = None) -> None:
    """Run a function on every block, until there are no more.

    A failure is printed and reported; it ends the block, not the process.

    Args:
        link: Where blocks come from.
        function: What to do with each.
        most: After so many others go on.

    Raises:
        UnreachableError: The driver is gone.
    """
    clock = time.perf_counter
    left = -1 if most is None else most
    while left and (found := link.next_block()) is not None:
        left -= 1
        given, block = found
        block.status = BlockStatus.PROCESSING
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


def be_worker(payload: dict[str, Any]) -> int:
    """Do what a payload says; returns the exit code."""
    _take_over(payload)
    if payload["takes_block"]:
        expect_writers(always=payload["reads_others"])
    try:
        function, setup, teardown = pickle.loads(payload["functions"])
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
    most = payload["most_blocks"]
    try:
        link = open_link(Context.from_env(), payload.get("grace"))
        if link is not None and setup is None:
            work(link, function, most)
            link.close()
        elif link is not None:
            from blockflow.stages import Stages, work_in_stages  # here, because most workers need no 1 ms for it

            state = setup()
            if isinstance(function, Stages) and most is None:
                work_in_stages(link, function, state)
            else:
                work(link, lambda block: function(block, state), most)
            link.close()  # first, so that nobody waits for the teardown
            if teardown is not None:
                teardown(state)
    except BlockflowError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _take_over(payload: dict[str, Any]) -> None:
    """Make this process look like the one that started it."""
    log = payload["log"]
    for descriptor, suffix in ((1, ".out"), (2, ".err")):
        if log is not None:
            try:
                file = open_log(log + suffix, adds=payload["adds"])
            except OSError as error:  # that costs the log, and not the blocks
                sys.stderr.write(f"blockflow: no log is written, what the worker prints appears here: {error}\n")
                continue
            os.dup2(file, descriptor)
            os.close(file)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.chdir(payload["directory"])
    sys.path[:] = payload["path"]
    os.environ.update(payload["environment"])
    # What the launcher changed so that this module is found; processes that the user's code starts need not see it.
    os.environ.pop("PYTHONPATH", None)
    if payload["python_path"] is not None:
        os.environ["PYTHONPATH"] = payload["python_path"]


def main(reports: int) -> int:
    """Fork a worker for each order on standard input (:mod:`blockflow.wire.orders`); returns the exit code.

    What becomes of the workers is reported on a pipe. They share the memory of their task's functions. They outlive
    their orders: they notice by themselves when their run is over.

    Args:
        reports: File descriptor of the pipe.
    """
    # What every worker needs in a moment, and importing does.
    for module in ("cloudpickle", "encodings.idna", "blockflow.shipped"):
        import_module(module)
    orders = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    numbers: dict[int, int] = {}
    functions: dict[int, bytearray] = {}
    listening = True
    while listening or numbers:
        readable, _, _ = select.select([wake_read, *([orders] if listening else [])], [], [])
        if wake_read in readable:
            os.read(wake_read, 4096)
            for pid, code in _dead():
                _report(reports, ENDED, numbers.pop(pid), code)
        if orders in readable:
            order = _read_order(orders)
            if order is None:
                listening = False
                continue
            number, task, body = order
            if number == FUNCTIONS:
                functions[task] = body
                continue
            if number == MODULES:
                _import(os.fsdecode(bytes(body)).splitlines())
                continue
            with catch_warnings():  # a numeric library has threads, and looks after them itself
                simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
            if pid == 0:
                if (numpy := sys.modules.get("numpy")) is not None:
                    numpy.random.seed()  # else all workers draw the same numbers
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for descriptor in (orders, reports, wake_read, wake_write):
                    os.close(descriptor)
                os.setsid()  # so that it can be ended with what it starts
                _leave(be_worker({**pickle.loads(body), "functions": functions[task]}))
            numbers[pid] = number
            _report(reports, STARTED, number, pid)
    return 0


def _import(modules: list[str]) -> None:
    """Import modules, each given as ``name=file``; workers do so themselves where a package is elsewhere."""
    for module in modules:
        name, _, file = module.partition("=")
        with suppress(Exception):
            package = find_spec(name.partition(".")[0])
            if package is not None and package.origin and file.startswith(os.path.dirname(package.origin) + os.sep):
                import_module(name)


def _leave(code: int) -> NoReturn:
    """End a worker as the interpreter would, but without taking it to pieces, which takes longer than a short run."""
    shutdown, run_exit_functions = (
        getattr(module, name, None) for module, name in ((threading, "_shutdown"), (atexit, "_run_exitfuncs"))
    )
    if shutdown is None or run_exit_functions is None:  # Python calls them private, and may rename them
        sys.exit(code)
    if any(_may_hold_unwritten(int(name)) for name in os.listdir("/dev/fd") if int(name) > 2):
        sys.exit(code)  # only taking it to pieces writes what is left in files that user code has not closed
    shutdown()  # waits for the threads of user code
    run_exit_functions()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _may_hold_unwritten(descriptor: int) -> bool:
    """Whether a buffer somewhere in this process may have to be written to an open file yet."""
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode) or not stat.S_IFMT(mode):  # what selectors use has no type
            return False
        if stat.S_ISREG(mode) or stat.S_ISCHR(mode):
            return fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
        if stat.S_ISSOCK(mode):
            with socket.socket(fileno=os.dup(descriptor)) as ours:
                return bool(ours.getsockname()) or bool(ours.getpeername())  # else it wakes a loop of this process
    except OSError:
        return False  # it was closed meanwhile: the list of files had one itself
    return True


def _dead() -> list[tuple[int, int]]:
    """Process ids and exit codes of the workers that have ended."""
    dead: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return dead
        if pid == 0:
            return dead
        dead.append((pid, os.waitstatus_to_exitcode(status)))


def _read_order(descriptor: int) -> tuple[int, int, bytearray] | None:
    header = _read(descriptor, ORDER_BYTES)
    if header is None:
        return None
    number, task, length = unpack_order(header)
    body = _read(descriptor, length)
    return None if body is None else (number, task, body)


def _read(descriptor: int, length: int) -> bytearray | None:
    data = bytearray(length)
    left = memoryview(data)
    while left:
        count = os.readv(descriptor, [left])
        if not count:
            return None
        left = left[count:]
    return data


def _report(descriptor: int, what: int, number: int, value: int) -> None:
    with suppress(BrokenPipeError):  # the driver is gone; its workers will notice as well
        os.write(descriptor, pack_report(what, number, value))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
