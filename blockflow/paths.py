"""Local paths, checked before a :class:`~pathlib.Path` is made of them.

A path that is meant for somewhere else makes a local folder of an odd name when it is written, and hides a typing
mistake when it is read. So URLs (also those that have lost a slash in a ``Path``, or were made absolute), paths of
Windows on other systems, ``~`` and the empty path are refused, with the text as it was given.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockflow.errors import ArrayError

if TYPE_CHECKING:
    from blockflow.errors import BlockflowError

__all__ = ["is_path", "local_path"]

_SCHEMES = frozenset(
    (
        "abfs", "abfss", "adl", "az", "azure", "dbfs", "file", "ftp", "gcs", "gs", "hdfs", "http", "https", "icechunk",
        "local", "memory", "n5", "precomputed", "r2", "s3", "s3a", "s3n", "sftp", "smb", "ssh", "webdav", "wasb",
        "wasbs", "zarr", "zarr2", "zarr3", "zip",
    )
)  # fmt: skip
"""What stands before ``://`` in URLs of data; a folder of such a name with a colon is the rest of one."""

_BEGINS_AS_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")


def is_path(value: Any) -> bool:
    """Whether an argument is a path: text, or anything of the path protocol.

    >>> is_path("x.zarr"), is_path(Path("x.zarr")), is_path(3)
    (True, True, False)
    """
    return isinstance(value, str | os.PathLike)


def local_path(value: Any, what: str, error: type[BlockflowError] = ArrayError) -> Path:
    """Return a path of this machine's file systems.

    Args:
        value: Text, or anything of the path protocol.
        what: The argument, for messages.
        error: What to raise.

    Raises:
        BlockflowError: Of the given class: it is no path, or one that cannot be meant here.

    >>> local_path("data/x.zarr", "out").as_posix()
    'data/x.zarr'
    >>> local_path("s3://bucket/x.zarr", "out")
    Traceback (most recent call last):
    ...
    blockflow.errors.ArrayError: out must be a path of a local or mounted file system, got the URL 's3://bucket/x.zarr'...
    """
    if not is_path(value):
        raise error(f"{what} must be a path (text or os.PathLike), got {type(value).__name__}: {value!r}")
    text = os.fspath(value)
    if not isinstance(text, str):
        raise error(f"{what} must be a path as text, got {type(text).__name__}: {text!r}")
    wrong = _problem(text)
    if wrong:
        raise error(f"{what} must be a path of a local or mounted file system, got {wrong}")
    return Path(text)


def _problem(text: str) -> str:
    """What is wrong with a path, and what to do about it; empty if nothing is."""
    if not text.strip():
        return f"the empty path {text!r}"
    if "\0" in text:
        return f"{text!r}, which holds a null character"
    if text.startswith("file:/"):
        return f"the URL {text!r}; pass the path alone, without 'file://'"
    if "://" in text:
        return f"the URL {text!r}, and object stores and servers are not opened by URL yet; {_INSTEAD}"
    parts = re.split(r"/", text)
    if _BEGINS_AS_URL.match(text) or any(part.endswith(":") and part[:-1].lower() in _SCHEMES for part in parts):
        return (
            f"{text!r}, which seems to be a URL that lost a slash in a Path or was made absolute. URLs are not opened "
            f"yet; {_INSTEAD}. For a local folder of that name write {'./' + text!r}"
            if not text.startswith(("/", "."))
            else f"{text!r}, which seems to be a URL that was made a local path. URLs are not opened yet; {_INSTEAD}"
        )
    if os.name != "nt" and _WINDOWS.match(text):
        return f"the Windows path {text!r} on a system that has none; mount that drive and pass its path here"
    if text == "~" or text.startswith("~/"):
        return f"{text!r}, and '~' is expanded by shells only; pass os.path.expanduser({text!r})"
    return ""


_INSTEAD = "mount it or copy it; for arrays, an open zarr group or array is taken in place of a path"
