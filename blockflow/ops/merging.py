"""Merging: how do the pieces that were made of blocks become one array again?

1. Each block owns what it writes, so it is one axis at a time which part of a piece is kept and where that
   goes (:class:`_Place`). A piece that covers what its block reads loses its context; one that covers what
   it writes is taken whole.
2. Pieces that were rescaled differ in size from what their blocks read. All pieces of one layer of an axis
   must have the same length; the kept parts are put one after the other.
3. Every piece is checked before anything is written if there is a list of them, and as it comes if there is
   not. Then each is copied once, straight into its place.
"""

from __future__ import annotations

from collections.abc import Sized
from fractions import Fraction
from itertools import groupby, product, zip_longest
from math import floor, prod
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

from blockflow.errors import GeometryError, PlanError
from blockflow.plan.flags import checked_flag

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from blockflow.plan.axis import AxisLike, GridLike

__all__ = ["Casting", "merge", "merged_shape"]

Casting: TypeAlias = Literal["no", "equiv", "safe", "same_kind", "unsafe"]
"""As in :func:`numpy.can_cast`."""

_CACHE = 2**21
"""Bytes of the merged array that are written together: about a core's second-level cache, and a huge page."""


def merge(
    pieces: Iterable[Any],
    grid: GridLike,
    out: Any = None,
    *,
    rescaled: bool = False,
    casting: Casting = "safe",
) -> Any:
    """Put pieces together to the array that the blocks of a grid write.

    Args:
        pieces: One array for each block, in C order of the grid: a list, a generator (then only the piece at
            hand is held), or an object array of the grid's shape. Their first axes are those of the grid and
            cover what the block reads or what it writes; more axes may follow (channels), equal for all.
        grid: Where blocks read and write, in voxels; the merged array begins where the first block writes.
        out: What to write into: anything with ``shape``, ``dtype`` and assignment to slices, such as an
            ndarray, a memmap, a zarr array, a shared array, or a view of a larger one. ``None`` makes an
            ndarray of the first piece's dtype.
        rescaled: Pieces cover what their blocks read at another scale. What is kept of them is cut at the
            scale of the longest piece of each axis, to the nearest voxel: exact without context, or if
            context and that piece are whole numbers of voxels at both scales.
        casting: Which conversion to the dtype of ``out`` is allowed; the default loses no values.

    Returns:
        ``out``, or the new array.

    Raises:
        GeometryError: Too few or too many pieces, a piece or ``out`` of the wrong shape.
        PlanError: ``out`` is read-only, a piece's dtype must not be cast to its dtype (64-bit integers to floats, which
            have no room for all, need another `casting`), or an array has a mask.

    >>> from blockflow import Grid
    >>> grid = Grid.regular((7,), block=3, context=1)
    >>> line = np.arange(7)
    >>> pieces = [line[0:4], line[2:7], line[5:7]]
    >>> merge(pieces, grid)
    array([0, 1, 2, 3, 4, 5, 6])
    >>> merge([piece.repeat(2) for piece in pieces], grid, rescaled=True)
    array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6])
    """
    checked_flag("rescaled", rescaled)
    copies: Iterable[_Copy] = _copies(_placed(pieces, grid, rescaled), out, casting)
    if isinstance(pieces, Sized):
        copies = list(copies)
        if isinstance(copies[0].out, np.ndarray):
            _copy_by_planes(copies)
            return copies[0].out
    for copy in copies:
        out = copy.out
        out[copy.to] = copy.piece[copy.keep]
    return out


def merged_shape(pieces: Iterable[Any], grid: GridLike, *, rescaled: bool = False) -> tuple[int, ...]:
    """The shape that :func:`merge` of the same pieces has or expects of ``out``.

    Args:
        pieces: As for :func:`merge`; only their shapes are looked at, and shapes may be given in their place.
        grid: As for :func:`merge`.
        rescaled: As for :func:`merge`.

    Raises:
        GeometryError: As for :func:`merge`.

    >>> from blockflow import Grid
    >>> grid = Grid.regular((7,), block=3, context=1)
    >>> merged_shape([(4, 2), (5, 2), (2, 2)], grid)
    (7, 2)
    >>> merged_shape([(8,), (10,), (4,)], grid, rescaled=True)
    (14,)
    """
    arrays = [
        piece if hasattr(piece, "shape") else np.broadcast_to(np.uint8(0), piece) for piece in _in_order(pieces, grid)
    ]
    return list(_placed(arrays, grid, rescaled))[-1].shape


class _Place(NamedTuple):
    """What is kept of the pieces at one position of an axis, and where that goes."""

    read: int
    """Length of a piece with context, in voxels."""
    write: int
    """Length of a piece without."""
    keep: slice
    """Of a piece with context."""
    to: slice
    """In the merged array."""


class _Placed(NamedTuple):
    """A piece of the right shape, what is kept of it and where that goes; and the shape of the whole."""

    piece: Any
    keep: tuple[slice, ...]
    to: tuple[slice, ...]
    shape: tuple[int, ...]


class _Copy(NamedTuple):
    """One assignment: ``out[to] = piece[keep]``."""

    out: Any
    to: tuple[slice, ...]
    piece: Any
    keep: tuple[slice, ...]


def _placed(pieces: Iterable[Any], grid: GridLike, rescaled: bool) -> Iterator[_Placed]:
    """Each piece with its place, refused when its shape or the number of pieces turns out wrong."""
    counts = tuple(axis.count for axis in grid.axes)
    dims = len(counts)
    arrays: Iterable[Any] = (
        piece if hasattr(piece, "shape") else np.asarray(piece) for piece in _in_order(pieces, grid)
    )
    if rescaled:
        arrays = list(arrays)
        layout = [list(_rescaled_places(*each)) for each in zip(grid.axes, _lengths(arrays, counts), strict=True)]
    else:
        layout = [list(_places(axis)) for axis in grid.axes]
    extents = tuple(places[-1].to.stop for places in layout)
    shape: tuple[int, ...] | None = None
    for number, (piece, places) in enumerate(zip_longest(arrays, product(*layout))):
        if piece is None or places is None:
            raise GeometryError(_wrong_number(number if piece is None else f"more than {number}", counts))
        whole, more = tuple(piece.shape[:dims]), tuple(piece.shape[dims:])
        reads, writes = tuple(place.read for place in places), tuple(place.write for place in places)
        if whole not in (reads, writes):
            raise GeometryError(
                f"the piece of block {_position(number, counts)} must cover what that reads, {reads}, "
                f"or writes, {writes}, got shape {tuple(piece.shape)}"
            )
        shape = extents + more if shape is None else shape
        if extents + more != shape:
            raise GeometryError(
                f"all pieces must have the same axes after those of the grid: the first has {shape[dims:]}, "
                f"that of block {_position(number, counts)} has {more}"
            )
        keep = tuple(place.keep if whole == reads else slice(None) for place in places)
        yield _Placed(piece, keep, tuple(place.to for place in places), shape)


def _in_order(pieces: Iterable[Any], grid: GridLike) -> Iterable[Any]:
    if not (isinstance(pieces, np.ndarray) and pieces.dtype == object):
        return pieces
    counts = tuple(axis.count for axis in grid.axes)
    if pieces.shape != counts:
        raise GeometryError(f"an array of pieces must have the shape of the grid, {counts}, got {pieces.shape}")
    return list(pieces.ravel())


def _copies(placed: Iterable[_Placed], out: Any, casting: Casting) -> Iterator[_Copy]:
    """The copies to make, refused if ``out`` cannot take them."""
    for piece, keep, to, shape in placed:
        if out is None:
            out = np.empty(shape, piece.dtype)
        if tuple(out.shape) != shape:
            raise GeometryError(f"out must have the shape of the merged pieces, {shape}, got {tuple(out.shape)}")
        if getattr(out, "read_only", False) or not getattr(getattr(out, "flags", None), "writeable", True):
            raise PlanError("out must be writable, got a read-only array")
        for what, array in (("pieces", piece), ("out", out)):
            if isinstance(array, np.ma.MaskedArray):
                raise PlanError(f"{what} must have no masks, pass filled(...), or merge masks apart")
        is_rounded = (  # although numpy calls it safe
            casting == "safe"
            and piece.dtype.kind in "iu"
            and out.dtype.kind in "fc"
            and np.finfo(out.dtype).nmant < 8 * piece.dtype.itemsize - 1
        )
        if is_rounded or not np.can_cast(piece.dtype, out.dtype, casting):
            raise PlanError(
                f"pieces of dtype {piece.dtype} may lose values in an out of {out.dtype}: give another out, "
                f"or a casting other than {casting!r}"
            )
        yield _Copy(out, to, piece, keep)


def _copy_by_planes(copies: list[_Copy]) -> None:
    """Copy pieces that lie side by side together, some planes at a time: writes stay within the cache."""
    for _, side_by_side in groupby(copies, key=lambda copy: (copy.to[0].start, copy.to[0].stop)):
        parts = [(copy.out[copy.to], copy.piece[copy.keep]) for copy in side_by_side]
        step = max(1, _CACHE // max(1, copies[0].out[:1].nbytes))
        for plane in range(0, len(parts[0][0]), step):
            for to, part in parts:
                to[plane : plane + step] = part[plane : plane + step]


def _places(axis: AxisLike) -> Iterator[_Place]:
    origin = axis.write_begin(0)
    for i in range(axis.count):
        read, write, write_end = axis.read_begin(i), axis.write_begin(i), axis.write_end(i)
        yield _Place(
            read=axis.read_end(i) - read,
            write=write_end - write,
            keep=slice(write - read, write_end - read),
            to=slice(write - origin, write_end - origin),
        )


def _rescaled_places(axis: AxisLike, lengths: list[int]) -> Iterator[_Place]:
    """The same for pieces of other lengths; what is kept of them is put end to end."""
    places = list(_places(axis))
    longest = max(range(axis.count), key=lambda i: places[i].read)
    scale = Fraction(lengths[longest], places[longest].read)
    origin = 0
    for place, length in zip(places, lengths, strict=True):
        begin = min(_nearest(place.keep.start * scale), length)
        end = length if place.keep.stop == place.read else min(_nearest(place.keep.stop * scale), length)
        yield _Place(length, end - begin, slice(begin, end), slice(origin, origin + end - begin))
        origin += end - begin


def _nearest(value: Fraction) -> int:
    """Halves go up, as the middle of an overlap does."""
    return floor(value + Fraction(1, 2))


def _lengths(pieces: list[Any], counts: tuple[int, ...]) -> list[list[int]]:
    """The one length along each axis that the pieces at each position of it have."""
    if len(pieces) != prod(counts):
        raise GeometryError(_wrong_number(len(pieces), counts))
    lengths: list[dict[int, int]] = [{} for _ in counts]
    for block, piece in zip(np.ndindex(counts), pieces, strict=True):
        if len(piece.shape) < len(counts):
            raise GeometryError(f"the piece of block {block} must have {len(counts)} axes, got shape {piece.shape}")
        for axis, (position, length) in enumerate(zip(block, piece.shape, strict=False)):
            if lengths[axis].setdefault(position, length) != length:
                raise GeometryError(
                    f"pieces at position {position} of axis {axis} must have one length along it: "
                    f"that of block {block} has {length}, others {lengths[axis][position]}"
                )
    return [list(along.values()) for along in lengths]


def _position(number: int, counts: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(number, counts))


def _wrong_number(found: int | str, counts: tuple[int, ...]) -> str:
    return f"merging needs one piece for each of the {prod(counts)} blocks of a grid of {counts}, got {found}"
