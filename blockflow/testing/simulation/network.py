"""What becomes of bytes on their way? A simulated network of connections that behave as TCP does.

Bytes of one direction of a connection arrive in the order in which they were sent, cut into pieces anywhere, or do not
arrive at all: then nothing that was sent later does. The two ends learn of a broken connection at different times.
Nothing is ordered between two connections, so what was said on an old one may arrive after what was said on a new one.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from blockflow.testing.simulation.agenda import Agenda
    from blockflow.testing.simulation.facts import Grant
    from blockflow.testing.simulation.worker import Worker


class Receiver(Protocol):
    """One end of a connection."""

    def arrived(self, connection: Connection, data: bytes) -> None:
        """Bytes have come."""

    def ended(self, connection: Connection) -> None:
        """No more bytes will come."""


class Pipe:
    """One direction of a connection.

    Args:
        agenda: Virtual time.
        random: Decides how long everything takes.
        seconds: How long a message takes on average.
        arrived: Is given what arrives; None for the end.
    """

    def __init__(self, agenda: Agenda, random: Random, seconds: float, arrived: Callable[[bytes | None], None]) -> None:
        self._agenda = agenda
        self._random = random
        self.seconds = seconds
        self._arrived = arrived
        self._last = 0.0
        """When the last of what was sent arrives."""
        self._lost = 0
        """How often what was under way was lost."""
        self.over = False
        """The end was sent."""
        self._blocked = 0
        self._held: list[bytes | None] = []
        """What has come to where nothing passes."""

    def send(self, data: bytes) -> None:
        """Send bytes; does nothing after the end."""
        if self.over:
            return
        if len(data) > 1 and self._random.random() < 0.1:
            middle = self._random.randrange(1, len(data))
            self._travel(data[:middle])
            data = data[middle:]
        self._travel(data)

    def end(self, *, lose: bool) -> None:
        """Send the end; what is under way may be lost."""
        if self.over:
            return
        self.over = True
        if lose:
            self._lost += 1
            self._held.clear()
        self._travel(None)

    def block(self) -> None:
        """Let nothing pass, until :meth:`unblock` was called as often."""
        self._blocked += 1

    def unblock(self) -> None:
        """Let everything pass, and first what was held up."""
        self._blocked -= 1
        if not self._blocked:
            held, self._held = self._held, []
            for data in held:
                self._arrived(data)

    def _travel(self, data: bytes | None) -> None:
        time = max(self._last, self._agenda.now + self._random.expovariate(1.0 / self.seconds))
        self._last = time
        lost = self._lost
        self._agenda.at(time, lambda: self._come(data, lost))

    def _come(self, data: bytes | None, lost: int) -> None:
        if lost != self._lost:
            return
        if self._blocked:
            self._held.append(data)
        else:
            self._arrived(data)


class Connection:
    """A connection from a worker to a driver.

    Args:
        number: No two connections have the same.
        worker: Its one end.
        driver: Its other end.
        agenda: Virtual time.
        random: Decides how long everything takes.
        seconds: How long a message takes on average.
    """

    def __init__(
        self, number: int, worker: Worker, driver: Receiver, agenda: Agenda, random: Random, seconds: float
    ) -> None:
        self.number = number
        self.worker = worker
        self.driver = driver
        self.up = Pipe(agenda, random, seconds, lambda data: self._deliver(driver, data))
        self.down = Pipe(agenda, random, seconds, lambda data: self._deliver(worker, data))
        self.labels: deque[Grant | None] = deque()
        """By frame on its way down: the ghost of the lease that it grants. Not part of what is sent."""
        self.broken = False
        """The driver does not see it closed at the worker's end, but broken on the way."""

    @property
    def over(self) -> bool:
        """Whether nothing more can be sent in one of the directions."""
        return self.up.over or self.down.over

    def break_up(self, *, lose_up: bool, lose_down: bool) -> None:
        """Break the connection; each end finds out when it does."""
        self.broken = self.broken or not self.up.over
        self.up.end(lose=lose_up)
        self.down.end(lose=lose_down)

    def _deliver(self, receiver: Receiver, data: bytes | None) -> None:
        if data is None:
            receiver.ended(self)
        else:
            receiver.arrived(self, data)
