"""Last lines of what a process printed, for messages about its end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from blockflow.trusted_files import opened_file
from blockflow.wire.failures import LONGEST_TRACEBACK

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["last_lines", "tail"]

_LINES = 20


def last_lines(files: Iterable[Path]) -> tuple[Path | None, str]:
    """Return the first of some files that holds anything, and its last lines; None and nothing if none does.

    Args:
        files: Where the process may have printed, most telling first. They need not exist.
    """
    for file in files:
        try:
            with opened_file(file) as descriptor:
                size = os.fstat(descriptor).st_size
                text = tail(os.pread(descriptor, LONGEST_TRACEBACK, max(0, size - LONGEST_TRACEBACK)))
        except OSError:
            continue
        if text:
            return file, text
    return None, ""


def tail(data: bytes) -> str:
    r"""Return the last lines of what was printed, as text that can be sent and recorded.

    >>> tail(b"first\nsecond\n")
    'first\nsecond'

    Args:
        data: The end of it; its first character may be cut.
    """
    lines = data[-LONGEST_TRACEBACK // 2 :].decode(errors="replace").strip().splitlines()
    return "\n".join("".join(filter(_is_shown, line)) for line in lines[-_LINES:])


def _is_shown(sign: str) -> bool:
    """Whether a character can be shown: none that could control a terminal."""
    return sign.isprintable() or sign == "\t"
