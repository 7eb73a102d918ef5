"""HDF5: how is a file or a dataset of one opened, with messages that help where that is impossible?"""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from blockflow.errors import ArrayError, ArrayNotFoundError
from blockflow.optional import not_installed

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

__all__ = ["PLAIN_FILES", "check_filters", "open_dataset", "open_hdf5", "read_hdf5"]

PLAIN_FILES = ("sec2", "stdio", "windows")
"""Drivers of HDF5 with which a dataset is in one file of the name that h5py tells."""


def open_hdf5(path: Path, mode: str) -> Any:
    """An open HDF5 file, with a message that helps if that is not possible.

    Raises:
        ArrayError: h5py is not installed, or the file is not HDF5.
        FileNotFoundError: There is no such file.
    """
    try:
        import h5py
    except ImportError as error:
        raise ArrayError(not_installed("HDF5 files need", error.name or "h5py", extra="hdf5")) from error
    with suppress(ImportError):
        import hdf5plugin  # noqa: F401, the import makes its compression filters known
    try:
        return h5py.File(path, mode)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}") from None
    except OSError as error:
        raise ArrayError(f"{path} cannot be opened as an HDF5 file: {error}") from error


def read_hdf5(dataset: Any) -> NDArray[Any]:
    """All values of an HDF5 dataset.

    Raises:
        ArrayError: See :func:`check_filters`.
    """
    check_filters(dataset)
    return np.asarray(dataset[()])


def check_filters(dataset: Any) -> None:
    """Refuse an HDF5 dataset whose compression is not known here, in words that say what to do.

    Raises:
        ArrayError: A filter is missing. Files of dcnum and dclab are compressed with one of hdf5plugin.
    """
    import h5py

    creation = dataset.id.get_create_plist()
    for number in range(creation.get_nfilters()):
        code, _, _, name = creation.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            filter_ = f"filter {code} ({name.decode() or 'no name'})"
            if find_spec("hdf5plugin") is None:
                advice = not_installed("many such filters need", "hdf5plugin")
            else:
                advice = "neither HDF5 nor hdf5plugin has it; save the dataset with another compression"
            raise ArrayError(
                f"{dataset.file.filename} cannot be read: {dataset.name} is compressed with {filter_}, which is not "
                f"known here; {advice}"
            )


def open_dataset(path: str | os.PathLike[str], name: str, mode: str = "r") -> Any:
    """A dataset of a file, which stays open for as long as the dataset is used.

    Raises:
        ArrayNotFoundError: There is no such file, or no such dataset in it.
        ArrayError: See :func:`open_hdf5` and :func:`check_filters`.
    """
    import h5py

    try:
        file = open_hdf5(Path(path), mode)
    except FileNotFoundError as error:
        raise ArrayNotFoundError(str(error)) from error
    try:
        dataset = file.get(name)
        if not isinstance(dataset, h5py.Dataset):
            found: list[str] = []
            file.visititems(lambda key, node: found.append(key) if isinstance(node, h5py.Dataset) else None)
            raise ArrayNotFoundError(f"no dataset {name!r} in {path}: it holds {', '.join(found) or 'none'}")
        check_filters(dataset)
    except BaseException:
        file.close()  # the traceback would keep it open, and others locked out
        raise
    return dataset
