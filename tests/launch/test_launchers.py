"""Launchers are values that are checked when they are made."""

from __future__ import annotations

from typing import Any

import pytest

from blockflow import LSF, Command, Dask, Local, Roi, Slurm, Task
from blockflow.errors import PlanError
from blockflow.plan.launcher import has_local, is_local, launchers_of, workers_of
from blockflow.plan.plan import compile_plan


def task(**more: Any) -> Task:
    return Task("t", Roi((0,), (10,)), Roi((0,), (10,)), Roi((0,), (10,)), print, **more)


@pytest.mark.parametrize("kind", [Local, Slurm, LSF])
def test_they_are_values(kind: Any) -> None:
    assert kind(3) == kind(workers=3)
    assert kind(3) != kind(4)
    assert len({kind(3), kind(3), kind(4)}) == 2
    assert kind().workers is None
    with pytest.raises(AttributeError):
        kind(3).workers = 4


def test_options_keep_what_they_are_given() -> None:
    extra = ["--constraint=zen4"]
    launcher = Slurm(3, extra=extra)
    extra.append("--exclusive")
    assert launcher.extra == ("--constraint=zen4",)
    assert hash(launcher)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (Local, {"workers": 0}, "Local: workers must be a whole number >= 1, got 0"),
        (Local, {"workers": 2.5}, "Local: workers must be a whole number >= 1, got 2.5"),
        (Slurm, {"workers": True}, "Slurm: workers must be a whole number >= 1, got True"),
        (Slurm, {"cpus": 0}, "Slurm: cpus must be a whole number >= 1, got 0"),
        (Slurm, {"gpus": -1}, "Slurm: gpus must be a whole number >= 0, got -1"),
        (Slurm, {"gpus": "two"}, "Slurm: gpus must be a number, or 'type:number' such as 'a100:1', got 'two'"),
        (Slurm, {"memory": "lots"}, "Slurm: memory must be a number with a unit"),
        (LSF, {"time": "8:00"}, "LSF: time must be 'hours:minutes:seconds'"),
        (Slurm, {"partition": ""}, "Slurm: partition must be a name, got ''"),
        (Slurm, {"qos": 3}, "Slurm: qos must be a name, got 3"),
        (LSF, {"queue": "a\nb"}, r"LSF: queue must be a name, got 'a\\nb'"),
        (Slurm, {"max_jobs": 0}, "Slurm: max_jobs must be a whole number >= 1, got 0"),
        (Slurm, {"array": "yes"}, "Slurm: array must be True or False, got 'yes'"),
        (Slurm, {"step": None}, "Slurm: step must be True or False, got None"),
        (Slurm, {"notice": -1}, "Slurm: notice must be a whole number >= 0, got -1"),
        (Slurm, {"poll": 0}, "Slurm: poll must be a number of seconds > 0, got 0"),
        (Slurm, {"poll": "fast"}, "Slurm: poll must be a number of seconds > 0, got 'fast'"),
        (Slurm, {"setup": None}, "Slurm: setup must be shell commands, got None"),
        (Slurm, {"extra": "--exclusive"}, "Slurm: extra must be a list of words"),
        (Slurm, {"extra": [3]}, "Slurm: extra must be a list of words"),
        (Slurm, {"extra": ["--array=1-4"]}, "Slurm: extra must not have '--array=1-4'"),
        (LSF, {"extra": ["-K"]}, "LSF: extra must not have '-K'"),
        (Command, {"command": "ssh node"}, r"Command: the command must have \{command\} or \{arguments\}"),
        (Command, {"command": None}, "Command: the command must have"),
        (Dask, {"client": "tcp://1.2.3.4"}, "Dask: client must be a distributed.Client, got 'tcp://1.2.3.4'"),
    ],
)
def test_what_cannot_be_is_refused(kind: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        kind(**arguments)


def test_an_unknown_option_is_refused_by_python_itself() -> None:
    with pytest.raises(TypeError, match="partitoin"):
        Slurm(3, partitoin="gpu")  # type: ignore[call-arg]


# ------------------------------------------------------------------------------------------------ launchers of a task


def test_a_task_takes_one_several_or_none() -> None:
    assert task().launchers == ()
    assert task(launcher=Slurm(3)).launchers == (Slurm(3),)
    assert task(launcher=[Slurm(3), Local(2)]).launchers == (Slurm(3), Local(2))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (8, "task 't': launcher must be Local, Slurm, LSF, Command or Dask, or a list, got 8"),
        ("slurm", "task 't': launcher must be Local, .* got 's'"),
        ([], "task 't': the list of launchers is empty"),
        ([Slurm(3), Slurm()], "task 't': of several launchers each must say how many workers it starts: workers="),
    ],
)
def test_what_is_no_launcher_of_a_task(wrong: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        task(launcher=wrong)


def test_how_many_workers_a_task_has() -> None:
    assert workers_of((), 8) == 8
    assert workers_of((Slurm(),), 8) == 8
    assert workers_of((Slurm(3),), 8) == 3
    assert workers_of((Slurm(3), Local(2)), 8) == 5
    plan = compile_plan([task(num_workers=4)], Slurm())
    assert plan.tasks[0].workers == 4
    plan = compile_plan([task(launcher=Local(2))], Slurm(50))
    assert (plan.tasks[0].workers, plan.tasks[0].launchers) == (2, (Local(2),))


def test_which_workers_are_on_this_machine() -> None:
    assert is_local(())
    assert has_local(())
    assert is_local(launchers_of(Local(2), ""))
    assert not is_local(launchers_of([Local(2), Slurm(1)], ""))
    assert has_local(launchers_of([Local(2), Slurm(1)], ""))
    assert not has_local(launchers_of(Slurm(1), ""))


def test_the_default_of_a_run_is_checked() -> None:
    with pytest.raises(PlanError, match="run_blockwise: launcher must be"):
        compile_plan([task()], 3)
