"""Labels: which voxels of a mask of any size belong to one object?

1. Each block labels what it holds itself, and tells how many objects these are and what lies at its faces.
2. The pairs that touch across seams are joined (:mod:`blockflow.ops.seams`).
3. Each block labels what it holds again, which gives the same numbers, and writes them as what they are called now.

So no block waits for another, each voxel is written once, and a block that is done again writes the same. That
labelling is done twice costs less than writing and reading numbers that are not final.
"""

from __future__ import annotations

import importlib.util
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from blockflow.binding import check_outputs
from blockflow.errors import ArrayError, PlanError, RunError, ValueLossError
from blockflow.ops.inputs import opened
from blockflow.ops.map_plan import plan_map
from blockflow.ops.mapping import below, folder_for_all, iter_blocks, map_blocks, returned
from blockflow.ops.relabelling import largest_label
from blockflow.ops.seams import Faces, Joined, Seams, faces_of
from blockflow.optional import not_installed
from blockflow.plan.flags import check_flags

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from blockflow.arrays.array import Array
    from blockflow.plan.block import Block
    from blockflow.plan.grid import Grid

__all__ = ["label"]


def label(
    mask: Any,
    out: Any = None,
    *,
    connectivity: int | ArrayLike = 1,
    grid: Grid | Sequence[int | None] | int | None = None,
    dtype: DTypeLike | None = None,
    num_workers: int | None = None,
    launcher: Any = None,
    run_dir: str | os.PathLike[str] | None = None,
    reset: bool = False,
    accept_change: bool = False,
    take_over: bool = False,
    progress: bool = True,
) -> tuple[Any, int]:
    """Number the connected objects of a mask, over any number of blocks.

    The result is that of :func:`scipy.ndimage.label`, but for which object has which number.

    >>> import numpy as np
    >>> mask = np.array([[1, 1, 1, 0, 1], [0, 0, 0, 0, 1]])
    >>> label(mask, grid=(1, 2), num_workers=0, progress=False)
    (array([[1, 1, 1, 0, 2],
           [0, 0, 0, 0, 2]], dtype=uint32), 2)

    Args:
        mask: What is not zero belongs to objects; a source as for :func:`~blockflow.ops.map_blocks`, without channels.
        out: As for :func:`~blockflow.ops.map_blocks`.
        connectivity: How many axes may differ by one between voxels that touch: 1 for faces, up to the number of
            axes for corners. Or a symmetric array of 3^n flags, as scipy's ``structure``.
        grid: As for :func:`~blockflow.ops.map_blocks`.
        dtype: Of an output that is made; uint32, or uint64 for masks of 2^32 voxels or more, if not given.
        num_workers: As for :func:`~blockflow.ops.map_blocks`.
        launcher: As for :func:`~blockflow.ops.map_blocks`.
        run_dir: As for :func:`~blockflow.ops.map_blocks`.
        reset: As for :func:`~blockflow.ops.map_blocks`.
        accept_change: As for :func:`~blockflow.ops.map_blocks`.
        take_over: As for :func:`~blockflow.ops.map_blocks`.
        progress: As for :func:`~blockflow.ops.map_blocks`.

    Returns:
        The labels, 0 for background and consecutive from 1; and how many objects there are.

    Raises:
        PlanError: An impossible connectivity.
        ValueLossError: The dtype of `out` is too small for so many objects; nothing was written.
        ArrayError: scipy is not installed.
    """
    check_flags(reset=reset, accept_change=accept_change, take_over=take_over, progress=progress)
    _check_scipy()
    source = opened(mask, "r", "mask")
    if not reset:
        check_outputs(below(run_dir, "label_again"), [out])
    plan = plan_map(
        [source],
        [out],
        dtypes=[dtype],
        grid=grid,
        context=0,
        pad=None,
        shared=num_workers is None or num_workers > 0,
        new_dtype=np.uint32 if prod(source.shape) < 2**32 else np.uint64,
    )
    (array,), (sink,) = plan.sources, plan.sinks
    for name, each in (("mask", array), ("out", sink)):
        if each.channel_dims:
            raise PlanError(f"{name} must have no channels, got {each.channel_dims} channel axes: label one of them")
    structure = _structure(connectivity, array.spatial_dims)
    options: dict[str, Any] = {
        "grid": plan.grid,
        "num_workers": num_workers,
        "launcher": launcher,
        "reset": reset,
        "accept_change": accept_change,
        "take_over": take_over,
        "progress": progress,
    }
    look = partial(_look, structure)
    seams = Seams(plan.grid, structure)
    for block, (count, faces) in iter_blocks(
        look, array, ordered=False, name="label", run_dir=below(run_dir, "label"), **options
    ):
        assert block.index is not None
        seams.add(block.index, count, faces)
    joined = seams.joined()
    if joined.count > (largest := largest_label(sink.dtype)):
        raise ValueLossError(f"out must hold labels up to {joined.count}, and its dtype {sink.dtype} ends at {largest}")
    with folder_for_all(below(run_dir, "joined")) as folder:
        joined.save(folder)
        map_blocks(
            partial(_write, structure),
            array,
            out=sink,
            call="block",
            setup=partial(Joined.load, folder),
            name="label_again",
            run_dir=below(run_dir, "label_again"),
            **options,
        )
    return returned(out, sink), joined.count


def _look(structure: NDArray[np.bool_], mask: NDArray[Any]) -> tuple[int, Faces]:
    """How many objects a block has, and what lies at its faces."""
    labels, count = _labelled(structure, mask)
    return count, faces_of(labels)


def _write(structure: NDArray[np.bool_], block: Block, mask: Array, out: Array, joined: Joined) -> None:
    """Write the final labels of a block."""
    assert block.index is not None
    roi = block.write_roi
    table = joined.table(block.index).astype(out.dtype)
    if len(table) == 1:
        out[roi] = 0
        return
    voxels = mask.to_ndarray(roi)
    if len(table) == 2:
        out[roi] = np.where(voxels != 0, table[1], table[0])
        return
    labels, count = _labelled(structure, voxels)
    if count != len(table) - 1:
        raise RunError(f"the mask has changed: block {block.index} had {len(table) - 1} objects, and now has {count}")
    out[roi] = table[labels]


def _labelled(structure: NDArray[np.bool_], mask: NDArray[Any]) -> tuple[NDArray[np.int32], int]:
    from scipy.ndimage import label as label_in_memory

    labels, count = label_in_memory(mask != 0, structure)
    return labels, int(count)


def _structure(connectivity: Any, dims: int) -> NDArray[np.bool_]:
    """Which of the 3^n voxels around one touch it."""
    if np.ndim(connectivity) == 0:
        if isinstance(connectivity, bool) or not hasattr(connectivity, "__index__") or not 1 <= connectivity <= dims:
            raise PlanError(f"connectivity must be a whole number from 1 to {dims}, got {connectivity!r}")
        steps = np.abs(np.indices((3,) * dims) - 1).sum(axis=0)
        return np.asarray(steps <= connectivity)
    structure = np.asarray(connectivity).astype(bool)
    if structure.shape != (3,) * dims or (structure != np.flip(structure)).any():
        raise PlanError(f"a connectivity of flags must be symmetric and of shape {(3,) * dims}, got {connectivity!r}")
    return structure


def _check_scipy() -> None:
    if importlib.util.find_spec("scipy") is None:
        raise ArrayError(not_installed("label needs", "scipy"))
