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

LONGEST_WHERE = 255
"""Characters of a place in user code; the end of longer ones is kept."""

_OWN_CODE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureText:
    """An exception in words."""

    error: str
    """Type and message on one line."""
    traceback: str
    """Python's traceback, without blockflow's own frames."""
    where: str
    """The innermost line outside blockflow, as ``file:line``; empty if there is none."""


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
    return FailureText(
        error=_shortened(" ".join(_in_words(error).split()), LONGEST_ERROR, " [...] "),
        traceback=_shortened("".join(summary.format()), LONGEST_TRACEBACK, "\n[...]\n"),
        where=_sendable(where)[-LONGEST_WHERE:],
    )


def _in_words(error: BaseException) -> str:
    name = type(error).__name__
    try:
        message = str(error)
    except Exception as fault:  # user code, like the one that raised the error
        message = f"<its message cannot be shown: {type(fault).__name__}>"
    return f"{name}: {message}" if message else name


def _shortened(text: str, longest: int, gap: str) -> str:
    text = _sendable(text)
    if len(text) <= longest:
        return text
    half = (longest - len(gap)) // 2
    return text[:half] + gap + text[-half:]


def _sendable(text: str) -> str:
    """The text, with what UTF-8 cannot say (as in names of files of another encoding) written out."""
    return text.encode(errors="backslashreplace").decode()
