"""How far is the run? Bars in a terminal or a notebook, plain lines elsewhere.

Each task shows its blocks done of all, those running, and failed, orphaned and skipped ones where there are any, with
the time left from the rate of the last minute: an average over the whole run is wrong at its start and at its end.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from blockflow.escaping import escape
from blockflow.logging import get_log_basedir
from blockflow.monitor.guarded import Guarded

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from blockflow.scheduler.state import TaskState

WINDOW_SECONDS = 60.0
"""The time left is computed from the blocks of this time."""

LINES_SECONDS = 10.0
"""How often plain lines are printed."""


class Display(Protocol):
    """Shows how far a run is."""

    @property
    def talks(self) -> bool:
        """Whether more than failures is shown."""

    def update(self, states: Mapping[str, TaskState], now: float) -> None:
        """Show new numbers."""

    def write(self, text: str) -> None:
        """Print a line without disturbing what is shown."""

    def close(self, states: Mapping[str, TaskState], now: float) -> None:
        """Show the last numbers, and leave."""


def make_display(*, progress: bool, logs: Path | None = None) -> Display:
    """Return the display that fits where this process prints; it cannot fail.

    Args:
        progress: Whether it shows more than failures.
        logs: Folder of the logs, where it writes what it cannot show; the usual one if not given.
    """

    def folder() -> Path | None:
        return logs or get_log_basedir()

    if not progress or sys.stderr is None:
        return Guarded(Silence(), logs=folder)
    if "ipykernel" in sys.modules or _is_terminal():
        return Guarded(Bars(), Lines(), logs=folder)
    return Guarded(Lines(), logs=folder)


def _is_terminal() -> bool:
    try:
        return bool(sys.stderr.isatty())
    except Exception:  # it is closed, or an object of the user's that is hardly a file
        return False


class Silence:
    """Shows nothing but lines."""

    talks = False

    def update(self, states: Mapping[str, TaskState], now: float) -> None:
        """Show nothing."""

    def write(self, text: str) -> None:
        """Print a line, if this process has where to; daemons often have not."""
        if sys.stderr is not None:
            sys.stderr.write(f"{_writable(text)}\n")

    def close(self, states: Mapping[str, TaskState], now: float) -> None:
        """Show nothing."""


class Lines(Silence):
    """A line per task, now and then."""

    talks = True

    def __init__(self) -> None:
        self._rates: dict[str, Rate] = {}
        self._next = float("-inf")
        self._shown: dict[str, str] = {}

    def update(self, states: Mapping[str, TaskState], now: float) -> None:
        """Print what has changed, if the last time is long enough ago."""
        if now < self._next:
            for name, state in states.items():
                self._rates.setdefault(name, Rate()).add(state, now)
            return
        self._next = now + LINES_SECONDS
        for name, state in states.items():
            rate = self._rates.setdefault(name, Rate())
            rate.add(state, now)
            if not state.started and not state.completed_count:
                continue
            line = f"{name}: {state.completed_count}/{state.total_block_count} done{describe(state, rate.left(state))}"
            if self._shown.get(name) != line:
                self._shown[name] = line
                self.write(line)

    def close(self, states: Mapping[str, TaskState], now: float) -> None:
        """Print the last numbers."""
        self._next = float("-inf")
        self.update(states, now)


class Bars:
    """A bar per task."""

    talks = True

    def __init__(self) -> None:
        self._rates: dict[str, Rate] = {}
        self._bars: dict[str, Any] = {}

    def update(self, states: Mapping[str, TaskState], now: float) -> None:
        """Move the bars."""
        from tqdm.auto import tqdm

        for place, (name, state) in enumerate(states.items()):
            if name not in self._bars:
                self._bars[name] = tqdm(
                    total=state.total_block_count,
                    desc=name,
                    position=place,
                    unit="block",
                    bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]",
                )
            rate = self._rates.setdefault(name, Rate())
            rate.add(state, now)
            bar = self._bars[name]
            bar.n = state.completed_count
            bar.set_postfix_str(describe(state, rate.left(state)).removeprefix(", "), refresh=True)

    def write(self, text: str) -> None:
        """Print a line above the bars."""
        from tqdm.auto import tqdm

        tqdm.write(_writable(text), file=sys.stderr)

    def close(self, states: Mapping[str, TaskState], now: float) -> None:
        """Leave the bars where they are."""
        self.update(states, now)
        for bar in self._bars.values():
            bar.close()


class Rate:
    """Blocks per second of the last minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, state: TaskState, now: float) -> None:
        """Note how many blocks were run by now; skipped ones took no time."""
        self._seen.append((now, state.completed_count - state.skipped_count))
        while len(self._seen) > 2 and now - self._seen[0][0] > WINDOW_SECONDS:
            self._seen.popleft()

    def left(self, state: TaskState) -> float | None:
        """Seconds until all blocks are done; None if nobody can tell."""
        (then, before), (now, done) = self._seen[0], self._seen[-1]
        if done <= before or now <= then:
            return None
        remaining = state.ready_count + state.processing_count + state.pending_count
        return remaining * (now - then) / (done - before)


def describe(state: TaskState, seconds_left: float | None) -> str:
    """The numbers beside a bar, each with a comma in front."""
    counts = (
        (state.processing_count, "running"),
        (state.failed_count, "failed"),
        (state.orphaned_count, "orphaned"),
        (state.skipped_count, "skipped"),
    )
    words = [f"{number} {word}" for number, word in counts if number]
    if seconds_left is not None and not state.is_done():
        words.append(f"{clock(seconds_left)} left")
    return "".join(f", {word}" for word in words)


def _writable(text: str) -> str:
    """Return the text, with what standard errors cannot encode or a terminal would obey written out.

    Names of files may be of any encoding, and streams that notebooks and tests put there are strict about it.
    """
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    return escape(text).encode(encoding, "backslashreplace").decode(encoding)


def clock(seconds: float) -> str:
    """A duration as people read it.

    >>> clock(75), clock(3675), clock(200000)
    ('1:15', '1:01:15', '2 d 7 h')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
