"""What has to be durable before it may be told? The product's own outbox and ledger, on a disk that takes its time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockflow.coordinator import BEAT_SECONDS, FULL_SECONDS
from blockflow.errors import LedgerError, LedgerFullError
from blockflow.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blockflow.ledger.run_ledger import RunLedger
    from blockflow.scheduler.events import Record
    from blockflow.switchboard import Action
    from blockflow.testing.simulation.cluster import Cluster
    from blockflow.testing.simulation.driver import Driver

_FOLDS = 0.05
"""Share of the beats at which a snapshot is made; the product makes one when its journal is long."""


class Recorder:
    """Writes records batch after batch, and lets go what has waited for them.

    Args:
        driver: Whose records.
        cluster: Where it runs.
        ledger: Where they go.
    """

    def __init__(self, driver: Driver, cluster: Cluster, ledger: RunLedger) -> None:
        self._driver = driver
        self._cluster = cluster
        self.ledger = ledger
        self._outbox = Outbox()
        self._writing = False
        self._unfolded = True
        """Something was recorded since the last snapshot."""

    @property
    def idle(self) -> bool:
        """Everything is durable."""
        return not self._writing

    def put(self, actions: Iterable[Action], records: list[Record]) -> list[Action]:
        """Take in what is to be done, and what was recorded when that was decided; returns what may be done now."""
        now = self._outbox.put(actions, records)
        if not self._outbox.idle:
            self._start()
        return now

    def beat(self) -> None:
        """Show that the driver lives, and make a snapshot now and then."""
        self._start()
        if self._cluster.chance(_FOLDS) and self._unfolded:
            self._unfolded = False
            try:
                self.ledger._store.fold()
            except LedgerError as error:
                self._cluster.lives.gave_up(self._driver, str(error))
                return
        self._driver.later(BEAT_SECONDS, self.beat)

    def _start(self) -> None:
        if not self._writing:
            self._writing = True
            self._write(self._outbox.take_batch())

    def _write(self, batch: list[Record]) -> None:
        self._driver.later(self._cluster.disk_seconds(), lambda: self._written(batch))

    def _written(self, batch: list[Record]) -> None:
        """The disk has done its work."""
        self._unfolded = self._unfolded or bool(batch)
        try:
            self.ledger.write(batch)
        except LedgerFullError:
            self._cluster.count("disk was full")
            self._driver.later(FULL_SECONDS, lambda: self._write([]))  # the ledger has them
            return
        except LedgerError as error:
            self._cluster.lives.gave_up(self._driver, str(error))
            return
        self._cluster.judge.recorded(batch)
        self._cluster.maybe_die()
        self._driver.perform(self._outbox.written())
        following = self._outbox.take_batch()
        self._writing = bool(following)
        if following:
            self._write(following)
        self._driver.look_whether_finished()
