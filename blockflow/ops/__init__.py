"""Operations on whole arrays, built on runs and arrays.

The names below are imported when first used, so that importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blockflow.ops.labels import label
    from blockflow.ops.mapping import iter_blocks, map_blocks
    from blockflow.ops.merging import merge, merged_shape
    from blockflow.ops.points import dedupe_points, merge_points, own_points
    from blockflow.ops.pyramids import downsample
    from blockflow.ops.relabelling import relabel
    from blockflow.ops.verifying import verify
else:  # hidden, or type checkers take any name for exported
    _MODULES = {
        "dedupe_points": "points",
        "downsample": "pyramids",
        "iter_blocks": "mapping",
        "label": "labels",
        "map_blocks": "mapping",
        "merge": "merging",
        "merge_points": "points",
        "merged_shape": "merging",
        "own_points": "points",
        "relabel": "relabelling",
        "verify": "verifying",
    }

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


__all__ = [
    "dedupe_points",
    "downsample",
    "iter_blocks",
    "label",
    "map_blocks",
    "merge",
    "merge_points",
    "merged_shape",
    "own_points",
    "relabel",
    "verify",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
