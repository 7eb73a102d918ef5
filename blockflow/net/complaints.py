"""Complaints about connections: each kind is told at once, and then in one line a minute with a count.

Anybody on the network can make as many wrong connections as he likes; neither the log nor the time of the driver may
belong to him.
"""

from __future__ import annotations

from dataclasses import dataclass

EVERY_SECONDS = 60.0
"""Between two lines of one kind."""

MOST_CHARACTERS = 300
"""Of what others have said, in a line."""


@dataclass(slots=True)
class _Kind:
    text: str
    """The last one, in words."""
    count: int = 0
    """Since the last line."""
    told: float = float("-inf")


class Complaints:
    """What is wrong with connections, for the log.

    >>> complaints = Complaints()
    >>> complaints.add("handshake", "no certificate")
    >>> complaints.lines(now=0.0)
    ['no certificate']
    >>> for _ in range(500):
    ...     complaints.add("handshake", "no certificate")
    >>> complaints.lines(now=1.0), complaints.lines(now=60.0)
    ([], ['no certificate (500 times since the last such line)'])
    """

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}

    def add(self, kind: str, text: str) -> None:
        """Note a wrong connection.

        Args:
            kind: One of a few; never what somebody else has said.
            text: In words; control characters in it are written out.
        """
        known = self._kinds.setdefault(kind, _Kind(text))
        known.text, known.count = text, known.count + 1

    def lines(self, now: float, *, last: bool = False) -> list[str]:
        """Lines that are due.

        Args:
            now: The time in seconds.
            last: No more will be asked for.
        """
        lines = []
        for known in self._kinds.values():
            if not known.count or (now - known.told < EVERY_SECONDS and not last):
                continue
            text = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in known.text[:MOST_CHARACTERS])
            lines.append(text if known.count == 1 else f"{text} ({known.count} times since the last such line)")
            known.count, known.told = 0, now
        return lines
