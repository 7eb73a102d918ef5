"""TIFF folders: which files are the planes of a stack, in which order, and how large is a voxel?"""

from __future__ import annotations

import os
import re
from decimal import Decimal
from math import inf, nan
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from blockflow.errors import ArrayNotFoundError, MetadataError, PlanError
from blockflow.paths import local_path

__all__ = ["Unit", "list_tiffs", "read_voxel_size"]

Unit: TypeAlias = Literal["nm", "um", "mm"]

_NANOMETRES: dict[Unit, int] = {"nm": 1, "um": 10**3, "mm": 10**6}

_LONGEST = 2**16
"""Characters of a first line that may still be a voxel size; a wrong file is not read to its end."""


def list_tiffs(path: str | os.PathLike[str], *, natural: bool = False) -> list[Path]:
    """The TIFF files of a folder, in order.

    Files are TIFF by their ending, ``.tif`` or ``.tiff`` in upper or lower case. Folders, and files whose names
    begin with a dot (which some systems leave behind), are not among them; a broken link is, so that opening it
    says that a plane is missing.

    Args:
        path: The folder.
        natural: Compare numbers in the names by their value: ``z9.tif`` before ``z10.tif``, as planes are meant
            that were numbered without leading zeros. By default names are compared letter by letter, where
            ``z10.tif`` comes first.

    Returns:
        Absolute paths; empty if the folder holds none.

    Raises:
        ArrayNotFoundError: There is no folder at this path.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("z9.tif", "z10.TIF", "notes.txt"):
    ...         Path(folder, name).touch()
    ...     [tiff.name for tiff in list_tiffs(folder, natural=True)]
    ['z9.tif', 'z10.TIF']
    """
    folder = local_path(path, "folder of TIFF files").absolute()
    if not folder.is_dir():
        raise ArrayNotFoundError(
            f"a folder of TIFFs must exist: {folder} is {'a file' if folder.exists() else 'not there'}"
        )
    with os.scandir(folder) as entries:
        names = [
            entry.name
            for entry in entries
            if entry.name.lower().endswith((".tif", ".tiff")) and not entry.name.startswith(".") and not entry.is_dir()
        ]
    return [folder / name for name in sorted(names, key=_natural if natural else None)]


def _natural(name: str) -> tuple[list[str | int], str]:
    """Texts and numbers in turn, beginning with a text; then the name, for names that differ in leading zeros."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", name))], name


def read_voxel_size(path: str | os.PathLike[str], *, unit: Unit = "nm", to: Unit = "um") -> tuple[float, ...]:
    """The voxel size that the first line of a CSV file gives, one number for each axis.

    Args:
        path: A text file such as ``4000,650,650``; lines after the first are not looked at.
        unit: What the file is in.
        to: What to return.

    Raises:
        ArrayNotFoundError: There is no such file.
        MetadataError: The first line is not a list of positive numbers.
        PlanError: An unknown unit.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "voxel_size.csv")
    ...     _ = file.write_text("4000, 650.5, 650.5")
    ...     read_voxel_size(file), read_voxel_size(file, to="nm")
    ((4.0, 0.6505, 0.6505), (4000.0, 650.5, 650.5))
    """
    for each in (unit, to):
        if each not in get_args(Unit):
            raise PlanError(f"unit must be one of {', '.join(get_args(Unit))}, got {each!r}")
    try:
        with local_path(path, "file with the voxel size").open(encoding="utf-8-sig") as file:
            line = file.readline(_LONGEST)
    except FileNotFoundError as error:
        raise ArrayNotFoundError(
            f"a file with the voxel size must exist: {Path(path).absolute()} is not there"
        ) from error
    except UnicodeDecodeError as error:
        raise MetadataError(f"a voxel size must be text: {Path(path).absolute()} is not ({error})") from error
    factor = Decimal(_NANOMETRES[unit]) / _NANOMETRES[to]
    return tuple(_size(text.strip(), factor, f"axis {axis} of {path}") for axis, text in enumerate(line.split(",")))


def _size(text: str, factor: Decimal, where: str) -> float:
    """In decimals, because 0.65 is not 650 / 1000 in all floats."""
    try:
        size = float(Decimal(text) * factor)
    except ArithmeticError:  # not a number, or one too large even for decimals
        size = nan
    if not 0 < size < inf:
        raise MetadataError(f"a voxel size must be positive numbers with commas between them: {where} has {text!r}")
    return size
