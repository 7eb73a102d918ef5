"""Where does the output of each worker go?

To ``<basedir>/<task_id>/worker_<n>.out`` and ``.err``, where the base directory is ``daisy_logs`` in the working
directory unless :func:`set_log_basedir` says otherwise.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

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
    from blockflow.errors import PlanError  # imported here, as importing this module must cost nothing
    from blockflow.paths import local_path

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
    from blockflow.log_files import open_log

    path = os.fspath(basename)
    for stream, suffix in ((sys.stdout, ".out"), (sys.stderr, ".err")):
        stream.flush()
        descriptor = open_log(path + suffix, adds="a" in mode)
        os.dup2(descriptor, stream.fileno())
        os.close(descriptor)
