"""Sparse-median background beside dcnum 0.31: is blockflow's at most a third of the CPU and half of the time?

Run ``python benchmarks/background.py`` from the repository. dcnum is installed in an environment of its own
under ``.benchmark-envs/``. Both read the same memory-mapped series and write a compressed RT-DC file, each
run in a new process, one program after the other in turn: blockflow in one process, blockflow with workers,
dcnum with as many. Reported are medians over the runs: seconds of the work (computing and writing), seconds of
the whole process, and CPU seconds of the process and all it started; and from further runs (Linux only) the
peak of the memory that is not a mapped file, all processes together, and how far that is above the peak for a
tiny series, which is that of interpreters and libraries. The results are compared bit by bit.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import venv
from contextlib import suppress
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
ENVIRONMENT = REPOSITORY / ".benchmark-envs" / "dcnum-0.31"
PACKAGES = ("dcnum==0.31.0", "dclab==0.73.4")  # dclab is for tests/recipes/test_rtdc_readers.py

CASES = {  # name: frames, height, width, split time
    "goal": (20_000, 80, 320, 0.1),
    "defaults": (20_000, 80, 320, 1.0),
    "overlap": (20_000, 64, 80, 0.02),
}
TINY = (400, 40, 40)
KERNEL = 200
MEMORY_RUNS = 3  # peaks are short, and samples miss some

OURS = """
import sys, time
import numpy as np
series, output, split_time, workers = sys.argv[1:]
begin = time.perf_counter()
from blockflow.recipes.background import sparse_median_background
background = sparse_median_background(
    np.load(series, mmap_mode="r"), kernel_size={kernel}, split_time=float(split_time),
    num_workers=int(workers)
)
background.write_hdf5(output)
print(time.perf_counter() - begin)
"""

THEIRS = """
import sys, time, warnings
warnings.simplefilter("ignore")
import numpy as np
if __name__ == "__main__":
    series, output, split_time, workers = sys.argv[1:]
    from dcnum.feat.feat_background import BackgroundSparseMed
    begin = time.perf_counter()
    with BackgroundSparseMed(
        np.load(series, mmap_mode="r"), output, kernel_size={kernel}, split_time=float(split_time),
        num_cpus=int(workers),
    ) as run:
        run.process()
    print(time.perf_counter() - begin)
"""

COMPARE = """
import sys, h5py, hdf5plugin
ours, theirs = (h5py.File(path, "r") for path in sys.argv[1:])
for name in ("basin_events/image_bg", "events/basinmap0", "events/bg_off"):
    a, b = ours[name][()], theirs[name][()]
    if a.shape != b.shape or a.dtype != b.dtype or not (a == b).all():
        sys.exit(f"{name} differs")
print(f"equal bit by bit: {len(ours['basin_events/image_bg'])} images, index and offsets")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=CASES, default="goal")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="worker processes of blockflow and of dcnum")
    arguments = parser.parse_args()
    dcnum_python = dcnum_environment()
    count, height, width, split_time = CASES[arguments.case]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_series(folder / "series.npy", count, height, width)
        write_series(folder / "tiny.npy", *TINY)
        (folder / "ours.py").write_text(OURS.format(kernel=KERNEL))
        (folder / "theirs.py").write_text(THEIRS.format(kernel=KERNEL))
        (folder / "compare.py").write_text(COMPARE)
        workers = arguments.workers
        programs = {
            "blockflow": (sys.executable, "ours.py", 1),
            f"{workers} workers": (sys.executable, "ours.py", workers),
            "dcnum": (dcnum_python, "theirs.py", workers),
        }

        def command(program: str, series: str = "series.npy") -> list[str]:
            python, script, processes = programs[program]
            (folder / f"{program}.rtdc").unlink(missing_ok=True)
            return [str(python), script, series, f"{program}.rtdc", str(split_time), str(processes)]

        runs = {program: [] for program in programs}
        for repeat in range(arguments.repeats):
            for program in list(programs)[:: -1 if repeat % 2 else 1]:
                runs[program].append(timed(command(program), folder))
        memory = {}
        for program in programs:
            least, peak = (
                max(peak_memory(command(program, series), folder) for _ in range(MEMORY_RUNS))
                for series in ("tiny.npy", "series.npy")
            )
            memory[program] = [peak, peak - least]
        print(f"{arguments.case}: {count} frames of {height}x{width}, every {split_time} s, kernel {KERNEL}")
        report(runs, memory)
        window = height * width * (KERNEL + 2) / 2**20
        print(f"window and two images: {window:.1f} MiB per worker")
        for program in list(programs)[:2]:
            subprocess.run([dcnum_python, "compare.py", f"{program}.rtdc", "dcnum.rtdc"], cwd=folder, check=True)


def dcnum_environment() -> Path:
    """The Python of an environment with dcnum, made if it is not there."""
    python = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    ready = ENVIRONMENT / "ready"
    if not ready.exists():
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        ready.touch()
    return python


def write_series(path: Path, count: int, height: int, width: int) -> None:
    """A channel with walls, noise, flickering light and one dark object per frame."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    channel = (120 + 15 * np.sin(rows / height * np.pi) + 5 * np.cos(columns / 9)).astype(np.int16)
    channel[:6] -= 40
    channel[-6:] -= 40
    series = np.lib.format.open_memmap(path, "w+", np.uint8, (count, height, width))
    for number in range(count):
        row, column = rng.integers(18, height - 18), rng.integers(10, width - 10)
        frame = channel + rng.integers(-2, 3, (height, width), np.int8) + rng.integers(-4, 5)
        frame[row - 5 : row + 5, column - 5 : column + 5] -= 45
        series[number] = frame
    series.flush()


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def timed(command: list[str], folder: Path) -> tuple[float, float, float]:
    """Seconds of the work, of the whole process, and CPU seconds of the process and all that it started."""
    before = os.times()
    begin = time.perf_counter()
    output = subprocess.run(command, cwd=folder, env=environment(), check=True, capture_output=True, text=True).stdout
    wall = time.perf_counter() - begin
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return float(output), wall, cpu


def peak_memory(command: list[str], folder: Path) -> float:
    """MiB of memory that is not a mapped file, all processes together, sampled every 10 ms; nan where
    unknown."""
    if not Path("/proc/self/smaps_rollup").exists():
        return float("nan")
    peak = 0
    process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.DEVNULL)
    over = threading.Event()
    waiter = threading.Thread(target=lambda: (process.wait(), over.set()))
    waiter.start()
    while not over.wait(0.01):
        peak = max(peak, sum(unmapped_kib(folder) for folder in processes_of(process.pid)))
    waiter.join()
    return peak / 1024


def processes_of(ancestor: int) -> list[Path]:
    """A process and all that descend from it; workers lead sessions of their own, but know their parents."""
    children = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(folder.name))
    found, new = [], [ancestor]
    while new:
        process = new.pop()
        found.append(Path(f"/proc/{process}"))
        new += children.get(process, [])
    return found


def unmapped_kib(folder: Path) -> int:
    text = ""
    with suppress(FileNotFoundError, ProcessLookupError):
        text = (folder / "smaps_rollup").read_text()
    return sum(int(kib) for kib in re.findall(r"^Pss_(?:Anon|Shmem): +(\d+)", text, re.MULTILINE))


def report(runs: dict[str, list[tuple[float, float, float]]], memory: dict[str, list[float]]) -> None:
    def row(name: str, *cells: object) -> None:
        texts = [f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells]
        print(f"{name:>22}" + "".join(f"{text:>11}" for text in texts))

    row(f"median of {len(runs['dcnum'])}", "work s", "process s", "CPU s", "peak MiB", "above tiny")
    results = {
        program: [*(statistics.median(values) for values in zip(*times, strict=True)), *memory[program]]
        for program, times in runs.items()
    }
    for program, values in results.items():
        row(program, *values)
    for program in list(results)[:2]:
        row(f"{program} / dcnum", *(a / b for a, b in zip(results[program], results["dcnum"], strict=True)))
    row("goal of the goal case", "<= 0.50", "", "<= 0.33")


if __name__ == "__main__":
    main()
