"""Files of a run, opened only if no other user could have made or changed them.

Connection, handover and job files, ledgers and logs lie in folders that other users may see, and sometimes write. What
is in them is loaded, appended to or executed, so it must be this user's own. Everything is checked by its descriptor
after it was opened, never by its path before: nothing can be exchanged in between.

- A folder of a run belongs to this user or to root, and nobody else can write it, unless it is sticky. A *private* one
  belongs to this user and nobody else can even read it. So nothing in it can be replaced by others.
- A file belongs to this user, is regular, nobody else can write it, and it is no link.
- A link on the way to a folder is followed if it belongs to this user or to root, and so does the folder that holds
  it: a home that is a link to a large disk goes on working.
- Modes of what exists are never changed. What is made is never writable by others, whatever the umask says.

This is the only module that opens, makes, renames or removes such files; a test holds that.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, BinaryIO, Self

from blockflow.errors import UntrustedFileError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

PRIVATE = 0o700
"""Mode of a folder that only this user can enter."""

READABLE = 0o755
"""Mode of a folder that others may read, as far as the umask lets them."""

DRAFT = ".draft"
"""Suffix of files that are being written."""

_SEARCH = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OWN_DESCRIPTORS = "/proc/self/fd/"
_MOST_LINKS = 40
"""As many as Linux follows."""


class Folder:
    """An open folder that was found to be this user's; everything in it is opened through its descriptor.

    Made by :func:`open_folder`, and closed as a context manager.

    Args:
        path: For messages.
        descriptor: Of the folder; closed with it.
        private: Nobody else can read it.
        owner: User id that the files of this user show here.
        ignored: Mode bits that this file system shows for everything, whatever the mode is.
        sticky: Others can make files in it, but not replace those of this user.
    """

    __slots__ = ("_ignored", "_owner", "_private", "_sticky", "descriptor", "path")

    def __init__(
        self, path: str, descriptor: int, *, private: bool, owner: int, ignored: int = 0, sticky: bool = False
    ) -> None:
        self.path = path
        self.descriptor = descriptor
        self._private = private
        self._owner = owner
        self._ignored = ignored
        self._sticky = sticky

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the folder."""
        os.close(self.descriptor)

    def folder(self, name: str, *, make: int | None = None, private: bool = False) -> Folder:
        """Open a folder in this one; arguments and errors as of :func:`open_folder`."""
        if make is not None:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, make, dir_fd=self.descriptor)
        path = os.path.join(self.path, name)
        try:
            descriptor = _open_directory(name, self.descriptor, path)
        except _IsLinkError:
            raise _refusal(path, "is a link, and folders in a run's folder are never links: remove it") from None
        return _checked_folder(path, descriptor, private=private)

    def open(self, name: str, flags: int, mode: int = 0o600) -> int:
        """Open a file in this folder; returns its descriptor.

        Args:
            name: Of the file.
            flags: As of :func:`os.open`; ``O_TRUNC`` takes effect after the file was checked.
            mode: Of the file if it is made; never writable by others.

        Raises:
            UntrustedFileError: It is a link, no regular file, of another user, or writable by others.
            OSError: It cannot be opened.
        """
        _check_name(name)
        path = os.path.join(self.path, name)
        asked = flags & ~os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        try:
            descriptor = os.open(name, asked, mode & ~0o022, dir_fd=self.descriptor)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise _refusal(
                    path, "is a link, and files of a run are never opened through links: remove it"
                ) from None
            if error.errno == errno.ENXIO:
                raise _refusal(path, "is no regular file: remove it") from None
            raise
        try:
            self._check_file(os.fstat(descriptor), path, writes=flags & os.O_ACCMODE != os.O_RDONLY)
            if flags & os.O_TRUNC:
                os.ftruncate(descriptor, 0)
            os.set_blocking(descriptor, True)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def read(self, name: str, most: int = -1) -> bytes:
        """Return what a file holds, or its first bytes.

        Args:
            name: Of the file.
            most: Number of bytes to read; all if negative.

        Raises:
            UntrustedFileError: As of :meth:`open`.
            OSError: It cannot be read.
        """
        with open(self.open(name, os.O_RDONLY), "rb") as file:
            return file.read(most)

    def write(self, name: str, data: bytes, *, sync: bool = False) -> None:
        """Make or replace a file of mode 0600, as a whole or not at all.

        Args:
            name: Of the file.
            data: What it will hold.
            sync: Return when the data are durable; the name is, after :meth:`sync`.

        Raises:
            OSError: It cannot be written; no draft is left.
        """
        draft = f".{name}.{os.getpid()}-{os.urandom(4).hex()}{DRAFT}"
        try:
            with open(self.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
                file.write(data)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            self.rename(draft, name)
        except BaseException:
            with contextlib.suppress(OSError):
                self.remove(draft)
            raise

    def rename(self, old: str, new: str) -> None:
        """Give a file or folder another name in this folder."""
        _check_name(old)
        _check_name(new)
        os.rename(old, new, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    def remove(self, name: str) -> None:
        """Remove a file, link or socket, if it is there."""
        _check_name(name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.descriptor)

    def remove_tree(self, name: str) -> None:
        """Remove a file, or a folder with everything in it, if it is there; no link is followed."""
        status = self.status(name)
        if status is not None and stat.S_ISDIR(status.st_mode):
            import shutil

            shutil.rmtree(name, dir_fd=self.descriptor)
        else:
            self.remove(name)

    def touch(self, name: str) -> None:
        """Set the time of a file to now."""
        _check_name(name)
        os.utime(name, dir_fd=self.descriptor, follow_symlinks=False)

    def sync(self) -> None:
        """Return when names made, changed and removed in this folder are durable."""
        with self._listing() as descriptor:
            os.fsync(descriptor)

    def names(self) -> list[str]:
        """Return the names in this folder, sorted."""
        with self._listing() as descriptor:
            return sorted(os.listdir(descriptor))

    @contextlib.contextmanager
    def _listing(self) -> Iterator[int]:
        """Open this folder once more, for what a descriptor that only searches it does not allow."""
        descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.descriptor)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def status(self, name: str) -> os.stat_result | None:
        """Return what the file system says about a name in this folder, links not followed; None if it is not there."""
        _check_name(name)
        with contextlib.suppress(FileNotFoundError):
            return os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        return None

    @property
    def keeps_modes(self) -> bool:
        """Whether this file system keeps owners and modes, so that there can be private files at all."""
        return _shown_for_new_files(self.descriptor) == (os.geteuid(), 0)

    def _check_file(self, status: os.stat_result, path: str, *, writes: bool) -> None:
        """Refuse a file that others could have made or changed."""
        if not stat.S_ISREG(status.st_mode):
            raise _refusal(path, "is no regular file: remove it")
        if status.st_uid != self._owner:
            raise _refusal(path, f"{_belongs(status)}: remove it, or ask them to")
        if self._private and status.st_mode & 0o077:
            raise _refusal(path, f"can be read by others (mode {_octal(status)}): remove it, or `chmod 600` it")
        if status.st_mode & 0o022 & ~self._ignored:
            raise _refusal(path, f"can be written by others (mode {_octal(status)}): remove it, or `chmod go-w` it")
        if writes and self._sticky and status.st_nlink > 1:  # others may have given another file of ours this name
            raise _refusal(path, f"has {status.st_nlink} names, and is not written under one of them: remove it")


def open_folder(path: str | os.PathLike[str], *, make: int | None = None, private: bool = False) -> Folder:
    """Open a folder of a run.

    Args:
        path: Of the folder.
        make: Mode to make it with if it is not there, and what is missing on the way; :data:`PRIVATE` or
            :data:`READABLE`. None to require that it is there.
        private: Nobody else may be able to read it, and the file system must keep owners and modes.

    Raises:
        UntrustedFileError: Others could have made or changed it, or a link on the way; the message says which, and
            what to do.
        OSError: It is not there, or cannot be opened or made.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as here, open_folder(f"{here}/logs", make=READABLE) as folder:
    ...     folder.write("note", b"done")
    ...     folder.read("note")
    b'done'
    """
    text = os.fspath(path)
    with contextlib.suppress(OSError):
        os.stat(os.path.join(text, "."))  # mounts what is mounted on demand, which opening it for search does not
    return _checked_folder(text, _walk(text, make), private=private)


def reopen_folder(path: str) -> Folder:
    """Open a folder again that :func:`open_folder` has opened before; links on the way are not looked at once more.

    What is at the path now is checked as it was then. It costs a third.
    """
    return _checked_folder(path, os.open(path, _SEARCH & ~os.O_NOFOLLOW), private=False)


def folder_of(path: str | os.PathLike[str], *, make: int | None = None, private: bool = False) -> tuple[Folder, str]:
    """Open the folder of a file; returns it, and the name of the file in it. Arguments as of :func:`open_folder`."""
    directory, name = os.path.split(os.fspath(path))
    return open_folder(directory or ".", make=make, private=private), name


def read_file(path: str | os.PathLike[str], most: int = -1, *, private: bool = False) -> bytes:
    """Return what a file of a run holds, or its first bytes.

    Args:
        path: Of the file.
        most: Number of bytes to read; all if negative.
        private: Nobody else may be able to read it, nor its folder.

    Raises:
        UntrustedFileError: Others could have made or changed it.
        OSError: It cannot be read.
    """
    with opened_file(path, private=private) as descriptor, open(descriptor, "rb", closefd=False) as file:
        return file.read(most)


@contextlib.contextmanager
def appended(path: str | os.PathLike[str], *, private: bool = False) -> Iterator[BinaryIO]:
    """Open a file of a run to append to it; it is made if it is not there. Arguments and errors as of read_file."""
    folder, name = folder_of(path, private=private)
    with folder:
        descriptor = folder.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600 if private else 0o644)
    with open(descriptor, "ab") as file:
        yield file


def remove_file(path: str | os.PathLike[str]) -> None:
    """Remove a file of a run, if it is there; what is in a folder that others could have put there is not ours."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, UntrustedFileError):
        folder, name = folder_of(path)
        with folder:
            folder.remove(name)


@contextlib.contextmanager
def opened_file(path: str | os.PathLike[str], *, private: bool = False) -> Iterator[int]:
    """Open a file of a run for reading, and give its descriptor; arguments and errors as of :func:`read_file`."""
    text = os.fspath(path)
    if text.startswith(_OWN_DESCRIPTORS):  # an open file of this process, to which no folder leads
        descriptor = os.open(text, os.O_RDONLY | os.O_CLOEXEC)
        holder = Folder(text, -1, private=private, owner=os.geteuid())
        holder._check_file(os.fstat(descriptor), text, writes=False)
    else:
        folder, name = folder_of(text, private=private)
        with folder:
            descriptor = folder.open(name, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def path_of_descriptor(descriptor: int) -> str:
    """A path by which this process can open again what a descriptor stands for, or reach into an open folder."""
    return f"{_OWN_DESCRIPTORS if os.path.isdir(_OWN_DESCRIPTORS) else '/dev/fd/'}{descriptor}"


def _walk(path: str, make: int | None) -> int:
    """Open a folder for search, step by step; returns its descriptor."""
    here = os.open("/" if path.startswith("/") else ".", _SEARCH)
    try:
        left = _parts(path)
        where = "/" if path.startswith("/") else ""
        links = 0
        while left:
            name = left.pop()
            where = os.path.join(where, name)
            try:
                try:
                    below = _open_directory(name, here, where)
                except FileNotFoundError:
                    if make is None:
                        raise
                    with contextlib.suppress(FileExistsError):  # another process was faster
                        os.mkdir(name, make, dir_fd=here)
                    below = _open_directory(name, here, where)
            except _IsLinkError:
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from None
                target = _link_target(name, here, where)
                if target.startswith("/"):
                    os.close(here)
                    here = os.open("/", _SEARCH)
                    where = "/"
                else:
                    where = os.path.dirname(where)
                left += _parts(target)
                continue
            os.close(here)
            here = below
    except BaseException:
        os.close(here)
        raise
    return here


class _IsLinkError(Exception):
    """What was to be opened as a folder is a link."""


def _parts(path: str) -> list[str]:
    """The names in a path, the last one first."""
    return [part for part in path.split("/") if part not in ("", ".")][::-1]


def _open_directory(name: str, at: int, path: str) -> int:
    """Open a folder for search.

    Raises:
        _IsLinkError: It is a link.
        OSError: It cannot be opened.
    """
    try:
        return os.open(name, _SEARCH, dir_fd=at)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR) and _is_link(name, at):
            raise _IsLinkError from None
        raise type(error)(error.errno, error.strerror, path) from None


def _is_link(name: str, at: int) -> bool:
    with contextlib.suppress(OSError):
        return stat.S_ISLNK(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode)
    return False


def _link_target(name: str, at: int, path: str) -> str:
    """Read a link, if only this user or root can have made it; nobody else can exchange it meanwhile."""
    holder = os.fstat(at)
    status = os.stat(name, dir_fd=at, follow_symlinks=False)
    real = os.path.realpath(path)
    if status.st_uid not in (0, os.geteuid()):
        raise _refusal(path, f"is a link that {_belongs(status)}: name what it leads to if you trust it: {real}")
    if not _is_safe(holder, at):
        raise _refusal(
            path,
            f"is a link in a folder that others can write (mode {_octal(holder)}): name what it leads to instead, "
            f"{real}, or have the folder made sticky: chmod +t {os.path.dirname(path) or '.'}",
        )
    return os.readlink(name, dir_fd=at)


def _checked_folder(path: str, descriptor: int, *, private: bool) -> Folder:
    """A folder, if others could not have made or changed it; closes the descriptor if they could."""
    try:
        status = os.fstat(descriptor)
        owner, ignored = os.geteuid(), 0
        if not private and not _is_safe(status, descriptor):
            owner, ignored = _shown_for_new_files(descriptor)
        if (private and status.st_uid != owner) or status.st_uid not in (0, owner):
            raise _refusal(path, f"{_belongs(status)}: use another folder, or ask them to remove it")
        if private and status.st_mode & 0o077:
            raise _refusal(
                path,
                f"can be read by others (mode {_octal(status)}), and keys and code of runs belong into private "
                "folders: `chmod 700` it, or use one on a file system that keeps modes",
            )
        writable = status.st_mode & 0o022 & ~ignored
        if writable and not status.st_mode & stat.S_ISVTX and not _is_safe(status, descriptor):
            who = "everybody" if writable & 0o002 else f"members of group {_group_name(status.st_gid)}"
            raise _refusal(
                path,
                f"can be written by {who} (mode {_octal(status)}), who could replace what is in it: `chmod go-w` it, "
                "or use a folder of your own below it",
            )
    except BaseException:
        os.close(descriptor)
        raise
    return Folder(path, descriptor, private=private, owner=owner, ignored=ignored, sticky=bool(writable))


def _is_safe(status: os.stat_result, descriptor: int) -> bool:
    """Whether only this user and root can rename or replace what is theirs in a folder."""
    if status.st_uid not in (0, os.geteuid()):
        return False
    writable = status.st_mode & 0o022
    if not writable or status.st_mode & stat.S_ISVTX:
        return True
    return not writable & 0o002 and _is_own_group(status.st_gid) and not _has_acl(descriptor)


def _is_own_group(group: int) -> bool:
    """Whether this user is the only member of a group: many systems give every user one, of the same name."""
    import grp
    import pwd

    try:
        user = pwd.getpwuid(os.geteuid())
        found = grp.getgrgid(group)
    except (KeyError, OSError):
        return False
    return group == user.pw_gid and found.gr_name == user.pw_name and set(found.gr_mem) <= {user.pw_name}


def _has_acl(descriptor: int) -> bool:
    """Whether an access control list gives more rights than the mode shows, or that cannot be known."""
    if not hasattr(os, "getxattr"):
        return True
    try:
        os.getxattr(f"/proc/self/fd/{descriptor}", "system.posix_acl_access")
    except OSError as error:
        return error.errno not in (errno.ENODATA, errno.ENOTSUP)
    return True


def _shown_for_new_files(descriptor: int) -> tuple[int, int]:
    """User id and superfluous mode bits that a new file of mode 0600 shows in a folder.

    Shares of Windows, FAT, and some that are mounted by a user's own process keep no owners or no modes. There is no
    protection in these, and nothing to be gained by refusing to write logs to them.
    """
    name = f".blockflow-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        probe = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=descriptor)
    except OSError:
        return os.geteuid(), 0
    try:
        status = os.fstat(probe)
    finally:
        os.close(probe)
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=descriptor)
    return status.st_uid, status.st_mode & 0o077


def _check_name(name: str) -> None:
    """Refuse what is no name of a file in a folder."""
    if name in ("", ".", "..") or "/" in name:
        raise ValueError(f"a name of a file in a folder was expected, got {name!r}")


def _refusal(path: str, why: str) -> UntrustedFileError:
    return UntrustedFileError(f"{path!r} {why}")


def _belongs(status: os.stat_result) -> str:
    return f"belongs to {_user_name(status.st_uid)}, not to you ({_user_name(os.geteuid())})"


def _user_name(user: int) -> str:
    import pwd

    try:
        return f"user {pwd.getpwuid(user).pw_name}"
    except (KeyError, OSError):
        return f"user {user}"


def _group_name(group: int) -> str:
    import grp

    try:
        return grp.getgrgid(group).gr_name
    except (KeyError, OSError):
        return str(group)


def _octal(status: os.stat_result) -> str:
    return f"{stat.S_IMODE(status.st_mode):04o}"
