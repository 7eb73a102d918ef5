"""What the launcher and the process that makes workers say to each other, over two pipes.

An order is the number of a process and the length of its payload, 8 bytes each, and the payload. A report is three
64-bit integers: what happened, the number of the process, and its process id or exit code.
"""

from __future__ import annotations

STARTED, ENDED = 0, 1
"""What is reported of a process."""

REPORT_BYTES = 24
"""Pipes keep such a small message in one piece."""


def pack_report(what: int, process: int, value: int) -> bytes:
    """A report as bytes."""
    return b"".join(number.to_bytes(8, "little", signed=True) for number in (what, process, value))


def unpack_reports(data: bytes) -> list[tuple[int, int, int]]:
    """The reports that some bytes hold; only whole ones are ever read from a pipe.

    >>> unpack_reports(pack_report(STARTED, 3, 4711) + pack_report(ENDED, 3, -9))
    [(0, 3, 4711), (1, 3, -9)]
    """
    numbers = [int.from_bytes(data[place : place + 8], "little", signed=True) for place in range(0, len(data), 8)]
    return list(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True))
