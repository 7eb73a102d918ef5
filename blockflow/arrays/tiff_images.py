"""TIFF images: the pages of a file as its metadata order them, and refusal of files that hold less or more."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from blockflow.errors import ArrayNotFoundError, MetadataError, PlanError

__all__ = ["Image", "find_image", "refuse_more_pages", "refuse_truncated"]


@dataclass(frozen=True, slots=True)
class Image:
    """One image of a TIFF file.

    Attributes:
        planes: File and number of the page of each plane.
        before: Axes that count planes; their product is the number of planes.
        plane: Shape of a plane.
        axes: A letter for each axis of ``before`` and ``plane``; empty if they are not told.
        dtype: Of the pixels, in the byte order of the file.
        offset: Where the pixels begin, if they follow each other without gaps; otherwise None.
    """

    planes: list[tuple[Path, int]]
    before: tuple[int, ...]
    plane: tuple[int, ...]
    axes: str
    dtype: np.dtype[Any]
    offset: int | None


def find_image(tiff: Any, file: Path, number: int | None) -> Image:
    """Return the image of an open file; with several, the one with that number.

    Raises:
        PlanError: There is no image of this number.
        MetadataError: The file holds several images and none is chosen, or less than its metadata tell.
        ArrayNotFoundError: Planes in other files are missing.
    """
    try:
        _refuse_broken_chain(tiff, file)
        every = tiff.series
    except (MetadataError, ArrayNotFoundError):
        raise
    except Exception as error:  # damaged tags end in errors of many kinds
        raise MetadataError(f"{file} is damaged: its pages cannot be read ({error})") from error
    if number is not None and (type(number) is not int or not 0 <= number < len(every)):
        raise PlanError(f"series must be a whole number from 0 to {len(every) - 1} for {file}, got {number!r}")
    if len(every) != 1 and number is None:
        shapes = ", ".join(f"{place}: {tuple(each.shape)}" for place, each in enumerate(every))
        raise MetadataError(f"{file} holds {len(every)} images ({shapes}): choose one with TiffStack(file, series=0)")
    series = every[number or 0]
    first, size = series.keyframe, int(series.size)
    if series.dtype is None:
        raise MetadataError(f"{file} has pixels of a kind that numpy has not")
    plane = tuple(first.shape)
    count = size // prod(plane)
    told = _told(tiff)
    if told is not None and len(every) == 1 and told > count:
        raise MetadataError(f"{file} is truncated: its metadata tell of {told} planes, it holds {count}")
    dtype = np.dtype(series.dtype).newbyteorder(tiff.byteorder)
    before, axes = _axes(tuple(series.shape), series.axes, plane, first.axes, count)
    if series.dataoffset is not None:
        if series.dataoffset + size * dtype.itemsize > tiff.filehandle.size:
            raise MetadataError(f"{file} is truncated: its {count} planes end after the file")
        return Image([(file, each) for each in range(count)], before, plane, axes, dtype, series.dataoffset)
    pages = list(series.pages)
    if len(pages) != count:
        raise MetadataError(f"{file} must have a page for each of its {count} planes, it has {len(pages)}")
    for place, page in enumerate(pages):
        if page is None:
            raise ArrayNotFoundError(
                f"a plane of the stack is missing: {file} tells of plane {place}, which is nowhere"
            )
    planes = [(Path(page.parent.filehandle.path), int(page.index)) for page in pages]
    return Image(planes, before, plane, axes, dtype, None)


def _axes(
    shape: tuple[int, ...], letters: str, plane: tuple[int, ...], plane_letters: str, count: int
) -> tuple[tuple[int, ...], str]:
    """Axes that count planes, and letters of all axes; axes of length 1 may be left out in ``shape``."""
    inside = [extent for extent in plane if extent > 1]
    for cut in range(1, len(shape)):
        if prod(shape[:cut]) == count and [extent for extent in shape[cut:] if extent > 1] == inside:
            return shape[:cut], letters[:cut] + plane_letters
    return (count,), ""


def _told(tiff: Any) -> int | None:
    """How many planes the metadata of ImageJ tell of."""
    images = (tiff.imagej_metadata or {}).get("images") if tiff.is_imagej else None
    return images if isinstance(images, int) else None


def _refuse_broken_chain(tiff: Any, file: Path) -> None:
    """Refuse a file whose last page points to one that is not in the file: it was truncated."""
    last = tiff.pages[len(tiff.pages) - 1]
    handle, form = tiff.filehandle, tiff.tiff
    handle.seek(last.offset)
    (tags,) = struct.unpack(form.tagnoformat, handle.read(form.tagnosize))
    handle.seek(last.offset + form.tagnosize + tags * form.tagsize)
    following = handle.read(form.offsetsize)
    if len(following) < form.offsetsize or struct.unpack(form.offsetformat, following)[0] >= handle.size:
        raise MetadataError(f"{file} is truncated: the page after page {len(tiff.pages) - 1} is not in the file")


def refuse_more_pages(tiff: Any, file: Path) -> None:
    """Refuse a file of a folder that holds more than one plane.

    Raises:
        MetadataError: It does.
    """
    pages = len(tiff.pages)
    told = _told(tiff) or 1
    if max(pages, told) > 1:
        raise MetadataError(
            f"each file of a folder must be one plane, and {file} holds {max(pages, told)}: open the files one by one "
            "with TiffStack(file), or save planes"
        )


def refuse_truncated(tiff: Any, page: Any, what: str) -> None:
    """Refuse a page of which pixels are not in the file.

    Raises:
        MetadataError: They end after the file, or were never written.
    """
    size, sparse = tiff.filehandle.size, page.is_gdal
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        if offset + count > size:
            raise MetadataError(f"{what} is truncated: its pixels end at byte {offset + count}, the file at {size}")
        if not sparse and (offset == 0 or count == 0):
            raise MetadataError(f"{what} is damaged: some of its pixels were never written")
