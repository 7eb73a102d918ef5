"""What is a question?

A question is data: the runs of each contender, and figures that are computed from what was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.measure import Measurement

CASES = Path(__file__).resolve().parent / "cases"

CORES = 2
"""Workers of each contender; shares are of so many cores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One command of one contender; ``{work}`` in it stands for the folder that all runs of a question share."""

    contender: str
    label: str
    """Names the run among those of its contender; figures find it by this."""
    words: tuple[str, ...]
    """A script of ``cases`` and its arguments after the contender; or arguments of python."""
    most: int | None = None
    """Rounds at most; None for as many as are asked for."""
    timeout: float = 120.0
    reports: bool = True
    check: tuple[str, ...] = ()
    """A script and arguments that print a checksum afterwards; it has to be the same for all."""

    def command(self, python: Path, work: Path) -> list[str]:
        """The whole command."""
        return [str(python), *script(self.words, self.contender, work)]


def script(words: tuple[str, ...], contender: str | None, work: Path) -> list[str]:
    """Arguments of python for a script of ``cases``, or as they are."""
    words = tuple(word.replace("{work}", str(work)) for word in words)
    if not words[0].endswith(".py"):
        return list(words)
    return [str(CASES / words[0]), *([contender] if contender else []), *words[1:]]


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that answers a question."""

    name: str
    labels: tuple[str, ...]
    """The runs that it is computed from."""
    value: Callable[..., float]
    """Called with the measurements of these runs in one round of one contender."""
    compared: bool = True
    """Whether a ratio means something."""
    of_others: tuple[str, ...] = ()
    """The runs that it is computed from for the others, where they have no such runs."""

    @property
    def their_labels(self) -> tuple[str, ...]:
        """The runs of another contender that it is computed from."""
        return self.of_others or self.labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question, how it is asked, and what is reported."""

    name: str
    title: str
    goal: str
    """What we want, in words; the report passes no verdict."""
    runs: tuple[Run, ...]
    figures: tuple[Figure, ...]
    rounds: int
    prepare: tuple[str, ...] = ()
    """A script and its arguments, run once before all, and not measured."""


def blocks(measured: Measurement) -> float:
    return float(measured.reported["blocks"])


def call(measured: Measurement) -> float:
    """Seconds of the call alone: making tasks and running them, without interpreter and imports."""
    return float(measured.reported["call_seconds"])


def driver_mb(measured: Measurement) -> float:
    """What the driver says itself at its end; the sampled figure may miss the last half second."""
    return float(measured.reported["driver_mb"])


def memory(label: str) -> tuple[Figure, Figure]:
    return (
        Figure("driver MB", (label,), driver_mb),
        Figure("largest worker MB", (label,), lambda measured: measured.worker_mb),
    )
