"""How many blocks a second? Functions that do nothing, so that only the library takes time."""

from __future__ import annotations

from benchmarks.question import Figure, Question, Run, blocks, call, memory


def _throughput(name: str, title: str, goal: str, runs: tuple[Run, ...], rounds: int) -> Question:
    """A question about blocks a second; each contender has a run called ``large``, and one called ``small``."""

    return Question(
        name=name,
        title=title,
        goal=goal,
        runs=runs,
        rounds=rounds,
        figures=(
            Figure("blocks", ("large",), blocks, compared=False),
            Figure("blocks/s, whole process", ("large",), lambda large: blocks(large) / large.wall_seconds),
            Figure("blocks/s, call", ("large",), lambda large: blocks(large) / call(large)),
            # A difference can be lost in the noise: as a time that is a small number, as a rate it would be a huge one.
            Figure(
                "µs/block, without start-up",
                ("large", "small"),
                lambda large, small: 1e6 * (large.wall_seconds - small.wall_seconds) / (blocks(large) - blocks(small)),
            ),
            Figure(
                "CPU µs/block, without start-up",
                ("large", "small"),
                lambda large, small: 1e6 * (large.cpu_seconds - small.cpu_seconds) / (blocks(large) - blocks(small)),
            ),
            *memory("large"),
        ),
    )


def _two_sizes(
    contender: str, words: tuple[str, ...], large: int, small: int, most: int | None = None
) -> tuple[Run, Run]:
    """The same script with two sizes."""
    return (
        Run(contender=contender, label="large", words=(*words, str(large)), most=most, timeout=200.0),
        Run(contender=contender, label="small", words=(*words, str(small)), most=most),
    )


def noop(quick: bool) -> Question:
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


def rois(quick: bool) -> Question:
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


def conflicts(quick: bool) -> Question:
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


def chain(quick: bool) -> Question:
    much, little = (2, 1) if quick else (5, 3)
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
