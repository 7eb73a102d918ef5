"""What does blockflow.ops export, and what does importing it cost?"""

from __future__ import annotations

import subprocess
import sys

import pytest

import blockflow.ops


def test_exported_names() -> None:
    assert blockflow.ops.__all__ == sorted(blockflow.ops.__all__)
    assert set(blockflow.ops.__all__) <= set(dir(blockflow.ops))
    for name in blockflow.ops.__all__:
        assert getattr(blockflow.ops, name).__name__ == name
    with pytest.raises(AttributeError, match=r"^module 'blockflow.ops' has no attribute 'map_block'$"):
        _ = blockflow.ops.map_block  # type: ignore[attr-defined]


def test_a_worker_that_maps_arrays_in_memory_imports_neither_zarr_nor_tornado() -> None:
    code = (
        "import sys, blockflow.ops.block_job, blockflow.arrays.array, blockflow.arrays.shared;"
        "print({'zarr', 'tornado', 'scipy', 'tqdm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
