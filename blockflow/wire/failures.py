"""How does an exception of user code become text that can be sent, grouped and shown?

Exceptions never cross the wire as objects: rebuilding them by name would run code that the sender chose. Text from a
worker is untrusted; it is bounded here and again where it arrives.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blockflow.escaping import escape
from blockflow.wire.storage_errors import FailureKind, storage_error

if TYPE_CHECKING:
    from types import FrameType

LONGEST_ERROR = 1_000
"""Characters of the one-line description."""

LONGEST_TRACEBACK = 8_000
"""Characters of a traceback; the middle is left out of longer ones."""

LONGEST_WHERE = 255
"""Characters of a place in user code; the end of longer ones is kept."""

_OWN_CODE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_PYTHON = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_INSTALLED = ("site-packages", "dist-packages")
_GENERATED = ("<frozen ", "<__array_function__ ", "<attrs generated ", "<decorator-gen-")
"""Names that Python and libraries give to code which has no file."""
_COMPILED = (".pyx", ".pxd", ".pxi")
"""Sources of compiled modules, which are named as their authors had them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureText:
    """An exception in words."""

    error: str
    """Type and message on one line."""
    traceback: str
    """Python's traceback, without blockflow's own frames."""
    where: str
    """The innermost line of the user's own code, as ``file:line``; empty if there is none."""
    kind: FailureKind = FailureKind.CODE
    disk: str = ""
    """The file that storage failed on, or once somebody has looked, its disk; empty if unknown or of no interest."""


def describe(error: BaseException) -> FailureText:
    """Put an exception into words.

    >>> try:
    ...     [][1]
    ... except IndexError as error:
    ...     describe(error).error
    'IndexError: list index out of range'
    """
    words = _shortened(" ".join(_in_words(error).split()), LONGEST_ERROR, " [...] ")
    kind, file = FailureKind.CODE, ""
    try:
        text, where = _traceback(error)
        kind, file = storage_error(error)
    except BaseException as fault:  # attributes of the exception are user code
        text, where = f"{words}\n(its traceback cannot be shown: {type(fault).__name__})\n", ""
    return FailureText(error=words, traceback=text, where=where, kind=kind, disk=_sendable(file))


def _traceback(error: BaseException) -> tuple[str, str]:
    """Return the traceback without blockflow's own frames, and the innermost line of user code."""
    import traceback  # here, because a worker whose blocks all succeed never needs it

    summary = traceback.TracebackException.from_exception(error)
    frames = [frame for frame in summary.stack if not frame.filename.startswith(_OWN_CODE)]
    if frames:
        summary.stack = traceback.StackSummary.from_list(frames)
    where = _where([(_file_of(frame), line) for frame, line in traceback.walk_tb(error.__traceback__)])
    text = _shortened("".join(summary.format()), LONGEST_TRACEBACK, "\n[...]\n")
    return text, _sendable(where)[-LONGEST_WHERE:]


def is_users_code(file: str) -> bool:
    """Return whether a source file is neither blockflow's nor Python's nor that of an installed package.

    >>> is_users_code("/home/ada/segment.py"), is_users_code("/opt/lib/site-packages/zarr/core/array.py")
    (True, False)
    """
    if file.startswith((_OWN_CODE, _PYTHON, *_GENERATED)):
        return False
    return not any(part in _INSTALLED for part in file.split(os.sep))


def _where(frames: list[tuple[str, int]]) -> str:
    """Return the innermost line of user code among frames, the outermost of which comes first.

    Where all is installed, the package that blockflow called is the user's.
    """
    outside = [(file, line) for file, line in frames if not file.startswith(_OWN_CODE)]
    chosen = [each for each in outside if is_users_code(each[0])]
    if outside and not chosen:
        package = _package_of(outside[0][0])
        chosen = [each for each in outside if _package_of(each[0]) == package]
    return f"{os.path.basename(chosen[-1][0])}:{chosen[-1][1]}" if chosen else ""


def _package_of(file: str) -> list[str]:
    """Return the path of an installed package; of any other file, its directory."""
    parts = file.split(os.sep)
    for place, part in enumerate(parts):
        if part in _INSTALLED:
            return parts[: place + 2]
    return parts[:-1]


def _file_of(frame: FrameType) -> str:
    """Return the file of a frame's code; of compiled code, the file of its module."""
    file = frame.f_code.co_filename
    if file.endswith(_COMPILED):
        return str(frame.f_globals.get("__file__") or file)
    return file


def _in_words(error: BaseException) -> str:
    name = type(error).__name__
    try:
        message = str(error)
    except BaseException as fault:  # user code, like the one that raised the error
        message = f"<its message cannot be shown: {type(fault).__name__}>"
    return f"{name}: {message}" if message else name


def _shortened(text: str, longest: int, gap: str) -> str:
    text = _sendable(text)
    if len(text) <= longest:
        return text
    half = (longest - len(gap)) // 2
    return text[:half] + gap + text[-half:]


def _sendable(text: str) -> str:
    """Return the text, with what UTF-8 cannot say or a terminal would obey written out."""
    return escape(text).encode(errors="backslashreplace").decode()
