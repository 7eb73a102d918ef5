"""What the launcher and the process that makes workers say to each other, over two pipes.

An order is three 64-bit integers, the number of a process, that of its task, and the length of what follows: what the
process is told. With `FUNCTIONS` in place of the process, the functions of the task follow, once for all its processes,
because with the values that they hold they may be large; with `MODULES`, what is imported once for all. A report is
three 64-bit integers: what happened, the number of the process, and its process id or exit code.
"""

from __future__ import annotations

FUNCTIONS = -1
"""In place of a process: what follows are the functions of a task."""

MODULES = -2
"""In place of a process: what follows are modules, each as ``name=file``, with line feeds between them."""

ORDER_BYTES = 24
"""Without what follows."""

STARTED, ENDED = 0, 1
"""What is reported of a process."""

REPORT_BYTES = 24
"""Pipes keep such a small message in one piece."""


def pack_order(process: int, task: int, length: int) -> bytes:
    """The beginning of an order as bytes."""
    return _pack(process, task, length)


def unpack_order(data: bytes | bytearray) -> tuple[int, int, int]:
    """Process, task, and the length of what follows.

    >>> unpack_order(pack_order(FUNCTIONS, 3, 4711))
    (-1, 3, 4711)
    """
    process, task, length = _unpack(data)
    return process, task, length


def pack_report(what: int, process: int, value: int) -> bytes:
    """A report as bytes."""
    return _pack(what, process, value)


def unpack_reports(data: bytes) -> list[tuple[int, int, int]]:
    """The reports that some bytes hold; only whole ones are ever read from a pipe.

    >>> unpack_reports(pack_report(STARTED, 3, 4711) + pack_report(ENDED, 3, -9))
    [(0, 3, 4711), (1, 3, -9)]
    """
    numbers = _unpack(data)
    return list(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True))


def _pack(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(8, "little", signed=True) for number in numbers)


def _unpack(data: bytes | bytearray) -> list[int]:
    return [int.from_bytes(data[place : place + 8], "little", signed=True) for place in range(0, len(data), 8)]
