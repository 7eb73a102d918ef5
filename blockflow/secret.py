"""Text that nothing shows by accident: keys, and what holds them."""

from __future__ import annotations


class Secret:
    """Text that is not shown by ``print``, ``repr``, formatting, messages of exceptions or listings of arguments.

    >>> Secret("-----BEGIN PRIVATE KEY-----"), f"{Secret('token')}"
    (<secret of 27 characters>, '<secret of 5 characters>')

    Args:
        text: What to keep.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself, to be written to a private file or the environment of a process."""
        return self._text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return self._text == other._text

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<secret of {len(self._text)} characters>"
