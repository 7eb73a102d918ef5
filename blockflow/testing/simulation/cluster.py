"""The cluster: one driver and its workers in one process, on one virtual clock, from one seed.

It owns what exists beside the driver and the workers: processes and who started them, connections, and the random
numbers that decide everything. It ends when the driver has sent everybody home and no process is left.
"""

from __future__ import annotations

from collections import Counter
from itertools import count
from random import Random
from typing import TYPE_CHECKING

from blockflow.coordinator import HOME_SECONDS, KILL_SECONDS, STOP_SECONDS
from blockflow.scheduler.block_states import ENDED
from blockflow.testing.simulation.agenda import Agenda
from blockflow.testing.simulation.disk import Died, SimulatedDisk
from blockflow.testing.simulation.judge import BrokenPromise, Judge
from blockflow.testing.simulation.lives import Lives
from blockflow.testing.simulation.network import Connection
from blockflow.testing.simulation.plans import Scenario, make_scenario
from blockflow.testing.simulation.weather import Weather
from blockflow.testing.simulation.worker import Worker

if TYPE_CHECKING:
    from blockflow.plan.plan import Plan
    from blockflow.testing.simulation.driver import Driver
    from blockflow.testing.simulation.profiles import Profile

_STEPS, _STEPS_PER_BLOCK = 20_000, 1_000
"""A run in which more happens does not get anywhere."""

_FEW_DELAYS = 50.0
"""Leases of at least as many times what a message takes are not lost by chance."""

_DRIFT = 0.01
"""Clocks are wrong by this share at most."""


class Cluster:
    """Everything that a simulated run consists of.

    Args:
        seed: Decides everything.
        profile: What goes wrong, and how often.
        plan: What is run; a random one if not given.
    """

    def __init__(self, seed: int, profile: Profile, plan: Plan | None = None) -> None:
        self._random = Random(f"{profile.name} {seed}")
        self.agenda = Agenda()
        self.lease = self._random.choice(profile.leases)
        """Seconds of a lease."""
        self.scenario: Scenario = make_scenario(self._random, profile, self.lease, plan)
        self.judge = Judge(self.scenario.plan, self.agenda)
        self.run = "simulated"
        self.delay = self._random.choice(profile.delays)
        """Seconds a message takes on average."""
        self.faults: Counter[str] = Counter()
        self.workers: dict[int, Worker] = {}
        """By process id: processes that live."""
        self.run_is_over = False
        """The connection file says so."""
        self.stopped = False
        """People have stopped the run."""
        self.gone_home = False
        """The driver has ended."""
        self.disk: SimulatedDisk | None = None
        """The run directory, if the run has one."""
        if self.chance(0.8):
            self.disk = SimulatedDisk(self._random, lambda: self.agenda.now)
        self._disk_seconds = self._random.choice((0.0, 0.0001, 0.003, 0.05))
        self.death_odds = 0.0
        """Probability that the driver dies at the next step at which it can."""
        self.going_home = False
        """There is nothing more to do."""
        self._pids = 0
        self._made = 0
        self._step_crash = profile.step_crash
        self.weather = Weather(self, self._random, profile)
        self.lives = Lives(self, profile.restart_seconds)

    @property
    def driver(self) -> Driver:
        """The last driver that has taken over the run directory."""
        return self.lives.driver

    # ------------------------------------------------------------------------------------------------ the run

    def live(self) -> str:
        """Run to the end; returns how it ended.

        Raises:
            BrokenPromise: Something happened that must never happen.
        """
        self.weather.begin()
        if self.chance(0.3):
            for task in self.scenario.plan.tasks:
                self.agenda.after(self.spread(self.weather.until), lambda number=task.number: self._by_hand(number))  # type: ignore[misc]
        self.driver.start()
        left = _STEPS + _STEPS_PER_BLOCK * len(self.scenario.natures)
        while not (self.gone_home and not self.workers):
            left -= 1
            if not self.agenda.step():  # not even a beat of the driver
                raise BrokenPromise("liveness", "nothing will ever happen again", self._unfinished())
            if self.agenda.now > self.weather.latest_end or left < 0:
                raise BrokenPromise(
                    "liveness",
                    f"faults stopped at {self.weather.until:.0f} s, and the run not at {self.agenda.now:.0f} s, "
                    f"after {self.judge.events} events",
                    self._unfinished(),
                )
        return self._judge_end()

    def _judge_end(self) -> str:
        if self.stopped and self.lives.listening is None and not self.going_home:
            return "stopped"  # while no driver was there
        self.driver.check()
        left = self._unfinished()
        if not left:
            return "finished"
        if self.stopped:
            return "stopped"
        books = [self.driver.scheduler.task(number) for number in range(len(self.scenario.plan.tasks))]
        if any(book.pool.exhausted or (book.given_up and self.judge.all_first_failed(book)) for book in books):
            return "gave up"
        raise BrokenPromise("end", f"the run has ended, and {len(left)} blocks have not", left)

    def _unfinished(self) -> list[tuple[int, int]]:
        books = (self.driver.scheduler.task(number) for number in range(len(self.scenario.plan.tasks)))
        ended = tuple(map(int, ENDED))
        return [
            (number, index)
            for number, book in enumerate(books)
            for index, state in enumerate(book.blocks.states.tolist())
            if state not in ended
        ]

    # ------------------------------------------------------------------------------------------ the driver

    def driver_finished(self, driver: Driver) -> None:
        """Nothing can happen any more: workers have some time to go home."""
        if driver is self.driver and not (self.going_home or self.stopped):
            self._send_home(HOME_SECONDS)

    def maybe_die(self) -> None:
        """One of the moments in which the driver may die.

        Raises:
            Died: It does.
        """
        if self.death_odds and self.disk is not None and self.chance(self.death_odds):
            self.death_odds = 0.0
            raise Died

    def disk_seconds(self) -> float:
        """How long writing a batch takes."""
        return self._random.expovariate(1.0 / self._disk_seconds) if self._disk_seconds else 0.0

    # -------------------------------------------------------------------------------------------------- the end

    def stop(self) -> None:
        """People stop the run."""
        if not (self.run_is_over or self.stopped):
            self.stopped = True
            self.judge.note("stop")
            if not self.driver.alive:
                self.all_over()
                return
            self.driver.stop()
            self._send_home(STOP_SECONDS)

    def _send_home(self, seconds: float) -> None:
        """Give processes time to end, then end them; the run is over after that, or when all of them have ended."""
        self.run_is_over = self.run_is_over or self.stopped
        self.going_home = True
        self.agenda.after(seconds, self._kill_all)
        self._close_if_empty()

    def _kill_all(self) -> None:
        for worker in self.crew(self.driver):
            worker.asked_to_end(0.0)
            self.agenda.after(KILL_SECONDS, worker.crash)

    def _close_if_empty(self) -> None:
        """The run is over when all processes of the driver have ended."""
        if self.going_home and not self.gone_home and not self.crew(self.driver):
            self.run_is_over = True
            self.gone_home = True
            self.lives.listening = None
            self.driver.close()

    def all_over(self) -> None:
        """The run was stopped while its driver was dead."""
        self.run_is_over = self.gone_home = True
        for worker in list(self.workers.values()):
            worker.crash()

    def crew(self, driver: Driver) -> list[Worker]:
        """The processes that a driver has started, and that live."""
        mine = (worker for worker in self.workers.values() if worker.process is not None)
        return [worker for worker in mine if worker.life == driver.life]

    # ---------------------------------------------------------------------------------------------- processes

    def start_process(self, task: int, process: int | None, driver: Driver) -> None:
        """Start a worker process, here or on another node."""
        self._pids += 1
        host = driver.place if self.chance(0.5) else f"node{self._random.randint(1, 3)}"
        pid = next(pid for pid in count(1) if self.process_at(host, pid) is None)  # numbers are given again
        worker = Worker(
            self, self._pids, task=task, process=process, host=host, pid=pid, rate=self.clock_rate(), life=driver.life
        )
        self.workers[worker.number] = worker
        self.judge.note("start", worker.number, "process", process, "task", task, "on", host)
        worker.start()

    def _by_hand(self, task: int) -> None:
        """Somebody starts a worker by hand, and again whenever it ends before the run is over."""
        if not self.run_is_over:
            self.start_process(task, None, self.driver)

    def process_ended(self, worker: Worker, code: int) -> None:
        """A worker process has ended."""
        del self.workers[worker.number]
        self.judge.note("end", worker.number, "with code", code)
        if worker.process is not None:
            self.lives.drivers[worker.life].process_ended(worker.process, worker.task, code)
        else:
            self.agenda.after(self.spread(30.0), lambda: self._by_hand(worker.task))
        self._close_if_empty()

    def process_at(self, place: str, pid: int) -> Worker | None:
        """The process that has a number on a machine."""
        return next((each for each in self.workers.values() if (each.host, each.pid) == (place, pid)), None)

    def is_dead(self, place: str, pid: int, started: str) -> bool:
        """Whether a process has ended; another one may have its number."""
        found = self.process_at(place, pid)
        return found is None or started not in ("", f"{found.number}")

    def is_stopped(self, place: str, pid: int) -> bool:
        """Whether a process stands still."""
        found = self.process_at(place, pid)
        return found is not None and found.paused

    def kill(self, place: str, pid: int, started: str) -> None:
        """End a process at once, if it is the one that started then."""
        if not started:
            raise BrokenPromise("innocent", f"process {pid} on {place} is to be ended, whoever has that number now")
        found = self.process_at(place, pid)
        if found is not None and started == f"{found.number}":
            found.crash()

    def task_id(self, task: int) -> str:
        """Name of a task."""
        return self.scenario.plan.tasks[task].task_id

    # ------------------------------------------------------------------------------------------------ network

    def connect(self, worker: Worker) -> Connection | None:
        """Connect a worker to the driver; None if nobody answers."""
        if self.gone_home or self.lives.listening is None:
            return None
        self._made += 1
        connection = Connection(self._made, worker, self.lives.listening, self.agenda, self._random, self.delay)
        self.lives.listening.accept(connection)
        return connection

    # ------------------------------------------------------------------------------------------------- chance

    def chance(self, probability: float) -> bool:
        """Whether something happens that does with a probability."""
        return self._random.random() < probability

    def spread(self, most: float) -> float:
        """Some number from 0 to `most`."""
        return most * self._random.random()

    def dies_now(self) -> bool:
        """Whether the worker process that asks dies in this very moment."""
        if self._step_crash and self.agenda.now < self.weather.until and self.chance(self._step_crash):
            self.count("step crash")
            return True
        return False

    def fenced(self, worker: Worker, *, late: bool) -> None:
        """A worker ends itself because what it holds is not its own any more."""
        self.count("fenced")
        keys = () if worker.execution is None else (worker.execution.key,)
        self.judge.note("fenced", worker.number, keys=keys)
        if late and self._nothing_is_wrong_with(worker):
            raise BrokenPromise("fence", f"process {worker.number} ends itself, and nothing was wrong with it", keys)

    def unanswered(self, worker: Worker) -> None:
        """A worker gives its connection up because nothing is answered."""
        self.count("unanswered")
        self.judge.note("unanswered", worker.number)
        if self._nothing_is_wrong_with(worker):
            raise BrokenPromise("answers", f"process {worker.number} is not answered, and nothing was wrong with it")

    def _nothing_is_wrong_with(self, worker: Worker) -> bool:
        return (
            not (worker.disturbed or self.gone_home or len(self.lives.drivers) > 1)
            and self.lease > _FEW_DELAYS * self.delay
        )

    def count(self, fault: str) -> None:
        """Something went wrong."""
        self.faults[fault] += 1

    def clock_rate(self) -> float:
        """Seconds of some clock per second."""
        return 1.0 + _DRIFT * (2.0 * self._random.random() - 1.0)
