"""Alarm: what ends this process at a time, even if C code keeps Python's lock?

Python has a thread in C that needs no lock; it writes what all threads were doing to standard error, and ends the
process with code 1. There is one such alarm in a process.
"""

from __future__ import annotations

import faulthandler
import sys

LEAST_SECONDS = 0.1


class Alarm:
    """Ends this process at a time, unless it is set to another one or put off before."""

    def __init__(self) -> None:
        self._end: float | None = None

    def set(self, end: float | None, now: float) -> None:
        """Set the alarm.

        Args:
            end: When; None for never.
            now: The time, by the same clock.
        """
        if end == self._end:
            return
        self._end = end
        if end is None:
            faulthandler.cancel_dump_traceback_later()
        else:
            seconds = max(LEAST_SECONDS, end - now)
            faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or sys.stderr)
