"""Arrays that a run directory is bound to: what blocks were computed from, and where they were written.

``arrays.json`` holds their identities (:class:`~blockflow.plan.bindings.ArrayIdentity`). A driver that comes with other
arrays is refused if any block is done: the record vouches only for what it has seen.

An array is the same if everything agrees that the record says about it. What moved together with the run directory is
the same as well: places also count relative to the run directory. An input of which all voxels are in the digest may be
anywhere.
"""

from __future__ import annotations

import json
import os
from itertools import zip_longest
from typing import TYPE_CHECKING

import msgspec

from blockflow.errors import DamagedLedgerError
from blockflow.plan.bindings import ArrayIdentity, TaskArrays  # noqa: TC001, msgspec reads the annotations

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["RunArrays", "changed_arrays", "decode_arrays", "encode_arrays"]

_DESCRIBED = ("shape", "dtype", "chunks", "shards", "part", "offset", "voxel_size")
"""Fields that messages show."""


class RunArrays(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The arrays of all tasks of a run."""

    run: str
    """Id of the run."""
    directory: str
    """The run directory, with all symlinks resolved, when this was written."""
    tasks: tuple[TaskArrays, ...]


def encode_arrays(arrays: RunArrays) -> bytes:
    """Return the arrays of a run as indented JSON; paths may hold bytes that are no UTF-8."""
    return json.dumps(msgspec.to_builtins(arrays), indent=1).encode() + b"\n"


def decode_arrays(data: bytes, name: str) -> RunArrays:
    """The inverse of :func:`encode_arrays`.

    Args:
        data: JSON.
        name: Of the file, for messages.

    Raises:
        DamagedLedgerError: It holds no arrays of a run.
    """
    try:
        return msgspec.convert(json.loads(data), RunArrays)
    except (msgspec.ValidationError, ValueError) as error:
        raise DamagedLedgerError(f"{name} is damaged, it does not hold the arrays of a run: {error}") from None


def changed_arrays(before: TaskArrays, after: TaskArrays, directories: tuple[str, str]) -> list[str]:
    """What differs between the arrays of a task, in words; nothing if they are the same.

    Args:
        before: As recorded.
        after: As found now.
        directories: The run directory, with all symlinks resolved, then and now.

    >>> image = ArrayIdentity(kind="file", place="/data/a.npy", shape=(4,), dtype="|u1", content="some:1")
    >>> other = msgspec.structs.replace(image, place="/data/b.npy")
    >>> before, after = (TaskArrays(task_id="t", inputs=(each,)) for each in (image, other))
    >>> changed_arrays(before, after, ("/data/run", "/data/run"))
    ['source 0 was /data/a.npy, and is /data/b.npy']
    """
    changes = _changes("output", before.outputs, after.outputs, directories, written=True)
    changes += _changes("source", before.inputs, after.inputs, directories, written=False)
    old, new = (() if mask is None else (mask,) for mask in (before.mask, after.mask))
    return changes + _changes("mask", old, new, directories, written=False)


def _changes(
    what: str,
    before: Sequence[ArrayIdentity],
    after: Sequence[ArrayIdentity],
    directories: tuple[str, str],
    *,
    written: bool,
) -> list[str]:
    found = []
    for number, (old, new) in enumerate(zip_longest(before, after)):
        name = what if what == "mask" else f"{what} {number}"
        if old is None or new is None:
            there = _shown(new if old is None else old)
            found.append(f"{name} ({there}) is new" if old is None else f"{name} ({there}) is not given any more")
            continue
        changes = _array_changes(old, new, directories, written=written)
        if changes:
            found.append(f"{name} {', '.join(changes)}")
    return found


def _array_changes(old: ArrayIdentity, new: ArrayIdentity, directories: tuple[str, str], *, written: bool) -> list[str]:
    if not written and old.content.startswith("all:") and _voxels_of(old) == _voxels_of(new):
        return []
    if (old.kind, new.kind) == ("memory", "memory") and written and old.uid != new.uid:
        return ["was in the memory of a process that has ended, or was made again"]
    if not _same_place(old, new, directories):
        return [f"was {_shown(old)}, and is {_shown(new)}"]
    changes = []
    for field in _DESCRIBED:
        was, now = getattr(old, field), getattr(new, field)
        if was != now:
            changes.append(f"{field} was {was}, and is {now}")
    if changes:
        return [f"({_shown(new)}): {', '.join(changes)}"]
    if old.layout != new.layout:
        return [f"({_shown(new)}) is stored in another way: its metadata has changed (compression, fill value, format)"]
    if written:
        made_again = new.uid != old.uid if old.uid else old.file[1:] != new.file[1:]
        return [f"({_shown(new)}) was deleted and made again, or is another array"] if made_again else []
    if old.uid and new.uid != old.uid:
        return [f"({_shown(new)}) was made again"]
    if old.content and new.content and old.content != new.content:
        return [f"({_shown(new)}) has other voxels"]
    return []


def _voxels_of(array: ArrayIdentity) -> tuple[object, ...]:
    """What makes the input of a block."""
    return array.shape, array.dtype, array.content, array.offset, array.voxel_size, array.part


def _same_place(old: ArrayIdentity, new: ArrayIdentity, directories: tuple[str, str]) -> bool:
    if old.kind != new.kind:
        return False
    if old.place == new.place:
        return True
    if not (os.path.isabs(old.place) and os.path.isabs(new.place)):
        return False
    then, now = directories
    return os.path.relpath(old.place, then) == os.path.relpath(new.place, now)


def _shown(array: ArrayIdentity) -> str:
    return array.place or f"an array in memory of shape {array.shape} and dtype {array.dtype}"
