"""Relabelling: how do the labels of an array of any size get other numbers?

1. If the labels are to be consecutive, each block tells which it has; they are numbered in ascending order.
2. Each block is mapped by itself, through a sorted table; a block that is done again writes the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np

from blockflow.errors import PlanError, ValueLossError
from blockflow.ops.inputs import opened
from blockflow.ops.mapping import below, folder_for_all, iter_blocks, run_map
from blockflow.ops.request import MapRequest
from blockflow.plan.flags import check_flags

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from blockflow.plan.grid import Grid

__all__ = ["Missing", "largest_label", "relabel"]

Missing: TypeAlias = Literal["keep", "zero", "error"]
"""What becomes of labels that the mapping does not name."""


def relabel(
    labels: Any,
    out: Any = None,
    *,
    mapping: Mapping[int, int] | tuple[ArrayLike, ArrayLike] | None = None,
    missing: Missing = "keep",
    grid: Grid | Sequence[int | None] | int | None = None,
    dtype: DTypeLike | None = None,
    num_workers: int | None = None,
    launcher: Any = None,
    run_dir: str | os.PathLike[str] | None = None,
    reset: bool = False,
    accept_change: bool = False,
    take_over: bool = False,
    progress: bool = True,
) -> tuple[Any, NDArray[Any]]:
    """Give labels other numbers, or consecutive ones.

    >>> import numpy as np
    >>> relabel(np.array([0, 70, 9, 70]), grid=2, num_workers=0, progress=False)
    (array([0, 2, 1, 2]), array([ 0,  9, 70]))
    >>> relabel(np.array([0, 70, 9, 70]), mapping={9: 70}, grid=2, num_workers=0, progress=False)[0]
    array([ 0, 70, 70, 70])

    Args:
        labels: Of any integer dtype; a source as for :func:`~blockflow.ops.map_blocks`.
        out: As for :func:`~blockflow.ops.map_blocks`; another array than `labels`.
        mapping: New labels by old ones, as a mapping or as two arrays (old, new). None makes labels consecutive:
            0 stays 0, the others are 1, 2, ... in ascending order.
        missing: What becomes of labels that the mapping does not name: they stay, become 0, or are an error.
        grid: As for :func:`~blockflow.ops.map_blocks`.
        dtype: Of an output that is made; that of `labels` if not given.
        num_workers: As for :func:`~blockflow.ops.map_blocks`.
        launcher: As for :func:`~blockflow.ops.map_blocks`.
        run_dir: As for :func:`~blockflow.ops.map_blocks`.
        reset: As for :func:`~blockflow.ops.map_blocks`.
        accept_change: As for :func:`~blockflow.ops.map_blocks`.
        take_over: As for :func:`~blockflow.ops.map_blocks`.
        progress: As for :func:`~blockflow.ops.map_blocks`.

    Returns:
        The new labels; and the old ones by new ones if they are consecutive (so ``old == table[new]``), else all
        that the mapping names.

    Raises:
        PlanError: A mapping that is none, or that names a label twice; labels that are not integers.
        ValueLossError: The dtype of the output cannot hold a label.
        PlanError: A label is missing, if that is an error.
    """
    check_flags(reset=reset, accept_change=accept_change, take_over=take_over, progress=progress)
    if missing not in get_args(Missing):
        raise PlanError(f"missing must be one of {', '.join(map(repr, get_args(Missing)))}, got {missing!r}")
    options: dict[str, Any] = {
        "grid": grid,
        "num_workers": num_workers,
        "launcher": launcher,
        "reset": reset,
        "accept_change": accept_change,
        "take_over": take_over,
        "progress": progress,
    }
    labels = opened(labels, "r", "labels")
    own = np.dtype(labels.dtype)
    largest_label(own)
    if mapping is None:
        old = np.zeros(1, own)
        for _, found in iter_blocks(
            _labels_in, labels, ordered=False, name="labels", run_dir=below(run_dir, "labels"), **options
        ):
            old = np.union1d(old, found)
        old = np.concatenate([old[old == 0], old[old != 0]])
        order = np.argsort(old)
        table = old[order], np.arange(len(old), dtype=np.uint64)[order]
    else:
        table = _table(mapping)
        old = table[0]
    table = _fitted(table, own)
    with folder_for_all(below(run_dir, "table")) as folder:
        for name, column in zip(_COLUMNS, table, strict=True):
            np.save(folder / name, column)
        new = run_map(
            MapRequest(
                function=partial(_mapped, missing),
                sources=(labels,),
                out=out,
                dtype=dtype,
                setup=partial(_load, folder),
                name="relabel",
                run_dir=below(run_dir, "relabel"),
                also_read=table,
                **options,
            )
        )
    return new, old


_COLUMNS = ("old.npy", "new.npy")


def largest_label(dtype: np.dtype[Any]) -> int:
    """The largest label that an array can hold.

    Raises:
        PlanError: It holds no integers.

    >>> largest_label(np.dtype("u1"))
    255
    """
    if dtype.kind not in "iu":
        raise PlanError(f"labels must be integers, got an array of {dtype}")
    return int(np.iinfo(dtype).max)


def _table(mapping: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Old labels, ascending, and new ones."""
    pair = (list(mapping), list(mapping.values())) if isinstance(mapping, Mapping) else mapping
    try:
        old, new = (_column(column) for column in pair)
    except (TypeError, ValueError, OverflowError) as error:
        raise PlanError(f"mapping must be a mapping, or two arrays (old, new): {error}") from error
    if old.ndim != 1 or old.shape != new.shape:
        raise PlanError(f"mapping must have as many new labels as old ones, got shapes {old.shape} and {new.shape}")
    for column in (old, new):
        if column.size and column.dtype.kind not in "iu":
            raise PlanError(f"mapping must map integers to integers, got {column.dtype}")
    order = np.argsort(old, kind="stable")
    old, new = old[order], new[order]
    twice = np.flatnonzero(old[1:] == old[:-1])
    if twice.size:
        raise PlanError(f"mapping must name each label once, got {old[twice[0]]} twice")
    return (old, new) if old.size else (np.zeros(0, np.int64), np.zeros(0, np.int64))


def _column(values: Any) -> NDArray[Any]:
    """One column of a table; numbers of 64 bits are never seen as floats."""
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError("a masked array has values that it hides")
    column = np.asarray(values)
    if column.dtype.kind in "iu" or not column.size or isinstance(values, np.ndarray):
        return column
    items = list(values)
    if not all(hasattr(type(item), "__index__") and not isinstance(item, bool | np.bool_) for item in items):
        return column
    numbers = [int(item) for item in items]
    return np.array(numbers, np.int64 if min(numbers) < 0 else np.uint64)


def _fitted(table: tuple[NDArray[Any], NDArray[Any]], own: np.dtype[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The table with old labels in the dtype of an array, which has none of those that do not fit into it."""
    old, new = table
    bounds = np.iinfo(own)
    if old.size and (int(old[0]) < bounds.min or int(old[-1]) > bounds.max):
        inside = np.array([bounds.min <= int(label) <= bounds.max for label in old], bool)
        old, new = old[inside], new[inside]
    return old.astype(own), new


def _load(folder: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    old, new = (np.load(folder / name, mmap_mode="r") for name in _COLUMNS)
    return old, new


def _labels_in(labels: NDArray[Any]) -> NDArray[Any]:
    largest_label(labels.dtype)
    return np.unique(labels)


def _mapped(missing: Missing, labels: NDArray[Any], table: tuple[NDArray[Any], NDArray[Any]]) -> NDArray[Any]:
    """The new labels of a block."""
    largest_label(labels.dtype)
    old, new = table
    own, places = _own(labels)
    at = np.searchsorted(old, own)
    known = np.zeros(len(own), bool)
    known[at < len(old)] = old[at[at < len(old)]] == own[at < len(old)]
    if missing == "error" and not (named := known[places]).all():
        raise PlanError(f"the mapping must name all labels, it does not name {own[places[~named]][0]}")
    named_as, kept = new[at[known]], own[~known] if missing == "keep" else own[:0]
    result = np.zeros(len(own), _common(kept, named_as, labels.dtype))
    result[known] = named_as
    if missing == "keep":
        result[~known] = kept
    return np.asarray(result[places])


def _common(kept: NDArray[Any], new: NDArray[Any], dtype: np.dtype[Any]) -> np.dtype[Any]:
    """An integer dtype for the labels that are kept and all new ones: that of the labels if it has room.

    Raises:
        ValueLossError: No integer has room for all of them.
    """
    ends = [int(end) for column in (kept, new) if column.size for end in (column.min(), column.max())]
    low, high = min(ends, default=0), max(ends, default=0)
    for each in (dtype, np.dtype(np.int64), np.dtype(np.uint64)):
        bounds = np.iinfo(each)
        if bounds.min <= low and high <= bounds.max:
            return each
    raise ValueLossError(f"labels from {low} to {high} have no common dtype: convert them first")


def _own(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Labels that hold all of a block, ascending, and which of them each voxel has."""
    low, high = int(labels.min()), int(labels.max())
    if low >= 0 and high <= 4 * labels.size:  # a table of all numbers is made sooner than labels are sorted
        return np.arange(high + 1, dtype=labels.dtype), labels
    own, places = np.unique(labels, return_inverse=True)
    return own, places.reshape(labels.shape)
