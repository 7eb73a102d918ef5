"""What if there are very many? Blocks in a task, and workers of a run."""

from __future__ import annotations

from benchmarks.question import Figure, Question, Run, blocks, call, driver_mb


def huge(quick: bool) -> Question:
    figures: list[Figure] = []
    for dimensions in (1, 3):
        for how in ("hand", "run"):
            label = f"{dimensions}-D, {how}"
            figures += [
                Figure(
                    f"{label}: s to first block", (label,), lambda measured: measured.reported["first_block_seconds"]
                ),
                Figure(f"{label}: driver MB", (label,), driver_mb),
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


def scale(quick: bool) -> Question:
    edges = {"1e3": 10, "1e4": 22, "1e5": 46, "1e6": 100, "1e7": 215}
    asked = {
        "blockflow": {"hand": ["1e3", "1e4", "1e5"], "workers": list(edges)},
        "daisy2": {"hand": ["1e3", "1e4", "1e5"], "workers": ["1e3", "1e4", "1e5"]},
    }
    if quick:
        asked = {contender: {"hand": ["1e3"], "workers": ["1e3", "1e4"]} for contender in asked}
    most = {"1e3": None, "1e4": None, "1e5": 2, "1e6": 1, "1e7": 1}
    labels = [
        (how, size)
        for how in ("hand", "workers")
        for size in edges
        if any(size in sizes[how] for sizes in asked.values())
    ]
    return Question(
        name="scale",
        title="Cost of a block in tasks of 10^3 to 10^7 blocks, 3-D with conflicts, without start-up",
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
                lambda measured: 1e6 * measured.reported["window_seconds"] / blocks(measured),
            )
            for how, size in labels
        ),
    )


def crowd(quick: bool) -> Question:
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
            Figure("s, call", ("crowd",), call),
            Figure("driver MB", ("crowd",), driver_mb),
        ),
    )
