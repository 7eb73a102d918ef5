"""Smooth a volume block by block, on whatever cluster there is.

    python smooth.py                                             in two processes of this machine
    python smooth.py --on slurm --workers 50 --partition gpu     in jobs on Slurm, each with one worker
    python smooth.py --on lsf --workers 50 --queue gpu           in jobs on LSF
    python smooth.py --on "ssh node7 {command}" --workers 4      on another machine
    python smooth.py --on dask=tcp://10.0.0.5:8786               on a dask cluster that exists

Start it on a machine from which jobs can be submitted, in a directory that all nodes see: there it makes its data,
logs, and the file that tells workers where the run is. It may be stopped at any time (Ctrl-C): started again, it goes
on where it has ended. `blockflow cancel run` ends it from another shell; `blockflow worker run` adds a worker, and
`blockflow scale run smooth 8` changes how many it has itself.
"""

import argparse
import sys

import numpy as np

from blockflow import LSF, Command, Coordinate, Dask, Local, Roi, Slurm, Task, run_blockwise
from blockflow.arrays import open_ds, prepare_ds

SHAPE, BLOCK, CONTEXT = 96, 32, 2
STORE = "volume.zarr"


def smooth(block):
    """Mean over a cube of voxels; reads `CONTEXT` voxels more than it writes."""
    raw = open_ds(STORE, "raw").to_ndarray(block.read_roi, fill_value=0)
    width = 2 * CONTEXT + 1
    windows = np.lib.stride_tricks.sliding_window_view(raw, (width, width, width))
    open_ds(STORE, "smooth", mode="r+")[block.write_roi] = windows.mean(axis=(3, 4, 5), dtype="float32")


def launcher_for(arguments):
    """What the command line asks for, as a value."""
    on, workers = arguments.on, arguments.workers
    if on == "local":
        return Local(workers)
    if on == "slurm":
        return Slurm(workers, partition=arguments.partition, cpus=1, memory="1G", time="1:00:00")
    if on == "lsf":
        return LSF(workers, queue=arguments.queue, cpus=1, memory="1G", time="1:00:00")
    if on.startswith("dask="):
        from distributed import Client

        return Dask(Client(on.removeprefix("dask=")), workers)
    return Command(on, workers)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", default="local", help="local, slurm, lsf, dask=ADDRESS, or a command with {command}")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--partition", help="of Slurm")
    parser.add_argument("--queue", help="of LSF")
    arguments = parser.parse_args()

    total = Roi((0, 0, 0), (SHAPE, SHAPE, SHAPE))
    raw = prepare_ds(STORE, "raw", total, dtype="float32")
    raw[total] = np.random.default_rng(0).random((SHAPE, SHAPE, SHAPE), dtype="float32")
    prepare_ds(STORE, "smooth", total, dtype="float32", chunks=(BLOCK, BLOCK, BLOCK))

    write = Roi((0, 0, 0), (BLOCK, BLOCK, BLOCK))
    context = Coordinate(CONTEXT, CONTEXT, CONTEXT)
    task = Task(
        "smooth",
        total_roi=total.grow(context, context),
        read_roi=write.grow(context, context),
        write_roi=write,
        process_function=smooth,
        read_write_conflict=False,  # it reads one array and writes another
        launcher=launcher_for(arguments),
    )
    result = run_blockwise([task], run_dir="run")
    return 0 if result else 1


if __name__ == "__main__":
    sys.exit(main())
