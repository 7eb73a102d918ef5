"""How do the workers of one submission learn what to do? From a file beside the connection file.

All that they have in common is in it once; what differs is there per index. The file is 0600 in a 0700 directory, as
it holds the user's code; nothing of it is on a command line or in an environment.
"""

from __future__ import annotations

import pickle
import sys
from typing import TYPE_CHECKING, Any

from blockflow.freshness import refresh_now
from blockflow.trusted_files import folder_of, read_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

STDIN = "/dev/stdin"
"""Instead of a file: what the process that starts the worker writes to its standard input."""


def write_handover(path: Path, payloads: Sequence[dict[str, Any]]) -> None:
    """Write what workers are told; the first payload is for index 0.

    Args:
        path: A file in a private directory.
        payloads: What each is told; all have the same keys.
    """
    folder, name = folder_of(path, private=True)
    with folder:
        folder.write(name, pack_handover(payloads))


def pack_handover(payloads: Sequence[dict[str, Any]]) -> bytes:
    """What is in such a file."""
    first = payloads[0]
    common = {key: value for key, value in first.items() if all(each[key] == value for each in payloads)}
    differing = [{key: value for key, value in each.items() if key not in common} for each in payloads]
    return pickle.dumps((common, differing))


def read_handover(path: str, index: int) -> dict[str, Any]:
    """What the worker with an index is told.

    Args:
        path: The file; ``/dev/stdin`` for what the process that started this one says.
        index: Of the worker.

    Raises:
        UntrustedFileError: Another user could have written the file, or could read it; nothing of it was loaded.
        OSError: The file cannot be read.
        IndexError: It says nothing about this index.
    """
    if path == STDIN:
        common, differing = pickle.load(sys.stdin.buffer)
    else:
        refresh_now(path)
        common, differing = pickle.loads(read_file(path, private=True))
    return {**common, **differing[index]}
