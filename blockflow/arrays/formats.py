"""Formats of arrays in files, told by the names of paths.

zarr is read and written, `.npy` files too; TIFF is read; datasets of HDF5 files are read, and written where they exist.
Below a folder that ends in ``.zarr`` everything but a `.npy` file is zarr.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Literal, TypeAlias

from blockflow.errors import ArrayError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Format", "check_made", "format_of", "inside_hdf5", "nothing_at"]

Format: TypeAlias = Literal["zarr", "npy", "tiff", "hdf5", "other"]

_TIFF = (".tif", ".tiff")
_HDF5 = (".h5", ".hdf5", ".hdf", ".rtdc")

_MADE = "outputs that are made are zarr arrays ('out.zarr/name', or a path without ending) and '.npy' files"

_OTHERS = frozenset(
    (
        ".bin", ".bmp", ".csv", ".czi", ".dat", ".gif", ".gz", ".ims", ".jp2", ".jpeg", ".jpg", ".json", ".lif", ".mat",
        ".mrc", ".n5", ".nc", ".nd2", ".nhdr", ".nii", ".npz", ".nrrd", ".parquet", ".pkl", ".png", ".raw", ".svs",
        ".txt", ".zip",
    )
)  # fmt: skip
"""Endings of formats that other programs write, and that no zarr array is called by."""


def format_of(path: Path) -> Format:
    """Return the format that a path stands for; looks at no file.

    >>> from pathlib import Path
    >>> [format_of(Path(each)) for each in ("a.zarr/raw", "raw", "a/b.npy", "a.h5/raw", "a.TIF", "a.png")]
    ['zarr', 'zarr', 'npy', 'hdf5', 'tiff', 'other']
    """
    ending = path.suffix.lower()
    if ending == ".npy":
        return "npy"
    if any(part.endswith(".zarr") for part in path.parts):
        return "zarr"
    if inside_hdf5(path) is not None:
        return "hdf5"
    if ending in _TIFF:
        return "tiff"
    return "other" if ending in _OTHERS else "zarr"


def inside_hdf5(path: Path) -> tuple[Path, str] | None:
    """File and name of ``file.h5/group/dataset``; None for other paths.

    >>> from pathlib import Path
    >>> inside_hdf5(Path("a/b.h5/c/d")), inside_hdf5(Path("a.zarr/b"))
    ((PosixPath('a/b.h5'), 'c/d'), None)
    """
    for part in (path, *path.parents):
        if part.suffix.lower() in _HDF5:
            return part, path.relative_to(part).as_posix()
    return None


def check_made(path: Path, what: str, given: object) -> Format:
    """Return the format of an array that is to be made at a path.

    Args:
        path: Where.
        what: The argument, for messages.
        given: What was given for it, for messages.

    Raises:
        ArrayError: Arrays of this format are not made here.
    """
    found = format_of(path)
    if found == "tiff":
        raise ArrayError(f"{what} must be of a format that is written, and TIFF is only read, got {given!r}; {_MADE}")
    if found == "hdf5":
        raise ArrayError(
            f"{what} must exist if it is in an HDF5 file, as datasets are not made here, got {given!r}; make it with "
            f"h5py, or choose another format: {_MADE}"
        )
    if found == "other":
        raise ArrayError(
            f"{what} must be of a format that is written, and {path.suffix!r} files are not, got {given!r}; {_MADE}"
        )
    return found


def nothing_at(path: Path) -> str:
    """Say that nothing is at a path, how far it leads, and what has a similar name there.

    >>> from pathlib import Path
    >>> nothing_at(Path("/no-such-folder/x.zarr"))
    "nothing is at /no-such-folder/x.zarr: there is no 'no-such-folder' in /"
    """
    path = path.absolute()
    missing = path
    while not missing.parent.exists() and missing.parent != missing:
        missing = missing.parent
    folder, name = missing.parent, missing.name
    try:
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    except OSError:
        names = []
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    hint = f"; similar: {', '.join(map(repr, close))}" if close else ""
    return f"nothing is at {path}: there is no {name!r} in {folder}{hint}"
