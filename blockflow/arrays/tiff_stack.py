"""TIFF stack: how is a folder of planes, or a file of pages, read as one array of which little is looked at?

Uncompressed planes are mapped, so that only what is asked for is read. Compressed ones can only be decoded as a whole;
the last few are kept, because neighbouring blocks want them again. Reading needs the library tifffile (and imagecodecs
for some compressions).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from blockflow.arrays.tiffs import list_tiffs
from blockflow.arrays.window import keys_of
from blockflow.errors import ArrayError, ArrayNotFoundError, MetadataError
from blockflow.optional import not_installed
from blockflow.paths import local_path

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["TiffStack"]

_KEPT = 4
"""Decoded planes that are kept, when they are compressed."""


@dataclass(frozen=True, slots=True)
class _Mapped:
    """Where the pixels of an uncompressed plane are."""

    offset: int
    dtype: np.dtype[Any]


class TiffStack:
    """Planes of one shape, read when they are looked at; the first axis counts them.

    Understands integers, slices with a positive step and ``...``. It travels to other processes as paths.

    Args:
        path: A folder, whose TIFF files (:func:`~blockflow.arrays.tiffs.list_tiffs`) are the planes; or a file, whose
            pages are.
        natural: Planes in the order of the numbers in their names, so that z9 comes before z10.

    Raises:
        ArrayNotFoundError: There is no TIFF file.
        MetadataError: The first plane cannot be read, or is compressed in a way that cannot be decoded here.
        ArrayError: tifffile is not installed.
    """

    read_only = True
    """Nothing can be written."""

    def __init__(self, path: str | os.PathLike[str], *, natural: bool = True) -> None:
        given = local_path(path, "path of TIFF files").absolute()
        if given.is_dir():
            self.planes = [(file, 0) for file in list_tiffs(given, natural=natural)]
        elif given.is_file():
            with _tiff(given) as tiff:
                self.planes = [(given, page) for page in range(len(tiff.pages))]
        else:
            raise ArrayNotFoundError(f"no TIFF file or folder of them at {given}")
        if not self.planes:
            raise ArrayNotFoundError(f"no TIFF file in {given}")
        self._places: dict[int, _Mapped] = {}
        self._decoded: OrderedDict[int, NDArray[Any]] = OrderedDict()
        first, self.dtype = self._look(0)
        self.shape = (len(self.planes), *first)
        if 0 not in self._places:
            self._plane(0)  # a compression that is unknown here is an error now

    def __getitem__(self, key: Any) -> NDArray[Any]:
        first, *rest = keys_of(key, len(self.shape), "a TIFF stack")
        inside = tuple(rest)
        if not isinstance(first, slice):
            return np.array(self._plane(range(self.shape[0])[first])[inside], self.dtype)
        numbers = range(self.shape[0])[first]
        extents = np.broadcast_to(np.uint8(), self.shape[1:])[inside].shape
        result = np.empty((len(numbers), *extents), self.dtype)
        for place, number in enumerate(numbers):
            result[place] = self._plane(number)[inside]
        return result

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All planes."""
        return np.asarray(self[...], dtype=dtype)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_decoded": OrderedDict()}

    def _plane(self, number: int) -> NDArray[Any]:
        """A whole plane: mapped, or decoded."""
        if number in self._decoded:
            self._decoded.move_to_end(number)
            return self._decoded[number]
        if number not in self._places:
            self._check(number)
        file, page = self.planes[number]
        if number in self._places:
            place = self._places[number]
            return np.memmap(file, place.dtype, "r", place.offset, self.shape[1:])
        with _tiff(file) as tiff:
            try:
                plane: NDArray[Any] = tiff.pages[page].asarray()
            except Exception as error:  # each compression has errors of its own
                raise MetadataError(_undecodable(file, error)) from error
        self._decoded[number] = plane
        while len(self._decoded) > _KEPT:
            self._decoded.popitem(last=False)
        return plane

    def _check(self, number: int) -> None:
        """Refuse a plane that is not like the first one."""
        shape, dtype = self._look(number)
        if (shape, dtype) != (self.shape[1:], self.dtype):
            raise MetadataError(
                f"all planes must be alike: the first has shape {self.shape[1:]} and dtype {self.dtype}, "
                f"plane {number} ({self.planes[number][0].name}) has {shape} and {dtype}"
            )

    def _look(self, number: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and dtype of a plane; where its pixels are is noted if they can be mapped."""
        file, page = self.planes[number]
        with _tiff(file) as tiff:
            found = tiff.pages[page]
            dtype = found.dtype
            if dtype is None:
                raise MetadataError(f"{file} has pixels of a kind that numpy has not")
            if found.is_memmappable:
                self._places[number] = _Mapped(found.dataoffsets[0], np.dtype(tiff.byteorder + dtype.char))
            return tuple(found.shape), dtype


def _undecodable(file: Path, error: Exception) -> str:
    """Return the message that a plane cannot be decoded."""
    if "imagecodecs" in str(error) and find_spec("imagecodecs") is None:
        needs = not_installed("its compression needs", "imagecodecs")
        return f"{file} cannot be decoded: {needs}; or save the planes uncompressed"
    return f"{file} cannot be decoded ({error}): it is damaged, or its compression is not known here"


def _tiff(file: Path) -> Any:
    """An open TIFF file."""
    try:
        from tifffile import TiffFile, TiffFileError
    except ImportError as error:
        raise ArrayError(not_installed("TIFF files need", error.name or "tifffile", extra="tiff")) from error
    try:
        return TiffFile(file)
    except FileNotFoundError as error:
        raise ArrayNotFoundError(f"a plane of the stack is missing: {file}") from error
    except TiffFileError as error:
        raise MetadataError(f"{file} is no TIFF file: {error}") from error
