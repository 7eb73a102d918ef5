"""Where does the output of each worker go?

To ``<basedir>/<task_id>/worker_<n>.out`` and ``.err``, where the base directory is ``daisy_logs`` in the working
directory unless :func:`set_log_basedir` says otherwise.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from blockflow.errors import PlanError
from blockflow.trusted_files import READABLE, folder_of, open_folder

if TYPE_CHECKING:
    from collections.abc import Iterable

_DEFAULT = "daisy_logs"

_basedir: Path | None = Path(_DEFAULT)


def set_log_basedir(path: str | os.PathLike[str] | None) -> None:
    """Set the directory of all logs.

    Args:
        path: The directory; None sends the output of workers to the console.

    Raises:
        PlanError: It is no path of this machine's file systems.
    """
    global _basedir
    if path is None:
        _basedir = None
        return
    from blockflow.paths import local_path  # here, as workers do not need it

    _basedir = local_path(path, "the directory of logs", PlanError)


def get_log_basedir() -> Path | None:
    """The directory of all logs; None for the console.

    >>> from blockflow import logging
    >>> str(logging.get_log_basedir())
    'daisy_logs'
    """
    return _basedir


def get_worker_log_basename(worker_id: int, task_id: str | None = None) -> Path | None:
    """Where the output of a worker goes, without ``.out`` or ``.err``; None for the console.

    >>> from blockflow import logging
    >>> logging.get_worker_log_basename(3, "smooth").as_posix()
    'daisy_logs/smooth/worker_3'
    """
    if _basedir is None:
        return None
    folder = _basedir if task_id is None else _basedir / task_id
    return folder / f"worker_{worker_id}"


def redirect_stdouterr(basename: str | os.PathLike[str], mode: str = "w") -> None:
    """Send everything that this process prints from now on to ``basename.out`` and ``basename.err``.

    What its C libraries and its child processes print goes there too.

    Args:
        basename: Path without suffix; its directory is made.
        mode: ``"w"`` to start anew, ``"a"`` to append.

    Raises:
        UntrustedFileError: They are links, or another user could have made or changed them.
    """
    path = os.fspath(basename)
    for stream, suffix in ((sys.stdout, ".out"), (sys.stderr, ".err")):
        stream.flush()
        descriptor = open_log(path + suffix, adds="a" in mode)
        os.dup2(descriptor, stream.fileno())
        os.close(descriptor)


def open_log(path: str, *, adds: bool) -> int:
    """Open a log for writing, and make its folder if it is not there; returns a descriptor.

    Args:
        path: Of the log.
        adds: Keep what is in it already.

    Raises:
        UntrustedFileError: It is a link, or another user could have made or changed it.
        OSError: It cannot be opened.
    """
    folder, name = folder_of(path, make=READABLE)
    with folder:
        return folder.open(name, os.O_WRONLY | os.O_CREAT | (os.O_APPEND if adds else os.O_TRUNC), 0o644)


def make_log_folder(basedir: Path, task_id: str) -> None:
    """Make the folder of a task's logs, if it is not there.

    Args:
        basedir: The directory of all logs.
        task_id: Id of the task.

    Raises:
        UntrustedFileError: Another user could have made or changed it.
        OSError: It cannot be made.
    """
    with open_folder(basedir, make=READABLE) as base, base.folder(task_id, make=READABLE):
        pass


def check_log_folders(basedir: Path, task_ids: Iterable[str]) -> None:
    """Refuse folders of logs that another user could have made or changed, before anything runs.

    Args:
        basedir: The directory of all logs; made if it is not there.
        task_ids: Ids of the tasks; their folders may be missing.

    Raises:
        UntrustedFileError: One of them is not this user's.
        OSError: `basedir` cannot be made.
    """
    with open_folder(basedir, make=READABLE) as base:
        for task_id in task_ids:
            if base.status(task_id) is not None:
                base.folder(task_id).close()
