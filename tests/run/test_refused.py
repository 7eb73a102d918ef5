"""Is what cannot be right refused before anything starts, or is written?"""

from __future__ import annotations

import subprocess
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from blockflow import Local, Roi, SerialServer, Server, Task, run_blockwise
from blockflow.errors import BlockflowError, GeometryError, NotShippableError, PlanError, TaskGraphError
from blockflow.run import PlanWarning

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


LOCK = threading.Lock()


def task(name: str = "t", **more: Any) -> Task:
    """A task with one thing to be changed."""
    arguments: dict[str, Any] = {
        "total_roi": Roi((0, 0), (40, 40)),
        "read_roi": Roi((0, 0), (20, 20)),
        "write_roi": Roi((5, 5), (10, 10)),
        "process_function": lambda block: None,
    }
    return Task(name, **(arguments | more))


def a_cycle() -> list[Task]:
    first = task("first")
    second = task("second", upstream_tasks=[first])
    first.upstream_tasks.append(second)
    return [second]


def a_task_upstream_of_itself() -> list[Task]:
    alone = task()
    alone.upstream_tasks.append(alone)
    return [alone]


PLANS: dict[str, tuple[Callable[[], Any], type[BlockflowError], str]] = {
    "a read ROI that does not contain the write ROI": (
        lambda: task(write_roi=Roi((15, 5), (10, 10))),
        GeometryError,
        r"task 't': read_roi must contain write_roi: axis 0 ",
    ),
    "ROIs of different dimensions": (lambda: task(total_roi=Roi((0,), (40,))), GeometryError, "task 't': .*1.*2"),
    "a zero shape": (lambda: task(write_roi=Roi((5, 5), (0, 10))), GeometryError, "write_roi.* axis 0 .*0"),
    "a negative shape": (lambda: task(write_roi=Roi((5, 5), (10, -10))), GeometryError, "write_roi.*-10"),
    "an unknown fit": (lambda: task(fit="exact"), GeometryError, "fit must be one of 'valid', .*got 'exact'"),
    "two tasks of one name": (lambda: [task(), task()], TaskGraphError, "two tasks are called 't'"),
    "a cycle": (a_cycle, TaskGraphError, "wait for one another in a circle: 'second' -> 'first' -> 'second'"),
    "a task that waits for itself": (a_task_upstream_of_itself, TaskGraphError, "in a circle: 't' -> 't'"),
    "a name that leaves the folder": (lambda: task("../t"), TaskGraphError, "a task id names a folder"),
    "an empty name": (lambda: task(""), TaskGraphError, "a task id names a folder .* it is empty"),
    "a function of two arguments": (
        lambda: task(process_function=lambda block, gain: None),
        PlanError,
        r"process_function must take one block, or nothing; it requires \(block, gain\).*functools\.partial",
    ),
    "no block at all": (
        lambda: task(total_roi=Roi((0, 0), (40, 15))),
        PlanError,
        r"task 't' has no block: axis 1 of total_roi is \[0, 15\), and one block reads 20 of it",
    ),
    "no worker": (lambda: task(num_workers=0), PlanError, "num_workers must be a whole number >= 1, got 0"),
    "a block that cuts voxels": (
        lambda: task(voxel_size=(4, 5)),
        GeometryError,
        "must lie on the voxel grid: axis 0 .*use multiples of the voxel size",
    ),
    "no function": (lambda: task(process_function=None), PlanError, "task 't' has no process_function"),
    "no task": (list, TaskGraphError, "there is no task to run"),
    "something else than a task": (lambda: ["smooth"], TaskGraphError, "must be blockflow.Task objects, got 'smooth'"),
    "a resource that nobody has": (lambda: task(requires={"gpu": 1}), PlanError, "gpu"),
    "a function that cannot be sent": (
        lambda: task(process_function=lambda block: LOCK),
        NotShippableError,
        r"because of global 'LOCK' \(lock\)",
    ),
}


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory in which nothing may appear, in a process that may start no other."""

    def forbidden(*args: Any, **options: Any) -> None:
        raise AssertionError(f"a process was started: {args}")

    made = tmp_path / "empty"
    made.mkdir()
    monkeypatch.chdir(made)
    monkeypatch.setattr(subprocess, "Popen", forbidden)
    monkeypatch.setattr("blockflow.logging._basedir", type(made)("daisy_logs"))
    return made


def run(make: Callable[[], Any], **options: Any) -> Any:
    arguments: dict[str, Any] = {"progress": False, "summary": False, "run_dir": "run"} | options
    return run_blockwise(make(), **arguments)


@pytest.mark.parametrize("what", PLANS)
def test_plans_that_cannot_be_right(what: str, empty: Path) -> None:
    make, error, message = PLANS[what]
    ways: list[dict[str, Any]] = [{}]
    if error is not NotShippableError:  # in this process such a function can run
        ways += {"run_dir": None}, {"multiprocessing": False}
    for options in ways:
        with pytest.raises(error, match=message) as caught:
            run(make, **options)
        assert "\n" not in str(caught.value)
        assert list(empty.iterdir()) == []


@pytest.mark.parametrize("server", [Server, SerialServer])
def test_servers_refuse_the_same(server: type[Server | SerialServer], empty: Path) -> None:
    for make in (a_cycle, lambda: [task(process_function=None)], lambda: [task(total_roi=Roi((0, 0), (40, 15)))]):
        with pytest.raises(PlanError):
            server().run_blockwise(make())
    assert list(empty.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"port": 70000}, "port must be a whole number from 0 to 65535 .*, got 70000"),
        ({"port": "80-"}, "port must be a whole number from 0 to 65535 .*, got '80-'"),
        ({"host": "node:80"}, "host must be a name or an address, without a port"),
        ({"advertise": "a b"}, "advertise must be one address that workers see"),
        ({"port": 1.5}, "port must be"),
        ({"port": True}, "port must be"),
        ({"lease_seconds": 0}, "lease_seconds must be a number from 1 to 86400"),
        ({"lease_seconds": "60"}, "lease_seconds must be .* got '60'"),
        ({"lease_seconds": float("nan")}, "lease_seconds must be"),
        ({"launcher": "slurm"}, "run_blockwise: launcher must be Local, Slurm"),
        ({"launcher": []}, "the list of launchers is empty"),
        ({"launcher": [Local(2), Local()]}, "each must say how many workers"),
        ({"resources": {"gpu": -1}}, "gpu"),
        ({"run_dir": None, "reset": True}, "there is none"),
        ({"run_dir": None, "take_over": True}, "there is none"),
        ({"reset": True, "retry_failed": True}, "reset forgets everything"),
    ],
)
def test_arguments_of_a_run_that_cannot_be_right(options: dict[str, Any], message: str, empty: Path) -> None:
    with pytest.raises(PlanError, match=message):
        run(task, **options)
    assert list(empty.iterdir()) == []


def test_a_function_that_needs_a_server(empty: Path) -> None:
    with pytest.raises(PlanError, match="takes no block, so it is a worker that needs a server"):
        run(lambda: task(process_function=lambda: None), multiprocessing=False)
    assert list(empty.iterdir()) == []


def test_what_is_refused_forgets_nothing(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an earlier run in the same directory, although it may be forgotten."""
    assert run(task, multiprocessing=False)
    before = {path: path.read_bytes() for path in (empty / "run").rglob("*") if path.is_file()}
    make, error, _ = PLANS["a function that cannot be sent"]
    with pytest.raises(error):
        run(make, reset=True)
    assert {path: path.read_bytes() for path in (empty / "run").rglob("*") if path.is_file()} == before


# -------------------------------------------------------------------------------------------- voxels that are left out


def short(**more: Any) -> Task:
    """Of 30 x 30 writable voxels, the blocks write 30 x 20 if voxels measure 1."""
    return task(total_roi=Roi((0, 0), (40, 39)), **more)


def test_voxels_that_are_left_out_are_counted_with_the_two_ways_out(empty: Path) -> None:
    with pytest.warns(PlanWarning) as caught:
        assert run(short, multiprocessing=False, run_dir=None)
    (warning,) = caught
    text = str(warning.message)
    assert text.startswith("task 't' leaves out 270 voxels at the end of total_roi")
    assert "fit='shrink' or fit='overhang'" in text
    assert "a total_roi that is a multiple of the block" in text
    assert warning.filename == __file__


@pytest.mark.parametrize("server", [Server, SerialServer])
def test_servers_warn_as_well(server: type[Server | SerialServer], empty: Path) -> None:
    with pytest.raises(PlanWarning, match="leaves out 270 voxels"):  # warnings are errors in these tests
        server().run_blockwise([short()])
    with pytest.warns(PlanWarning) as caught:
        SerialServer().run_blockwise([short()])
    assert [warning.filename for warning in caught] == [__file__]


def test_voxels_are_counted_where_they_have_a_size() -> None:
    coarse = Task("t", Roi((0,), (70,)), Roi((0,), (40,)), Roi((0,), (40,)), lambda block: None, voxel_size=(10,))
    with pytest.warns(PlanWarning, match="leaves out 3 voxels"):
        run(lambda: coarse, multiprocessing=False, run_dir=None)


def test_a_warning_that_is_an_error_stops_everything(empty: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PlanWarning):
            run(short)
    assert list(empty.iterdir()) == []


@pytest.mark.parametrize("fit", ["shrink", "overhang"])
def test_both_ways_out_leave_nothing_out(fit: str, empty: Path) -> None:
    assert run(lambda: short(fit=fit), multiprocessing=False, run_dir=None)
