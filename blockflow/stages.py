"""Stages: how does a worker read the next block and write the last one while it computes this one?

A process function that can say apart how it reads, computes and writes is an object with these :class:`Stages`. The
worker's main thread computes. One thread takes the next block and reads it; another writes what was computed, and
only then reports the block. So a worker holds three blocks at most: one that waits, one in computation, one that is
written. All of them were granted, so nothing that is still to be written is read, and no two of them conflict.

It begins with one block after the other, and changes over when a block has shown that there is something to gain.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from blockflow.net.link import print_failure
from blockflow.plan.block import Block, BlockStatus
from blockflow.wire.failures import FailureText, describe

if TYPE_CHECKING:
    from blockflow.wire.held import Given

__all__ = ["Conversation", "Stages", "work_in_stages"]

LEAST_SECONDS = 0.002
"""Reading and writing have to take so long, and computing too: handing a block from thread to thread takes a tenth."""


@runtime_checkable
class Stages(Protocol):
    """A process function in parts; `state` is what the setup of the task returned."""

    def read(self, block: Block, state: Any) -> Any:
        """Read what the block needs."""

    def compute(self, block: Block, given: Any, state: Any) -> Any:
        """Make something of what was read."""

    def write(self, block: Block, made: Any, state: Any) -> None:
        """Write what was made; the block is done then."""

    def failed(self, block: Block, error: BaseException, state: Any) -> None:
        """Take note that one of the others raised; not called at the same time as `write`, or twice at a time."""

    def ahead(self, block: Block) -> bool:
        """Whether the next block may be taken while this one is computed, though another worker may be idle."""


class Conversation(Protocol):
    """Where blocks come from, and are reported to."""

    forked: bool
    """This process is a copy of the worker."""

    def next_block(self) -> tuple[Given, Block] | None:
        """The next block; waits until there is one. None if there are no more."""

    def block_done(self, given: Given, failure: FailureText | None, seconds: float, *, asks: bool) -> None:
        """Say that a block is done."""


@dataclass(slots=True, eq=False)
class _Item:
    """A block on its way."""

    given: Given
    block: Block
    value: Any = None
    """What the last stage made."""
    error: BaseException | None = None
    """What one of them raised."""
    moving: float = 0.0
    """Seconds of reading and writing."""
    computing: float = 0.0
    """Seconds of computing."""


def work_in_stages(link: Conversation, stages: Stages, state: Any) -> None:
    """Run a function in stages on every block, until there are no more.

    A failure is reported, then printed; it ends the block, not the process.

    Raises:
        UnreachableError: The driver is gone.
    """
    line = _Line(link, stages, state)
    while (item := line.taken()) is not None:
        line.read(item)
        line.compute(item)
        line.finish(item)
        if min(item.moving, item.computing) > LEAST_SECONDS:
            line.run()
            return


class _Line:
    """What is done to each block, and by which thread."""

    def __init__(self, link: Conversation, stages: Stages, state: Any) -> None:
        self._link = link
        self._stages = stages
        self._state = state
        self._room = threading.Semaphore()
        """Held for a block that waits for its computation, or for whose end the next one has to wait."""
        self._rest = threading.Semaphore()
        """Held for a block that is written, or waits for that."""
        self._to_compute: SimpleQueue[_Item | None] = SimpleQueue()
        self._to_finish: SimpleQueue[tuple[_Item, bool] | None] = SimpleQueue()
        self._trouble: list[BaseException] = []
        """Of threads, not of blocks."""

    def taken(self) -> _Item | None:
        """The next block."""
        found = self._link.next_block()
        if found is None:
            return None
        found[1].status = BlockStatus.PROCESSING
        return _Item(*found)

    def read(self, item: _Item) -> None:
        """The first stage."""
        began = time.perf_counter()
        try:
            item.value = self._stages.read(item.block, self._state)
        except BaseException as error:
            item.error = error
        self._end_copy(item.error)
        item.moving += time.perf_counter() - began

    def compute(self, item: _Item) -> None:
        """The second stage."""
        if item.error is not None:
            return
        began = time.perf_counter()
        try:
            item.value = self._stages.compute(item.block, item.value, self._state)
        except BaseException as error:
            item.error = error
        self._end_copy(item.error)
        item.computing = time.perf_counter() - began

    def finish(self, item: _Item) -> None:
        """The last stage, and the report."""
        began = time.perf_counter()
        failure = None
        try:
            if item.error is not None:
                raise item.error
            self._stages.write(item.block, item.value, self._state)
        except BaseException as error:
            self._end_copy(error)
            with contextlib.suppress(BaseException):  # the reason is reported, whether it can be kept or not
                self._stages.failed(item.block, error, self._state)
            failure = describe(error)
        self._end_copy(None)
        item.value = item.error = None
        item.moving += time.perf_counter() - began
        self._link.block_done(item.given, failure, item.moving + item.computing, asks=True)
        if failure is not None:
            print_failure(item.block, failure)

    def _end_copy(self, error: BaseException | None) -> None:
        """End a copy of this process that user code has made, in whatever thread, and not ended."""
        if not self._link.forked:
            return
        if error is not None and not isinstance(error, SystemExit):
            sys.excepthook(type(error), error, error.__traceback__)
        code = error.code if isinstance(error, SystemExit) else int(error is not None)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))

    def run(self) -> None:
        """Do all stages at once, until there are no more blocks."""
        threads = [
            threading.Thread(target=loop, name=f"blockflow-{name}", daemon=True)
            for loop, name in ((self._keep_reading, "read"), (self._keep_finishing, "write"))
        ]
        for thread in threads:
            thread.start()
        while (item := self._to_compute.get()) is not None:
            ahead = self._stages.ahead(item.block)
            if ahead:
                self._room.release()
            self.compute(item)
            self._rest.acquire()
            self._to_finish.put((item, not ahead))
        self._to_finish.put(None)
        for thread in threads:
            thread.join()
        if self._trouble:
            raise self._trouble[0]

    def _keep_reading(self) -> None:
        try:
            while self._room.acquire() and not self._trouble and (item := self.taken()) is not None:
                self.read(item)
                self._to_compute.put(item)
        except BaseException as error:
            self._trouble.append(error)
        self._to_compute.put(None)

    def _keep_finishing(self) -> None:
        while (found := self._to_finish.get()) is not None:
            item, makes_room = found
            try:
                self.finish(item)
            except BaseException as error:
                self._trouble.append(error)
            self._rest.release()
            if makes_room:
                self._room.release()
