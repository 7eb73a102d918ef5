"""Mounted file systems: where they are, which keep caches that other hosts cannot invalidate, and which are full."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

TABLE = "/proc/self/mountinfo"

Caching = Literal["none", "close-to-open", "names", "glusterfs", "sshfs", "unknown"]
"""What a client may answer from memory although another host has changed it; :mod:`blockflow.freshness` has the cure.

``none``: nothing; a local disk, or a file system whose clients are told of changes.
``close-to-open``: names that are missing, until the directory is opened again (NFS).
``names``: names, for a second or so (SMB).
``glusterfs``: names and contents of files, in its client process.
``sshfs``: names and attributes, in its client process.
``unknown``: any of these.
"""

_CACHING: dict[str, Caching] = {
    "nfs": "close-to-open",
    "nfs4": "close-to-open",
    "cifs": "names",
    "smb3": "names",
    "smbfs": "names",
    "fuse.glusterfs": "glusterfs",
    "fuse.sshfs": "sshfs",
    "fuse": "unknown",
    "9p": "unknown",
    "afs": "unknown",
    "beegfs": "unknown",
    "davfs": "unknown",
    "orangefs": "unknown",
    "pvfs2": "unknown",
    "virtiofs": "unknown",
}
"""By type. Types that are not listed are local disks or tell their clients of changes (Lustre, GPFS, Ceph, OCFS2)."""

LEAST_FREE = 1 << 20
"""Bytes; a file system with less is full for every purpose here."""

_COHERENT_FUSE = ("fuse.ceph", "fuse.ceph-fuse", "fuse.fuse-overlayfs", "fuse.lxcfs", "fuseblk", "fusectl")

_ESCAPES = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))


class Mount(NamedTuple):
    """A mounted file system.

    >>> Mount("fuse.glusterfs", "/data", "0:39").caching, str(Mount("nfs4", "/home", "0:40"))
    ('glusterfs', 'nfs4 at /home')
    """

    kind: str
    """Type, as the kernel names it."""
    place: str
    """Where it is mounted."""
    device: str
    """Major and minor number of its device."""

    @property
    def caching(self) -> Caching:
        """What its clients may answer from memory."""
        if self.kind.startswith("fuse.") and self.kind not in _CACHING and self.kind not in _COHERENT_FUSE:
            return "unknown"
        return _CACHING.get(self.kind, "none")

    def __str__(self) -> str:
        return f"{self.kind.removeprefix('fuse.')} at {self.place}"


def parse_mounts(text: str) -> list[Mount]:
    r"""Parse the mount table of a process, in the format of ``/proc/self/mountinfo``; the newest mount is the last.

    >>> parse_mounts("42 27 0:39 / /my\\040data rw shared:1 - fuse.sshfs host:/x rw\n")
    [Mount(kind='fuse.sshfs', place='/my data', device='0:39')]
    """
    mounts = []
    for line in text.splitlines():
        fields, _, rest = line.partition(" - ")
        words = fields.split(" ")
        if len(words) < 5 or not rest:
            continue
        place = words[4]
        for escape, character in _ESCAPES:
            place = place.replace(escape, character)
        mounts.append(Mount(rest.split(" ")[0], place, words[2]))
    return mounts


def mount_above(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """Return the mount that holds an absolute path, judged by names alone: a disk that does not answer is not asked."""
    found = None
    for mount in mounts:
        inside = path == mount.place or path.startswith(mount.place.rstrip("/") + "/")
        if inside and (found is None or len(mount.place) >= len(found.place)):
            found = mount
    return found


def read_mounts() -> list[Mount]:
    """Return the mounts of this process; none where the system has no such table."""
    try:
        with open(TABLE, encoding="utf-8", errors="surrogateescape") as file:
            return parse_mounts(file.read())
    except OSError:
        return []


def describe_place(path: str) -> str:
    """Return the file system of a path in words, for messages; empty if it is not known.

    Args:
        path: Need not be there, and is not looked at.
    """
    mount = mount_above(os.path.abspath(path), read_mounts())
    return "" if mount is None else str(mount)


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
    for mount in read_mounts():
        if mount.place == place:
            kind = mount.kind  # the last of several that were mounted there covers the others
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
