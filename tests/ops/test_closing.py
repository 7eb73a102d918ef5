"""HDF5 files that maps open by their path are closed when the map ends, in whatever way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from blockflow.ops import iter_blocks, map_blocks

if TYPE_CHECKING:
    from pathlib import Path

h5py = pytest.importorskip("h5py", reason="needs the extra 'hdf5'")
IMAGE: Any = np.arange(64).reshape(8, 8)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as written:
        written["a"] = IMAGE
    return path


def refuse(*blocks: Any) -> Any:
    raise ValueError("not this one")


@pytest.mark.parametrize("workers", [0, 1])
def test_after_a_map_and_after_an_error(file: Path, workers: int) -> None:
    options: Any = {"grid": (4, 4), "num_workers": workers, "progress": False, "max_retries": 0}
    assert_array_equal(map_blocks(np.negative, file / "a", **options), -IMAGE)
    with h5py.File(file, "a"):
        pass
    with pytest.raises(ValueError, match="not this one") as kept:
        map_blocks(refuse, file / "a", file / "a", **options)
    with h5py.File(file, "a"):  # although the traceback is still there
        assert kept.tb is not None


def test_after_a_loop_that_was_left(file: Path) -> None:
    blocks: Any = iter_blocks(np.sum, file / "a", grid=(4, 4), num_workers=0, progress=False)
    next(blocks)
    blocks.close()
    with h5py.File(file, "a"):
        pass


def test_a_file_that_the_caller_has_opened_stays_open(file: Path) -> None:
    options: Any = {"grid": (4, 4), "num_workers": 0, "progress": False}
    with h5py.File(file, "r") as own:
        map_blocks(np.negative, file / "a", **options)
        map_blocks(np.negative, own["a"], **options)
        assert_array_equal(own["a"][...], IMAGE)


def test_a_dataset_that_is_not_there(file: Path) -> None:
    with pytest.raises(Exception, match="no dataset 'b'") as kept:
        map_blocks(np.negative, file / "b", num_workers=0, progress=False)
    with h5py.File(file, "a"):
        assert kept.tb is not None
