"""What happened, in order? Written down so that it can be told, and as one number so that runs can be compared."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blockflow.testing.simulation.agenda import Agenda
    from blockflow.testing.simulation.plans import Key


class Story:
    """Everything that happened in one run.

    Args:
        agenda: Virtual time.
    """

    def __init__(self, agenda: Agenda) -> None:
        self._agenda = agenda
        self._hash = hashlib.blake2b(digest_size=16)
        self.events = 0
        """Things that happened."""
        self._story: list[tuple[float, tuple[object, ...], tuple[Key, ...]]] = []
        self._messages: list[tuple[float, str, int, object, bytes]] = []

    def note(self, *what: object, keys: tuple[Key, ...] = ()) -> None:
        """Write down that something happened, for the story and for the hash."""
        self.events += 1
        self._hash.update(repr((self._agenda.now, what, keys)).encode())
        self._story.append((self._agenda.now, what, keys))

    def hear(self, who: str, number: int, message: object, body: bytes) -> None:
        """A message has arrived."""
        self.events += 1
        self._hash.update(f"{self._agenda.now} {who} {number} ".encode() + body)
        self._messages.append((self._agenda.now, who, number, message, body))

    @property
    def event_hash(self) -> str:
        """Everything that happened, as one number."""
        return self._hash.hexdigest()

    def story(self, keys: Iterable[Key], last: int = 60) -> list[str]:
        """What happened to some blocks, oldest first; of everything, if no block is named."""
        wanted = set(keys)
        lines = [
            f"{time:.3f} {' '.join(map(str, what))} {' '.join(map(str, concerned[:8]))}".rstrip()
            for time, what, concerned in self._story
            if not wanted or wanted.intersection(concerned) or not concerned
        ]
        return lines[-last:]
