"""What goes wrong now? Faults strike at random moments until the weather clears, and then everything heals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockflow.testing.simulation.profiles import WEATHER

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from blockflow.testing.simulation.cluster import Cluster
    from blockflow.testing.simulation.network import Connection, Pipe
    from blockflow.testing.simulation.profiles import Profile
    from blockflow.testing.simulation.worker import Worker

_SWARM = 0.6
"""Share of the kinds of faults of a profile that a schedule keeps."""


class Weather:
    """The faults of one schedule.

    Args:
        cluster: On what they strike.
        random: Decides when and where.
        profile: Which, and how often.
    """

    def __init__(self, cluster: Cluster, random: Random, profile: Profile) -> None:
        self._cluster = cluster
        self._random = random
        self._profile = profile
        work = cluster.scenario.work
        workers = max(1, sum(min(2, task.task.num_workers) for task in cluster.scenario.plan.tasks))
        span = work / workers + 20.0 * cluster.delay
        self.until = span * random.uniform(0.3, 1.5)
        """When faults stop."""
        tries = 2 + max(task.task.max_retries for task in cluster.scenario.plan.tasks)
        patience = 12 * cluster.lease + max(profile.pauses) + 600.0
        self.latest_end = self.until + 3 * work * tries + patience + 7 * _hanging(cluster)
        """When the run must be over."""
        self._kinds = [kind for kind in WEATHER if profile.weather.get(kind) and random.random() < _SWARM]
        self._weights = [profile.weather[kind] for kind in self._kinds]
        self._faults = profile.faults * random.choice((0.3, 1.0, 2.0))
        self._gap = self.until / max(self._faults, 0.01)
        self._resized: set[int] = set()
        """Tasks that people want another number of workers for."""
        self._healing: list[Callable[[], None]] = []

    def begin(self) -> None:
        """Let it begin."""
        cluster, random = self._cluster, self._random
        cluster.agenda.after(self.until, self._clear)
        if random.random() < self._profile.stops:
            cluster.agenda.after(random.uniform(0.0, 1.2) * self.until, cluster.stop)
        if random.random() < self._profile.resizes:
            for _ in range(random.randint(1, 3)):
                task, workers = random.randrange(len(cluster.scenario.plan.tasks)), random.choice((0, 1, 2, 5))
                cluster.agenda.after(
                    random.random() * self.until,
                    lambda task=task, workers=workers: self._resize(task, workers),  # type: ignore[misc]
                )
        if self._kinds:
            self._wait()

    def _resize(self, task: int, workers: int) -> None:
        """People change the number of workers of a task; after the weather has cleared it is what it was."""
        self._cluster.count("resize")
        self._cluster.judge.note("resize task", task, "to", workers)
        self._resized.add(task)
        self._cluster.driver.resize(task, workers)

    def _wait(self) -> None:
        seconds = self._random.expovariate(1.0 / self._gap)
        if self._cluster.agenda.now + seconds < self.until:
            self._cluster.agenda.after(seconds, self._strike)

    def _strike(self) -> None:
        if self._cluster.gone_home:
            return
        kind = self._random.choices(self._kinds, self._weights)[0]
        if self._faulty(kind):
            self._cluster.count(kind)
            self._cluster.judge.note("fault:", kind)
        self._wait()

    def _clear(self) -> None:
        """Faults stop, and everything that stands still goes on."""
        self._cluster.judge.note("faults stop")
        healing, self._healing = self._healing, []
        for heal in healing:
            heal()
        for worker in list(self._cluster.workers.values()):
            worker.bad = False
        for task in self._resized:
            self._cluster.driver.resize(task, self._cluster.scenario.plan.tasks[task].workers)
        self._cluster.death_odds = 0.0
        if self._cluster.disk is not None:
            self._cluster.disk.dies_after = None
            self._cluster.disk.fails = False

    def _faulty(self, kind: str) -> bool:
        """Let a fault strike; whether it found a victim."""
        match kind:
            case "cut" | "blackhole" | "one way" | "slow":
                connection = self._victim_connection(anywhere=kind == "cut")
                if connection is not None:
                    self._on_network(kind, connection)
                return connection is not None
            case "crash" | "pause" | "preempt" | "bad worker":
                worker = self._victim()
                if worker is not None:
                    self._on_process(kind, worker)
                return worker is not None
            case "stall":
                self._cluster.driver.stall()
                for worker in self._cluster.workers.values():
                    worker.disturbed = True
                self._heal_after(self._duration(), self._cluster.driver.resume)
                return True
            case "driver crash" | "disk full" | "disk error" | "stale driver":
                return self._on_driver(kind)
            case _:
                return False

    def _on_driver(self, kind: str) -> bool:
        """Something happens to the driver or its disk; whether it has one."""
        cluster = self._cluster
        disk = cluster.disk
        if disk is None or not cluster.driver.alive:
            return False
        match kind:
            case "driver crash" if self._random.random() < 0.5:
                disk.dies_after = self._random.randrange(6)
            case "driver crash":
                cluster.death_odds = self._random.choice((0.1, 0.5, 1.0))
            case "stale driver":
                cluster.lives.replace()
            case "disk full":
                disk.full = True

                def heal() -> None:
                    disk.full = False

                self._heal_after(self._duration(), heal)
            case _:
                disk.fails = True
        for worker in cluster.workers.values():
            worker.disturbed = True
        return True

    def _on_network(self, kind: str, connection: Connection) -> None:
        random = self._random
        connection.worker.disturbed = True
        match kind:
            case "cut":
                connection.break_up(lose_up=random.random() < 0.6, lose_down=random.random() < 0.6)
            case "blackhole":
                self._block(connection, (connection.up, connection.down))
            case "one way":
                self._block(connection, (random.choice((connection.up, connection.down)),))
            case _:
                factor = random.choice((10.0, 100.0, 1000.0))
                for pipe in (connection.up, connection.down):
                    pipe.seconds = min(20.0, pipe.seconds * factor)

                def heal() -> None:
                    for pipe in (connection.up, connection.down):
                        pipe.seconds = self._cluster.delay

                self._heal_after(self._duration(), heal)

    def _block(self, connection: Connection, pipes: tuple[Pipe, ...]) -> None:
        """Nothing passes for a while; then either everything does, or both ends find the connection broken."""
        for pipe in pipes:
            pipe.block()
        breaks = self._random.random() < 0.4

        def heal() -> None:
            if breaks:
                connection.break_up(lose_up=connection.up in pipes, lose_down=connection.down in pipes)
            for pipe in pipes:
                pipe.unblock()

        self._heal_after(self._duration(), heal)

    def _on_process(self, kind: str, worker: Worker) -> None:
        match kind:
            case "crash":
                worker.crash()
            case "pause":
                worker.disturbed = True
                if not worker.paused:
                    worker.pause()
                    self._heal_after(self._random.choice(self._profile.pauses), worker.resume)
            case "preempt":
                grace = self._random.choice((0.0, 2.0, 30.0))
                for other in list(self._cluster.workers.values()):
                    if other is worker or (other.host == worker.host and self._random.random() < 0.7):
                        other.asked_to_end(grace)
            case _:
                worker.bad = True

    def _heal_after(self, seconds: float, heal: Callable[[], None]) -> None:
        """Undo a fault after a time, or when the weather clears."""
        self._healing.append(heal)

        def heals() -> None:
            if heal in self._healing:
                self._healing.remove(heal)
                heal()

        self._cluster.agenda.after(seconds, heals)

    def _duration(self) -> float:
        return self._random.choice((0.1, 0.5, 1.0, 1.5, 3.0)) * self._cluster.lease

    def _victim(self) -> Worker | None:
        workers = list(self._cluster.workers.values())
        return self._random.choice(workers) if workers else None

    def _victim_connection(self, *, anywhere: bool) -> Connection | None:
        """Some connection; between processes of one machine there is no network that could be slow."""
        found = [
            line.connection
            for worker in self._cluster.workers.values()
            for line in (worker.link.line, worker.link.joining)
            if line is not None and not line.connection.over and (anywhere or worker.host != self._cluster.driver.place)
        ]
        return self._random.choice(found) if found else None


def _hanging(cluster: Cluster) -> float:
    """Seconds that are lost to blocks that hang until their timeout."""
    timeouts = [task.task.timeout for task in cluster.scenario.plan.tasks]
    seconds = [timeout if isinstance(timeout, float) else 0.0 for timeout in timeouts]
    natures = cluster.scenario.natures.items()
    return sum(seconds[task] for (task, _), nature in natures if nature.hangs or nature.seconds > 2.0 * cluster.lease)
