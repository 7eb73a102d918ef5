"""The benchmarks themselves: do their scripts run, is everything counted, and is nothing left out of the report?

Small sizes, blockflow's side only, with the python that runs the tests.
"""

from __future__ import annotations

import doctest
import os
import sys
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

from benchmarks import measure, report
from benchmarks.environments import PEERS, TITLES, Environment, EnvironmentFailedError, environment, requirements
from benchmarks.measure import Measurement
from benchmarks.plot import draw
from benchmarks.question import CASES, Figure, Question, Run
from benchmarks.questions import MAKERS, question
from benchmarks.session import Contenders, Record, Taken, ask

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmarks read /proc")

HERE = environment("blockflow", Path(sys.executable))


def measured(directory: Path, *words: str, timeout: float = 60.0, reports: bool = True) -> Measurement:
    return measure.run(
        [HERE.python, *words], directory=directory, variables=HERE.variables, timeout=timeout, reports=reports
    )


def case(directory: Path, name: str, *words: str) -> dict[str, Any]:
    """What a script reports for blockflow."""
    run = measured(directory, str(CASES / name), "blockflow", *words)
    assert not run.failure, run.last_lines
    assert run.left_behind == 0
    assert run.reported["driver_mb"] > 0
    return run.reported


# ------------------------------------------------------------------------------------------------------------ scripts


@pytest.mark.parametrize(
    ("name", "words", "blocks"),
    [
        ("noop.py", ["300"], 300),
        ("rois.py", ["4"], 64),
        ("conflicts.py", ["4"], 64),
        ("chain.py", ["1"], 7**3 + 6**3),
        ("tiny.py", [], 10),
        ("scale.py", ["hand", "4"], 64),
        ("scale.py", ["workers", "4"], 64),
        ("crowd.py", ["4", "3"], 12),
    ],
)
def test_a_script_runs_all_its_blocks(tmp_path: Path, name: str, words: list[str], blocks: int) -> None:
    assert case(tmp_path, name, *words)["blocks"] == blocks


def test_cpu_of_user_code_is_what_its_blocks_spin(tmp_path: Path) -> None:
    reported = case(tmp_path, "cpu.py", "2", "30")
    assert reported["blocks"] == 30
    assert reported["user_cpu_seconds"] >= 30 * 0.002
    assert reported["window_seconds"] < reported["call_seconds"]


@pytest.mark.parametrize("how", ["hand", "run"])
@pytest.mark.parametrize("dimensions", ["1", "3"])
def test_the_first_of_a_thousand_million_blocks(tmp_path: Path, how: str, dimensions: str) -> None:
    assert case(tmp_path, "huge.py", how, dimensions)["first_block_seconds"] > 0


def test_the_gaussian_of_blocks_is_that_of_the_whole(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    ndimage = pytest.importorskip("scipy.ndimage")
    source = tmp_path / "source.zarr"
    assert not measured(tmp_path, str(CASES / "volumes.py"), "make", str(source), "128", reports=False).failure
    assert case(tmp_path, "gaussian.py", str(source), "128", "64")["blocks"] == 8
    image = zarr.open_array(source, mode="r")[:]
    smooth = zarr.open_array(tmp_path / "target.zarr", mode="r")[:]
    assert image.std() > 10
    np.testing.assert_array_equal(smooth, ndimage.gaussian_filter(image, 2))


# ---------------------------------------------------------------------------------------------------------- measuring

SPINS = "import time\nwhile time.thread_time() < 0.3: pass"
LEAVES_A_PROCESS = (
    "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]], start_new_session=True)"
)


def test_cpu_counts_processes_that_outlive_the_command_in_sessions_of_their_own(tmp_path: Path) -> None:
    run = measured(tmp_path, "-c", LEAVES_A_PROCESS, SPINS, reports=False)
    assert run.failure == ""
    assert run.cpu_seconds >= 0.3
    assert run.left_behind == 0


def test_memory_of_the_driver_and_of_its_largest_worker(tmp_path: Path) -> None:
    worker = f"held = bytearray(200_000_000)\n{SPINS}"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}], check=True)"
    run = measured(tmp_path, "-c", program, reports=False)
    assert run.worker_mb > 200 > run.driver_mb > 1


def test_what_is_left_behind_is_counted_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "END_SECONDS", 0.1)
    stays = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(600)"
    waits = "; import os\nwhile not os.path.exists('pid') or not os.path.getsize('pid'): pass"
    run = measured(tmp_path, "-c", LEAVES_A_PROCESS + waits, stays, reports=False)
    assert run.left_behind == 1
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists()


def test_a_command_that_takes_too_long_is_killed_with_all_it_started(tmp_path: Path) -> None:
    program = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True); child.wait()"
    )
    run = measured(tmp_path, "-c", program, timeout=2.0)
    assert run.failure == "took more than 2 s"
    assert not Path(f"/proc/{(tmp_path / 'stdout.txt').read_text().strip()}").exists()


@pytest.mark.parametrize(
    ("program", "failure", "last"),
    [
        ("import sys; sys.exit('no such block')", "ended with code 1", "no such block"),
        ("print('all is well')", "printed no result", "all is well"),
        ("print([1])", "printed no result", "[1]"),
    ],
)
def test_a_failure_is_told_with_its_last_lines(tmp_path: Path, program: str, failure: str, last: str) -> None:
    run = measured(tmp_path, "-c", program)
    assert (run.failure, run.last_lines) == (failure, [last])


def test_documented_examples_hold() -> None:
    for module in (measure, report):
        found = doctest.testmod(module)
        assert found.attempted
        assert not found.failed


# ---------------------------------------------------------------------------------------------------------- questions


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("name", MAKERS)
def test_a_question_can_be_asked_and_answered(name: str, quick: bool) -> None:
    asked = question(name, quick=quick)
    assert asked.name == name
    ours = {run.label for run in asked.runs if run.contender == report.OURS}
    assert len({(run.contender, run.label) for run in asked.runs}) == len(asked.runs)
    assert {run.contender for run in asked.runs} <= {*PEERS, report.OURS} == {*TITLES}
    assert {label for figure in asked.figures for label in figure.labels} == {run.label for run in asked.runs} == ours
    for run in asked.runs:
        command = run.command(Path("python"), Path("work"))
        assert command[1] in ("-c", "-m") or Path(command[1]).is_file()


def test_blockflow_gets_what_it_requires_and_its_peers_get_the_same_numpy() -> None:
    ours = requirements("blockflow")
    assert any(wanted.startswith("msgspec") for wanted in ours)
    for peer in PEERS:
        assert set(requirements(peer)) - set(PEERS[peer]) <= set(ours)


# ----------------------------------------------------------------------------------------------------------- sessions


def only_here(name: str) -> Environment:
    if name != "blockflow":
        raise EnvironmentFailedError("pip ended with code 1:\nno matching distribution")
    return HERE


def says(text: str) -> tuple[str, str]:
    return "-c", f"print({text!r})"


SMALL = Question(
    name="tiny",
    title="A question",
    goal="an answer",
    rounds=3,
    figures=(Figure("answer", ("good",), lambda good: good.reported["answer"]),),
    runs=(
        Run(contender="blockflow", label="good", words=says('{"answer": 41, "checksum": 1}')),
        Run(contender="blockflow", label="other", words=says('{"answer": 41, "checksum": 2}'), most=1),
        Run(contender="blockflow", label="bad", words=("-c", "import sys; sys.exit('it broke')"), most=2),
        Run(contender="dask", label="good", words=says("{}")),
    ),
)


def test_nothing_is_left_out_of_a_record(tmp_path: Path) -> None:
    lines: list[str] = []
    record = ask(
        SMALL,
        Contenders(only_here),
        names=["blockflow", "dask"],
        rounds=3,
        quick=True,
        command="python -m benchmarks tiny",
        say=lines.append,
    )
    assert [(taken.round, taken.label) for taken in record.taken] == [
        (0, "good"),
        (0, "other"),
        (0, "bad"),
        (1, "good"),
        (1, "bad"),
        (2, "good"),
    ]
    assert {taken.label: taken.measured.failure for taken in record.taken} == {
        "good": "",
        "other": "its result differs from that of the first run",
        "bad": "ended with code 1",
    }
    assert record.missing["dask"].startswith("pip ended")
    assert any("it broke" in line for line in lines)
    assert Record.load(record.save(tmp_path)) == record
    report.write(tmp_path)
    page = (tmp_path / "README.md").read_text()
    for told in ("it broke", "its result differs", "no matching distribution", "3 failed"):
        assert told in page


# ------------------------------------------------------------------------------------------------------------ reports


def taken(contender: str, number: int, seconds: float, *, failure: str = "") -> Taken:
    return Taken(
        contender=contender,
        label="tiny",
        round=number,
        measured=Measurement(
            wall_seconds=seconds,
            cpu_seconds=seconds,
            driver_mb=50.0,
            worker_mb=20.0,
            other_cpu_seconds=0.0,
            left_behind=0,
            reported={} if failure else {"call_seconds": seconds / 2, "driver_mb": 51.5},
            failure=failure,
            last_lines=["too bad"] if failure else [],
        ),
    )


def record_of(*all_taken: Taken, date: str = "2026-01-02T03:04:05+00:00") -> Record:
    machine = {
        "processor": "abacus",
        "cores": 2,
        "memory_gb": 1.0,
        "system": "Linux",
        "python": "3.11",
        "commit": "0a1b2c3",
        "load_before": 0.1,
    }
    return Record(
        question="tiny",
        quick=False,
        date=date,
        command="python -m benchmarks tiny",
        machine=machine,
        versions={},
        missing={},
        taken=list(all_taken),
    )


OURS, THEIRS = (1.0, 2.0, 6.0), (4.0, 5.0)
RECORD = record_of(
    *(taken("blockflow", number, seconds) for number, seconds in enumerate(OURS)),
    *(taken("daisy2", number, seconds) for number, seconds in enumerate(THEIRS)),
    taken("daisy2", 2, 0.0, failure="ended with code 1"),
    taken("dask", 0, 0.0, failure="took more than 5 s"),
)


def test_medians_and_ratios() -> None:
    figure = question("tiny").figures[0]
    ours, theirs = (report.values(RECORD, name, figure) for name in ("blockflow", "daisy2"))
    assert ours is not None
    assert theirs is not None
    assert (ours.each, ours.middle) == (OURS, 2.0)
    assert (theirs.each, theirs.middle) == (THEIRS, 4.5)
    ratio = report.ratio(ours, theirs)
    assert ratio is not None
    assert ratio.middle == median(OURS) / median(THEIRS)
    assert ratio.each == (1 / 4, 2 / 5, 6 / 5)  # for a round that one lacks its last one stands
    assert report.values(RECORD, "dask", figure) is None
    assert report.values(RECORD, "daisy1", figure) is None


def test_a_page_shows_failures_beside_what_worked() -> None:
    page = report.section(RECORD)
    assert "| s, whole process | 2 (1–6) | 4.50 (4–5) | – | 0.444 (0.250–1.20) | – |" in page
    assert "| rounds | 3 | 2, 1 failed | 0, 1 failed | | |" in page
    assert "daisy 2.0.0 (tiny) failed: ended with code 1." in page
    assert "failed: took more than 5 s.\n```\ntoo bad\n```" in page
    assert "abacus, 2 cores" in page
    assert "not quiet" not in page


def test_the_newest_record_of_a_question_counts(tmp_path: Path) -> None:
    RECORD.save(tmp_path)
    record_of(taken("blockflow", 0, 99.0), date="2025-12-31T00:00:00+00:00").save(tmp_path)
    assert report.newest(tmp_path) == [RECORD]


def test_a_picture_is_drawn_from_what_there_is(tmp_path: Path) -> None:
    RECORD.save(tmp_path)
    pictures = draw(tmp_path)
    assert [path.name for path in pictures] == ["overview.svg", "overview.png"]
    assert all(os.path.getsize(path) > 10_000 for path in pictures)
