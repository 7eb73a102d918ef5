"""Drawing: what did the blocks do to the picture, and when did each of them run?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from blockflow.demo.blocks import Job
    from blockflow.geometry import Roi

_PANEL, _GAP, _TITLE, _SCALE = 5.0, 0.15, 0.45, 0.7
"""Inches: width of a panel, space between panels, height of a title, and of the scale below a map."""

_INK = "#222222"


def draw(path: Path, job: Job, name: str, began: float) -> None:
    """Draw input, results, and maps of which block ran when.

    Args:
        path: The PNG file to write.
        job: A job that has run.
        name: What the input is called.
        began: When the run began, in seconds since 1970.
    """
    images = {key: array.to_ndarray() for key, array in job.arrays.items()}
    height, width = job.whole.shape
    tall = _PANEL * min(1.5, max(0.2, height / width))
    across, down = 3 * _PANEL + 4 * _GAP, 2 * tall + _TITLE + _TITLE + _SCALE
    figure = Figure(figsize=(across, down))
    axes = figure.subplots(2, 3)
    figure.subplots_adjust(
        left=_GAP / across,
        right=1 - _GAP / across,
        top=1 - _TITLE / down,
        bottom=_SCALE / down,
        wspace=_GAP / _PANEL,
        hspace=_TITLE / tall,
    )

    edge = job.block.shape[0]
    _show(axes[0, 0], in_colour(images["input"]), f"Input: {name}, {width} × {height} pixels")
    _show(axes[0, 1], in_colour(images["alone"]), f"Smoothed in blocks of {edge} × {edge}, without context")
    _show(axes[0, 2], in_colour(images["smooth"]), f"Smoothed with {job.reach} pixels of context")
    count = len(np.unique(images["segments"]))
    _show(axes[1, 0], painted(images["segments"]), f"{count} segments; dotted: borders of blocks")
    for line, axis in ((axes[1, 0].axhline, 0), (axes[1, 0].axvline, 1)):
        for border in _borders(job.whole, job.tile, axis)[1:-1]:
            line(border - 0.5, color="white", linewidth=0.8, linestyle=(0, (2, 3)))
    for place, task, block, title in (
        (axes[1, 1], "smooth", job.block, "Task smooth: any blocks may run at once"),
        (axes[1, 2], "segment", job.tile, "Task segment: no two neighbours run at once"),
    ):
        times, workers = job.records[task].to_ndarray()
        _map(place, _borders(job.whole, block, 0), _borders(job.whole, block, 1), times - began, workers)
        _scale(place, tall)
        _title(place, title)
    figure.savefig(path, dpi=110)


def in_colour(picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A picture of shape (channels, height, width) as red, green and blue, which come last.

    Three channels are taken for these; of others the mean is shown in grey.
    """
    channels = picture if len(picture) == 3 else np.repeat(picture.mean(axis=0, keepdims=True), 3, axis=0)
    colours: np.ndarray[Any, Any] = np.clip(np.moveaxis(channels, 0, -1), 0, 1)
    return colours


def painted(labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Labels in colours, with white lines between them."""
    names, numbers = np.unique(labels, return_inverse=True)
    random = np.random.default_rng(7)
    colours = hsv_to_rgb(random.uniform((0, 0.35, 0.55), (1, 0.75, 0.95), (len(names), 3)))
    image: np.ndarray[Any, Any] = colours[numbers.reshape(labels.shape)]
    image[:-1][labels[1:] != labels[:-1]] = 1.0
    image[:, :-1][labels[:, 1:] != labels[:, :-1]] = 1.0
    return image


def _show(axes: Axes, image: np.ndarray[Any, Any], title: str) -> None:
    axes.imshow(image)
    axes.set_anchor("W")
    axes.set_axis_off()
    _title(axes, title)


def _title(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=13, loc="left", color=_INK)


def _borders(whole: Roi, block: Roi, axis: int) -> np.ndarray[Any, Any]:
    """Where blocks begin and end, in pixels; the last ones are cut at the end of the picture."""
    return np.append(np.arange(0, whole.shape[axis], block.shape[axis]), whole.shape[axis])


def _map(
    axes: Axes,
    rows: np.ndarray[Any, Any],
    columns: np.ndarray[Any, Any],
    times: np.ndarray[Any, Any],
    workers: np.ndarray[Any, Any],
) -> None:
    """Blocks in the colour of the time at which they ended, with the numbers of their workers."""
    axes.pcolormesh(columns, rows, times, cmap="viridis", edgecolors="white", linewidth=1.5)
    dark = times < (times.min() + 2 * times.max()) / 3
    for (row, column), worker in np.ndenumerate(workers):
        if min(rows[row + 1] - rows[row], columns[column + 1] - columns[column]) < (rows[1] - rows[0]) / 4:
            continue  # cut at the end of the picture, so that a number does not fit in
        axes.text(
            columns[column : column + 2].mean(),
            rows[row : row + 2].mean(),
            f"{worker:.0f}",
            color="white" if dark[row, column] else _INK,
            ha="center",
            va="center",
            fontsize=11,
        )
    axes.invert_yaxis()
    axes.set_aspect("equal", anchor="W")
    axes.set_axis_off()


def _scale(axes: Axes, tall: float) -> None:
    """The colours of a map, below it; its panel is so many inches tall."""
    beneath = axes.inset_axes((0, -0.22 / tall, 1, 0.1 / tall))
    bar = axes.figure.colorbar(axes.collections[0], cax=beneath, orientation="horizontal", ticks=MaxNLocator(5))
    bar.set_label("seconds from start to end of the block; number: its worker", color=_INK, fontsize=9)
    bar.ax.tick_params(length=0, colors=_INK)
    bar.outline.set_visible(False)
