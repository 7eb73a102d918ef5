"""Does what processes keep come back whole, once, and not before it is complete?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from blockflow.errors import RunError
from blockflow.ops.results import FAILURE, RESULT, ResultFolder, ResultWriter, as_exception

if TYPE_CHECKING:
    from pathlib import Path


def test_records_of_several_processes_come_once(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path)
    assert list(folder.new()) == []
    one, other = ResultWriter(tmp_path), ResultWriter(tmp_path)
    one.keep(RESULT, 0, 1, [1, 2])
    other.keep(RESULT, 5, 1, "five")
    assert sorted((record.index, record.load()) for record in folder.new()) == [(0, [1, 2]), (5, "five")]
    one.keep(RESULT, 1, 2, None)
    assert [(record.index, record.attempt, record.load()) for record in folder.new()] == [(1, 2, None)]
    one.close()
    one.close()
    one.keep(RESULT, 2, 3, 0)
    assert [record.index for record in folder.new()] == [2]
    assert len(list(tmp_path.iterdir())) == 3


def test_records_that_are_not_complete_wait(tmp_path: Path) -> None:
    writer = ResultWriter(tmp_path)
    for index in range(3):
        writer.keep(RESULT, index, 0, index)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    folder = ResultFolder(tmp_path)
    got: list[int] = []
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        got += [record.load() for record in folder.new()]
    assert got == [0, 1, 2]


def test_what_is_damaged_is_not_taken(tmp_path: Path) -> None:
    ResultWriter(tmp_path).keep(RESULT, 0, 0, "text")
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert list(ResultFolder(tmp_path).new()) == []


class Wide(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} {two}")
        self.two = two


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a", 1),
        KeyError("k"),
        OSError(2, "no", "file"),
        Wide(1, 2),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "r"),
    ],
)
def test_exceptions_of_any_constructor_come_back(tmp_path: Path, error: Any) -> None:
    ResultWriter(tmp_path).keep_failure(3, 1, error)
    (record,) = ResultFolder(tmp_path).new()
    again = as_exception(record.load())
    assert record.kind == FAILURE
    assert (type(again), str(again), again.__dict__) == (type(error), str(error), error.__dict__)


def test_results_that_cannot_be_kept(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="what the function returned for block 4 cannot be kept"):
        ResultWriter(tmp_path).keep(RESULT, 4, 0, (i for i in range(3)))
    assert not list(tmp_path.iterdir())
