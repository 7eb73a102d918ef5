"""Sparse-median background of a flow-cytometry series: frames, their background, and what is left.

Run ``python examples/background.py [picture.png]``.
"""

from __future__ import annotations

import sys

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from blockflow.recipes.background import Background, sparse_median_background

RATE = 400  # frames per second
CROWDED = slice(1500, 1750)  # frames in which cells pile up in the channel


def synthetic_series(count: int = 4000, height: int = 64, width: int = 160) -> np.ndarray:
    """A channel with walls, one dark cell per frame, light that flickers, and a while in which cells pile
    up."""
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[:height, :width]
    channel = 120 + 15 * np.sin(rows / height * np.pi) + 5 * np.cos(columns / 9)
    channel[:6] -= 40
    channel[-6:] -= 40
    frames = np.empty((count, height, width), np.uint8)
    for number in range(count):
        row, column = rng.integers(20, height - 20), rng.integers(10, width - 10)
        cell = (rows - row) ** 2 + (columns - column) ** 2 <= 36
        light = 4 * np.sin(number / 90) + rng.normal(0, 1)
        frames[number] = channel + light - 45 * cell + rng.integers(-2, 3, (height, width))
    frames[CROWDED, height // 2 - 4 : height // 2 + 4, 20:-20] -= 40
    return frames


def picture(frames: np.ndarray, background: Background, shown: int) -> plt.Figure:
    figure, axes = plt.subplot_mosaic([["frame", "background", "corrected"], ["offset"] * 3], figsize=(11, 5))
    axes["frame"].imshow(frames[shown], "gray")
    axes["background"].imshow(background.at(shown), "gray")
    axes["corrected"].imshow(background.corrected(frames[shown : shown + 1], first=shown)[0], "gray")
    for name in ("frame", "background", "corrected"):
        axes[name].set(title=name, xticks=[], yticks=[])
    seconds = np.arange(len(frames)) / RATE
    axes["offset"].plot(seconds, background.offset, lw=0.5, label="offset of each frame")
    for used, color, label in (
        (True, "tab:green", "image in use"),
        (False, "tab:red", "dropped by cleansing"),
    ):
        times = background.times[background.used == used]
        below = np.full(times.shape, background.offset.min() - 2)
        axes["offset"].plot(times, below, "|", ms=12, color=color, label=label)
    axes["offset"].set(xlabel="seconds", ylabel="grey values")
    axes["offset"].legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False)
    figure.tight_layout()
    return figure


def main(path: str = "background.png") -> None:
    frames = synthetic_series()
    times = np.arange(len(frames)) / RATE
    background = sparse_median_background(
        frames, kernel_size=200, split_time=0.25, thresh_cleansing=300, frac_cleansing=0.5, times=times
    )
    shown = 3000
    left = background.corrected(frames)
    quiet = np.abs(left[:, :15]).mean()  # rows in which no cell passes
    print(f"{background.used.sum()} of {background.used.size} background images in use")
    print(f"mean distance from 0 outside of cells: {quiet:.2f} grey values")
    crowded = (background.times[~background.used] * RATE).astype(int)
    assert CROWDED.start - 200 <= crowded.min() <= crowded.max() <= CROWDED.stop, crowded
    assert quiet < 2
    picture(frames, background, shown).savefig(path, dpi=100)
    print(f"picture: {path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
