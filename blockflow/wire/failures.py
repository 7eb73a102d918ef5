"""How does an exception of user code become text that can be sent, grouped and shown?

Exceptions never cross the wire as objects: rebuilding them by name would run code that the sender chose. Text from a
worker is untrusted; it is bounded here and again where it arrives.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

LONGEST_ERROR = 1_000
"""Characters of the one-line description."""

LONGEST_TRACEBACK = 8_000
"""Characters of a traceback; the middle is left out of longer ones."""

_OWN_CODE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureText:
    """An exception in words."""

    error: str
    """Type and message on one line."""
    traceback: str
    """Python's traceback, without blockflow's own frames."""
    where: str
    """The innermost line of user code, as ``file:line``; empty if there is none."""


def describe(error: BaseException) -> FailureText:
    """Put an exception into words.

    >>> try:
    ...     [][1]
    ... except IndexError as error:
    ...     describe(error).error
    'IndexError: list index out of range'
    """
    import traceback  # here, because a worker whose blocks all succeed never needs it

    summary = traceback.TracebackException.from_exception(error)
    frames = [frame for frame in summary.stack if not frame.filename.startswith(_OWN_CODE)]
    where = ""
    if frames:
        summary.stack = traceback.StackSummary.from_list(frames)
        where = f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}"
    message = str(error)
    line = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return FailureText(
        error=_shortened(" ".join(line.split()), LONGEST_ERROR),
        traceback=_shortened("".join(summary.format()), LONGEST_TRACEBACK),
        where=where,
    )


def _shortened(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    half = longest // 2 - 10
    return f"{text[:half]}\n[...]\n{text[-half:]}"
