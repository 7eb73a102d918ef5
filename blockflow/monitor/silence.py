"""Messages about a disk that does not answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_SECONDS = 10.0
"""After so long without an answer a disk is named; each message waits twice as long as the one before."""


class SilenceTeller:
    """Says how long the disk of a run has not answered, and when it answers again.

    >>> teller = SilenceTeller(("run directory", "/data/run"), describe=lambda path: "nfs4 at /data")
    >>> teller.lines(3.0), teller.lines(15.0), teller.lines(0.0)
    ([], ['the run directory has not answered for 15 s (nfs4 at /data): nothing is granted or ...'], ['the run ...'])

    Args:
        where: What is on the disk, in words, and its path.
        describe: Returns the file system of a path in words, without asking it for anything.
    """

    def __init__(self, where: tuple[str, str], describe: Callable[[str], str] | None = None) -> None:
        self._what, self._path = where
        self._describe = describe
        self._next = FIRST_SECONDS
        self._longest = 0.0

    def lines(self, silence: float) -> list[str]:
        """Return what there is to say.

        Args:
            silence: Seconds for which the disk has not answered; 0 if nothing is asked of it.
        """
        if silence < FIRST_SECONDS:
            if not self._longest:
                return []
            lines = [f"the {self._what} answers again, after {self._longest:.0f} s; the run goes on"]
            self._next, self._longest = FIRST_SECONDS, 0.0
            return lines
        self._longest = silence
        if silence < self._next:
            return []
        self._next = 2 * silence
        return [
            f"the {self._what} has not answered for {silence:.0f} s ({self._place()}): nothing is granted or "
            "acknowledged until it does; Ctrl-C ends the run"
        ]

    def _place(self) -> str:
        if self._describe is None:
            from blockflow.mounts import describe_place

            self._describe = describe_place
        return self._describe(self._path) or self._path
