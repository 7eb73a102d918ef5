"""Flags that are neither True nor False are refused at every front door, before anything is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from blockflow import Roi, Task, run_blockwise
from blockflow.arrays import prepare_ds
from blockflow.errors import PlanError
from blockflow.ops import downsample, iter_blocks, label, map_blocks, relabel
from blockflow.ops.merging import merge
from blockflow.ops.verifying import verify
from blockflow.plan.grid import Grid

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IMAGE: Any = np.zeros((4, 4), np.uint8)
ROI = Roi((0,), (4,))
KEPT = ("reset", "accept_change", "take_over", "progress")


def prepare(out: Path, **flags: Any) -> Any:
    return prepare_ds(out, total_roi=ROI, dtype="u1", **flags)


def tasks(out: Path, **flags: Any) -> Any:
    return run_blockwise([Task("t", ROI, ROI, ROI, print)], run_dir=out, **flags)


DOORS: dict[Callable[..., Any], tuple[str, ...]] = {
    prepare: ("overwrite",),
    tasks: (*KEPT, "multiprocessing", "summary", "return_states", "retry_failed", "rerun_older"),
    lambda out, **flags: map_blocks(print, IMAGE, run_dir=out, **flags): (
        *KEPT,
        "collect",
        "overlap_io",
        "rerun_older",
    ),
    lambda out, **flags: iter_blocks(print, IMAGE, run_dir=out, **flags): (*KEPT, "ordered"),
    lambda out, **flags: label(IMAGE, run_dir=out, **flags): KEPT,
    lambda out, **flags: relabel(IMAGE, run_dir=out, **flags): KEPT,
    lambda out, **flags: downsample(IMAGE, out, **flags): (*KEPT, "overwrite"),
    lambda out, **flags: merge([IMAGE], Grid.regular((4, 4), block=4), **flags): ("rescaled",),
    lambda out, **flags: verify(out, **flags): ("read", "requeue", "take_over"),
}


@pytest.mark.parametrize(("door", "flag"), [(door, flag) for door, flags in DOORS.items() for flag in flags])
@pytest.mark.parametrize("value", ["no", 0, 1, None, np.array([True, False])], ids=repr)
def test_what_is_no_flag_is_refused(door: Callable[..., Any], flag: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=f"^{flag} must be True or False, got "):
        door(tmp_path / "out", **{flag: value})
    assert not list(tmp_path.iterdir())
