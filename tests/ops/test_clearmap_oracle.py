"""Do maps over balanced grids give what ClearMap's block processing gives? (Recorded results of the real program.)

ClearMap cuts an overlap of an odd number of voxels now below, now above its middle, and we always above. Functions
whose result does not depend on where blocks end must give the same everywhere, the others where no overlap is odd.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import blockflow
from blockflow import Grid
from blockflow.errors import PlanError
from blockflow.ops import map_blocks

ORACLE = Path(blockflow.__file__).parents[2] / "shared" / "oracles" / "clearmap"

if not ORACLE.is_dir():
    pytest.skip(f"no oracle at {ORACLE}", allow_module_level=True)

CASES = json.loads((ORACLE / "process_cases.json").read_text())["cases"]
BALANCE = {"increase": "fewer", "decrease": "more", "all": "nearest", None: "nearest"}


def scale(block: Any) -> Any:
    return 2 * block + 1


def subtract_minimum(block: Any) -> Any:
    return block - block.min()


def box(block: Any) -> Any:
    for axis in range(block.ndim):
        padded = np.pad(block, [(1, 1) if each == axis else (0, 0) for each in range(block.ndim)])
        block = sum(np.take(padded, range(i, i + block.shape[axis]), axis) for i in range(3))
    return block


def voxels(block: Any) -> Any:
    return np.full_like(block, block.size)


FUNCTIONS = {"f_scale": scale, "f_minsub": subtract_minimum, "f_box3": box, "f_shape": voxels}


def grid_of(case: dict[str, Any], shape: tuple[int, ...]) -> Grid:
    options = case["kwargs"]
    exact = options.get("size_min") == "fixed"
    workers = options.get("processes")
    workers = workers if isinstance(workers, int) and workers > 0 and options.get("optimization", True) else 1
    axes = options.get("axes")
    if axes is None:
        axes = [len(shape) - 1 if case["order"] == "F" else 0]
    elif axes == "all":
        axes = list(range(len(shape)))
    return Grid.balanced(
        shape,
        options["size_max"],
        min_size=None if exact else options.get("size_min"),
        overlap=options.get("overlap") or 0,
        axes=sorted(axes),  # upstream matches lists to sorted axes
        workers=1 if exact else workers,
        balance=BALANCE[options.get("optimization_fix", "all")],  # type: ignore[arg-type]
        exact=exact,
    )


def is_compared(case: dict[str, Any]) -> bool:
    return case["fn"] in FUNCTIONS and "out" in case and case["kwargs"].get("function_type", "array") == "array"


def test_results_are_the_same() -> None:
    arrays = np.load(ORACLE / "process_arrays.npz")
    compared = exactly = 0
    for case in filter(is_compared, CASES):
        source = arrays[f"in_{case['src']}"]
        grid = grid_of(case, source.shape)
        expected = arrays[case["out"]]
        result = map_blocks(FUNCTIONS[case["fn"]], source.astype(np.int64), grid=grid, num_workers=0, progress=False)
        overlaps = [axis.read_end(i) - axis.read_begin(i + 1) for axis in grid.axes for i in range(axis.count - 1)]
        if not expected.any():
            continue  # upstream does not write a plain ndarray from worker processes
        compared += 1
        free = case["fn"] == "f_scale" or (case["fn"] == "f_box3" and min(overlaps, default=2) >= 2)
        if free or all(overlap % 2 == 0 for overlap in overlaps):
            exactly += 1
            assert_array_equal(result, expected, err_msg=str(case))
    assert compared > 40
    assert exactly > 30


def test_what_upstream_refuses_is_refused() -> None:
    refused = [case for case in CASES if case.get("error") and "size_max" in case["kwargs"] and case["fn"] in FUNCTIONS]
    assert refused
    for case in refused:
        if "lock size" in case["msg_head"]:
            with pytest.raises(PlanError):
                map_blocks(scale, np.zeros((9, 10, 20)), grid=grid_of(case, (9, 10, 20)), num_workers=0, progress=False)
