"""The outbox: what may leave now, and what has to wait until the records before it are durable?

Whatever is said after something happened may follow from it: an acknowledgement does, and the grant of a block whose
inputs have just become done. So messages wait until everything recorded before them is durable. Records are written
in batches; what comes while a batch is being written is the next one, so the slower the disk, the larger the batches.
A sign of life does not wait: on a full disk workers keep what they hold.

Like the switchboard it does no IO: records and actions come in, batches and actions go out.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from blockflow.switchboard import Close, Send
from blockflow.wire.messages import Alive

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blockflow.scheduler.events import Record
    from blockflow.switchboard import Action


class Outbox:
    """Keeps actions in order with the records that they may follow from."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        """Of the next batch."""
        self._batch = 0
        """Batches taken so far."""
        self._durable = 0
        """Batches that are durable."""
        self._waiting: deque[tuple[int, Action]] = deque()
        """With the batch that each waits for, in the order in which they were asked for."""

    @property
    def idle(self) -> bool:
        """Nothing has to be written, and nothing waits."""
        return not self._records and self._durable == self._batch

    def put(self, actions: Iterable[Action], records: list[Record]) -> list[Action]:
        """Take in what is to be done, and what was recorded when that was decided; returns what may be done now."""
        self._records += records
        last = self._batch + bool(self._records)
        now = []
        for action in actions:
            message = isinstance(action, Send | Close)
            sign_of_life = isinstance(action, Send) and isinstance(action.message, Alive)
            if message and not sign_of_life and last > self._durable:
                self._waiting.append((last, action))
            else:
                now.append(action)
        return now

    def take_batch(self) -> list[Record]:
        """The records to be written next, all that there are; none while a batch is being written."""
        if self._batch > self._durable or not self._records:
            return []
        batch, self._records = self._records, []
        self._batch += 1
        return batch

    def written(self) -> list[Action]:
        """The batch taken last is durable; returns what has waited for it."""
        self._durable = self._batch
        now = []
        while self._waiting and self._waiting[0][0] <= self._durable:
            now.append(self._waiting.popleft()[1])
        return now
