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

from blockflow.errors import BlockflowError, RunError
from blockflow.freshness import expect_writers
from blockflow.log_files import open_log
from blockflow.net.context import Context
from blockflow.net.link import SAID_FAILED, Link, open_link, print_failure
from blockflow.place import fill_standard_descriptors
from blockflow.plan.block import BlockStatus
from blockflow.tally import TALLY
from blockflow.wire.failures import describe
from blockflow.wire.orders import ENDED, FUNCTIONS, MODULES, ORDER_BYTES, STARTED, pack_report, unpack_order
from blockflow.worker_output import redirect

if TYPE_CHECKING:
    from collections.abc import Callable

    from blockflow.plan.block import Block
    from blockflow.wire.failures import FailureText


LEFT_SECONDS = 5.0
"""How long threads that user code has left behind may go on after the last block."""


def work(link: Link, function: Callable[[Block], Any], most: int | None = None) -> None:
    """Run a function on every block, until there are no more.

    A failure is reported, then printed; it ends the block, not the process. So is an exception of any class, and a
    returned value that shows that nothing has run (:mod:`blockflow.plan.returns`).

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
            returned = function(block)
            if returned is not None:
                _look_at(returned, link)
        except BaseException as error:  # of user code: the block has failed, whatever was raised
            if link.forked:
                raise
            failure = describe(error)
        else:
            if block.status is BlockStatus.FAILED:
                failure = SAID_FAILED
        if link.forked:
            sys.exit(0)  # a copy of this process, which user code has made and not ended
        link.block_done(given, failure, clock() - began, asks=True)
        if failure is not None:
            print_failure(block, failure)


def _look_at(returned: Any, link: Link) -> None:
    """Refuse a returned value that shows that nothing has run; tell the driver of an array that is of no use.

    Raises:
        PlanError: Nothing has run.
    """
    from blockflow.plan.returns import check_has_run, is_array

    check_has_run(returned, "the process function")
    if is_array(returned):
        link.remark_on_arrays()


def be_worker(payload: dict[str, Any]) -> int:
    """Do what a payload says; returns the exit code.

    Whatever keeps it from beginning is told to the driver, and then printed.
    """
    link: Link | None = None
    try:
        _take_over(payload)
        if payload["takes_block"]:
            expect_writers(always=payload["reads_others"])
        function, setup, teardown = _load(payload)
        TALLY.watch(payload.get("counted", ()))
        if not payload["takes_block"]:
            _check_begun(function(), "the process function")
            return 0
        try:
            link = open_link(Context.from_env(), payload.get("grace"))
        except BlockflowError as error:
            _print(f"{error}\n")
            return 1
        state = None
        if link is not None and setup is not None:
            state = setup()
            _check_begun(state, "setup")
    except SystemExit as error:
        if error.code not in (None, 0):
            _be_unable(link, describe(error))
        raise
    except BaseException as error:  # of user code
        _be_unable(link, describe(error))
        return 1
    if link is None:
        return 0
    try:
        _work(link, function, state, most=payload["most_blocks"], has_state=setup is not None)
    except BlockflowError as error:
        _print(f"{error}\n")
        return 1
    if teardown is not None:
        try:
            _check_begun(teardown(state), "teardown")
        except Exception as error:
            _print(f"teardown:\n{describe(error).traceback}")
            return 1
    return 0


def _work(link: Link, function: Any, state: Any, *, most: int | None, has_state: bool) -> None:
    """Work on all blocks, in whatever way the function allows, and leave."""
    if not has_state:
        work(link, function, most)
    else:
        from blockflow.stages import Stages, work_in_stages  # here, because most workers need no 1 ms for it

        if isinstance(function, Stages) and most is None:
            work_in_stages(link, function, state)
        else:
            work(link, lambda block: function(block, state), most)
    link.close()  # before the teardown, so that nobody waits for it


def _load(payload: dict[str, Any]) -> Any:
    """Return the process function, setup and teardown.

    Raises:
        RunError: They cannot be loaded here.
    """
    try:
        return pickle.loads(payload["functions"])
    except BaseException as error:
        raise RunError(
            f"the process function of task {payload['task']!r} cannot be loaded in a worker process "
            f"({type(error).__name__}: {error}): whatever it refers to must be importable there. Import inside the "
            "function, or put the module on PYTHONPATH"
        ) from error


def _check_begun(returned: Any, what: str) -> None:
    """Refuse what shows that a function has not run.

    Raises:
        PlanError: It has not.
    """
    if returned is not None:
        from blockflow.plan.returns import check_has_begun

        check_has_begun(returned, what)


def _be_unable(link: Link | None, why: FailureText) -> None:
    """Tell the driver why this worker cannot begin, and print it."""
    with suppress(BaseException):  # where it cannot be told, the last lines that are printed have to do
        link = link or open_link(Context.from_env())
        if link is not None:
            link.unable(why)
            link.close()
    _print(why.traceback)


def _print(text: str) -> None:
    with suppress(BaseException):  # the log may be full, or the stream closed by user code
        sys.stderr.write(text)


def _log_as(levels: dict[str, int], form: str | None) -> None:
    """Let loggers say here what they say in the process that started this one."""
    import logging

    if form is not None:
        logging.basicConfig(format=form)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def _take_over(payload: dict[str, Any]) -> None:
    """Make this process look like the one that started it."""
    fill_standard_descriptors()
    log = payload["log"]
    for descriptor, name, suffix in ((1, "stdout", ".out"), (2, "stderr", ".err")):
        path = None if log is None else log + suffix
        if path is not None:
            try:
                file = open_log(path, adds=payload["adds"])
            except OSError as error:  # that costs the log, and not the blocks
                _print(f"blockflow: no log is written, what the worker prints appears here: {error}\n")
                path = None
            else:
                os.dup2(file, descriptor)
                os.close(file)
        redirect(name, descriptor, path)
    os.environ.update(payload["environment"])
    os.chdir(payload["directory"])
    sys.path[:] = payload["path"]
    # What the launcher changed so that this module is found; processes that the user's code starts need not see it.
    os.environ.pop("PYTHONPATH", None)
    if payload["python_path"] is not None:
        os.environ["PYTHONPATH"] = payload["python_path"]
    if "logging" in payload:
        _log_as(*payload["logging"])


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
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.current_thread()):
        threading.Thread(target=_end_late, args=(code,), daemon=True).start()
    if shutdown is None or run_exit_functions is None:  # Python calls them private, and may rename them
        sys.exit(code)
    if any(_may_hold_unwritten(int(name)) for name in os.listdir("/dev/fd") if int(name) > 2):
        sys.exit(code)  # only taking it to pieces writes what is left in files that user code has not closed
    shutdown()  # waits for the threads of user code
    run_exit_functions()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # user code has closed it, or its disk is full
            stream.flush()
    os._exit(code)


def _end_late(code: int) -> NoReturn:
    """End a worker although threads of user code go on."""
    time.sleep(LEFT_SECONDS)
    left = [thread.name for thread in threading.enumerate() if not thread.daemon and thread.name != "MainThread"]
    _print(
        f"blockflow: threads that user code has left behind are ended with this worker, {LEFT_SECONDS:g} s after its "
        f"last block: {', '.join(left)}\n"
    )
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
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
