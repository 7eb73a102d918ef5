"""How long does it take to smooth a zarr volume into another?

``gaussian.py <contender> <source> <edge> <block> [map]``; with ``map`` blockflow is given the arrays, not the blocks,
and decides itself how many workers it starts: as many as there are cores, like the others.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from time import perf_counter

import contenders
import volumes


def blockwise(contender: str, source: str, target: str, edge: int, block: int) -> None:
    smooth = functools.partial(volumes.smooth, source, target)
    shape, grid = (block,) * 3, (edge // block,) * 3
    task = contenders.make_task(contender, "gaussian", shape, volumes.CONTEXT, grid, smooth, conflict=False)
    contenders.run(contender, [task])


def mapped(source: str, target: str, block: int) -> None:
    from scipy.ndimage import gaussian_filter

    from blockflow.ops import map_blocks

    map_blocks(
        functools.partial(gaussian_filter, sigma=volumes.SIGMA),
        volumes.opened(source, "r"),
        out=volumes.opened(target, "r+"),
        grid=block,
        context=volumes.CONTEXT,
        progress=False,
    )


def with_dask(source: str, target: str, block: int) -> None:
    import dask.array as da
    from dask.distributed import Client, LocalCluster
    from scipy.ndimage import gaussian_filter

    with (
        LocalCluster(
            n_workers=contenders.WORKERS, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster),
    ):
        image = da.from_zarr(source, chunks=(block,) * 3)
        smoothed = da.map_overlap(
            gaussian_filter, image, depth=volumes.CONTEXT, boundary="none", dtype="uint8", sigma=volumes.SIGMA
        )
        da.store(smoothed, volumes.opened(target, "r+"), lock=False)


def main(contender: str, source: str, edge: int, block: int, *, by_map: bool) -> None:
    target = os.path.join(os.getcwd(), "target.zarr")
    contenders.load(contender)
    if contender == "dask":
        importlib.import_module("dask.array")
    if by_map:
        importlib.import_module("blockflow.ops.mapping")
    began = perf_counter()
    volumes.empty_like(target, edge)
    if contender == "dask":
        with_dask(source, target, block)
    elif by_map:
        mapped(source, target, block)
    else:
        blockwise(contender, source, target, edge, block)
    contenders.report(began=began, blocks=(edge // block) ** 3)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), by_map=sys.argv[5:] == ["map"])
