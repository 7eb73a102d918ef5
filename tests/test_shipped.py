"""Code that arrives from another process: its name, its lines, and the version of Python that it is for."""

from __future__ import annotations

import linecache
import marshal
import sys
import zlib

import pytest

from blockflow.shipped import load_code

HERE = sys.version_info[:2]
TEXT = "def f():\n    return 1\n"


def packed(file: str, text: str = TEXT) -> bytes:
    return marshal.dumps(compile(text, file, "exec"))


def compressed(text: str) -> bytes:
    return zlib.compress(text.encode())


def test_lines_that_travelled_are_shown() -> None:
    code = load_code(HERE, packed("<cell 1 of test_shipped>"), compressed(TEXT))
    assert code.co_filename == "<cell 1 of test_shipped>"
    assert linecache.getline(code.co_filename, 2) == "    return 1\n"
    linecache.checkcache()
    assert linecache.getline(code.co_filename, 2) == "    return 1\n", "there is no file that could be newer"


def test_the_newer_text_of_one_name_is_shown() -> None:
    file = "<cell 2 of test_shipped>"
    for text in (TEXT, TEXT, TEXT.replace("1", "2")):
        load_code(HERE, packed(file, text), compressed(text))
        assert linecache.getlines(file) == text.splitlines(keepends=True)


def test_code_without_text_shows_none() -> None:
    code = load_code(HERE, packed("<cell 3 of test_shipped>"), None)
    assert linecache.getlines(code.co_filename) == []


def test_another_version_of_python_is_refused() -> None:
    with pytest.raises(ImportError, match=r"sent by Python 3\.7, and this worker runs Python 3\.\d+: .*same version"):
        load_code((3, 7), packed("<cell>"), None)
