"""Replacing: how does a new file or directory take the place of an old one whole, or not at all?

The new one is built under a hidden name in the same directory, flushed to the disk and renamed. A crash
before that leaves the old content, and perhaps a hidden ``.<name>.<random>.part`` that can be deleted.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["flush", "placing_directory", "replacing_directory", "replacing_file"]


@contextmanager
def replacing_file(target: Path) -> Iterator[Path]:
    """A path to write a file to, which becomes ``target`` when the context ends without an exception.

    Nothing is at the path yet. The permissions of a file that is replaced are kept.

    >>> import tempfile
    >>> from pathlib import Path
    >>> target = Path(tempfile.mkdtemp(), "result.txt")
    >>> with replacing_file(target) as part:
    ...     _ = part.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    part = _hidden(target)
    try:
        yield part
        if target.exists():
            shutil.copymode(target, part)
        flush(part)
        part.replace(target)
        flush(target.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def replacing_directory(target: Path) -> Iterator[Path]:
    """A path to make a directory at, which becomes ``target`` when the context ends without an exception.

    Directories can only be replaced in two renames: a machine that stops between them leaves the old content
    as ``.<name>.<random>.old``.

    >>> import tempfile
    >>> from pathlib import Path
    >>> target = Path(tempfile.mkdtemp(), "result")
    >>> with replacing_directory(target) as part:
    ...     part.mkdir()
    >>> target.is_dir()
    True
    """
    part = _hidden(target)
    old = part.with_suffix(".old")
    try:
        yield part
        _flush_all(part)
        if target.exists():
            target.rename(old)
        try:
            part.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
        flush(target.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)


@contextmanager
def placing_directory(target: Path) -> Iterator[Path]:
    """A path to make a directory at, which becomes ``target`` unless somebody else has made one by then.

    >>> import tempfile
    >>> from pathlib import Path
    >>> target = Path(tempfile.mkdtemp(), "shared")
    >>> for name in ("first", "second"):
    ...     with placing_directory(target) as part:
    ...         part.mkdir()
    ...         _ = (part / name).write_text("whole")
    >>> [path.name for path in target.iterdir()]
    ['first']
    """
    part = _hidden(target)
    try:
        yield part
        _flush_all(part)
        try:
            part.rename(target)
        except OSError:
            if not target.is_dir():
                raise
        flush(target.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _hidden(target: Path) -> Path:
    return target.with_name(f".{target.name}.{uuid4().hex[:8]}.part")


def _flush_all(folder: Path) -> None:
    for path in folder.rglob("*"):
        flush(path)


def flush(path: Path) -> None:
    """Wait until the file or directory is on the disk; on Windows directories cannot be flushed.

    >>> from pathlib import Path
    >>> flush(Path("."))
    """
    if os.name == "posix" or path.is_file():
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
