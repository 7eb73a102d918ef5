"""How is the same work said to each library?

The scripts beside this file import it. They know nothing of the rest of the benchmarks: each is run by the python of
its contender's own environment, as ``python <script> <contender> <arguments>``, and prints one JSON line.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MODULES = {"blockflow": "blockflow", "daisy2": "daisy", "daisy1": "daisy", "dask": "dask.distributed"}

WORKERS = 2


def load(contender: str) -> Any:
    """The module of a library, with what every script uses of it; called before the clock of the call starts."""
    library = importlib.import_module(MODULES[contender])
    if contender == "blockflow":
        # It imports names on first use, the others at once.
        _ = library.Roi, library.Task, library.run_blockwise
    return library


def make_task(
    contender: str,
    name: str,
    write_shape: tuple[int, ...],
    context: int,
    blocks: tuple[int, ...],
    function: Callable[..., Any] | None,
    *,
    conflict: bool,
    upstream: Any = None,
) -> Any:
    """A task over blocks whose write ROIs begin at 0; `context` reaches out on all sides."""
    library = load(contender)
    roi = library.Roi
    total = tuple(extent * count + 2 * context for extent, count in zip(write_shape, blocks, strict=True))
    origin = (0,) * len(blocks)
    outer = (-context,) * len(blocks)
    read_shape = tuple(extent + 2 * context for extent in write_shape)
    options: dict[str, Any] = {"num_workers" if contender == "daisy1" else "max_workers": WORKERS}
    if upstream is not None:
        options["upstream_tasks"] = [upstream]
    return library.Task(
        name,
        roi(outer, total),
        roi(outer, read_shape),
        roi(origin, write_shape),
        function,
        read_write_conflict=conflict,
        **options,
    )


def run(contender: str, tasks: list[Any]) -> None:
    """Run tasks with worker processes of this machine, as quietly as the library can.

    daisy 2 is spared what blockflow does not do either: finding an address for other machines, and tracking blocks.
    daisy 1 always draws its bars.
    """
    options: dict[str, dict[str, Any]] = {
        "blockflow": {"progress": False, "summary": False},
        "daisy2": {"progress": False, "summary": False, "host": "127.0.0.1", "block_tracking": False},
        "daisy1": {},
    }
    if not load(contender).run_blockwise(tasks, **options[contender]):
        sys.exit("the run says that not all blocks are done")


def dask_map(function: Callable[[int], Any], items: Iterable[int]) -> None:
    """Call a function on each item with dask's futures, on two worker processes of one thread."""
    from dask.distributed import Client, LocalCluster, wait

    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        futures = client.map(function, items, pure=False)
        wait(futures)
        if any(future.status != "finished" for future in futures):
            sys.exit("not all futures are finished")


def report(*, began: float, **numbers: Any) -> None:
    """Print the result: seconds since `began` (of ``perf_counter``), the driver's peak memory, and more."""
    numbers["call_seconds"] = perf_counter() - began
    status = Path("/proc/self/status").read_text()
    numbers["driver_mb"] = int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6
    print(json.dumps(numbers))
