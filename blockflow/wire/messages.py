"""What may be said on the wire?

Every message is a tagged msgpack array with typed, bounded fields; anything else is refused when it is decoded, and
costs its sender the connection. Times are whole microseconds, so that neither NaN nor infinity can be said. Blocks are
named by task and index; the worker knows the tiling from :class:`Welcome`. No message carries code or voxels.

In order: a worker says :class:`Hello`, the driver :class:`Welcome` or :class:`Refused`. A worker that is back says what
it holds (:class:`Held`). From then on the worker sends
:class:`Report` (which may also ask for blocks), :class:`Returned`, :class:`Heartbeat` and at the end :class:`Goodbye`;
or :class:`Unable` in place of all that; once :class:`ArraysReturned`, where that is so;
the driver sends :class:`Granted`, :class:`Acknowledged`, :class:`Alive`, :class:`Recalled` and at the end
:class:`Finished`. Somebody who is no worker may say :class:`Scale` and is answered :class:`Scaled` or
:class:`Refused`.
"""

from __future__ import annotations

from itertools import groupby
from typing import Annotated, TypeAlias, assert_never

import msgspec
from msgspec import Meta, structs

from blockflow.errors import LocalProtocolError, RemoteProtocolError
from blockflow.plan.grid import Axis, BalancedAxis, Grid, RegularAxis
from blockflow.wire.failures import LONGEST_ERROR, LONGEST_TRACEBACK
from blockflow.wire.storage_errors import FailureKind

PROTOCOL = 1
"""Version of the protocol; both sides must have the same."""

LARGEST_HELLO = 1024
"""Bytes of a message before the handshake is over."""

LARGEST_MESSAGE = 256 * 1024
"""Bytes of any other message."""

MOST_BLOCKS = 16384
"""Blocks in a lease."""

MOST_WORKERS = 10_000
"""Workers that a task may be given by a message."""

Natural: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Whole: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Positive: TypeAlias = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Name: TypeAlias = Annotated[str, Meta(max_length=255)]
ProcessId: TypeAlias = Annotated[int, Meta(ge=1, le=2**31 - 1)]
"""What the operating system takes for one: 0 and negative numbers would mean groups of processes."""
Duration: TypeAlias = Annotated[int, Meta(ge=0, le=10**15)]
"""In microseconds; thirty years, and still exact as a float."""


class _Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    pass


# --------------------------------------------------------------------------------------------------- worker to driver


class Hello(_Message, frozen=True, tag=1):
    """A worker introduces itself."""

    protocol: Natural
    run: Name
    """Id of the run that it wants to work for."""
    task: Name
    process: Natural | None
    """Number of the process that the driver started, if it was."""
    host: Name
    pid: ProcessId
    worker: Natural | None
    """The number that it has, if it is back after its connection was lost."""
    started: Name = ""
    """When its process started, as :func:`blockflow.place.started` says; empty if that is not known."""
    code: Name = ""
    """Digest of the code that it was sent; empty if it was sent none, or nobody has asked."""


class Failure(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One failed block."""

    index: Natural
    """C-order index of the block."""
    error: Annotated[str, Meta(max_length=LONGEST_ERROR)]
    traceback: Annotated[str, Meta(max_length=LONGEST_TRACEBACK)]
    where: Name
    kind: FailureKind = FailureKind.CODE
    """Whether the block is to blame."""
    disk: Name = ""
    """What storage failed on, if it did; empty if unknown."""


class Report(_Message, frozen=True, tag=2):
    """The worker is done with the first `upto` blocks of a lease; lease 0 is none."""

    lease: Natural
    upto: Natural
    microseconds: Duration
    """Time that the blocks reported here for the first time took together."""
    failure: Failure | None
    """Workers report every failure at once, so there is never a second one."""
    asks: bool
    """The worker wants another lease."""
    number: Natural
    """Comes back in the answer; tells the worker when what was answered had been sent."""
    stored: Annotated[tuple[Natural, ...], Meta(max_length=2 * MOST_BLOCKS)] = ()
    """How many chunks each newly reported block has stored: see :func:`pack_stored`; empty if nobody counts."""


class Returned(_Message, frozen=True, tag=3):
    """The worker gives back all blocks of a lease but the first `kept`."""

    lease: Natural
    kept: Natural


class Heartbeat(_Message, frozen=True, tag=4):
    """The worker is alive."""

    number: Natural


class Goodbye(_Message, frozen=True, tag=5):
    """The worker leaves, and will not write any more."""

    reason: Annotated[str, Meta(max_length=LONGEST_ERROR)]
    under_way: bool = False
    """The process ends in the middle of blocks that it still holds. Only the end of the connection, which the operating
    system closes when no thread runs any more, says that it does not write."""
    failure: Failure | None = None
    """The block under way that is to blame, because it took too long; None if nobody is."""


class Held(_Message, frozen=True, tag=6):
    """A worker that is back holds a lease; said of all that it holds before anything else."""

    lease: Natural
    attempt: Natural
    """Attempt number of the first block."""
    runs: Annotated[tuple[Natural, ...], Meta(max_length=2 * MOST_BLOCKS)]
    """Indices of its blocks, as in :class:`Granted`; those that it gave back are not among them."""
    number: Natural
    """Comes back in the answer."""


class Scale(_Message, frozen=True, tag=7):
    """Another number of workers is wanted for a task; said by who is no worker, instead of :class:`Hello`."""

    protocol: Natural
    run: Name
    task: Name
    workers: Natural


class Unable(_Message, frozen=True, tag=8):
    """The worker cannot begin: its function cannot be loaded, or what has to be done before the first block failed."""

    error: Annotated[str, Meta(max_length=LONGEST_ERROR)]
    traceback: Annotated[str, Meta(max_length=LONGEST_TRACEBACK)]
    where: Name


class ArraysReturned(_Message, frozen=True, tag=9):
    """The task's function returns arrays, and nothing is done with them; said once by each worker."""


# --------------------------------------------------------------------------------------------------- driver to worker


class RegularLayout(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1):
    """A :class:`~blockflow.plan.regular.RegularAxis`."""

    first: Whole
    step: Positive
    count: Natural
    before: Natural
    after: Natural
    overshoot: Natural
    shift: Natural
    bounds: tuple[Whole, Whole] | None = None


class BalancedLayout(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=2):
    """A :class:`~blockflow.plan.balance.BalancedAxis`."""

    begin: Whole
    low: Whole
    unit: Positive
    units: Positive
    count: Positive
    last_cut: Whole
    end: Whole
    before: Natural
    after: Natural
    least: Natural


AxisLayout: TypeAlias = RegularLayout | BalancedLayout


class Welcome(_Message, frozen=True, tag=16):
    """The worker belongs to the run; what it needs to know about its task."""

    worker: Natural
    """Its number; no two clients of a run have the same."""
    axes: Annotated[tuple[AxisLayout, ...], Meta(min_length=1, max_length=32)]
    total: Annotated[tuple[tuple[Whole, Whole], ...], Meta(min_length=1, max_length=32)]
    """`total_roi` as (begin, end) per axis."""
    lease_microseconds: Natural
    """How long it may keep blocks after a message of its own that was answered."""
    timeout_microseconds: Natural | None
    """How long one block may take."""
    watched: bool
    """The driver notices by itself when this process dies: as long as the connection stands, its leases do not end."""


class Refused(_Message, frozen=True, tag=17):
    """The worker does not belong here."""

    reason: Annotated[str, Meta(max_length=LONGEST_ERROR)]


class Granted(_Message, frozen=True, tag=18):
    """Blocks for the worker."""

    lease: Natural
    attempt: Natural
    """Attempt number of the first block; the others follow it."""
    runs: Annotated[tuple[Natural, ...], Meta(max_length=2 * MOST_BLOCKS)]
    """Indices as gaps and lengths of runs, alternately: see :func:`pack_runs`."""
    timeout_microseconds: Natural | None = None
    """How long each block may take, in place of what :class:`Welcome` says."""


class Acknowledged(_Message, frozen=True, tag=19):
    """What was said of a lease was counted, or is stale: the lease is not the worker's any more."""

    number: Natural
    lease: Natural
    stale: bool


class Alive(_Message, frozen=True, tag=20):
    """Answer to a heartbeat."""

    number: Natural
    timeout_microseconds: Natural | None = None
    """How long each block that is held may take, if that is longer than what was said when it was granted, or if
    nothing was said."""


class Recalled(_Message, frozen=True, tag=21):
    """The blocks of a lease that are not started are wanted back."""

    lease: Natural


class Finished(_Message, frozen=True, tag=22):
    """There is nothing more to do for this worker."""


class Scaled(_Message, frozen=True, tag=23):
    """The task has another number of workers from now on."""

    before: Natural
    """How many were wanted before."""


FromWorker: TypeAlias = Hello | Held | Report | Returned | Heartbeat | Goodbye | Scale | Unable | ArraysReturned
FromDriver: TypeAlias = Welcome | Refused | Granted | Acknowledged | Alive | Recalled | Finished | Scaled

_ENCODER = msgspec.msgpack.Encoder()
_FROM_WORKER = msgspec.msgpack.Decoder(FromWorker)
_FROM_DRIVER = msgspec.msgpack.Decoder(FromDriver)


def encode(message: FromWorker | FromDriver) -> bytes:
    """A message as bytes."""
    return _ENCODER.encode(message)


def decode_from_worker(body: bytes) -> FromWorker:
    """A message that a worker sent.

    Raises:
        RemoteProtocolError: It is not one.
    """
    try:
        message: FromWorker = _FROM_WORKER.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"not a message of a worker: {error}") from None
    return message


def decode_from_driver(body: bytes) -> FromDriver:
    """A message that a driver sent.

    Raises:
        RemoteProtocolError: It is not one.
    """
    try:
        message: FromDriver = _FROM_DRIVER.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"not a message of a driver: {error}") from None
    return message


def pack_runs(indices: list[int]) -> tuple[int, ...]:
    """Sorted indices as alternating gaps and lengths; small numbers take a byte each on the wire.

    Raises:
        LocalProtocolError: The indices are not sorted, or not natural, or one is there twice.

    >>> pack_runs([5, 6, 7, 10])
    (5, 3, 2, 1)
    """
    runs: list[int] = []
    end = 0
    for index in indices:
        if runs and index == end:
            runs[-1] += 1
        elif index < end:
            raise LocalProtocolError(f"the blocks of a lease must be sorted: {index} stands behind {end - 1}")
        else:
            runs += [index - end, 1]
        end = index + 1
    return tuple(runs)


def pack_stored(stored: list[int]) -> tuple[int, ...]:
    """Numbers of chunks of consecutive blocks as pairs: the number plus one (0 if unknown), and of how many blocks.

    >>> pack_stored([8, 8, 8, -1, 7])
    (9, 3, 0, 1, 8, 1)
    """
    packed: list[int] = []
    for number, same in groupby(stored):
        packed += [number + 1, sum(1 for _ in same)]
    return tuple(packed)


def unpack_stored(packed: tuple[int, ...]) -> list[int]:
    """The inverse of :func:`pack_stored`.

    Raises:
        RemoteProtocolError: These are no such pairs, or of too many blocks.

    >>> unpack_stored((9, 3, 0, 1))
    [8, 8, 8, -1]
    """
    if len(packed) % 2 or sum(packed[1::2]) > MOST_BLOCKS:
        raise RemoteProtocolError(f"not the chunks of at most {MOST_BLOCKS} blocks: {packed[:10]}")
    return [number - 1 for number, blocks in zip(packed[::2], packed[1::2], strict=True) for _ in range(blocks)]


def unpack_runs(runs: tuple[int, ...], size: int) -> list[int]:
    """The inverse of :func:`pack_runs`.

    Args:
        runs: Gaps and lengths.
        size: Number of blocks in the grid; no index may reach it.

    Raises:
        RemoteProtocolError: These are not runs of blocks of the grid, or too many.

    >>> unpack_runs((5, 3, 2, 1), size=11)
    [5, 6, 7, 10]
    """
    if len(runs) % 2 or sum(runs[1::2]) > MOST_BLOCKS or sum(runs) > size or 0 in runs[1::2]:
        raise RemoteProtocolError(f"not at most {MOST_BLOCKS} blocks of a grid of {size}: {runs[:10]}")
    indices: list[int] = []
    end = 0
    for gap, length in zip(runs[::2], runs[1::2], strict=True):
        begin, end = end + gap, end + gap + length
        indices.extend(range(begin, end))
    return indices


def layout_of(grid: Grid) -> tuple[AxisLayout, ...]:
    """A grid as it crosses the wire: a few integers for each axis, whatever the number of blocks."""
    return tuple(_layout(axis) for axis in grid.axes)


def grid_of(layout: tuple[AxisLayout, ...]) -> Grid:
    """The grid that :func:`layout_of` described; its region is what its blocks write."""
    return Grid(tuple(_axis(axis) for axis in layout))


def _layout(axis: Axis) -> AxisLayout:
    match axis:
        case RegularAxis():
            return RegularLayout(*(getattr(axis, name) for name in RegularLayout.__struct_fields__))
        case BalancedAxis():
            return BalancedLayout(*(getattr(axis, name) for name in BalancedLayout.__struct_fields__))
        case _:
            assert_never(axis)


def _axis(layout: AxisLayout) -> Axis:
    values = structs.asdict(layout)
    match layout:
        case RegularLayout():
            return RegularAxis(**values)
        case BalancedLayout():
            return BalancedAxis(**values)
        case _:
            assert_never(layout)
