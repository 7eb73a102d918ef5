"""What happens next? Virtual time: it jumps from one thing that happens to the next one."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Agenda:
    """Things that will happen, in the order of their times; those of one time in the order in which they were noted.

    >>> agenda = Agenda()
    >>> agenda.after(60.0, lambda: print("a minute later"))
    >>> agenda.after(1.0, lambda: print("a second later"))
    >>> while agenda.step():
    ...     pass
    a second later
    a minute later
    >>> agenda.now
    60.0
    """

    def __init__(self) -> None:
        self.now = 0.0
        """Seconds since the beginning, on the one clock that is right."""
        self._things: list[tuple[float, int, Callable[[], None]]] = []
        self._noted = 0

    def after(self, seconds: float, thing: Callable[[], None]) -> None:
        """Let something happen later."""
        self.at(self.now + seconds, thing)

    def at(self, time: float, thing: Callable[[], None]) -> None:
        """Let something happen at a time."""
        self._noted += 1
        heappush(self._things, (time, self._noted, thing))

    def step(self) -> bool:
        """Go to the next thing and let it happen; false if there is none."""
        if not self._things:
            return False
        self.now, _, thing = heappop(self._things)
        thing()
        return True
