"""Fresh reads of files that other hosts have written, on file systems that cache.

A block may be released to one host a millisecond after another host has written what it reads. The driver's word
travels by TCP and overtakes the caches of NFS, SMB, GlusterFS and sshfs, which notice changes after one to sixty
seconds. Before such a file is read, this module makes the client forget what it remembers of it. What works, and why,
for each file system is in ``docs/design/network-file-systems.md``.

1. Whether a file system caches is told by the mount table (:mod:`blockflow.mounts`). On all others nothing is done.
2. ``BLOCKFLOW_REFRESH`` overrides that: ``always`` takes every file system for one that caches, ``never`` none.
3. A worker refreshes each file once for each block, and only if other blocks of its run may have written it
   (:func:`expect_writers`), or in its first minute: what was written before the run is in no cache after that.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:  # as every worker loads this module
    from blockflow.mounts import Caching

SWITCH = "BLOCKFLOW_REFRESH"
"""Environment variable: ``auto`` (default), ``always`` or ``never``."""

LONGEST_CACHE = 60.0
"""Seconds for which a client remembers at most what it has not looked at again: ``acdirmax`` of NFS."""

_ELSEWHERE = "/dev/null"
"""A file on another mount than any data: a hard link to it can never be made."""

_PROBE = ".blockflow-refresh"

_caching: dict[int, Caching] = {}
"""By device number: what the file system caches."""


class _Duty:
    """What this process has to refresh."""

    until = float("inf")
    """Files are refreshed until then, by the monotonic clock."""
    block: int | None = None
    """Number of the present block of a worker, counted in this process; None in other processes."""
    refreshed: set[str]
    """Files and directories that were refreshed since the present block was granted; replaced with each block, so that
    what a thread began to refresh before that does not count."""

    def __init__(self) -> None:
        self.refreshed = set()


_duty = _Duty()


def expect_writers(*, always: bool) -> None:
    """Say whether other blocks of this worker's run write what its blocks read.

    Args:
        always: They do. Otherwise nothing changes after :data:`LONGEST_CACHE` seconds from now.
    """
    _duty.until = float("inf") if always else time.monotonic() + LONGEST_CACHE


def begin_block() -> None:
    """Take note that this worker was granted a block: what is read from now on is refreshed once more."""
    _duty.block = (_duty.block or 0) + 1
    _duty.refreshed = set()


def caching_of(path: str | os.PathLike[str]) -> Caching:
    """Return what the file system of a path caches; of the nearest directory above that exists.

    >>> caching_of("/proc/self")
    'none'
    """
    choice = os.environ.get(SWITCH, "auto")
    if choice == "never":
        return "none"
    place = os.path.abspath(path)
    while (device := _device(place)) is None:
        place = os.path.dirname(place)
    found = _caching.get(device)
    if found is None:
        found = _caching[device] = _look_up(place, device)
    return "unknown" if choice == "always" and found == "none" else found


def refresh_file(path: str | os.PathLike[str], caching: Caching | None = None) -> None:
    """Make sure that the next read of a file sees what other hosts have written and closed before this call.

    Args:
        path: Of the file; it need not exist.
        caching: Of its file system, if that is known.
    """
    caching = caching_of(path) if caching is None else caching
    if caching == "none" or time.monotonic() > _duty.until:
        return
    name = os.fspath(path)
    refreshed = _duty.refreshed
    if _duty.block is None:
        refresh_now(name, caching)
    elif name not in refreshed:
        _refresh(name, caching, refreshed)


def refresh_now(path: str | os.PathLike[str], caching: Caching | None = None) -> None:
    """Refresh a file as :func:`refresh_file` does, whether or not that was done for the present block.

    Args:
        path: Of the file; it need not exist.
        caching: Of its file system, if that is known.
    """
    caching = caching_of(path) if caching is None else caching
    if caching != "none":
        _refresh(os.fspath(path), caching, set())


def _refresh(name: str, caching: Caching, refreshed: set[str]) -> None:
    if caching == "close-to-open":
        _reopen(os.path.dirname(os.path.abspath(name)), refreshed)
    elif not _ask(name, caching):
        _refresh_parents(os.path.dirname(os.path.abspath(name)), caching)
        _ask(name, caching)
    refreshed.add(name)


def refresh_folder(path: str | os.PathLike[str], caching: Caching | None = None) -> None:
    """Make sure that the next listing of a directory shows what other hosts have made and removed before this call.

    The same holds for what they have appended to its files, as long as there are few of them.

    Args:
        path: Of the directory; it need not exist.
        caching: Of its file system, if that is known.
    """
    caching = caching_of(path) if caching is None else caching
    if caching == "none":
        return
    name = os.path.abspath(path)
    if not os.path.isdir(name):
        _refresh_parents(name, caching)
    if caching != "close-to-open":
        # A change of its own makes a client forget the directory, sshfs for example.
        probe = os.path.join(name, f"{_PROBE}.{os.getpid()}.{time.monotonic_ns()}.draft")
        with suppress(OSError):
            os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            os.unlink(probe)
        with suppress(OSError):
            os.listdir(name)  # brings the attributes of its files as well
    _open_folder(name)


def _device(place: str) -> int | None:
    """Return the device number of what is at a path; None if nothing is, 0 if nothing can be."""
    try:
        return os.stat(place).st_dev
    except OSError:
        return 0 if place == os.path.dirname(place) else None


def _look_up(place: str, device: int) -> Caching:
    from blockflow.mounts import mount_above, read_mounts

    mounts = read_mounts()
    number = f"{os.major(device)}:{os.minor(device)}"
    same = [mount for mount in mounts if mount.device == number]
    mount = same[-1] if same else mount_above(os.path.realpath(place), mounts)
    return "none" if mount is None else mount.caching


def _reopen(folder: str, refreshed: set[str]) -> None:
    """Open a directory, as close-to-open consistency wants it.

    The server is asked for it then, and a change drops the names that were missing. A file itself is asked for when it
    is opened.
    """
    if folder in refreshed:
        return
    if not _open_folder(folder):
        _refresh_parents(folder, "close-to-open")
    refreshed.add(folder)


def _ask(name: str, caching: Caching) -> bool:
    """Make the client ask the server for one file; whether the file is there."""
    there = True
    if caching in ("glusterfs", "unknown"):
        # No cache knows this attribute: the server is asked for the file by identity. One that was replaced is unknown
        # there (ESTALE), and the kernel then looks the name up anew.
        there = _get_attribute(name)
    if caching in ("sshfs", "unknown") and there:
        there = _open(name)  # the client asks for the attributes with the opening
    if caching != "glusterfs" or not there:
        there = _look_at(name)
    return there


def _get_attribute(name: str) -> bool:
    try:
        os.getxattr(name, "user.blockflow")
    except OSError as error:
        return error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
    return True


def _open(name: str) -> bool:
    try:
        os.close(os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError as error:
        return error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
    return True


def _open_folder(name: str) -> bool:
    try:
        os.close(os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _look_at(name: str) -> bool:
    """Make the kernel look a name up at its file system, though it remembers it; whether it is there.

    The kernel does so for a name that is to be made. A hard link to a file of another file system is refused after
    that look, whatever was seen, so nothing is ever made.
    """
    try:
        os.link(_ELSEWHERE, name)
    except OSError as error:
        return error.errno == errno.EEXIST
    os.unlink(name)  # cannot happen: both are on one file system
    return False


def _refresh_parents(folder: str, caching: Caching) -> None:
    """Refresh the directories above a file from the top, up to the first one that is not there."""
    place = os.sep
    for part in folder.split(os.sep):
        place = os.path.join(place, part)
        if os.path.isdir(place):
            if caching == "close-to-open":
                _open_folder(place)
            continue
        if not _look_at(place):
            return
