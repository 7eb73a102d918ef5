"""What can be said in the ledger?

Every record is a tagged msgpack array with typed, bounded fields; anything else is refused, when it is appended and
when it is read. Blocks are named by the number of their task in the plan and their C-order index in its grid. Times are
whole microseconds. Text comes from workers, bounded as on the wire. Tags are never used again for something else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta

from blockflow.errors import LedgerError
from blockflow.wire.failures import LONGEST_ERROR, LONGEST_TRACEBACK
from blockflow.wire.messages import Name, Natural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blockflow.plan.slices import Indices

MOST_RUNS = 4096
"""Runs of blocks in one record; more of them are several records."""

Runs: TypeAlias = Annotated[tuple[Natural, ...], Meta(min_length=2, max_length=2 * MOST_RUNS)]
"""Sorted indices as alternating gaps and lengths: ``(5, 3, 2, 1)`` is 5, 6, 7, 10. See :func:`runs_of`."""


class _Record(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    pass  # gc=False: they hold no other objects that could hold them, and there may be a million


class _WithRuns(_Record, frozen=True):
    task: Natural
    runs: Runs

    def __post_init__(self) -> None:
        if len(self.runs) % 2 or 0 in self.runs[1::2]:
            raise ValueError(f"runs are gaps and lengths, alternately, no length is 0: {self.runs[:10]}")


class Began(_Record, frozen=True, tag=1):
    """A driver took over the run; always the first record of its life."""

    epoch: Natural
    """Greater than that of every driver before."""
    host: Name
    pid: Natural
    boot_id: Name
    microseconds: Natural
    """Since 1970, UTC."""
    version: Name
    """Of blockflow."""


class WorkerKnown(_Record, frozen=True, tag=2):
    """A worker may be given blocks from now on."""

    worker: Natural
    """Number that no other worker of the run has, in whatever life of the driver."""
    task: Natural
    host: Name
    pid: Natural
    process: Natural | None = None
    """The slot it runs in, if a launcher started it."""
    started: Name = ""
    """When its process started: another one that has its number later is not this worker."""


class WorkerGone(_Record, frozen=True, tag=3):
    """A worker will certainly not write any more."""

    worker: Natural


class BlocksDone(_WithRuns, frozen=True, tag=4):
    """Blocks are done for good."""

    attempt: Natural
    """Of the first block; the others follow one by one. Where attempts leave one out, another record begins."""
    microseconds: Natural
    """That they took together."""
    stored: Natural | None = None
    """Chunks that each of them has stored; None if nobody has counted."""


class BlocksSkipped(_WithRuns, frozen=True, tag=5):
    """A pre-check or a mask said that there is nothing to do. Not earned: the next driver asks again."""


class BlockFailed(_Record, frozen=True, tag=6):
    """An attempt at a block failed in the user's code."""

    task: Natural
    index: Natural
    attempt: Natural
    """0 if it was not granted: its pre-check failed."""
    final: bool
    """It will not be tried again."""
    error: Annotated[str, Meta(max_length=LONGEST_ERROR)]
    traceback: Annotated[str, Meta(max_length=LONGEST_TRACEBACK)]
    where: Name


class BlockLost(_Record, frozen=True, tag=7):
    """A worker ended while it ran this block, and no other."""

    task: Natural
    index: Natural
    attempt: Natural
    final: bool
    """It ended too many workers, and will not be tried again."""
    error: Annotated[str, Meta(max_length=LONGEST_ERROR)] = "its workers ended while they ran this block"
    """What people are told if it is final."""


class Stopped(_Record, frozen=True, tag=8):
    """The driver ended in an orderly way."""

    microseconds: Natural
    """Since 1970, UTC."""
    reason: Annotated[str, Meta(max_length=LONGEST_ERROR)]


class Mishaps(_Record, frozen=True, tag=9):
    """What went wrong with a block that has not ended well, in all: only in snapshots, in place of single records."""

    task: Natural
    index: Natural
    failures: Natural
    losses: Natural
    attempt: Natural = 0
    """The last that failed."""


class BlockSpared(_Record, frozen=True, tag=10):
    """An attempt at a block failed because storage did: it has ended, and costs the block nothing."""

    task: Natural
    index: Natural
    attempt: Natural
    error: Annotated[str, Meta(max_length=LONGEST_ERROR)]


class CodeKnown(_Record, frozen=True, tag=20):
    """Which version of a task's code computes the blocks that drivers grant, from one epoch on."""

    task: Natural
    version: Annotated[int, Meta(ge=1, le=65535)]
    """1 for the first code of the task; code that comes back has its old number."""
    epoch: Natural
    digest: Name
    name: Name
    """Of the function."""
    environment: Name
    """Versions of Python and libraries; another one alone is no other version of the code."""


class BlocksOfVersion(_WithRuns, frozen=True, tag=21):
    """Blocks were done by a version of the code: only in snapshots, of tasks with several versions."""

    version: Annotated[int, Meta(ge=1, le=65535)]


class BlocksRequeued(_WithRuns, frozen=True, tag=22):
    """Blocks that were done are to be done again."""


Record: TypeAlias = (
    Began
    | WorkerKnown
    | WorkerGone
    | BlocksDone
    | BlocksSkipped
    | BlockFailed
    | BlockLost
    | Stopped
    | Mishaps
    | BlockSpared
    | CodeKnown
    | BlocksOfVersion
    | BlocksRequeued
)

_ENCODER = msgspec.msgpack.Encoder()
_RECORD = msgspec.msgpack.Decoder(Record)
_RECORDS = msgspec.msgpack.Decoder(list[Record])


def encode_records(records: Sequence[Record]) -> list[bytes]:
    """Each record as bytes, which were read again: what cannot be read never gets into the ledger.

    Raises:
        LedgerError: A value is out of bounds.

    >>> [list(body) for body in encode_records([WorkerGone(7)])]
    [[146, 3, 7]]
    """
    encoded = [_ENCODER.encode(record) for record in records]
    try:
        for body in encoded:
            _RECORD.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LedgerError(f"this cannot be recorded: {error}") from None
    return encoded


def join_records(encoded: Sequence[bytes]) -> bytes:
    """Encoded records as one body."""
    return b"\xdd" + len(encoded).to_bytes(4, "big") + b"".join(encoded)  # msgpack's array with a 32-bit length


def decode_records(body: bytes | memoryview) -> list[Record]:
    """The records of a body.

    Raises:
        LedgerError: It does not hold records.

    >>> decode_records(join_records(encode_records([WorkerGone(7)])))
    [WorkerGone(worker=7)]
    """
    try:
        records: list[Record] = _RECORDS.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise LedgerError(f"these are not records: {error}") from None
    return records


def runs_of(indices: Indices) -> list[tuple[int, ...]]:
    """Sorted block indices as gaps and lengths of runs; more than one tuple if they are too many for one record.

    Raises:
        LedgerError: They are not sorted, or one is there twice.

    >>> import numpy as np
    >>> runs_of(np.array([5, 6, 7, 10]))
    [(5, 3, 2, 1)]
    """
    if not len(indices):
        return []
    steps = np.diff(indices)
    if indices[0] < 0 or (steps <= 0).any():
        raise LedgerError("blocks in a record must be sorted, each there once")
    breaks = np.flatnonzero(steps > 1)
    begins = indices[np.concatenate(([0], breaks + 1))]
    ends = indices[np.concatenate((breaks, [len(indices) - 1]))] + 1
    packed = []
    for first in range(0, len(begins), MOST_RUNS):
        begin, end = begins[first : first + MOST_RUNS], ends[first : first + MOST_RUNS]
        gaps = begin - np.concatenate(([0], end[:-1]))
        packed.append(tuple(np.stack((gaps, end - begin), axis=1).ravel().tolist()))
    return packed


def blocks_of(runs: tuple[int, ...]) -> tuple[Indices, Indices]:
    """Runs as first blocks and numbers of blocks; the sum of `runs` must be a number of blocks.

    >>> begins, counts = blocks_of((5, 3, 2, 1))
    >>> begins.tolist(), counts.tolist()
    ([5, 10], [3, 1])
    """
    packed = np.array(runs, dtype=np.int64)
    counts = packed[1::2]
    return np.cumsum(packed)[1::2] - counts, counts
