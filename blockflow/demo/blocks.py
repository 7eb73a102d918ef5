"""Blocks: what is computed in each block, and which blocks wait for which?

1. *alone* and *smooth* are the same Gaussian filter, without and with context: with the pixels around it a block gets
   what it would get from the whole picture.
2. *segment* labels neighbouring pixels of equal brightness band. A block sees the labels that its neighbours have
   written (``read_write_conflict``: no two neighbours run at once) and takes them over. One that connects two labels
   takes the smaller one and notes that both are one segment.
3. *join* is one block that reads everything, so it waits for every block of *segment*. It works out which labels are
   one segment.
4. *relabel* gives each segment one label.

Of two neighbouring blocks the later one sees the earlier one's labels, so every connection over a border is taken
over or noted: the segments are those of the whole picture, whatever the order of blocks was.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from blockflow.arrays import Array, prepare_ds
from blockflow.geometry import Roi
from blockflow.net.context import Context
from blockflow.plan.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from blockflow.plan.block import Block

BANDS = 5
"""Bands of brightness, each with as many pixels of the input as the others."""

BLOCKS_ACROSS = 8
"""Blocks along the longer axis, so that a map of them can be read."""

SMALLEST_BLOCK = 32
"""Pixels; smaller ones would be all context."""

LONGEST_REACH = 32
"""Pixels; a wider Gaussian takes long, and shows no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Arrays of one run, and what its blocks are to do with them."""

    arrays: dict[str, Array]
    """By name: input, alone, smooth, pieces (labels before they are joined), segments."""
    records: dict[str, Array]
    """For smooth and segment, over the grid of blocks: when each ended (seconds since 1970), and its worker."""
    notes: Path
    """Folder for what blocks note about labels that they connect."""
    whole: Roi
    """The picture, in pixels."""
    block: Roi
    """Where the first block of smooth writes."""
    tile: Roi
    """Where the first block of segment writes."""
    reach: int
    """Pixels from its middle at which the Gaussian is cut off: three standard deviations."""
    levels: list[float]
    """Brightness at which one band ends and the next begins."""


def prepare(folder: Path, picture: np.ndarray[Any, Any]) -> Job:
    """Write the input and make empty outputs.

    Args:
        folder: Where ``demo.zarr`` and the notes of the blocks go; holds neither yet.
        picture: Of shape (channels, height, width).
    """
    channels, *size = picture.shape
    edge = max(SMALLEST_BLOCK, -(-max(size) // BLOCKS_ACROSS))
    whole, block, tile = (Roi((0, 0), shape) for shape in (size, (edge, edge), (edge * 3 // 2, edge * 3 // 2)))
    make = partial(prepare_ds, folder / "demo.zarr", voxel_size=(1, 1))

    def record(name: str, place: Roi) -> Array:
        counts = [-(-extent // step) for extent, step in zip(size, place.shape, strict=True)]
        return make(f"ended/{name}", Roi((0, 0), counts), dtype=np.float64, write_size=(1, 1), num_channels=2)

    images = {
        name: make(name, whole, dtype=np.float32, write_size=block.shape, num_channels=channels)
        for name in ("input", "alone", "smooth")
    }
    labels = {name: make(name, whole, dtype=np.uint32, write_size=tile.shape) for name in ("pieces", "segments")}
    images["input"][whole] = picture
    notes = folder / "notes"
    notes.mkdir()
    return Job(
        arrays=images | labels,
        records={"smooth": record("smooth", block), "segment": record("segment", tile)},
        notes=notes,
        whole=whole,
        block=block,
        tile=tile,
        reach=min(edge // 4, LONGEST_REACH),
        levels=np.quantile(brightness(picture), np.linspace(0, 1, BANDS + 1)[1:-1]).tolist(),
    )


def tasks(job: Job, workers: int) -> list[Task]:
    """The tasks of a job, with this many worker processes each."""
    images, whole, block, tile, reach = job.arrays, job.whole, job.block, job.tile, job.reach
    spread = partial(Task, fit="shrink", num_workers=workers)
    alone = spread(
        "alone",
        total_roi=whole,
        read_roi=block,
        write_roi=block,
        process_function=partial(smooth, images["input"], images["alone"], reach),
        read_write_conflict=False,
    )
    smoothing = spread(
        "smooth",
        total_roi=whole.grow(reach, reach),
        read_roi=block.grow(reach, reach),
        write_roi=block,
        process_function=partial(
            recorded, job.records["smooth"], partial(smooth, images["input"], images["smooth"], reach)
        ),
        read_write_conflict=False,
    )
    segmenting = spread(
        "segment",
        total_roi=whole.grow(1, 1),
        read_roi=tile.grow(1, 1),
        write_roi=tile,
        process_function=partial(
            recorded,
            job.records["segment"],
            partial(segment, images["smooth"], images["pieces"], job.levels, job.notes),
        ),
        read_write_conflict=True,
        upstream_tasks=[smoothing],
    )
    joining = Task(
        "join",
        total_roi=whole,
        read_roi=whole,
        write_roi=whole,
        process_function=partial(join, job.notes),
        upstream_tasks=[segmenting],
    )
    relabelling = spread(
        "relabel",
        total_roi=whole,
        read_roi=tile,
        write_roi=tile,
        process_function=partial(relabel, images["pieces"], images["segments"], job.notes),
        read_write_conflict=False,
        upstream_tasks=[joining],
    )
    return [alone, smoothing, segmenting, joining, relabelling]


def recorded(record: Array, function: Callable[[Block], None], block: Block) -> None:
    """Run a function on a block, and record when it ended and which worker ran it."""
    function(block)
    assert block.position is not None
    record.data[:, *block.position] = time.time(), int(Context.from_env()["worker_id"])


def smooth(source: Array, target: Array, reach: int, block: Block) -> None:
    """Smooth a block. Where it ends at the border of the picture, the border's pixels go on outside."""
    seen = block.read_roi.intersect(source.roi)
    smoothed = gaussian(source.to_ndarray(seen), reach)
    target[block.write_roi] = Array(smoothed, roi=seen).to_ndarray(block.write_roi)


def segment(source: Array, target: Array, levels: list[float], notes: Path, block: Block) -> None:
    """Label the segments of a block, and note which labels of its neighbours it connects.

    A segment is called after one of its pixels: a pixel is in one segment only, so no two get the same label.
    """
    seen = block.read_roi.intersect(source.roi)
    parts = connected(bands(source.to_ndarray(seen), levels)) - 1
    rows, columns = (np.arange(begin, end, dtype=np.uint32) for begin, end in zip(seen.begin, seen.end, strict=True))
    pixels = 1 + rows[:, None] * source.shape[-1] + columns
    names = pixels.flat[np.unique(parts, return_index=True)[1]]

    written = target.to_ndarray(seen)
    met = np.unique(np.stack([parts[written > 0], written[written > 0]]), axis=1)  # sorted by part, then label
    part, first = np.unique(met[0], return_index=True)
    names[part] = met[1, first]
    np.save(notes / f"block_{block.index}.npy", np.stack([names[met[0]], met[1].astype(np.uint32)]))
    target[block.write_roi] = Array(names[parts], roi=seen).to_ndarray(block.write_roi)


def join(notes: Path, block: Block) -> None:
    """Work out which labels are one segment, and which of them it shall have: the smallest."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = np.concatenate([np.load(path) for path in notes.glob("block_*.npy")], axis=1)
    labels, numbers = np.unique(pairs, return_inverse=True)
    ends = numbers.reshape(pairs.shape)
    graph = coo_array((np.ones(pairs.shape[1], bool), (ends[0], ends[1])), shape=(len(labels), len(labels)))
    groups = connected_components(graph, directed=False)[1]
    smallest = labels[np.unique(groups, return_index=True)[1]]
    np.save(notes / "joined.npy", np.stack([labels, smallest[groups]]))


def relabel(source: Array, target: Array, notes: Path, block: Block) -> None:
    """Give the segments of a block their final labels."""
    final = dict(np.load(notes / "joined.npy").T.tolist())
    labels = source.to_ndarray(block.write_roi)
    names, numbers = np.unique(labels, return_inverse=True)
    renamed = np.array([final.get(name, name) for name in names.tolist()], dtype=np.uint32)
    target[block.write_roi] = renamed[numbers].reshape(labels.shape)


def gaussian(picture: np.ndarray[Any, Any], reach: int) -> np.ndarray[Any, Any]:
    """A picture of shape (channels, height, width), smoothed; its border's pixels go on outside."""
    from scipy.ndimage import gaussian_filter

    smoothed: np.ndarray[Any, Any] = gaussian_filter(picture, reach / 3, mode="nearest", radius=reach, axes=(-2, -1))
    return smoothed


def brightness(picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The mean of the channels, which come first."""
    mean: np.ndarray[Any, Any] = picture.mean(axis=0)
    return mean


def bands(picture: np.ndarray[Any, Any], levels: list[float]) -> np.ndarray[Any, Any]:
    """The number of the brightness band that each pixel is in."""
    numbers: np.ndarray[Any, Any] = np.digitize(brightness(picture), levels)
    return numbers


def connected(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Labels 1, 2, ... of the regions in which pixels that share an edge have the same value."""
    from skimage.measure import label

    labels: np.ndarray[Any, Any] = label(values, background=-1, connectivity=1)
    return labels
