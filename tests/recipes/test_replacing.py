"""Replacing: the new one whole, or the old one untouched."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from blockflow.recipes.replacing import placing_directory, replacing_directory, replacing_file

if TYPE_CHECKING:
    from pathlib import Path


class Interruption(Exception):
    pass


def write(folder: Path, text: str) -> None:
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "file").write_text(text)


def half_a_file(target: Path) -> None:
    with replacing_file(target) as part:
        part.write_text("half")
        raise Interruption


def half_a_directory(target: Path) -> None:
    with replacing_directory(target) as part:
        write(part, "half")
        raise Interruption


def no_directory(target: Path) -> None:
    with replacing_directory(target):
        pass


def read(folder: Path) -> str:
    return (folder / "sub" / "file").read_text()


def test_a_file_is_replaced_and_keeps_its_permissions(tmp_path: Path) -> None:
    target = tmp_path / "file"
    for text in ("first", "second"):
        with replacing_file(target) as part:
            assert not part.exists()
            assert part.parent == tmp_path
            part.write_text(text)
        assert target.read_text() == text
        target.chmod(0o640)
    assert target.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["file"]


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(Interruption):
        half_a_file(target)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_directory_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    for text in ("first", "second"):
        with replacing_directory(target) as part:
            write(part, text)
        assert read(target) == text
    assert os.listdir(tmp_path) == ["folder"]


def test_an_error_leaves_the_old_directory(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    write(target, "old")
    with pytest.raises(Interruption):
        half_a_directory(target)
    assert read(target) == "old"
    assert os.listdir(tmp_path) == ["folder"]


def test_a_directory_that_was_not_made_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    write(target, "old")
    with pytest.raises(FileNotFoundError):
        no_directory(target)
    assert read(target) == "old"
    with pytest.raises(FileNotFoundError):
        no_directory(tmp_path / "new")
    assert os.listdir(tmp_path) == ["folder"]


def place(target: Path, text: str) -> None:
    with placing_directory(target) as part:
        assert not part.exists()
        write(part, text)


def test_a_directory_is_placed_once(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    for text in ("first", "second"):
        place(target, text)
        assert read(target) == "first"
    assert os.listdir(tmp_path) == ["folder"]


def test_a_directory_cannot_be_placed_where_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(NotADirectoryError):
        place(tmp_path / "folder", "new")
    assert os.listdir(tmp_path) == ["folder"]
