"""What do people wait for? Starting up, a few blocks, blocks that compute, and a volume from zarr to zarr."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.question import CORES, Figure, Question, Run, call, memory

if TYPE_CHECKING:
    from benchmarks.measure import Measurement


def tiny(quick: bool) -> Question:
    slow = None if quick else 5
    return Question(
        name="tiny",
        title="Ten blocks of nothing, start to finish",
        goal="at most 0.8 times daisy 2.0.0's time",
        runs=tuple(
            Run(contender=contender, label="tiny", words=("tiny.py",), most=most)
            for contender, most in (("blockflow", None), ("daisy2", None), ("daisy1", slow), ("dask", slow))
        ),
        rounds=15,
        figures=(
            Figure("s, whole process", ("tiny",), lambda measured: measured.wall_seconds),
            Figure("s, call", ("tiny",), call),
            Figure("CPU s", ("tiny",), lambda measured: measured.cpu_seconds),
            *memory("tiny"),
        ),
    )


def imports(quick: bool) -> Question:
    imported = {
        "blockflow": "import numpy, blockflow; blockflow.Task, blockflow.Roi, blockflow.run_blockwise",
        "daisy2": "import numpy, daisy",
        "daisy1": "import numpy, daisy",
        "dask": "import numpy, dask.array, dask.distributed",
    }
    worker = {"blockflow": ("-m", "blockflow.worker", "1"), "daisy2": ("-c", "import daisy, cloudpickle")}
    runs = []
    for contender, program in imported.items():
        runs += [
            Run(contender=contender, label="numpy", words=("-c", "import numpy"), reports=False),
            Run(contender=contender, label="library", words=("-c", program), reports=False),
        ]
        if contender in worker:
            runs += [
                Run(contender=contender, label="python", words=("-c", "pass"), reports=False),
                Run(contender=contender, label="worker", words=worker[contender], reports=False),
            ]
    return Question(
        name="imports",
        title="Importing the library, and starting a worker that has nothing to do",
        goal="`import blockflow` under 100 ms beyond numpy",
        runs=tuple(runs),
        rounds=3 if quick else 15,
        figures=(
            Figure(
                "import, ms beyond numpy",
                ("library", "numpy"),
                lambda library, numpy: 1000 * (library.wall_seconds - numpy.wall_seconds),
            ),
            Figure(
                "worker, ms beyond python",
                ("worker", "python"),
                lambda worker, python: 1000 * (worker.wall_seconds - python.wall_seconds),
            ),
            Figure(
                "worker, CPU ms beyond python",
                ("worker", "python"),
                lambda worker, python: 1000 * (worker.cpu_seconds - python.cpu_seconds),
            ),
        ),
    )


def cpu(quick: bool) -> Question:
    blocks = {
        "blockflow": {1: 12_000, 10: 1200, 100: 120},
        "daisy2": {1: 12_000, 10: 1200, 100: 120},
        "dask": {1: 3000, 10: 1200, 100: 120},
        "daisy1": {1: 200, 10: 200, 100: 80},
    }
    most = {"blockflow": None, "daisy2": 2, "dask": 1, "daisy1": 1}
    figures: list[Figure] = []
    for ms in (1, 10, 100):
        label = f"{ms} ms"
        figures += [
            Figure(f"{label}: % in user code", (label,), lambda measured: _share(measured, "window")),
            Figure(f"{label}: %, with start-up", (label,), lambda measured: _share(measured, "call")),
        ]
    return Question(
        name="cpu",
        title="Share of two cores that user code gets, in blocks of 1, 10 and 100 ms of pure CPU",
        goal="at least 90 %, 97 % and 99 % of two cores",
        runs=tuple(
            Run(
                contender=contender,
                label=f"{ms} ms",
                words=("cpu.py", str(ms), str(number // 10 if quick else number)),
                most=most[contender],
            )
            for ms in (1, 10, 100)
            for contender, number in ((contender, numbers[ms]) for contender, numbers in blocks.items())
        ),
        rounds=3,
        figures=tuple(figures),
    )


def _share(measured: Measurement, span: str) -> float:
    """Per cent of all cores spent inside blocks, in a span that the script reports."""
    return float(100 * measured.reported["user_cpu_seconds"] / (CORES * measured.reported[f"{span}_seconds"]))


def _wall(measured: Measurement) -> float:
    return measured.wall_seconds


def gaussian(quick: bool) -> Question:
    edge = 256 if quick else 512
    figures: list[Figure] = []
    ways = {"": (), " map_blocks": ("map",)}
    # Only blockflow has two: a task whose function reads and writes, as the others have, and map_blocks.
    for block in (128, 64):
        others = (f"{block}^3",)
        for label in (f"{block}^3{way}" for way in ways):
            figures += [
                Figure(f"{label}: s, whole process", (label,), _wall, of_others=others),
                Figure(f"{label}: s, call", (label,), call, of_others=others),
                Figure(f"{label}: CPU s", (label,), lambda measured: measured.cpu_seconds, of_others=others),
                Figure(f"{label}: largest worker MB", (label,), lambda measured: measured.worker_mb, of_others=others),
            ]
    return Question(
        name="gaussian",
        title=f"Gaussian (sigma 2, context 8) of a {edge}^3 uint8 zarr, chunks of 64^3, zarr to zarr, by block size",
        goal="at most 0.9 times daisy 2.0.0's time with the same function; map_blocks 0.8 times, and half of dask's",
        prepare=("volumes.py", "make", "{work}/source.zarr", str(edge)),
        runs=tuple(
            Run(
                contender=contender,
                label=f"{block}^3{way}",
                words=("gaussian.py", "{work}/source.zarr", str(edge), str(block), *words),
                check=("volumes.py", "check", "target.zarr"),
                most=1 if contender == "dask" else None,
                timeout=180.0,
            )
            for block in (128, 64)
            for contender in ("blockflow", "daisy2", "dask")
            for way, words in ways.items()
            if contender == "blockflow" or not way
        ),
        rounds=3,
        figures=tuple(figures),
    )
