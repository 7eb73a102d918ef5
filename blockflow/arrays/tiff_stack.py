"""TIFF stack: how is a folder of planes, or a file of pages, read as one array of which little is looked at?

Uncompressed planes are mapped, so that only what is asked for is read. Compressed ones can only be decoded as a whole;
the last few are kept, because neighbouring blocks want them again. Reading needs the library tifffile (and imagecodecs
for some compressions).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from importlib.util import find_spec
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from blockflow.arrays.tiff_images import Image, find_image, refuse_more_pages, refuse_truncated
from blockflow.arrays.tiffs import list_tiffs, missing_number
from blockflow.arrays.window import keys_of
from blockflow.errors import ArrayError, ArrayNotFoundError, MetadataError, PlanError
from blockflow.optional import not_installed
from blockflow.paths import local_path
from blockflow.plan.flags import checked_flag

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

    A file has the axes that its metadata tell (ImageJ, OME-TIFF, tifffile): planes of four channels and ten times are
    two axes before those of the plane, in the order of :attr:`axes`. What would give less than the files hold is
    refused: missing, truncated and damaged planes by name, files of several images, folders of files with many pages.

    Args:
        path: A folder, whose TIFF files (:func:`~blockflow.arrays.tiffs.list_tiffs`) are the planes, one page each; or
            a file, whose pages are.
        natural: Planes in the order of the numbers in their names, so that z9 comes before z10.
        series: Which image of a file that holds several, from 0; by default it must hold one.
        gaps: Take a folder whose numbers have gaps: the planes then follow each other without them.

    Raises:
        ArrayNotFoundError: There is no TIFF file, or a plane is missing.
        MetadataError: The first plane cannot be read, or is compressed in a way that cannot be decoded here; the file
            ends too early, or holds several images.
        PlanError: ``natural`` or ``gaps`` is no flag, or ``series`` no number of an image.
        ArrayError: tifffile is not installed.
    """

    read_only = True
    """Nothing can be written."""

    def __init__(
        self, path: str | os.PathLike[str], *, natural: bool = True, series: int | None = None, gaps: bool = False
    ) -> None:
        checked_flag("natural", natural)
        checked_flag("gaps", gaps)
        given = local_path(path, "path of TIFF files").absolute()
        self._places: dict[int, _Mapped] = {}
        self._decoded: OrderedDict[int, NDArray[Any]] = OrderedDict()
        image: Image | None = None
        self._alone = given.is_dir()
        """Whether each file must have one page."""
        if self._alone:
            if series is not None:
                raise PlanError(f"series= chooses an image of a file, got {series!r} for the folder {given}")
            files = list_tiffs(given, natural=natural)
            missing = None if gaps else missing_number([file.name for file in files])
            if missing is not None:
                raise ArrayNotFoundError(
                    f"planes must be numbered without gaps: {missing} in {given}; put it there, or take the planes as "
                    "they are with TiffStack(folder, gaps=True)"
                )
            self.planes = [(file, 0) for file in files]
            before: tuple[int, ...] = (len(files),)
            axes = ""
        elif given.is_file():
            with _tiff(given) as tiff:
                image = find_image(tiff, given, series)
            self.planes, before, axes = image.planes, image.before, image.axes
        else:
            raise ArrayNotFoundError(f"no TIFF file or folder of them at {given}")
        if not self.planes:
            raise ArrayNotFoundError(f"no TIFF file in {given}")
        if image is not None and image.offset is not None:
            first, self.dtype = image.plane, image.dtype.newbyteorder("=")
            step = self.dtype.itemsize * prod(first)
            for number in range(len(self.planes)):
                self._places[number] = _Mapped(image.offset + number * step, image.dtype)
        else:
            first, self.dtype = self._look(0)
        self._before = len(before)
        self.shape = (*before, *first)
        self.axes: str = axes
        """A letter for each axis (T, Z, C, Y, X, S for colours, ...) as the metadata of a file tell; else empty."""
        if 0 not in self._places:
            self._plane(0)  # a compression that is unknown here is an error now

    def __getitem__(self, key: Any) -> NDArray[Any]:
        keys = tuple(keys_of(key, len(self.shape), "a TIFF stack"))
        before, inside = keys[: self._before], keys[self._before :]
        numbers = np.arange(len(self.planes)).reshape(self.shape[: self._before])[before]
        extents = np.broadcast_to(np.uint8(), self.shape[self._before :])[inside].shape
        result = np.empty((*numbers.shape, *extents), self.dtype)
        for place, number in np.ndenumerate(numbers):
            result[place] = self._plane(int(number))[inside]
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
            try:
                return np.memmap(file, place.dtype, "r", place.offset, self.shape[self._before :])
            except FileNotFoundError as error:
                raise ArrayNotFoundError(f"a plane of the stack is missing: {file}") from error
            except ValueError as error:  # shorter than it was
                raise MetadataError(f"{file} is truncated: plane {number} ends after the file") from error
        with _tiff(file) as tiff:
            try:
                plane: NDArray[Any] = tiff.pages[page].asarray()
            except Exception as error:  # each compression has errors of its own
                raise MetadataError(_undecodable(self._named(number), error)) from error
        self._decoded[number] = plane
        while len(self._decoded) > _KEPT:
            self._decoded.popitem(last=False)
        return plane

    def _named(self, number: int) -> str:
        """Name a plane: the file, and which of its planes unless it has one."""
        file = self.planes[number][0]
        return f"{file}" if self._alone else f"plane {number} of {file}"

    def _check(self, number: int) -> None:
        """Refuse a plane that is not like the first one."""
        shape, dtype = self._look(number)
        expected = self.shape[self._before :]
        if (shape, dtype) != (expected, self.dtype):
            raise MetadataError(
                f"all planes must be alike: the first has shape {expected} and dtype {self.dtype}, "
                f"plane {number} ({self.planes[number][0].name}) has {shape} and {dtype}"
            )

    def _look(self, number: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and dtype of a plane; where its pixels are is noted if they can be mapped."""
        file, page = self.planes[number]
        with _tiff(file) as tiff:
            if self._alone:
                refuse_more_pages(tiff, file)
            try:
                found = tiff.pages[page]
            except Exception as error:  # it was there, or is the first
                raise MetadataError(f"{file} is damaged: page {page} cannot be read ({error})") from error
            dtype = found.dtype
            if dtype is None:
                raise MetadataError(f"{file} has pixels of a kind that numpy has not")
            refuse_truncated(tiff, found, self._named(number))
            if found.is_memmappable:
                self._places[number] = _Mapped(found.dataoffsets[0], np.dtype(tiff.byteorder + dtype.char))
            return tuple(found.shape), dtype


def _undecodable(file: str, error: Exception) -> str:
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
