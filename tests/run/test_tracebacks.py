"""Tracebacks of functions that were sent to workers: they name the file and show the line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import blockflow

if TYPE_CHECKING:
    from collections.abc import Mapping

HEAD = """
import functools, json, os, pathlib, sys
from blockflow import Roi, Task, run_blockwise

def causes(functions, **more):
    one = Roi((0,), (1,))
    more = {"max_retries": 0, "num_workers": 1} | more
    tasks = [Task(name, one, one, one, function, **more) for name, function in functions.items()]
    result = run_blockwise(tasks, progress=False, summary=False)
    return {cause.task_id: [cause.error, cause.where, cause.traceback] for cause in result.causes}
"""

KINDS = """
def helper(value):
    raise ValueError("helper")  # helper

def function(block):
    raise ValueError("function")  # function

def calls(block):
    helper(block.index)

def closure_of(value):
    def closure(block):
        raise ValueError(value)  # closure
    return closure

def nested(block):
    def inner():
        raise ValueError("nested")  # nested
    inner()

def silent(decorated):
    @functools.wraps(decorated)
    def around(*arguments):
        return decorated(*arguments)
    return around

def changed(decorated):
    return lambda *arguments: decorated(*arguments)

@silent
def decorated(block):
    raise ValueError("decorated")  # decorated

@changed
def replaced(block):
    raise ValueError("replaced")  # replaced

def partially(text, block):
    raise ValueError(text)  # partial

class Model:
    def method(self, block):
        raise ValueError("method")  # method
    @classmethod
    def of_class(cls, block):
        raise ValueError("of_class")  # of_class
    @staticmethod
    def static(block):
        raise ValueError("static")  # static
    @property
    def value(self):
        raise ValueError("property")  # property
    def __call__(self, block):
        raise ValueError("called")  # called

def reads(block, model=Model()):
    return model.value

def longer(block):
    return (
        block.index,
        1 / block.index,  # several lines
    )

def generates(block):
    return sum(1 / number for number in (block.index,))  # generator

kinds = {
    "helper": calls,
    "function": function,
    "closure": closure_of("closure"),
    "nested": nested,
    "decorated": decorated,
    "replaced": replaced,
    "partial": functools.partial(partially, "partial"),
    "method": Model().method,
    "of_class": Model.of_class,
    "static": Model.static,
    "property": reads,
    "called": Model(),
    "lambda": lambda block: 1 / block.index,  # lambda
    "several lines": longer,
    "generator": generates,
}
"""


def python(*arguments: str, cwd: Path, **options: Any) -> Any:
    """What a script prints at last, as JSON."""
    environment = os.environ | {"PYTHONPATH": str(Path(blockflow.__file__).parents[1])}
    ended = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, **options
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def check(told: Mapping[str, list[str]], file: str, text: str) -> None:
    """Every cause names the line that is marked with its name."""
    lines = text.splitlines()
    assert told
    for name, (_, where, traceback) in told.items():
        (number,) = (number for number, line in enumerate(lines, 1) if line.endswith(f"# {name}"))
        assert where == f"{os.path.basename(file)}:{number}", (name, where, traceback)
        assert f'File "{file}", line {number}' in traceback
        assert lines[number - 1].strip() in traceback, (name, traceback)


def test_functions_of_a_script(tmp_path: Path) -> None:
    text = HEAD + KINDS + "print(json.dumps(causes(kinds)))\n"
    script = tmp_path / "script_of_a_user.py"
    script.write_text(text)
    told = python(str(script), cwd=tmp_path)
    assert len(told) == 15
    check(told, str(script), text)


@pytest.mark.parametrize("how", ["deleted", "edited"])
def test_a_script_that_workers_cannot_read_any_more(tmp_path: Path, how: str) -> None:
    change = {"deleted": "os.unlink(__file__)", "edited": "open(__file__, 'w').write('# changed\\n' * 99)"}[how]
    text = (
        HEAD + KINDS + f"{change}\nprint(json.dumps(causes({{'function': function, 'closure': kinds['closure']}})))\n"
    )
    # The driver shows lines as Python does: those that it has read, as its own tracebacks make it do.
    text = text.replace("import functools", "import linecache; linecache.getlines(__file__)\nimport functools", 1)
    script = tmp_path / "script_of_a_user.py"
    script.write_text(text)
    check(python(str(script), cwd=tmp_path), str(script), text)


def test_a_script_that_multiprocessing_has_started(tmp_path: Path) -> None:
    """With spawn a child has the script under another name than ``__main__``."""
    text = (
        HEAD
        + KINDS
        + textwrap.dedent(
            """
        def child():
            chosen = {name: kinds[name] for name in ("function", "helper", "called")}
            pathlib.Path("told").write_text(json.dumps(causes(chosen)))

        if __name__ == "__main__":
            import multiprocessing
            process = multiprocessing.get_context("spawn").Process(target=child)
            process.start()
            process.join()
            print(pathlib.Path("told").read_text())
        """
        )
    )
    script = tmp_path / "script_of_a_user.py"
    script.write_text(text)
    check(python(str(script), cwd=tmp_path), str(script), text)


def test_a_command(tmp_path: Path) -> None:
    text = HEAD + KINDS + "print(json.dumps(causes(kinds)))\n"
    check(python("-c", text, cwd=tmp_path), "<string>", text)


def test_code_of_exec_does_not_show_lines_of_the_command(tmp_path: Path) -> None:
    text = HEAD + "exec('\\n\\ndef made(block):\\n    1 / 0\\n')\nprint(json.dumps(causes({'made': made})))\n"
    told = python("-c", text, cwd=tmp_path)
    _, where, traceback = told["made"]
    assert where == "<string>:4"
    assert "import" not in traceback


def test_cells_of_a_notebook(tmp_path: Path) -> None:
    """Cells have names, and their text is in Python's cache of source lines; there is no file."""
    text = HEAD + textwrap.dedent(
        """
        import linecache
        cells = {
            "/tmp/ipykernel_1/11.py": "def helper(block):\\n    return 1 / block.index\\n",
            "<ipython-input-2-b>": "process = lambda block: helper(block)",
            "<python-input-0>": "class Model:\\n    def __call__(self, block):\\n        raise KeyError('model')",
        }
        for name, cell in cells.items():
            linecache.cache[name] = (len(cell), None, cell.splitlines(keepends=True), name)
            exec(compile(cell, name, "exec"), globals())
        del globals()["__file__"]
        print(json.dumps(causes({"cell": process, "class": Model()})))
        """
    )
    script = tmp_path / "kernel.py"
    script.write_text(text)
    told = python(str(script), cwd=tmp_path)
    assert told["cell"][1] == "11.py:2"
    assert 'File "<ipython-input-2-b>", line 1' in told["cell"][2]
    assert "process = lambda block: helper(block)" in told["cell"][2]
    assert 'File "/tmp/ipykernel_1/11.py", line 2' in told["cell"][2]
    assert "return 1 / block.index" in told["cell"][2]
    assert told["class"][1] == "<python-input-0>:3"
    assert "raise KeyError('model')" in told["class"][2]


def test_where_no_text_is_known_there_is_the_number_of_the_line(tmp_path: Path) -> None:
    """As in a script from standard input, or a file that is there in compiled form only."""
    text = HEAD + KINDS + "print(json.dumps(causes({'function': function})))\n"
    told = python("-", cwd=tmp_path, input=text)
    number = 1 + text.splitlines().index('    raise ValueError("function")  # function')
    assert told["function"][1] == f"<stdin>:{number}"
    assert told["function"][0] == "ValueError: function"


def test_a_module_that_workers_import_shows_its_own_lines(tmp_path: Path) -> None:
    (tmp_path / "helpers_of_a_user.py").write_text("def process(block):\n    return 1 / block.index\n")
    script = tmp_path / "script_of_a_user.py"
    script.write_text(HEAD + "import helpers_of_a_user\nprint(json.dumps(causes({'m': helpers_of_a_user.process})))\n")
    told = python(str(script), cwd=tmp_path)
    assert told["m"][1] == "helpers_of_a_user.py:2"
    assert "return 1 / block.index" in told["m"][2]


def test_an_error_inside_a_library_is_where_the_user_called_it(tmp_path: Path) -> None:
    text = HEAD + textwrap.dedent(
        """
        import json as parser
        import numpy
        import zarr

        def compiled(block):
            numpy.random.RandomState(0).choice(-1)  # compiled

        def numeric(block):
            numpy.concatenate([numpy.zeros((2, 2)), numpy.zeros(3)])  # numeric

        def stored(block):
            zarr.open_array("nowhere.zarr", mode="r")  # stored

        def standard(block):
            parser.loads("[")  # standard

        def missing(block):
            import a_module_that_is_not_there  # missing

        functions = (compiled, numeric, stored, standard, missing)
        print(json.dumps(causes({each.__name__: each for each in functions})))
        """
    )
    script = tmp_path / "script_of_a_user.py"
    script.write_text(text)
    told = python(str(script), cwd=tmp_path)
    assert len(told) == 5
    check(told, str(script), text)


def test_the_source_of_a_function_can_be_inspected_in_a_worker(tmp_path: Path) -> None:
    """Compilers like numba and torch read the source of what they compile."""
    text = HEAD + textwrap.dedent(
        """
        class Model:
            def run(self):
                return 1

        def process(block):
            import inspect
            raise ValueError(inspect.getsource(process) + inspect.getsource(Model.run))

        print(json.dumps(causes({"t": process})))
        """
    )
    told = python("-c", text, cwd=tmp_path)
    assert "raise ValueError(inspect.getsource(process)" in told["t"][0]
    assert "def run(self): return 1" in told["t"][0]
