"""What is packed for a worker process, and who is to blame when it cannot be?"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import pickle
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
import pytest

from blockflow import Context, Roi, Task
from blockflow.errors import NotShippableError
from blockflow.launch.job import Timing
from blockflow.launch.payload import pack_functions, payload_for, payload_for_job

if TYPE_CHECKING:
    from collections.abc import Callable

LOCK = threading.Lock()
FACTOR = 2


def task_of(function: Any, **more: Any) -> Task:
    roi = Roi((0,), (10,))
    return Task("t", roi, roi, roi, function, **more)


def helper(block: object) -> int:
    return FACTOR


def unpacked(task: Task) -> tuple[Any, Any, Any]:
    functions = pickle.loads(pack_functions(task))
    assert len(functions) == 3
    return functions  # type: ignore[no-any-return]


# ----------------------------------------------------------------------------------------------------- what is packed


def test_all_three_functions_are_packed_with_the_values_they_have_now() -> None:
    value = [1]
    task = task_of(lambda block, state: (block, state, value), setup=lambda: value, teardown=lambda state: len(state))
    function, setup, teardown = unpacked(task)
    value.append(2)
    assert (function("b", "s"), setup(), teardown("abc")) == (("b", "s", [1]), [1], 3)
    assert function(0, 0)[2] is setup(), "what functions share they share there too"


def test_what_is_not_there_is_packed_as_such() -> None:
    assert unpacked(task_of(helper))[1:] == (None, None)


def test_a_function_of_a_module_that_others_cannot_import_goes_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "module_of_nowhere.py"
    path.write_text("FACTOR = 2\ndef helper(block):\n    return FACTOR\n")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[path.stem] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        packed = pack_functions(task_of(functools.partial(module.helper)))
        module.__dict__["FACTOR"] = 3
    finally:
        del sys.modules[path.stem]
    (function, _, _) = pickle.loads(packed)
    assert function("block") == 2, "as a new process would not find the module"
    assert cloudpickle.list_registry_pickle_by_value() == set()


@pytest.mark.parametrize("function", [os.path.basename, os.stat, pickle.dumps, json.dumps, len])
def test_a_function_of_python_goes_by_name(function: Any) -> None:
    assert len(pack_functions(task_of(function))) < 60


def test_what_is_refused_leaves_the_list_of_cloudpickle_as_it_was() -> None:
    with pytest.raises(NotShippableError):
        pack_functions(task_of(lambda block: LOCK))
    assert cloudpickle.list_registry_pickle_by_value() == set()


# ---------------------------------------------------------------------------------------------------- who is to blame


class Holder:
    def __init__(self) -> None:
        self.inner = {"lock": LOCK}

    def process(self, block: object) -> None: ...


class Refuses:
    def __reduce__(self) -> Any:
        raise RuntimeError("I stay here")


def nested() -> Callable[[object], Any]:
    handle = Refuses()

    def inner() -> Any:
        return handle

    def outer(block: object) -> Any:
        return inner()

    return outer


@pytest.mark.parametrize(
    ("task", "because"),
    [
        (task_of(lambda block: LOCK), "because of global 'LOCK' (lock) (cannot pickle"),
        (task_of(functools.partial(helper, LOCK), setup=None), "because of argument 0 of the partial (lock)"),
        (task_of(Holder().process), "because of attribute 'inner' (dict) of the object whose method it is (Holder)"),
        (task_of(nested()), "because of variable 'handle' (Refuses) of variable 'inner' (function) (I stay here)"),
        (task_of(lambda block, state: None, setup=lambda: LOCK), "because of global 'LOCK' (lock)"),
        (
            task_of(lambda block, state: None, setup=int, teardown=functools.partial(print, end=LOCK)),
            "because of argument 'end' of the partial (lock)",
        ),
        (task_of(lambda block, gain=1, lock=LOCK: None), "because of default of argument 'lock' (lock)"),
        (task_of(lambda block, *, lock=LOCK, gain=1: None), "because of default of argument 'lock' (lock)"),
    ],
)
def test_culprits_are_named(task: Task, because: str) -> None:
    with pytest.raises(NotShippableError) as caught:
        pack_functions(task)
    assert because in str(caught.value)
    assert str(caught.value).startswith("the process_function of task 't' cannot be sent to a worker process")
    assert caught.value.__cause__ is not None


def test_several_culprits_are_all_named() -> None:
    first, second = Refuses(), threading.Lock()
    with pytest.raises(NotShippableError, match=r"variable 'first' \(Refuses\), variable 'second' \(lock\)"):
        pack_functions(task_of(lambda block: (first, second)))


# ---------------------------------------------------------------------------------------------------- what is told


def test_what_a_process_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    context = Context(task_id="t", worker_id=3)
    told = payload_for(task_of(lambda: None), context, Path("logs/t/worker_3"), adds=True)
    assert told["task"] == "t"
    assert told["takes_block"] is False
    assert told["log"] == str(tmp_path / "logs/t/worker_3")
    assert told["directory"] == str(tmp_path)
    assert told["path"] == [entry or str(tmp_path) for entry in sys.path]
    assert Context.from_env(told["environment"]) == context
    assert told["python_path"] is None
    assert "functions" not in told, "they are sent once for all processes"
    assert told["adds"] is True
    assert payload_for(task_of(helper), context, None, adds=False)["log"] is None


def test_a_job_is_told_its_functions_and_not_the_modules_of_this_interpreter() -> None:
    told = payload_for_job(
        payload_for(task_of(helper), Context(), None, adds=False), b"packed", Timing(3600, 60, 25), output="/logs/job"
    )
    assert told["functions"] == b"packed"
    assert (told["timing"], told["job_log"]) == (Timing(3600, 60, 25), "/logs/job")
    assert os.path.dirname(os.__file__) not in told["path"]
