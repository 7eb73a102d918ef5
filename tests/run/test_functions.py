"""Which functions can be run in worker processes, and what is said about those that cannot?"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

import blockflow
from blockflow import Block, Client, Roi, Task, run_blockwise
from blockflow.errors import NotShippableError

FOLDER_OF_MODULE = "set by a test, not by the module"
LOCK = threading.Lock()


def task_of(function: Any, blocks: int = 3, **more: Any) -> Task:
    return Task("t", Roi((0,), (10 * blocks,)), Roi((0,), (10,)), Roi((0,), (10,)), function, **more)


def run(function: Any, blocks: int = 3, **more: Any) -> Any:
    return run_blockwise([task_of(function, blocks, **more)], progress=False, summary=False)


def note(folder: Path, block: Block) -> None:
    """Leave a file for the block."""
    assert block.index is not None
    (folder / str(block.index)).write_text(str(block.write_roi))


def noted(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


ALL = ["0", "1", "2"]


# ------------------------------------------------------------------------------------------------- what can be sent


def test_a_closure_that_calls_a_function_of_this_module(folder: Path) -> None:
    def process(block: Block) -> None:
        note(folder, block)

    assert run(process)
    assert noted(folder) == ALL
    assert (folder / "2").read_text() == "[20:30] (10)"


def test_a_lambda(folder: Path) -> None:
    assert run(lambda block: note(folder, block))
    assert noted(folder) == ALL


def test_a_partial(folder: Path) -> None:
    assert run(functools.partial(note, folder))
    assert noted(folder) == ALL


def test_a_partial_of_a_partial_with_keywords(folder: Path) -> None:
    def process(block: Block, *, first: Path, second: str) -> None:
        note(first / second, block)

    inner = functools.partial(process, first=folder.parent)
    assert run(functools.partial(inner, second=folder.name))
    assert noted(folder) == ALL


class Noter:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = 0

    def process(self, block: Block) -> None:
        self.calls += 1
        note(self.folder, block)

    @classmethod
    def of_class(cls, block: Block) -> None:
        note(Path(FOLDER_OF_MODULE), block)

    def __call__(self, block: Block) -> None:
        self.process(block)


def test_a_method(folder: Path) -> None:
    noter = Noter(folder)
    assert run(noter.process)
    assert noted(folder) == ALL
    assert noter.calls == 0  # each worker works on a copy


def test_an_object_that_can_be_called(folder: Path) -> None:
    assert run(Noter(folder))
    assert noted(folder) == ALL


def test_a_class_method_sees_the_globals_of_this_moment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "FOLDER_OF_MODULE", str(folder))
    assert run(Noter.of_class)
    assert noted(folder) == ALL


def test_a_builtin_of_another_module(folder: Path) -> None:
    assert run(repr)


def test_large_values_travel_with_a_function(folder: Path) -> None:
    large = bytes(30_000_000)

    def process(block: Block) -> None:
        (folder / str(block.index)).write_text(str(len(large)))

    assert run(process, num_workers=2)
    assert (folder / "0").read_text() == "30000000"


def test_functions_of_this_module_stay_importable_by_name_afterwards(folder: Path) -> None:
    import cloudpickle

    assert run(functools.partial(note, folder))
    assert cloudpickle.list_registry_pickle_by_value() == set()


def test_a_module_that_the_user_sends_by_value_stays_so(folder: Path) -> None:
    import cloudpickle

    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    try:
        assert run(functools.partial(note, folder))
        assert module.__name__ in cloudpickle.list_registry_pickle_by_value()
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def test_a_module_beside_the_script_is_imported_by_workers(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "helpers_of_a_user.py").write_text(
        "import pathlib\n\ndef process(block):\n    pathlib.Path('seen', str(block.index)).touch()\n"
    )
    finish(
        tmp_path,
        """
        from helpers_of_a_user import process
        assert blockflow.run_blockwise([task(process)], progress=False, summary=False)
        """,
    )
    assert noted(folder) == ALL


# ------------------------------------------------------------------------------------------------- whole scripts

START = """
import pathlib
import blockflow
from blockflow import Roi, Task

def task(function, blocks=3, **more):
    return Task("t", Roi((0,), (10 * blocks,)), Roi((0,), (10,)), Roi((0,), (10,)), function, **more)
"""


def finish(folder: Path, script: str, *, code: int = 0) -> str:
    """Run a script in a folder; what it printed."""
    path = folder / "script_of_a_user.py"
    path.write_text(START + textwrap.dedent(script))
    ended = python([str(path)], cwd=folder)
    assert ended.returncode == code, ended.stderr
    return ended.stdout + ended.stderr


def python(arguments: list[str], *, cwd: Path, script: str | None = None) -> subprocess.CompletedProcess[str]:
    # The package under test has to be found wherever the script is, also if it is not installed.
    root = Path(blockflow.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        input=script,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_script_without_a_main_guard(folder: Path, tmp_path: Path) -> None:
    finish(
        tmp_path,
        """
        import dataclasses

        @dataclasses.dataclass
        class Place:
            folder: pathlib.Path
            def of(self, block):
                return self.folder / str(block.index)

        place = Place(pathlib.Path("seen").resolve())

        def process(block):
            place.of(block).touch()

        result = blockflow.run_blockwise([task(process)], progress=False, summary=False)
        assert result
        open("main_ran", "a").write("x")
        """,
    )
    assert noted(folder) == ALL
    assert (tmp_path / "main_ran").read_text() == "x"
    # Where set_log_basedir was not called, logs are beside the script.
    assert (tmp_path / "daisy_logs" / "t" / "worker_0.out").exists()


def test_a_function_typed_into_a_notebook(folder: Path, tmp_path: Path) -> None:
    """In a notebook, cells are executed in __main__, which has no file."""
    finish(
        tmp_path,
        '''
        import __main__
        del __main__.__file__
        exec(compile("""
        import pathlib as p
        def helper(block):
            p.Path("seen", str(block.index)).touch()
        """.replace("        ", ""), "<cell 1>", "exec"), __main__.__dict__)
        exec(compile("process = lambda block: helper(block)", "<cell 2>", "exec"), __main__.__dict__)
        assert blockflow.run_blockwise([task(process)], progress=False, summary=False)
        ''',
    )
    assert noted(folder) == ALL


def test_a_script_from_standard_input(folder: Path, tmp_path: Path) -> None:
    script = START + (
        "def process(block):\n    pathlib.Path('seen', str(block.index)).touch()\n\n"
        "assert blockflow.run_blockwise([task(process)], progress=False, summary=False)\n"
    )
    ended = python(["-"], cwd=tmp_path, script=script)
    assert ended.returncode == 0, ended.stderr
    assert noted(folder) == ALL


def test_files_in_the_working_directory_do_not_replace_modules_of_python(folder: Path, tmp_path: Path) -> None:
    """The directory a script is started from is not on its path, and not on that of its workers."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("ssl", "socket", "selectors", "pickle", "msgspec"):
        (elsewhere / f"{name}.py").write_text(f"raise SystemExit('this is not {name}')")
    path = tmp_path / "script_of_a_user.py"
    path.write_text(
        START
        + f"def process(block):\n    pathlib.Path({str(folder)!r}, str(block.index)).touch()\n\n"
        + "assert blockflow.run_blockwise([task(process)], progress=False, summary=False)\n"
    )
    ended = python([str(path)], cwd=elsewhere)
    assert ended.returncode == 0, ended.stderr
    assert noted(folder) == ALL


# ------------------------------------------------------------------------------------------------ what cannot be


def refusal(function: Any, logs: Path) -> str:
    with pytest.raises(NotShippableError) as caught:
        run(function)
    assert isinstance(caught.value, TypeError)
    assert not logs.exists(), "nothing was started"
    return str(caught.value)


def test_a_variable_that_cannot_be_sent_is_named(logs: Path) -> None:
    with open(os.devnull, "wb") as handle:

        def process(block: Block) -> None:
            handle.write(b"x")

        said = refusal(process, logs)
    assert said.startswith(
        "the process_function of task 't' cannot be sent to a worker process because of variable 'handle' (Buffered"
    )
    assert "make them inside the function" in said


def test_a_global_that_cannot_be_sent_is_named(logs: Path) -> None:
    def process(block: Block) -> None:
        with LOCK:
            pass

    assert "because of global 'LOCK' (lock)" in refusal(process, logs)


def test_a_global_of_an_inner_function_is_named(logs: Path) -> None:
    def process(block: Block) -> Any:
        return [LOCK.locked() for _ in range(3)], lambda: LOCK

    assert "because of global 'LOCK' (lock)" in refusal(process, logs)


def test_an_argument_of_a_partial_is_named(logs: Path) -> None:
    said = refusal(functools.partial(note, (x for x in "abc")), logs)  # type: ignore[arg-type]
    assert "because of argument 0 of the partial (generator)" in said
    said = refusal(functools.partial(lambda block, lock: None, lock=LOCK), logs)
    assert "because of argument 'lock' of the partial (lock)" in said


def test_the_object_of_a_method_is_named(logs: Path) -> None:
    noter = Noter(Path())
    noter.lock = LOCK  # type: ignore[attr-defined]
    where = "because of attribute 'lock' (lock) of the object whose method it is (Noter)"
    assert where in refusal(noter.process, logs)
    assert "because of attribute 'lock' (lock) (cannot" in refusal(noter, logs)


def test_a_culprit_behind_other_functions_is_named(logs: Path) -> None:
    def inner() -> bool:
        return LOCK.locked()

    where = "because of global 'LOCK' (lock) of variable 'inner' (function)"
    assert where in refusal(lambda block: inner(), logs)


def test_a_variable_without_a_value_yet_is_no_culprit(logs: Path) -> None:
    def process(block: Block) -> Any:
        return LOCK, later

    said = refusal(process, logs)
    assert "because of global 'LOCK' (lock)" in said
    if not said:
        later = 1


def test_a_function_whose_module_workers_cannot_import_says_so(tmp_path: Path, logs: Path) -> None:
    """By value goes the module of the function itself; what else it needs has to be importable."""
    import importlib.util

    path = tmp_path / "module_that_is_not_on_the_path.py"
    path.write_text("class Thing:\n    pass\n")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
        thing = module.Thing()
        result = run(lambda block: print(thing))
    finally:
        del sys.modules[path.stem]
    assert not result
    assert result["t"].completed_count == 0
    (problem,) = result.problems
    assert "3 worker processes in a row ended before they asked for a block" in problem
    assert "ModuleNotFoundError: No module named 'module_that_is_not_on_the_path'" in problem
    assert "whatever it refers to must be importable there" in (logs / "t" / "worker_2.err").read_text()


def test_a_client_of_the_driver_process_has_no_context() -> None:
    with pytest.raises(RuntimeError, match="this process has no context"):
        Client()
