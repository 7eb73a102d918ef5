"""Are HDF5 files opened, and is it said what is wrong where they cannot be?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from blockflow.arrays.hdf5 import check_filters, open_dataset, open_hdf5, read_hdf5
from blockflow.errors import ArrayError, ArrayNotFoundError

if TYPE_CHECKING:
    from pathlib import Path

h5py = pytest.importorskip("h5py", reason="needs the extra 'hdf5'")


def test_a_dataset_keeps_its_file_open(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a/raw"] = np.arange(6)
        file["b"] = 1
    dataset = open_dataset(tmp_path / "x.h5", "a/raw")
    assert read_hdf5(dataset).tolist() == [0, 1, 2, 3, 4, 5]
    for name in ("a", "c"):
        with pytest.raises(ArrayNotFoundError, match=rf"^no dataset '{name}' in .*x.h5: it holds a/raw, b$"):
            open_dataset(tmp_path / "x.h5", name)


def test_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArrayNotFoundError, match="there is no file"):
        open_dataset(tmp_path / "none.h5", "x")
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(ArrayError, match=r"text.h5 cannot be opened as an HDF5 file"):
        open_hdf5(tmp_path / "text.h5", "r")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        dataset = file.create_dataset("x", data=np.arange(100), chunks=(10,), compression="gzip")
        check_filters(dataset)
        monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: False)
        with pytest.raises(
            ArrayError, match=r"x.h5 cannot be read: /x is compressed with filter 1 \(deflate\).* neither"
        ):
            check_filters(dataset)
        monkeypatch.setitem(sys.modules, "hdf5plugin", None)
        with pytest.raises(ArrayError, match=r"need hdf5plugin, which is not installed: pip install hdf5plugin \("):
            check_filters(dataset)
    missing: Any = None
    monkeypatch.setitem(sys.modules, "h5py", missing)
    with pytest.raises(
        ArrayError, match=r"^HDF5 files need h5py, which is not installed: pip install h5py \(or .*-nd\[hdf5\]'\)$"
    ):
        open_hdf5(tmp_path / "x.h5", "r")
