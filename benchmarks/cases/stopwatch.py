"""When did user code run, and how much CPU did it use? Written by workers, read when all is over.

Each worker process has one small file, mapped into memory, so that a note costs less than a microsecond and survives
a process that is ended. Workers import this file by name; it imports nothing that they do not have already.
"""

from __future__ import annotations

import mmap
import os
import struct
from time import monotonic, thread_time
from typing import Any

_NOTE = struct.Struct("dddd")
"""First begin, last end (``monotonic``, which all processes of a machine share), CPU seconds, blocks."""

_notes: dict[str, mmap.mmap] = {}


def spin(directory: str, seconds: float, block: Any) -> None:
    """Use a CPU for so many seconds of this thread's own time, and note it."""
    began, start = monotonic(), thread_time()
    while (used := thread_time() - start) < seconds:
        pass
    _add(directory, began, used)


def touch(directory: str, block: Any) -> None:
    """Do nothing, and note it."""
    _add(directory, monotonic(), 0.0)


def _add(directory: str, began: float, used: float) -> None:
    note = _notes.get(directory)
    if note is None:
        note = _notes[directory] = _open(directory, began)
    first, _, total, blocks = _NOTE.unpack_from(note)
    _NOTE.pack_into(note, 0, first, monotonic(), total + used, blocks + 1)


def _open(directory: str, began: float) -> mmap.mmap:
    with open(os.path.join(directory, f"{os.getpid()}.note"), "w+b") as file:
        file.write(_NOTE.pack(began, began, 0.0, 0))
        file.flush()
        return mmap.mmap(file.fileno(), _NOTE.size)


def read(directory: str) -> dict[str, float]:
    """What all workers noted together.

    Returns:
        ``window_seconds`` from the begin of the first block to the end of the last, ``first_began`` (``monotonic``),
        ``user_cpu_seconds`` spent inside blocks, and ``blocks``.
    """
    notes = []
    for name in os.listdir(directory):
        if name.endswith(".note"):
            with open(os.path.join(directory, name), "rb") as file:
                notes.append(_NOTE.unpack(file.read()))
    first = min(note[0] for note in notes)
    return {
        "window_seconds": max(note[1] for note in notes) - first,
        "first_began": first,
        "user_cpu_seconds": sum(note[2] for note in notes),
        "blocks": sum(note[3] for note in notes),
    }
