"""Text of others, made harmless before it reaches a terminal or a log.

Names of files, messages of exceptions, answers of batch systems and words of workers may hold anything: sequences that
clear a screen or set its title, characters that turn the direction of writing, line ends that forge another line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging

_CONTROLS = (
    *range(0x09),
    *range(0x0B, 0x20),
    *range(0x7F, 0xA0),  # also what begins a sequence in 8 bits
    0x061C,  # marks and turns of the direction of writing
    0x200E,
    0x200F,
    *range(0x2028, 0x202F),
    *range(0x2060, 0x2070),
    0xFEFF,
    *range(0xFFF9, 0xFFFC),
    *range(0xE0000, 0xE0080),  # letters that nobody sees
)
_ESCAPES = {code: chr(code).encode("unicode_escape").decode() for code in _CONTROLS}
_LINE_ESCAPES = {**_ESCAPES, 0x0A: "\\n", 0x09: "\\t"}


def escape(text: str) -> str:
    r"""Return text of several lines in which nothing can control a terminal; line ends and tabs stay.

    >>> escape("no file \x1b[2J" "\u202ename\n")
    'no file \\x1b[2J\\u202ename\n'
    """
    return text.translate(_ESCAPES)


def escape_line(text: str) -> str:
    r"""Return text that stays on one line, and in which nothing can control a terminal.

    >>> escape_line("failed\nall is done")
    'failed\\nall is done'
    """
    return text.translate(_LINE_ESCAPES)


def get_logger() -> logging.Logger:
    """Return the logger of blockflow; each of its records stays on one line, and controls no terminal."""
    import logging

    logger = logging.getLogger("blockflow")
    logger.addFilter(_escape_record)  # added once: it is the same each time
    return logger


def _escape_record(record: logging.LogRecord) -> bool:
    record.msg = escape_line(record.getMessage())
    record.args = None
    return True
