"""Which questions are asked, by which commands, and which figures answer them?

A question is data: the runs of each contender, and figures that are computed from what was measured. Sizes are chosen
so that a question takes two minutes at most on two cores; a contender that is much slower than the others gets fewer
blocks or fewer rounds, which its rows in the report say.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.measure import Measurement

CASES = Path(__file__).resolve().parent / "cases"

CORES = 2
"""Workers of each contender; shares are of so many cores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One command of one contender; ``{work}`` in it stands for the folder that all runs of a question share."""

    contender: str
    label: str
    """Names the run among those of its contender; figures find it by this."""
    words: tuple[str, ...]
    """A script of ``cases`` and its arguments after the contender; or arguments of python."""
    most: int | None = None
    """Rounds at most; None for as many as are asked for."""
    timeout: float = 120.0
    reports: bool = True
    check: tuple[str, ...] = ()
    """A script and arguments that print a checksum afterwards; it has to be the same for all."""

    def command(self, python: Path, work: Path) -> list[str]:
        """The whole command."""
        return [str(python), *script(self.words, self.contender, work)]


def script(words: tuple[str, ...], contender: str | None, work: Path) -> list[str]:
    """Arguments of python for a script of ``cases``, or as they are."""
    words = tuple(word.replace("{work}", str(work)) for word in words)
    if not words[0].endswith(".py"):
        return list(words)
    return [str(CASES / words[0]), *([contender] if contender else []), *words[1:]]


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that answers a question."""

    name: str
    labels: tuple[str, ...]
    """The runs that it is computed from."""
    value: Callable[..., float]
    """Called with the measurements of these runs in one round of one contender."""
    compared: bool = True
    """Whether a ratio means something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question, how it is asked, and what is reported."""

    name: str
    title: str
    goal: str
    """What we want, in words; the report passes no verdict."""
    runs: tuple[Run, ...]
    figures: tuple[Figure, ...]
    rounds: int
    prepare: tuple[str, ...] = ()
    """A script and its arguments, run once before all, and not measured."""


# ---------------------------------------------------------------------------------------------------- blocks a second


def _throughput(name: str, title: str, goal: str, runs: tuple[Run, ...], rounds: int) -> Question:
    """A question about blocks a second; each contender has a run called ``large``, and one called ``small``."""

    return Question(
        name=name,
        title=title,
        goal=goal,
        runs=runs,
        rounds=rounds,
        figures=(
            Figure("blocks", ("large",), _blocks, compared=False),
            Figure("blocks/s, whole process", ("large",), lambda large: _blocks(large) / large.wall_seconds),
            Figure("blocks/s, call", ("large",), lambda large: _blocks(large) / _call(large)),
            # A difference can be lost in the noise: as a time that is a small number, as a rate it would be a huge one.
            Figure(
                "µs/block, without start-up",
                ("large", "small"),
                lambda large, small: (
                    1e6 * (large.wall_seconds - small.wall_seconds) / (_blocks(large) - _blocks(small))
                ),
            ),
            Figure(
                "CPU µs/block, without start-up",
                ("large", "small"),
                lambda large, small: 1e6 * (large.cpu_seconds - small.cpu_seconds) / (_blocks(large) - _blocks(small)),
            ),
            *_memory("large"),
        ),
    )


def _blocks(measured: Measurement) -> float:
    return float(measured.reported["blocks"])


def _call(measured: Measurement) -> float:
    """Seconds of the call alone: making tasks and running them, without interpreter and imports."""
    return float(measured.reported["call_seconds"])


def _driver_mb(measured: Measurement) -> float:
    """What the driver says itself at its end; the sampled figure may miss the last half second."""
    return float(measured.reported["driver_mb"])


def _memory(label: str) -> tuple[Figure, Figure]:
    return (
        Figure("driver MB", (label,), _driver_mb),
        Figure("largest worker MB", (label,), lambda measured: measured.worker_mb),
    )


def _two_sizes(
    contender: str, words: tuple[str, ...], large: int, small: int, most: int | None = None
) -> tuple[Run, Run]:
    """The same script with two sizes."""
    return (
        Run(contender=contender, label="large", words=(*words, str(large)), most=most, timeout=200.0),
        Run(contender=contender, label="small", words=(*words, str(small)), most=most),
    )


def _noop(quick: bool) -> Question:
    much, little = (6000, 600) if quick else (300_000, 30_000)
    return _throughput(
        "noop",
        "Blocks of nothing, without conflicts",
        "blocks/s at least 20 times daisy 2.0.0's and 100 times dask's",
        (
            *_two_sizes("blockflow", ("noop.py",), much, little),
            *_two_sizes("daisy2", ("noop.py",), much, little, most=1),
            *_two_sizes("dask", ("noop.py",), 400 if quick else 5000, 100 if quick else 500, most=2),
            *_two_sizes("daisy1", ("noop.py",), 60 if quick else 1000, 20 if quick else 100, most=1),
        ),
        rounds=3,
    )


def _rois(quick: bool) -> Question:
    much, little = (16, 8) if quick else (46, 22)
    return _throughput(
        "rois",
        "Blocks that look at both ROIs, 3-D, without conflicts",
        "blocks/s at least 8 times daisy 2.0.0's",
        (
            *_two_sizes("blockflow", ("rois.py",), much, little),
            *_two_sizes("daisy2", ("rois.py",), much, little, most=2),
            *_two_sizes("daisy1", ("rois.py",), 4 if quick else 8, 2 if quick else 4, most=1),
        ),
        rounds=3,
    )


def _conflicts(quick: bool) -> Question:
    much, little = (16, 8) if quick else (46, 22)
    return _throughput(
        "conflicts",
        "Blocks of nothing that conflict with their 26 neighbours, 3-D",
        "blocks/s at least 8 times daisy 2.0.0's",
        (
            *_two_sizes("blockflow", ("conflicts.py",), much, little),
            *_two_sizes("daisy2", ("conflicts.py",), much, little, most=2),
            *_two_sizes("daisy1", ("conflicts.py",), 4 if quick else 8, 2 if quick else 4, most=1),
        ),
        rounds=3,
    )


def _chain(quick: bool) -> Question:
    much, little = (2, 1) if quick else (6, 3)
    return _throughput(
        "chain",
        "Two chained tasks of blocks of nothing, 3-D, different block sizes and contexts, with conflicts",
        "blocks/s at least 8 times daisy 2.0.0's",
        (
            *_two_sizes("blockflow", ("chain.py",), much, little),
            *_two_sizes("daisy2", ("chain.py",), much, little, most=2),
        ),
        rounds=3,
    )


# ------------------------------------------------------------------------------------------------- what a user waits


def _tiny(quick: bool) -> Question:
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
            Figure("s, call", ("tiny",), _call),
            Figure("CPU s", ("tiny",), lambda measured: measured.cpu_seconds),
            *_memory("tiny"),
        ),
    )


def _imports(quick: bool) -> Question:
    imported = {
        "blockflow": "import numpy, blockflow; blockflow.Task, blockflow.Roi, blockflow.run_blockwise",
        "daisy2": "import numpy, daisy",
        "daisy1": "import numpy, daisy",
        "dask": "import numpy, dask.array, dask.distributed",
    }
    worker = {"blockflow": ("-m", "blockflow.worker"), "daisy2": ("-c", "import daisy, cloudpickle")}
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


# -------------------------------------------------------------------------------------------------- blocks that work


def _cpu(quick: bool) -> Question:
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


def _gaussian(quick: bool) -> Question:
    edge = 256 if quick else 512
    figures: list[Figure] = []
    for block in (128, 64):
        label = f"{block}^3"
        figures += [
            Figure(f"{label}: s, whole process", (label,), lambda measured: measured.wall_seconds),
            Figure(f"{label}: s, call", (label,), _call),
            Figure(f"{label}: CPU s", (label,), lambda measured: measured.cpu_seconds),
            Figure(f"{label}: largest worker MB", (label,), lambda measured: measured.worker_mb),
        ]
    return Question(
        name="gaussian",
        title=f"Gaussian (sigma 2, context 8) of a {edge}^3 uint8 zarr, chunks of 64^3, zarr to zarr, by block size",
        goal="at most 0.9 times daisy 2.0.0's time with the same function, and half of dask map_overlap's",
        prepare=("volumes.py", "make", "{work}/source.zarr", str(edge)),
        runs=tuple(
            Run(
                contender=contender,
                label=f"{block}^3",
                words=("gaussian.py", "{work}/source.zarr", str(edge), str(block)),
                check=("volumes.py", "check", "target.zarr"),
                most=1 if contender == "dask" else None,
                timeout=180.0,
            )
            for block in (128, 64)
            for contender in ("blockflow", "daisy2", "dask")
        ),
        rounds=2,
        figures=tuple(figures),
    )


# ----------------------------------------------------------------------------------------------------- many blocks


def _huge(quick: bool) -> Question:
    figures: list[Figure] = []
    for dimensions in (1, 3):
        for how in ("hand", "run"):
            label = f"{dimensions}-D, {how}"
            figures += [
                Figure(
                    f"{label}: s to first block", (label,), lambda measured: measured.reported["first_block_seconds"]
                ),
                Figure(f"{label}: driver MB", (label,), _driver_mb),
            ]
    return Question(
        name="huge",
        title="10^9 blocks: the scheduler asked by hand, and a run that its first block interrupts",
        goal="first block in under 1 s, driver under 200 MB",
        runs=tuple(
            Run(
                contender=contender,
                label=f"{dimensions}-D, {how}",
                words=("huge.py", how, str(dimensions)),
                most=None if contender == "blockflow" else 1,
                timeout=60.0,
            )
            for dimensions, how in ((1, "hand"), (1, "run"), (3, "hand"), (3, "run"))
            # Of daisy 1 only what ends: without conflicts it lists all 10^9 roots, which fills the memory, and it
            # can swallow the interrupt and go on.
            for contender in ("blockflow", "daisy2", "daisy1")
            if contender != "daisy1" or (how, dimensions) == ("hand", 3)
        ),
        rounds=2 if quick else 5,
        figures=tuple(figures),
    )


def _scale(quick: bool) -> Question:
    edges = {"1e3": 10, "1e4": 22, "1e5": 46, "1e6": 100}
    asked = {
        "blockflow": {"hand": ["1e3", "1e4", "1e5"], "workers": list(edges)},
        "daisy2": {"hand": ["1e3", "1e4", "1e5"], "workers": ["1e3", "1e4", "1e5"]},
    }
    if quick:
        asked = {contender: {"hand": ["1e3"], "workers": ["1e3", "1e4"]} for contender in asked}
    most = {"1e3": None, "1e4": None, "1e5": 2, "1e6": 1}
    labels = [
        (how, size)
        for how in ("hand", "workers")
        for size in edges
        if any(size in sizes[how] for sizes in asked.values())
    ]
    return Question(
        name="scale",
        title="Cost of a block in tasks of 10^3 to 10^6 blocks, 3-D with conflicts, without start-up",
        goal="flat within 20 %",
        runs=tuple(
            Run(
                contender=contender,
                label=f"{how} {size}",
                words=("scale.py", how, str(edges[size])),
                most=1 if size == "1e5" and (contender == "daisy2" or how == "hand") else most[size],
                timeout=200.0,
            )
            for how, size in labels
            for contender, sizes in asked.items()
            if size in sizes[how]
        ),
        rounds=3,
        figures=tuple(
            Figure(
                f"{how}, {size}: µs/block",
                (f"{how} {size}",),
                lambda measured: 1e6 * measured.reported["window_seconds"] / _blocks(measured),
            )
            for how, size in labels
        ),
    )


def _crowd(quick: bool) -> Question:
    workers, each = (20, 3) if quick else (500, 15)
    return Question(
        name="crowd",
        title=f"{workers} workers over sockets of this machine, blocks of one second",
        goal="driver under 40 % of a core, 99 % of the waits for a block under 20 ms",
        runs=tuple(
            Run(contender=contender, label="crowd", words=("crowd.py", str(workers), str(each)))
            for contender in ("blockflow", "daisy2")
        ),
        rounds=2,
        figures=(
            Figure("driver, % of a core", ("crowd",), lambda crowd: 100 * crowd.reported["driver_cores"]),
            Figure(
                "wait for a block, median ms", ("crowd",), lambda crowd: 1000 * crowd.reported["median_wait_seconds"]
            ),
            Figure("wait for a block, p99 ms", ("crowd",), lambda crowd: 1000 * crowd.reported["p99_wait_seconds"]),
            Figure("s, call", ("crowd",), _call),
            Figure("driver MB", ("crowd",), _driver_mb),
        ),
    )


MAKERS: dict[str, Callable[[bool], Question]] = {
    "noop": _noop,
    "rois": _rois,
    "conflicts": _conflicts,
    "chain": _chain,
    "tiny": _tiny,
    "imports": _imports,
    "cpu": _cpu,
    "gaussian": _gaussian,
    "huge": _huge,
    "scale": _scale,
    "crowd": _crowd,
}


def question(name: str, *, quick: bool = False) -> Question:
    """A question by its name; smaller and shorter if it has to be quick."""
    return MAKERS[name](quick)
