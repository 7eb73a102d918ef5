"""What travels with functions, and what does not."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from blockflow.launch import pickler
from blockflow.launch.pickler import LONGEST_SOURCE, dumps

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import CodeType


def made(text: str, file: str) -> Callable[[], object]:
    """A function ``f`` that no other process can import."""
    scope: dict[str, Callable[[], object]] = {}
    exec(compile(text, file, "exec"), scope)
    return scope["f"]


def lines_elsewhere(packed: bytes) -> list[str]:
    """The lines of a function's file that a new process sees."""
    script = (
        "import linecache, pickle, sys\n"
        "function = pickle.load(sys.stdin.buffer)\n"
        "sys.stdout.write(''.join(linecache.getlines(function.__code__.co_filename)))\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], input=packed, capture_output=True, check=True, timeout=60)
    return ended.stdout.decode().splitlines()


def test_the_text_travels_once_for_all_functions_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "many.py"
    text = "def f():\n    return 1\n# " + os.urandom(5_000).hex() + "\n"
    file.write_text(text)
    functions = [made(text, str(file)) for _ in range(20)]
    assert len(dumps(functions)) < 20_000
    packed = dumps(functions[0])
    file.unlink()
    assert lines_elsewhere(packed) == text.splitlines()


def test_without_sources_none_travels(tmp_path: Path) -> None:
    file = tmp_path / "some.py"
    file.write_text("def f():\n    return 1\n")
    packed = dumps(made(file.read_text(), str(file)), sources=False)
    assert pickle.loads(packed)() == 1
    file.unlink()
    assert lines_elsewhere(packed) == []


def test_the_text_of_a_huge_file_stays_where_it_is(tmp_path: Path) -> None:
    file = tmp_path / "huge.py"
    text = "def f():\n    return 1\n" + "# x\n" * (LONGEST_SOURCE // 4)
    file.write_text(text)
    packed = dumps(made(text, str(file)))
    assert len(packed) < 5_000
    file.unlink()
    assert lines_elsewhere(packed) == []


def test_the_text_of_installed_packages_stays_where_it_is() -> None:
    function = made("def f():\n    return 1\n", os.path.join(os.path.dirname(os.__file__), "json", "encoder.py"))
    assert len(dumps(function)) < 2_000


def test_code_with_constants_of_a_library_travels_as_cloudpickle_has_it() -> None:
    code: CodeType = made("def f():\n    return 'marker'\n", "<cell>").__code__
    marker = frozenset({range(3)})  # no constant that Python itself would have
    changed = code.replace(co_consts=tuple(marker if each == "marker" else each for each in code.co_consts))
    function = made("def f():\n    return 0\n", "<cell>")
    function.__code__ = changed
    assert pickle.loads(dumps(function))() == marker


def test_file_names_do_not_depend_on_what_cloudpickle_does_to_them() -> None:
    function = made("def f():\n    return lambda: 1\n", "<cell 9>")
    assert pickle.loads(dumps(function)).__code__.co_filename == "<cell 9>"
    assert pickle.loads(dumps(function))().__code__.co_filename == "<cell 9>", "of functions inside it"


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("python -c x", "x"),
        ("python -cx", "x"),
        ("python -Ic x -c y", "x"),
        ("python -W error -X utf8 -c x", "x"),
        ("python -Werror -Xutf8 -c x", "x"),
        ("python --check-hash-based-pycs always -c x", "x"),
        ("python --help-all -c x", "x"),
        ("python", ""),
        ("python -c", ""),
        ("python -m pytest -c x", ""),
        ("python script.py -c x", ""),
        ("python - -c x", ""),
        ("python -W", ""),
    ],
)
def test_the_command_among_words(words: str, command: str) -> None:
    assert pickler._command(words.split()) == command
