"""Mount table: the file system that a path lies on."""

from __future__ import annotations

import os

LEAST_FREE = 1 << 20
"""Bytes; a file system with less is full for every purpose here."""


def disk_of(path: str) -> str:
    """The file system of a path as people know it: its mount point and its type.

    >>> disk_of("/proc/self/status")
    '/proc (proc)'

    Args:
        path: Absolute or relative; need not exist.

    Returns:
        The mount point, with the type in brackets where this system tells it.
    """
    place = os.path.realpath(path)
    while not os.path.ismount(place) and place != os.path.dirname(place):
        place = os.path.dirname(place)
    kind = ""
    for mount in _mounts():
        if mount[0] == place:
            kind = mount[1]  # the last of several that were mounted there covers the others
    return f"{place} ({kind})" if kind else place


def full_disk() -> str:
    """A file system with no space that a process uses without saying so: its directory's, or one for temporary files.

    Empty if all of them have space.
    """
    for path in (os.getcwd(), os.environ.get("TMPDIR") or "/tmp", "/dev/shm"):  # looked at, not used
        try:
            stat = os.statvfs(path)
        except OSError:
            continue
        if stat.f_bavail * stat.f_frsize < LEAST_FREE or (stat.f_files and not stat.f_favail):
            return disk_of(path)
    return ""


def _mounts() -> list[tuple[str, str]]:
    """Mount points and types, in the order in which they were mounted."""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.split(" ") for line in file]
    except OSError:  # a system without such a file
        return []
    return [(_unescaped(line[1]), line[2]) for line in lines if len(line) > 2]


def _unescaped(text: str) -> str:
    for code, sign in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        text = text.replace(code, sign)
    return text
