"""A display that can neither fail nor hold up a run, whatever happens to the terminal, the pipe or the notebook.

What cannot be shown is written to ``driver.log`` in the folder of the logs.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from typing import TYPE_CHECKING, Any

from blockflow.background import BackgroundCall
from blockflow.escaping import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from blockflow.monitor.progress import Display
    from blockflow.scheduler.state import TaskState

__all__ = ["LOG_NAME", "Guarded", "append_line"]

LOG_NAME = "driver.log"
"""File in the folder of the logs that has what could not be shown, and why a run was ended."""

PATIENCE_SECONDS = 1.0
"""How long a line waits for a terminal or pipe that takes nothing; the lines after it wait no more."""

_PIECE = 2_000
"""Characters that are written at once: a pipe that takes anything takes so many."""


class Guarded:
    """Show a run on a display, and go on without one that fails.

    Args:
        display: The one to begin with.
        simpler: What to use instead when that fails, from the second on; the last one is tried again and again.
        logs: Returns the folder of the logs; None if there is none.
    """

    def __init__(self, display: Display, *simpler: Display, logs: Callable[[], Path | None]) -> None:
        self.display = display
        """What it is shown on at present."""
        self._simpler = list(simpler)
        self._logs = logs
        self._stalled = False
        """Whether the last line waited in vain."""

    @property
    def talks(self) -> bool:
        """Whether more than failures is shown."""
        return self.display.talks

    def update(self, states: Mapping[str, TaskState], now: float) -> None:
        """Show new numbers, if that is possible at once."""
        if sys.stderr is not None and _takes(0.0):
            self._try(lambda display: display.update(states, now))

    def write(self, text: str) -> None:
        """Print a line, or write it to the log."""
        for piece in _pieces(text):
            self._stalled = not _takes(0.0 if self._stalled else PATIENCE_SECONDS)
            shown = sys.stderr is not None and not self._stalled
            if not (shown and self._try(lambda display, piece=piece: display.write(piece))):  # type: ignore[misc]
                append_line(self._logs(), piece)

    def close(self, states: Mapping[str, TaskState], now: float) -> None:
        """Show the last numbers, if that is possible at once."""
        if sys.stderr is not None and _takes(0.0):
            self._try(lambda display: display.close(states, now))

    def _try(self, show: Callable[[Display], None]) -> bool:
        """Show something on the best display that works; returns whether one does."""
        while True:
            try:
                show(self.display)
            except Exception as error:
                _drop_unwritten()
                if not self._simpler:
                    return False
                append_line(self._logs(), f"progress is shown in a simpler way: {type(error).__name__}: {error}")
                self.display = self._simpler.pop(0)
            else:
                return True


def append_line(logs: Path | None, text: str) -> None:
    """Add a line with the time to the log of the driver, if that can be done; wait for its disk only a moment.

    Args:
        logs: The folder of the logs; None if there is none.
        text: One line or several.
    """
    if logs is not None:
        BackgroundCall(lambda: _append(logs, text), name="blockflow-log").wait(PATIENCE_SECONDS)


def _append(logs: Path, text: str) -> None:
    from blockflow.trusted_files import READABLE, appended, open_folder

    with contextlib.suppress(Exception):  # this is the last resort
        open_folder(logs, make=READABLE).close()
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {escape(text)}\n"
        with appended(logs / LOG_NAME) as file:
            file.write(line.encode(errors="backslashreplace"))


def _pieces(text: str) -> Iterator[str]:
    """Yield whole lines of a text, as many at once as surely fit into a pipe."""
    piece: list[str] = []
    size = 0
    for line in text.split("\n"):
        if piece and size + len(line) > _PIECE:
            yield "\n".join(piece)
            piece, size = [], 0
        piece.append(line)
        size += len(line) + 1
    yield "\n".join(piece)


def _takes(seconds: float) -> bool:
    """Return whether standard error takes something, or fails, within some seconds; a stopped terminal does not."""
    descriptor = _descriptor()
    if descriptor is None:
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    try:
        return bool(poll.poll(seconds * 1_000))
    except OSError:
        return True


def _drop_unwritten() -> None:
    """Forget what standard error could not write: it would be tried again at the end, and make the exit code 120."""
    descriptor = _descriptor()
    stream: Any = sys.__stderr__
    if descriptor is None or stream is None or sys.stderr is not stream:
        return
    with contextlib.suppress(OSError, ValueError):
        kept, null = os.dup(descriptor), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, descriptor)
            stream.flush()
        finally:
            os.dup2(kept, descriptor)
            os.close(kept)
            os.close(null)


def _descriptor() -> int | None:
    """Return the file descriptor of standard error; None if it has none, as in a notebook."""
    stream: Any = sys.stderr
    try:
        descriptor = stream.fileno()
    except (AttributeError, OSError, ValueError):  # it is None, closed, or not a file
        return None
    return descriptor if isinstance(descriptor, int) and descriptor >= 0 else None
