"""Log files and their folders, opened only if no other user could have made or changed them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from blockflow.trusted_files import READABLE, folder_of, open_folder

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


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
