"""What does blockflow.arrays export, and what does importing it cost?"""

from __future__ import annotations

import subprocess
import sys

import pytest

import blockflow.arrays


def test_exported_names() -> None:
    assert blockflow.arrays.__all__ == ["Array", "open_ds", "prepare_ds"]
    assert set(blockflow.arrays.__all__) <= set(dir(blockflow.arrays))
    for name in blockflow.arrays.__all__:
        assert getattr(blockflow.arrays, name).__name__ == name


def test_unknown_names_are_refused_as_by_any_module() -> None:
    with pytest.raises(AttributeError, match=r"^module 'blockflow.arrays' has no attribute 'opends'$"):
        _ = blockflow.arrays.opends  # type: ignore[attr-defined]


def test_importing_imports_neither_numpy_nor_zarr() -> None:
    code = "import blockflow.arrays, sys; print({'numpy', 'zarr', 'funlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_an_array_in_memory_does_not_import_zarr() -> None:
    code = (
        "import sys, numpy; from blockflow.arrays import Array;"
        "Array(numpy.zeros(3)).to_ndarray(); print('zarr' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
