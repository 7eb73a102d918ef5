"""Standard output and errors of a worker: writing a log never fails a block.

Python's own streams raise what the operating system says, so that on a full disk each ``print`` of a block function
would fail its block. Here,

1. what cannot be written is dropped, and counted; when writing works again a line says how much is missing;
2. a log that may not grow any more (``EFBIG``) is renamed to ``.1``, in place of the one before, and begun anew.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from blockflow.log_files import open_log

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

ROTATED = ".1"
"""Suffix of a log that had become too large."""


class WorkerOutput(io.FileIO):
    """A descriptor to which writing never fails.

    Args:
        descriptor: It stays open.
        path: Of the log that it leads to; None if that is something else.
    """

    def __init__(self, descriptor: int, path: str | None) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._path = path
        self._lost = 0
        """Bytes since the last that were written."""
        self._why = ""

    def write(self, data: ReadableBuffer, /) -> int:
        """Write bytes, or drop them; returns how many are done with."""
        size = memoryview(data).nbytes
        for _ in range(2):
            try:
                if self._lost:
                    super().write(f"\n[{self._lost} bytes are missing here: {self._why}]\n".encode())
                    self._lost = 0
                return super().write(data) or 0
            except OSError as error:
                self._why = error.strerror or str(error)
                if error.errno != errno.EFBIG or not self._rotate():
                    break
        self._lost += size
        return size

    def _rotate(self) -> bool:
        """Begin the log anew; whether that was possible."""
        if self._path is None:
            return False
        with suppress(OSError):
            os.replace(self._path, self._path + ROTATED)
            file = open_log(self._path, adds=True)
            os.dup2(file, self.fileno())
            os.close(file)
            return True
        return False


def redirect(name: str, descriptor: int, path: str | None) -> None:
    """Let one of Python's standard streams write through :class:`WorkerOutput`.

    Args:
        name: ``"stdout"`` or ``"stderr"``.
        descriptor: Its number, 1 or 2.
        path: Of the log that its descriptor leads to; None if that is something else.
    """
    old = getattr(sys, name)
    # None if the descriptor was closed when this interpreter was started
    encoding, errors = (None, "backslashreplace") if old is None else (old.encoding, old.errors)
    buffer = io.BufferedWriter(WorkerOutput(descriptor, path))
    new = io.TextIOWrapper(buffer, encoding=encoding, errors=errors, line_buffering=True)
    setattr(sys, name, new)
    setattr(sys, f"__{name}__", new)
