"""Padding: what stands where a block reads beyond the borders of an array?

The modes are those of :func:`numpy.pad`. A block must not see where other blocks end, so wherever it can be, its
voxels are those of ``numpy.pad(whole array, context, mode)``:

- ``"edge"``, ``"reflect"``, ``"symmetric"`` and ``"wrap"`` say of every voxel outside which voxel inside it repeats.
  These are found for each axis and read, wherever they are: those of ``"wrap"`` at the other end of the array.
- ``"constant"`` and ``"empty"`` need no other voxel.
- All others (``"mean"``, ``"linear_ramp"``, functions, and the four above with options) are computed by
  :func:`numpy.pad` from the voxels that the block reads inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from blockflow.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Padding", "padded", "padding_of"]

_REPEATING = ("edge", "reflect", "symmetric", "wrap")


@dataclass(frozen=True, slots=True)
class Padding:
    """How to pad."""

    mode: Any
    """As :func:`numpy.pad` takes it: a name, or a function."""
    options: dict[str, Any] = field(default_factory=dict)
    """More arguments of :func:`numpy.pad`, such as ``constant_values``."""


def padding_of(pad: Any, dtype: np.dtype[Any]) -> Padding | None:
    """The padding that a user means.

    Args:
        pad: None, a mode of :func:`numpy.pad`, or its arguments as a mapping.
        dtype: Of the array to pad.

    Raises:
        PlanError: numpy would not pad like that.

    >>> padding_of({"mode": "constant", "constant_values": 7}, np.dtype("u1"))
    Padding(mode='constant', options={'constant_values': 7})
    """
    if pad is None:
        return None
    options = dict(pad) if isinstance(pad, Mapping) else {"mode": pad}
    mode = options.pop("mode", "constant")
    try:
        np.pad(np.zeros(3, dtype), 1, mode, **options)
    except (TypeError, ValueError, OverflowError) as error:
        raise PlanError(
            f"pad must be None, a mode of numpy.pad, or a dict of its arguments: got {pad!r} ({error})"
        ) from (error)
    return Padding(mode, options)


def padded(
    data: Any, channels: int, wanted: Sequence[tuple[int, int]], extents: Sequence[int], pad: Padding
) -> NDArray[Any]:
    """Voxels of an array inside and outside of it.

    Args:
        data: The array.
        channels: How many of its first axes are read whole.
        wanted: Begin and end for each other axis, in voxels, half-open; some voxel of them is inside.
        extents: Of these axes.
        pad: What stands outside.

    >>> padded(np.arange(5), 0, [(-2, 2)], [5], Padding("wrap"))
    array([3, 4, 0, 1])
    """
    if pad.mode in _REPEATING and not pad.options:
        axes = [_repeated(*interval, extent, pad.mode) for interval, extent in zip(wanted, extents, strict=True)]
        return _gathered(data, channels, axes)
    inside = tuple(slice(max(begin, 0), min(end, n)) for (begin, end), n in zip(wanted, extents, strict=True))
    part = np.asarray(data[(slice(None),) * channels + inside])
    widths = [(max(0, -begin), max(0, end - n)) for (begin, end), n in zip(wanted, extents, strict=True)]
    result: NDArray[Any] = np.pad(part, [(0, 0)] * channels + widths, pad.mode, **pad.options)
    return result


def _repeated(begin: int, end: int, extent: int, mode: Any) -> NDArray[np.intp]:
    """The index of a voxel inside for each from begin to end."""
    before, after = max(0, -begin), max(0, end - extent)
    if not before and not after:
        return np.arange(begin, end)
    whole: NDArray[np.intp] = np.pad(np.arange(extent), (before, after), mode)
    return whole[begin + before : end + before]


def _gathered(data: Any, channels: int, axes: list[NDArray[np.intp]]) -> NDArray[Any]:
    """The voxels with these indices, read in boxes."""
    shape = tuple(data.shape[:channels]) + tuple(len(indices) for indices in axes)
    result = np.empty(shape, data.dtype)
    for runs in product(*map(_runs, axes)):
        part = np.asarray(data[(slice(None),) * channels + tuple(read for read, _ in runs)])
        to = [positions for _, positions in runs]
        for axis, ((read, positions), indices) in enumerate(zip(runs, axes, strict=True), start=channels):
            part = part.take(indices[positions] - read.start, axis)
        result[(slice(None),) * channels + np.ix_(*to)] = part
    return result


def _runs(indices: NDArray[np.intp]) -> list[tuple[slice, NDArray[np.intp]]]:
    """Intervals that hold all indices, and the positions at which the indices of each stand."""
    found = np.unique(indices)
    runs = []
    for run in np.split(found, np.flatnonzero(np.diff(found) > 1) + 1):
        first, last = int(run[0]), int(run[-1])
        runs.append((slice(first, last + 1), np.flatnonzero((indices >= first) & (indices <= last))))
    return runs
