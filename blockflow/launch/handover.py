"""How do the workers of one submission learn what to do? From a file beside the connection file.

All that they have in common is in it once; what differs is there per index. The file is 0600 in a 0700 directory, as
it holds the user's code; nothing of it is on a command line or in an environment.
"""

from __future__ import annotations

import os
import pickle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def write_handover(path: Path, payloads: Sequence[dict[str, Any]]) -> None:
    """Write what workers are told; the first payload is for index 0.

    Args:
        path: A file in a private directory.
        payloads: What each is told; all have the same keys.
    """
    packed = pack_handover(payloads)
    draft = path.with_name(f".{path.name}.draft")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(packed)
    draft.replace(path)


def pack_handover(payloads: Sequence[dict[str, Any]]) -> bytes:
    """What is in such a file."""
    first = payloads[0]
    common = {key: value for key, value in first.items() if all(each[key] == value for each in payloads)}
    differing = [{key: value for key, value in each.items() if key not in common} for each in payloads]
    return pickle.dumps((common, differing))


def read_handover(path: str, index: int) -> dict[str, Any]:
    """What the worker with an index is told.

    Raises:
        OSError: The file cannot be read.
        IndexError: It says nothing about this index.
    """
    with open(path, "rb") as file:
        common, differing = pickle.load(file)
    return {**common, **differing[index]}
