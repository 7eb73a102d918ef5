"""A worker of its own: what examples/tutorial.py starts in part 6, and what a cluster job would run.

It is started by the process function of a task and finds its run through the environment::

    python tutorial_worker.py tutorial_config.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from scipy.ndimage import gaussian_filter

from blockflow import Client
from blockflow.arrays import Array, open_ds


def main() -> None:
    config = json.loads(Path(sys.argv[1]).read_text())
    source = open_ds(config["store"], config["input"])
    target = open_ds(config["store"], config["output"], mode="r+")
    sigma = [config["sigma"] / size for size in source.voxel_size]
    # Whatever takes long to set up, such as loading a network, belongs here: it is done once, not for every block.

    client = Client()
    while True:
        with client.acquire_block() as block:
            if block is None:
                break
            seen = block.read_roi.intersect(source.roi)
            smoothed = gaussian_filter(source.to_ndarray(seen), sigma, mode="nearest", truncate=3)
            target[block.write_roi] = Array(smoothed, roi=seen, voxel_size=source.voxel_size)[block.write_roi]


if __name__ == "__main__":
    main()
