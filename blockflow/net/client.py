"""What does a worker script see of its run? Blocks to work on, one at a time."""

from __future__ import annotations

import atexit
import contextlib
import time
from typing import TYPE_CHECKING

from blockflow.net.context import Context
from blockflow.net.link import SAID_FAILED, open_link, print_failure
from blockflow.plan.block import Block, BlockStatus
from blockflow.wire.failures import describe

if TYPE_CHECKING:
    from collections.abc import Iterator


class Client:
    """A worker's view of its run: blocks to work on, one at a time.

    In a script that a task's process function starts::

        client = Client()
        while True:
            with client.acquire_block() as block:
                if block is None:
                    break
                process(block)

    Leaving the ``with`` normally reports success. An exception is reported as a failure of the block, printed, and
    does not leave the ``with``, so that the loop goes on with the next block; so does setting ``block.status`` to
    ``BlockStatus.FAILED``, without an exception. ``sys.exit``, and anything else that is no :class:`Exception`, is a
    failure of the block as well, and ends the script. Ctrl-C ends it too, and gives the block back.

    Args:
        context: The run to work for; taken from the environment if not given.

    Raises:
        ConnectionFileError: There is no context, its connection file cannot be used, or the driver refuses.
        UnreachableError: Nobody answers, or not with this run's key.
    """

    def __init__(self, context: Context | None = None) -> None:
        self.context = Context.from_env() if context is None else context
        self._link = open_link(self.context)
        self.task_id = self.context["task_id"]
        worker = self.context.get("worker_id")
        self.worker_id = None if worker is None else int(worker)
        if self._link is not None:
            atexit.register(self._link.close)

    @contextlib.contextmanager
    def acquire_block(self) -> Iterator[Block | None]:
        """The next block, in a ``with``; None when there are no more.

        Raises:
            UnreachableError: The driver is gone.
        """
        found = None if self._link is None else self._link.next_block()
        if found is None or self._link is None:
            yield None
            return
        given, block = found
        block.status = BlockStatus.PROCESSING
        began = time.perf_counter()
        failure = leaving = None
        try:
            yield block
        except BaseException as error:
            if self._link.forked or (isinstance(error, KeyboardInterrupt) and not _was_raised(error)):
                raise
            leaving = None if isinstance(error, Exception) else error
            failure = describe(error)
        if failure is None and block.status is BlockStatus.FAILED:
            failure = SAID_FAILED
        self._link.block_done(given, failure, time.perf_counter() - began, asks=False)
        if failure not in (None, SAID_FAILED):
            print_failure(block, failure)
        if leaving is not None:
            raise leaving

    def close(self) -> None:
        """Leave the run; done by itself when the process ends."""
        if self._link is not None:
            self._link.close()


def _was_raised(error: BaseException) -> bool:
    """Whether code has raised an exception, so that it is not Ctrl-C, which comes at any instruction."""
    from dis import opname

    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and opname[traceback.tb_frame.f_code.co_code[traceback.tb_lasti]] == "RAISE_VARARGS"
