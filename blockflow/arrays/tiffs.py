"""TIFF folders: which files are the planes of a stack, in which order, and how large is a voxel?"""

from __future__ import annotations

import os
import re
from decimal import Decimal
from itertools import pairwise, product
from math import inf, nan, prod
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from blockflow.errors import ArrayNotFoundError, MetadataError, PlanError
from blockflow.paths import local_path

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Unit", "list_tiffs", "missing_number", "read_voxel_size"]

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


def missing_number(names: Sequence[str]) -> str | None:
    """Tell which plane is missing among names with numbers, in words, or None.

    Names that differ in their numbers only are planes of one stack. If one of the numbers counts all of them, it must
    do so in even steps; if several numbers together do, each combination must be there.

    Args:
        names: File names of a folder, in any order.

    >>> missing_number(["z08.tif", "z09.tif", "z11.tif"])
    'there is no z10.tif between z09.tif and z11.tif'
    >>> missing_number(["z000.tif", "z020.tif", "z040.tif"])
    """
    stacks: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        stacks.setdefault(tuple(re.split(r"\d+", name.lower())), []).append(name)
    for stack in stacks.values():
        whole = _gap(stack, r"(\d+)")
        if whole is not None and _gap(stack, r"(\d+(?:\.\d+)?)") is not None:  # nor are they decimals in even steps
            return whole
    return None


def _gap(names: list[str], pattern: str) -> str | None:
    """What is missing if the pattern tells the numbers of names."""
    parts = {name: re.split(pattern, name) for name in names}
    if len(names) < 3 or len({len(each) for each in parts.values()}) > 1:
        return None
    rows = {name: tuple(Decimal(text) for text in each[1::2]) for name, each in parts.items()}
    columns = [sorted(set(column)) for column in zip(*rows.values(), strict=True)]
    varying = [axis for axis, values in enumerate(columns) if len(values) > 1]
    counters = [axis for axis in varying if len(columns[axis]) == len(names)]
    if any(_uneven(columns[axis]) is None for axis in counters):
        return None
    for axis in counters:
        position = _uneven(columns[axis]) or 0
        by_value = {row[axis]: name for name, row in rows.items()}
        before, after = (by_value[columns[axis][each]] for each in (position, position + 1))
        step = min(high - low for low, high in pairwise(columns[axis]))
        text = parts[before][2 * axis + 1]
        parts[before][2 * axis + 1] = f"{columns[axis][position] + step:0{len(text)}}"
        return f"there is no {''.join(parts[before])} between {before} and {after}"
    if len(set(rows.values())) < len(names):
        return f"two of the names {names[0]} ... {names[-1]} have the same numbers"
    if len(names) < prod(len(columns[axis]) for axis in varying):
        have = {tuple(row[axis] for axis in varying) for row in rows.values()}
        for combination in product(*(columns[axis] for axis in varying)):
            if combination not in have:
                return f"there is no file with the numbers {', '.join(map(str, combination))} like {names[0]}"
    for axis in varying:  # counters have steps of one; wavelengths, say, have any
        values = columns[axis]
        after_gap = _uneven(values)
        if after_gap is not None and min(high - low for low, high in pairwise(values)) == 1:
            return (
                f"there are no files with the number {values[after_gap] + 1} between those with {values[after_gap]} "
                + (f"and {values[after_gap + 1]}, like {names[0]}")
            )
    return None


def _uneven(values: list[Decimal]) -> int | None:
    """Where the first step is that is larger than the smallest."""
    steps = [high - low for low, high in pairwise(values)]
    smallest = min(steps)
    return next((position for position, step in enumerate(steps) if step > smallest), None)


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
