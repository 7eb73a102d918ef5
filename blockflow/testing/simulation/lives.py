"""Which driver works now? It dies, gives up, or stands still, and somebody starts another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockflow.ledger.owner import STALE_SECONDS
from blockflow.testing.simulation.driver import HERE, Driver

if TYPE_CHECKING:
    from blockflow.ledger.owner import Process
    from blockflow.testing.simulation.cluster import Cluster


class Lives:
    """All drivers of one run, one after the other, and sometimes two at once.

    Args:
        cluster: Where they run.
        restart_seconds: Least and greatest time in which a dead one is started again.
    """

    def __init__(self, cluster: Cluster, restart_seconds: tuple[float, float]) -> None:
        self._cluster = cluster
        self._restart_seconds = restart_seconds
        self.driver = Driver(cluster, cluster.clock_rate(), 0, HERE)
        """The last one that has taken over the run directory."""
        self.drivers = [self.driver]
        self.listening: Driver | None = None
        """The driver that the connection file names."""
        self.ends_locals = True
        """Where a driver stands still and another one takes over, the workers on its machine end: they trust it."""

    def died(self, driver: Driver) -> None:
        """A driver is dead; somebody starts another one."""
        power = self._cluster.chance(0.4)
        self._cluster.count("driver death")
        self._cluster.judge.note("driver", driver.life, "dies", "with its machine" if power else "")
        self._ended(driver, lose=power)
        if power:
            assert self._cluster.disk is not None
            self._cluster.disk.lose_power()
            for worker in [worker for worker in self._cluster.workers.values() if worker.host == driver.place]:
                worker.crash()

    def gave_up(self, driver: Driver, why: str) -> None:
        """A driver cannot go on: it ends its processes, and itself."""
        self._cluster.count("driver gave up")
        self._cluster.judge.note("driver", driver.life, "gives up:", why)
        for worker in self._cluster.crew(driver):
            worker.asked_to_end(0.0)
        self._ended(driver, lose=False)

    def _ended(self, driver: Driver, *, lose: bool) -> None:
        driver.die(lose=lose)
        if self.listening is driver:
            self.listening = None
            for worker in self._cluster.workers.values():
                worker.disturbed = True
        if self.driver.alive:
            return  # it was not the one that works
        self._cluster.going_home = False
        if self._cluster.stopped or self._cluster.gone_home:
            self._cluster.all_over()
            return
        least, most = self._restart_seconds
        self._cluster.agenda.after(least + self._cluster.spread(most - least), lambda: self._restart(driver.place))

    def _restart(self, place: str) -> None:
        """Somebody starts another driver."""
        if not (self._cluster.gone_home or self._cluster.stopped):
            driver = Driver(self._cluster, self._cluster.clock_rate(), len(self.drivers), place)
            self.drivers.append(driver)
            driver.start()

    def replace(self) -> None:
        """The driver stands still; somebody takes it for dead, and starts another one on another machine."""
        old = self.driver
        old.stall()
        if self.ends_locals:
            for worker in [worker for worker in self._cluster.workers.values() if worker.host == old.place]:
                worker.crash()
        self._cluster.agenda.after(self._cluster.spread(4.0 * max(self._cluster.lease, STALE_SECONDS)), old.resume)
        self._cluster.agenda.after(
            STALE_SECONDS + self._cluster.spread(30.0), lambda: self._restart(f"node{9 + len(self.drivers)}")
        )

    def is_alive(self, other: Process, me: Process) -> bool | None:
        """Whether the driver that owns the run directory is alive, as far as another one can know."""
        if other.host != me.host:
            return None
        return self.drivers[other.pid].alive

    def takes_over(self, driver: Driver) -> None:
        """A driver owns the run directory now."""
        if driver is not self.driver and self.driver.alive:
            self._cluster.count("driver replaced")
            self.driver.scheduler.owner = False
        self.driver = driver

    def has_begun(self, driver: Driver) -> None:
        """A driver listens now."""
        self.listening = driver
        if self._cluster.stopped:
            driver.stop()
